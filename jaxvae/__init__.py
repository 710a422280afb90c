"""Variational autoencoders for multi-label tag data, in JAX.

Importing this package is cheap: each room is imported when it is first used.

    run = jaxvae.load("outputs/vae_training/2026-01-31_12-00-00")
"""

__version__ = "0.1.0"
__all__ = ["InputError", "load"]


def __getattr__(name: str):
    if name == "load":
        from jaxvae.open_run import load

        return load
    if name == "InputError":
        from jaxvae.errors import InputError

        return InputError
    raise AttributeError(f"module 'jaxvae' has no attribute {name!r}")
