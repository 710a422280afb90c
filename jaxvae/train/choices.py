"""Names that a config's fields may choose from, for the check of a config.

A value is "module:attribute", so that a config can be checked without an import of JAX.
"""

from collections.abc import Collection

from jaxvae.data.layouts.options import LAYOUTS
from jaxvae.models.choices import ARCHITECTURES, PRIORS

OBJECTIVES = {
    "elbo": "jaxvae.train.objectives:elbo",
    "free_bits": "jaxvae.train.objectives:free_bits",
    "capacity": "jaxvae.train.objectives:capacity",
    "tcvae": "jaxvae.train.objectives:tcvae",
    "iw": "jaxvae.train.objectives:importance_weighted",
}
"""Functions of (terms, weights, N rows of the training split) to the loss of each example `[B]`."""
KL_SCHEDULES = {
    "constant": "jaxvae.train.objectives:constant",
    "linear": "jaxvae.train.objectives:linear",
    "cosine": "jaxvae.train.objectives:cosine",
    "cyclical": "jaxvae.train.objectives:cyclical",
}
"""Functions of (progress of the warm-up, cycles) to the share of the final weight."""
CHOICES: dict[str, Collection[str]] = {
    "data.layout": LAYOUTS,
    "model.prior": PRIORS,
    "model.architecture": ARCHITECTURES,
    "loss.objective": OBJECTIVES,
    "loss.kld_schedule": KL_SCHEDULES,
}
"""The names of each field that names one of several things."""
