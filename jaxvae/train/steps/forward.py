"""The forward pass of training and evaluation alike: from rows to the terms of an objective."""

import jax
import jax.numpy as jnp

from jaxvae.models import distributions
from jaxvae.models.architecture import Architecture
from jaxvae.models.layers import multi_hot
from jaxvae.models.vae import SPARSE_LOOKUP_MIN_TAGS, reparameterize
from jaxvae.train import objectives
from jaxvae.train.objectives import LossTerms, Objective


def forward(
    model: Architecture,
    columns: jax.Array,
    *,
    objective: Objective,
    noise: jax.Array,
    mask: jax.Array,
    values: jax.Array | None = None,
    keep: jax.Array | None = None,
    train: bool = False,
) -> LossTerms:
    """Encodes rows, draws z, decodes, and returns the terms of the loss.

    Args:
      model: the model; its running statistics change where `train` is set.
      columns: `[B, K]` column numbers, padded with V.
      objective: the objective that the terms are for.
      noise: `[B, D * L]`, standard normal.
      mask: `[B]`, which rows are real.
      values: `[B, K]`, input weights after dropout (0 or 1 / (1 - p)); None disables dropout.
      keep: `[B, 2 H]`, dropout masks of the hidden layers, encoder then decoder, concatenated;
        None disables dropout.
      train: whether batch norm uses this batch's statistics.
    """
    size, draws = len(columns), objective.num_draws
    in_encoder, in_decoder = (None, None) if keep is None else jnp.split(keep, 2, axis=-1)
    mean, logvar = model.encode_rows(columns, values, mask=mask, train=train, keep=in_encoder)
    noise = jnp.moveaxis(noise.reshape(size, draws, -1), 1, 0)
    z = reparameterize(mean[None], logvar[None], noise)
    density, log_weight_tap = (mean[None], logvar[None]), None
    if objective.name == "iw":
        z, log_weight_tap = objectives.doubly_reparameterized(
            z, jnp.zeros((draws, size), jnp.float32)
        )
        density = jax.lax.stop_gradient(density)
    logits = model.decode(
        z.reshape(draws * size, -1),
        mask=jnp.tile(mask, draws),
        train=train,
        keep=None if in_decoder is None else jnp.tile(in_decoder, (draws, 1)),
    )
    log_prior, log_posterior = model.log_prior(z), distributions.gaussian_log_prob(z, *density)
    centre, variance = model.prior_moments()
    kl = distributions.kl_to_moment_matched_prior(mean, logvar, centre, variance)
    rate = jnp.sum(kl, axis=-1)
    if not model.has_exact_rate:
        rate = jnp.mean(log_posterior - log_prior, axis=0)
    return LossTerms(
        reconstruction=_reconstruction(logits, columns, objective).reshape(draws, size),
        rate=rate,
        kl=kl,
        log_prior=log_prior,
        log_posterior=log_posterior,
        z=z,
        mean=mean,
        logvar=logvar,
        mask=mask,
        log_weight_tap=log_weight_tap,
    )


def _reconstruction(logits: jax.Array, columns: jax.Array, objective: Objective) -> jax.Array:
    """Reconstruction loss `[D * B]` of logits `[D * B, V]` for sparse rows `[B, K]`."""
    columns = jnp.tile(columns, (objective.num_draws, 1))
    num_tags = logits.shape[-1]
    if objective.use_binary_cross_entropy and num_tags >= SPARSE_LOOKUP_MIN_TAGS:
        return distributions.bernoulli_nll_of_rows(logits, columns)
    x = multi_hot(columns, jnp.ones(columns.shape, jnp.float32), num_tags)
    if objective.use_binary_cross_entropy:
        return distributions.bernoulli_nll(logits, x)
    return distributions.squared_error(logits, x)
