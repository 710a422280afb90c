"""Densities and divergences: likelihoods of rows, Gaussians and their mixtures."""

import math

import jax
import jax.numpy as jnp

from jaxvae.models.layers import FULL_PRECISION


def kl_to_moment_matched_prior(
    mean: jax.Array, logvar: jax.Array, centre: jax.Array, variance: jax.Array
) -> jax.Array:
    """KL of every dimension from a Gaussian with the prior's mean and variance, nats.

    With a standard normal prior it equals `gaussian_kl`, whose sum is the rate. For learned priors
    the KL does not factorise; this surrogate is 0 for an inactive dimension, regardless of the
    scale of z.

    Args:
      mean: `[B, L]`, of the posterior.
      logvar: `[B, L]`, of the posterior.
      centre: `[L]`, the prior's mean.
      variance: `[L]`, the prior's variance.
    """
    scaled = (mean - centre[None, :]) * jax.lax.rsqrt(variance)[None, :]
    return gaussian_kl(scaled, logvar - jnp.log(variance)[None, :])


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
    """Negative log-likelihood like `bernoulli_nll`, of sparse rows without multi-hot vectors.

    This pays off for large V: the gradient is written once, then updated only at the rows' entries.

    Args:
      logits: `[B, V]`.
      columns: `[B, K]` column numbers, padded with V.

    Returns:
      `[B]`, nats, summed over tags.
    """
    # `vmap` over rows lets XLA see that rows are independent, so that none moves between devices.
    present = jax.vmap(lambda row, at: row.at[at].get(mode="fill", fill_value=0.0))(
        logits, columns.astype(jnp.int32)
    )
    return jnp.sum(jax.nn.softplus(logits), axis=-1) - jnp.sum(present, axis=-1)


def _nll_forward(logits, columns):
    return bernoulli_nll_of_rows(logits, columns), (logits, columns)


def _nll_backward(saved, gradient):
    logits, columns = saved
    scaled = jax.nn.sigmoid(logits) * gradient[:, None]
    subtracted = jax.vmap(lambda row, at, value: row.at[at].add(-value, mode="drop"))(
        scaled, columns.astype(jnp.int32), gradient
    )
    return subtracted, None


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
    # expm1 keeps precision when the posterior is close to the prior: exp(v) - 1 - v ~ v^2 / 2.
    return 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)


def normal_log_prob(z: jax.Array) -> jax.Array:
    """Log density of N(0, I) `[...]` at `[..., L]`, nats."""
    return -0.5 * jnp.sum(jnp.square(z) + math.log(2.0 * math.pi), axis=-1)


def gaussian_log_prob(z: jax.Array, mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """Log density of N(mean, exp(logvar)) `[...]` at `z`, all `[..., L]`, nats."""
    square = jnp.square(z - mean) * jnp.exp(-logvar)
    return -0.5 * jnp.sum(square + logvar + math.log(2.0 * math.pi), axis=-1)


def mixture_log_prob(
    z: jax.Array, mean: jax.Array, logvar: jax.Array, log_weight: jax.Array
) -> jax.Array:
    """Log density of a mixture of diagonal Gaussians, nats.

    Args:
      z: `[..., L]`.
      mean: `[K, L]`.
      logvar: `[K, L]`.
      log_weight: `[K]`, normalised log weights.

    Returns:
      `[...]`.
    """
    flat = z.reshape(-1, z.shape[-1])
    precision = jnp.exp(-logvar)
    # Squared distances, expanded into two products of [N, L] by [L, K] instead of [N, K, L].
    square = full_precision_product(jnp.square(flat), precision.T)
    square = square - 2.0 * full_precision_product(flat, (mean * precision).T)
    constant = jnp.sum(jnp.square(mean) * precision + logvar, axis=-1)
    constant = constant + z.shape[-1] * math.log(2.0 * math.pi)
    log_joint = -0.5 * (square + constant[None, :]) + log_weight[None, :]
    return jax.nn.logsumexp(log_joint, axis=-1).reshape(z.shape[:-1])


def full_precision_product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Multiplies matrices in full float32 precision."""
    return jnp.matmul(left, right, precision=FULL_PRECISION)
