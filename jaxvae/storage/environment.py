"""Versions and machine of a run."""

import contextlib
import os
import platform
from importlib import metadata
from typing import Any

_PACKAGES = ("jaxvae", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "datasets", "numpy")


def environment(devices: str) -> dict[str, Any]:
    """Returns versions and machine of a run, for its `environment.json`."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions,
    }
