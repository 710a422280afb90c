"""Names of the priors and architectures that a config may choose, and what each stands for.

A value is "module:attribute", so that a config can be checked without an import of JAX.
"""

import importlib
from typing import Any

PRIORS = {
    "normal": "jaxvae.models.priors:Normal",
    "mixture": "jaxvae.models.priors:Mixture",
    "vamp": "jaxvae.models.priors:Vamp",
    "flow": "jaxvae.models.priors:Flow",
}
ARCHITECTURES = {"mlp": "jaxvae.models.vae:VAE"}


def import_choice(target: str) -> Any:
    """Imports "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
