"""Flags of XLA that this package adds to XLA_FLAGS, for equal results at every start.

XLA reads the variable once, when JAX first looks for devices.
"""

import os

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd")


def choose_kernels_without_trials() -> None:
    """Disables XLA's autotuning of GPU kernels, unless the user has set it.

    Autotuning times several kernels for every product and takes the fastest, which varies: a run
    that resumes without its cached programs would end with other bits. The trials take longer than
    everything else in a start, and products of this size gain nothing from them.
    """
    if any(map(os.path.exists, _GPU_DRIVERS)) and "xla_gpu_autotune_level" not in _flags():
        _add("--xla_gpu_autotune_level=0")


def refuse_varying_kernels() -> None:
    """Excludes GPU kernels whose results vary between runs; other devices' never do."""
    flag = "--xla_gpu_deterministic_ops=true"
    if flag not in _flags().split():  # the last of several is the one that counts
        _add(flag)


def _flags() -> str:
    return os.environ.get("XLA_FLAGS", "")


def _add(flag: str) -> None:
    os.environ["XLA_FLAGS"] = f"{_flags()} {flag}".strip()
