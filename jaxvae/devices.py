"""Which devices a run uses, and how arrays lie on them.

One mesh axis, `data`: batches are split over it, state and rows are on every device. The same code
serves one device and eight.
"""

import contextlib
import os

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvae.errors import InputError


def start(*, accelerator: str, deterministic: bool) -> None:
    """Says what JAX needs to hear before it looks for devices; call it first.

    Args:
      accelerator: "auto", "cpu", "gpu" or "tpu"; anything but "auto" is all JAX will look for.
      deterministic: refuses GPU kernels whose results vary between runs (others never vary).
    """
    if deterministic:
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
        )
    if accelerator == "cpu":
        # Without this a GPU's start-up, and its memory, are paid for a run that won't use it.
        jax.config.update("jax_platforms", "cpu")


def split_cpu() -> None:
    """Makes every core of a CPU a device; call it before JAX looks for devices.

    XLA leaves most of the cores idle in programs as small as these. What the user has decided in
    XLA_FLAGS stands.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # devices have been looked for
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            jax.config.update("jax_num_cpu_devices", cores)


def preempted(step: int) -> bool:
    """Whether the cluster is about to take a host away and this is the step to save at.

    All hosts of a job get the same answer. Without `jax.distributed` there is nobody to ask.

    Args:
      step: a number that grows by one with every call.
    """
    if not jax.distributed.is_initialized():
        return False
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)


def make_mesh(*, accelerator: str, num_devices: int) -> Mesh:
    """The devices of a run, in one line.

    Args:
      accelerator: "auto" (the best there is), "cpu", "gpu" or "tpu".
      num_devices: how many; -1 is all of them.

    Raises:
      InputError: the accelerator or that many devices are not there, naming what is.
    """
    try:
        found = jax.devices() if accelerator == "auto" else jax.devices(accelerator)
    except RuntimeError as error:
        raise InputError(
            f"--config.trainer.accelerator={accelerator}: no such device here; JAX finds "
            f"{describe(jax.devices())}. Use auto, or install jax for that device"
        ) from error
    if num_devices > len(found):
        raise InputError(
            f"--config.trainer.devices={num_devices}: only {len(found)} here "
            f"({describe(found)}); use --config.trainer.devices=-1 for all of them"
        )
    chosen = found if num_devices == -1 else found[:num_devices]
    return Mesh(np.asarray(chosen), ("data",))


def describe(found) -> str:
    """Devices in words: "1 cpu", "8 tpu (TPU v5e)"."""
    first = found[0]
    kind = "" if first.device_kind == first.platform else f" ({first.device_kind})"
    return f"{len(found)} {first.platform}{kind}"


def check_divisible(*, batch_size: int, mesh: Mesh) -> None:
    """Raises InputError with both numbers when a batch can't be split evenly over the mesh."""
    if batch_size % mesh.size:
        raise InputError(
            f"--config.data.batch_size={batch_size} does not divide over {mesh.size} devices; "
            f"use a multiple of {mesh.size}, or fewer devices (--config.trainer.devices)"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis of a batch split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree, mesh: Mesh):
    """Places every leaf of a pytree, whole, on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def append_empty_row(rows: np.ndarray, *, num_tags: int) -> np.ndarray:
    """`[N, K]` rows as `[N + 1, K]`: the empty row is where a short batch's padding points to."""
    empty = np.full((1, rows.shape[1]), num_tags, rows.dtype)
    return np.concatenate([rows, empty])


def place_rows(rows: np.ndarray, mesh: Mesh, *, num_tags: int) -> jax.Array:
    """Places a split's rows `[N, K]`, and the empty row, on every device: `[N + 1, K]`."""
    return replicate(append_empty_row(rows, num_tags=num_tags), mesh)
