"""The persistent compilation cache: a second start of a command does not wait for XLA.

The cache is JAX's own. Processes may share it: entries are only ever added, and an unreadable entry
is compiled again.
"""

import hashlib
import os
import platform
import time

import jax

from jaxvae.config.paths import user_path
from jaxvae.errors import InputError
from jaxvae.runtime import xla_flags

MAX_AGE = 30 * 24 * 3600.0
"""Seconds after which a cached program is deleted, so that the folder does not grow forever."""


def enable_compilation_cache() -> None:
    """Enables the compilation cache in the user's cache folder, unless the user has configured it.

    JAX's own settings take precedence: JAX_COMPILATION_CACHE_DIR names another folder,
    JAX_ENABLE_COMPILATION_CACHE=0 disables the cache. It stays off if the folder is not writable or
    the user has no home folder.

    Call it before JAX looks for devices.
    """
    xla_flags.choose_kernels_without_trials()
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"]:
        return
    if cache_dir := settings["jax_compilation_cache_dir"]:
        if cache_dir.startswith("~"):  # JAX would create a folder of that name.
            jax.config.update("jax_compilation_cache_dir", str(user_path(cache_dir)))
        return
    try:
        home = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    except InputError:
        return
    folder = home / "jaxvae" / f"programs-{processor_id()}"
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
    # JAX's default is a second, but the many small programs of a start add up.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def processor_id() -> str:
    """Returns eight hex digits that identify the CPU.

    A home folder may be shared by different machines, and a program compiled for one may contain
    instructions that another lacks.
    """
    lines = [platform.machine(), platform.processor()]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines += [line for line in file if line.startswith(("flags", "Features"))][:1]
    except OSError:
        pass
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]
