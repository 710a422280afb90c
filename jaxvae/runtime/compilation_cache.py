"""Compiled programs kept on disk: a second start of the same command does not wait for XLA.

The cache is JAX's own. Two processes may share it: entries are only ever added, and one that can't
be read is compiled anew.
"""

import hashlib
import os
import platform
import time

import jax

from jaxvae.config.paths import user_path
from jaxvae.errors import InputError

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")
MAX_AGE = 30 * 24 * 3600.0
"""Seconds after which a program is compiled again, so that the folder does not grow for ever."""


def enable_compilation_cache() -> None:
    """Turns the cache on, in the user's cache folder, unless the user has decided about it.

    JAX's own settings stand: JAX_COMPILATION_CACHE_DIR names another folder,
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off. A folder that can't be written leaves it off, and
    so does a user without a home folder.

    Call it before JAX looks for devices.
    """
    _choose_kernels_without_trials()
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"]:
        return
    if chosen := settings["jax_compilation_cache_dir"]:
        if chosen.startswith("~"):  # JAX would make a folder called that
            jax.config.update("jax_compilation_cache_dir", str(user_path(chosen)))
        return
    try:
        home = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    except InputError:
        return
    folder = home / "jaxvae" / f"programs-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if time.time() - path.stat().st_mtime > MAX_AGE:
                path.unlink(missing_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # Not a second, JAX's default: the small programs of a start add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _choose_kernels_without_trials() -> None:
    """Has XLA choose a GPU's kernels by rule, unless the user has decided about it.

    It would time several for every product and take the fastest, another one on another day: a run
    that resumes after its compiled programs are gone would end with other bits. The trials take
    longer than all else in a start, and products of this size gain nothing by them.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if any(map(os.path.exists, _GPU_DRIVERS)) and "xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()


def _machine() -> str:
    """Eight letters that stand for the processor: a home folder may be shared by unlike machines,
    and a program compiled for one may hold instructions that another lacks.
    """
    lines = [platform.machine(), platform.processor()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines += [line for line in file if line.startswith(("flags", "Features"))][:1]
    except OSError:
        pass
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
