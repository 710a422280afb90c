"""The terms of the objective, per example, and the one place where they are weighted and reduced.

Terms are sums over tags or per latent dimension, unweighted; nothing here knows a model class.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LossWeights(NamedTuple):
    """Weights of the objective's terms: float32 scalars, traced, so that none is a constant."""

    bce: jax.Array
    kld: jax.Array


def bernoulli_nll(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Negative log-likelihood of multi-hot rows under independent Bernoullis.

    Uses -log p = softplus(l) - x l, which stays finite for any finite logit, where
    -log(sigmoid(l)) overflows.

    Args:
      logits: `[B, V]`.
      x: `[B, V]`, zeros and ones.

    Returns:
      `[B]`, nats, summed over tags.
    """
    return jnp.sum(jax.nn.softplus(logits) - x * logits, axis=-1)


@jax.custom_vjp
def bernoulli_nll_of_rows(logits: jax.Array, columns: jax.Array) -> jax.Array:
    """`bernoulli_nll` of sparse rows, without their multi-hot vectors.

    Worth it where V is large: the gradient is written once, and then touched at the rows' entries.

    Args:
      logits: `[B, V]`.
      columns: `[B, K]` column numbers, padded with V.

    Returns:
      `[B]`, nats, summed over tags.
    """
    at = columns.astype(jnp.int32)
    batch = jnp.arange(len(logits))[:, None]
    present = logits.at[batch, at].get(mode="fill", fill_value=0.0)
    return jnp.sum(jax.nn.softplus(logits), axis=-1) - jnp.sum(present, axis=-1)


def _nll_forward(logits, columns):
    return bernoulli_nll_of_rows(logits, columns), (logits, columns)


def _nll_backward(saved, gradient):
    logits, columns = saved
    batch = jnp.arange(len(logits))[:, None]
    scaled = jax.nn.sigmoid(logits) * gradient[:, None]
    return scaled.at[batch, columns.astype(jnp.int32)].add(-gradient[:, None], mode="drop"), None


bernoulli_nll_of_rows.defvjp(_nll_forward, _nll_backward)


def squared_error(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Squared distance between probabilities and multi-hot rows, `[B]`, summed over tags."""
    return jnp.sum(jnp.square(jax.nn.sigmoid(logits) - x), axis=-1)


def gaussian_kl(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL(N(mean, exp(logvar)) || N(0, 1)) of every dimension (Kingma & Welling 2014, app. B).

    Args:
      mean: `[B, L]`.
      logvar: `[B, L]`.

    Returns:
      `[B, L]`, nats; their sum over L is the KL of the whole posterior.
    """
    # expm1 keeps the digits where the posterior is all but the prior: exp(v) - 1 - v ~ v^2 / 2.
    return 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)


def objective(reconstruction: jax.Array, kl: jax.Array, weights: LossWeights) -> jax.Array:
    """The weighted loss of each example, `[B]`: the negative beta-ELBO (Higgins et al. 2017).

    Args:
      reconstruction: `[B]`, nats (or squared error).
      kl: `[B, L]`, nats per dimension.
      weights: the weight of each term.
    """
    return weights.bce * reconstruction + weights.kld * jnp.sum(kl, axis=-1)


def masked_mean(values: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
    """Mean of `[B]` values over real rows: the masked sum over `count`, the rows of the step.

    `count` is its own argument because with gradient accumulation a step has more rows than a
    batch; summing the parts' gradients then gives the gradient of the whole.
    """
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(count, 1.0)
