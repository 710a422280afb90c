"""Walks along one latent dimension."""

import numpy as np

from jaxvae.inference import queries
from jaxvae.models.trained import TrainedModel

STEPS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)


def traverse(
    network: TrainedModel, mean: np.ndarray, dim: int, *, steps: tuple[float, ...] = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Varies one dimension of a latent vector and decodes.

    Args:
      network: the model.
      mean: `[L]`, the latent vector.
      dim: the dimension that is set to each of `steps`.
      steps: values of z, in standard deviations of the prior from its mean.

    Returns:
      (the latent vectors `[S, L]`, their tags' probabilities `[S, V]`).
    """
    z = np.repeat(np.asarray(mean, np.float32)[None], len(steps), axis=0)
    centre, deviation = queries.prior_moments(network)
    z[:, dim] = centre[dim] + np.asarray(steps, np.float32) * deviation[dim]
    return z, queries.probabilities(network, z)
