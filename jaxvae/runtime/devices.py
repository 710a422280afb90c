"""Which devices a run uses. The same code serves one and eight; see `sharding` for the arrays."""

import contextlib
import os

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvae.errors import InputError, one_line


def configure_platform(*, accelerator: str, deterministic: bool) -> None:
    """Says what JAX needs to hear before it looks for devices; call it first.

    Args:
      accelerator: "auto", "cpu", "gpu" or "tpu"; anything but "auto" is all JAX will look for.
      deterministic: refuses GPU kernels whose results vary between runs (others never vary).
    """
    flags, wanted = os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"
    if deterministic and wanted not in flags.split():
        os.environ["XLA_FLAGS"] = f"{flags} {wanted}".strip()
    if accelerator == "cpu":
        # Without this a GPU's start-up, and its memory, are paid for a run that won't use it.
        jax.config.update("jax_platforms", "cpu")


def expose_cpu_cores() -> None:
    """Makes every core of a CPU a device; call it before JAX looks for devices.

    XLA leaves most of the cores idle in programs as small as these. What the user has decided in
    XLA_FLAGS stands.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # devices have been looked for
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            jax.config.update("jax_num_cpu_devices", cores)


def check_backend() -> None:
    """Raises InputError where JAX can't start on the platform that it was told to use."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, or a bare AssertionError
        asked = jax.config.values["jax_platforms"]
        raise InputError(
            f"JAX can't start on JAX_PLATFORMS={asked or ''}: {one_line(error)}. Set it to a "
            f"platform of this machine, such as cpu, or leave it unset"
        ) from error


def reached_preemption(step: int) -> bool:
    """Whether the cluster is about to take a host away and this is the step to save at.

    All hosts of a job get the same answer. Without `jax.distributed` there is nobody to ask.

    Args:
      step: a number that grows by one with every call.
    """
    if not jax.distributed.is_initialized():
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def make_mesh(*, accelerator: str, num_devices: int, data: int = -1, model: int = 1) -> Mesh:
    """The devices of a run, as a mesh with the axes `data` and `model`.

    Args:
      accelerator: "auto" (the best there is), "cpu", "gpu" or "tpu".
      num_devices: how many; -1 is all of them.
      data: devices that share a batch; -1 is as many as `model` leaves.
      model: devices that share the layers with an axis of tags.

    Raises:
      InputError: the accelerator or that many devices are not there, naming what is; or the axes do
        not multiply out to them.
    """
    check_backend()
    try:
        found = jax.devices() if accelerator == "auto" else jax.devices(accelerator)
    except RuntimeError as error:
        raise InputError(
            f"--config.trainer.accelerator={accelerator}: no such device here; JAX finds "
            f"{describe_devices(jax.devices())}. Use auto, or install jax for that device"
        ) from error
    if num_devices > len(found):
        raise InputError(
            f"--config.trainer.devices={num_devices}: only {len(found)} here "
            f"({describe_devices(found)}); use --config.trainer.devices=-1 for all of them"
        )
    count = len(found) if num_devices == -1 else num_devices
    if count < len(found) and jax.process_count() > 1:
        raise InputError(
            f"--config.trainer.devices={num_devices}: {jax.process_count()} processes have "
            f"{len(found)} devices in all, and each must take part; use -1"
        )
    rest, left_over = divmod(count, model)
    if left_over or data not in (-1, rest):
        wanted = f"--config.trainer.mesh.model={model}"
        if data != -1:
            wanted = f"--config.trainer.mesh.data={data} times {wanted}"
        raise InputError(
            f"{wanted} does not make up {count} devices (--config.trainer.devices={num_devices})"
        )
    return Mesh(np.asarray(found[:count]).reshape(rest, model), ("data", "model"))


def device_memory_bytes(mesh: Mesh) -> int | None:
    """Bytes of memory of one of a mesh's devices; None where it can't be told, as of a CPU."""
    return (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")


def describe_devices(found) -> str:
    """Devices in words: "1 cpu", "8 tpu (TPU v5e)"."""
    first = found[0]
    kind = "" if first.device_kind == first.platform else f" ({first.device_kind})"
    return f"{len(found)} {first.platform}{kind}"
