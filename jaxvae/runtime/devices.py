"""Selects a run's devices. The same code serves one and eight; `sharding` lays out the arrays."""

import contextlib
import os
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from jaxvae.errors import InputError, one_line
from jaxvae.runtime import xla_flags

_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def configure_platform(*, accelerator: str, deterministic: bool) -> None:
    """Configures JAX's platform; call it before any device is used.

    Args:
      accelerator: "auto", "cpu", "gpu" or "tpu"; with "cpu" JAX looks for no other device.
      deterministic: excludes GPU kernels whose results vary between runs.
    """
    if deterministic:
        xla_flags.refuse_varying_kernels()
    if accelerator == "cpu":
        # Otherwise a run that won't use the GPU would wait for its start-up and take its memory.
        jax.config.update("jax_platforms", "cpu")


def expose_cpu_cores() -> None:
    """Exposes every core of a CPU as a device; call it before JAX looks for devices.

    XLA leaves most of the cores idle in programs as small as these. A setting in XLA_FLAGS takes
    precedence.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # The backend has been initialised already.
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            jax.config.update("jax_num_cpu_devices", cores)


def check_backend() -> None:
    """Raises InputError if JAX can't start on the configured platform."""
    try:
        jax.devices()
    except Exception as error:  # RuntimeError, or a bare AssertionError
        platforms = jax.config.values["jax_platforms"]
        raise InputError(
            f"JAX can't start on JAX_PLATFORMS={platforms or ''}: {one_line(error)}. Set it to a "
            f"platform of this machine, such as cpu, or leave it unset"
        ) from error


def reached_preemption(step: int) -> bool:
    """Tests whether the cluster is about to preempt a host and this is the step to save at.

    All hosts of a job get the same answer. Without `jax.distributed` the answer is False.

    Args:
      step: a number that grows by one with every call.
    """
    if not jax.distributed.is_initialized():
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def make_mesh(*, accelerator: str, num_devices: int, data: int = -1, model: int = 1) -> Mesh:
    """Returns a run's devices as a mesh with the axes `data` and `model`.

    Args:
      accelerator: "auto" (the best available), "cpu", "gpu" or "tpu".
      num_devices: number of devices; -1 takes all.
      data: number of devices that share a batch; -1 takes `num_devices` / `model`.
      model: number of devices that share the layers with an axis of tags.

    Raises:
      InputError: the accelerator or that many devices are not available (the message lists those
        that are), or the axes do not multiply to the number of devices.
    """
    check_backend()
    try:
        available = jax.devices() if accelerator == "auto" else jax.devices(accelerator)
    except RuntimeError as error:
        raise InputError(
            f"--config.trainer.accelerator={accelerator}: no such device here; JAX finds "
            f"{describe_devices(jax.devices())}. Use auto, or install jax for that device"
        ) from error
    if num_devices > len(available):
        raise InputError(
            f"--config.trainer.devices={num_devices}: only {len(available)} here "
            f"({describe_devices(available)}); use --config.trainer.devices=-1 for all of them"
        )
    count = len(available) if num_devices == -1 else num_devices
    if count < len(available) and jax.process_count() > 1:
        raise InputError(
            f"--config.trainer.devices={num_devices}: {jax.process_count()} processes have "
            f"{len(available)} devices in all, and each must take part; use -1"
        )
    data_size, left_over = divmod(count, model)
    if left_over or data not in (-1, data_size):
        setting = f"--config.trainer.mesh.model={model}"
        if data != -1:
            setting = f"--config.trainer.mesh.data={data} times {setting}"
        raise InputError(
            f"{setting} does not make up {count} devices (--config.trainer.devices={num_devices})"
        )
    return Mesh(np.asarray(available[:count]).reshape(data_size, model), ("data", "model"))


def one_device_mesh(device: jax.Device) -> Mesh:
    """Returns the mesh of a run on one device."""
    return Mesh(np.asarray([[device]]), ("data", "model"))


def device_memory_bytes(mesh: Mesh) -> int | None:
    """Returns the memory of one of a mesh's devices in bytes; None if unknown.

    The devices of a CPU share the machine's, or what a container may take of it.
    """
    first, *others = mesh.local_devices
    if first.platform == "cpu":
        memory = _machine_memory_bytes()
        return memory and memory // (1 + len(others))
    return (first.memory_stats() or {}).get("bytes_limit")


def _machine_memory_bytes() -> int | None:
    known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # it is not there, or says "max"
            known.append(int(Path(path).read_text()))
    return min((limit for limit in known if limit > 0), default=None)


def describe_devices(found) -> str:
    """Describes devices in words: "1 cpu", "8 tpu (TPU v5e)"."""
    first = found[0]
    kind = "" if first.device_kind == first.platform else f" ({first.device_kind})"
    return f"{len(found)} {first.platform}{kind}"
