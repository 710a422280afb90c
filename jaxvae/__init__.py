"""Variational autoencoders for multi-label tag data, in JAX.

Importing this package is cheap: each module is imported when it is first used.

    run = jaxvae.load("outputs/vae_training/2026-01-31_12-00-00")
"""

import sys

__version__ = "0.1.0"
__all__ = ["InputError", "TagVAE", "fit", "load", "load_many", "train_and_evaluate"]

if sys.platform == "win32":  # locks, signals and flushed files are as POSIX has them
    _LINE = "jaxvae runs on Linux and macOS; on Windows, in WSL (Windows Subsystem for Linux)"
    if sys.argv[0] == "-m" or sys.argv[0].endswith(("launch.py", "jaxvae", "jaxvae.exe")):
        print(_LINE, file=sys.stderr)
        sys.exit(2)
    raise ImportError(_LINE)


def __getattr__(name: str):
    if name in ("load", "load_many"):
        from jaxvae.inference import load

        return getattr(load, name)
    if name == "train_and_evaluate":
        from jaxvae.train.trainer import train_and_evaluate

        return train_and_evaluate
    if name == "fit":
        from jaxvae.estimators.fit import fit

        return fit
    if name == "TagVAE":
        from jaxvae.estimators.tag_vae import TagVAE

        return TagVAE
    if name == "InputError":
        from jaxvae.errors import InputError

        return InputError
    raise AttributeError(f"module 'jaxvae' has no attribute {name!r}")
