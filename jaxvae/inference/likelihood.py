"""Estimates the likelihood of rows: importance-weighted bound, rate and distortion, in nats."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.inference.queries import max_batch_rows, pad_batch
from jaxvae.models.distributions import gaussian_log_prob, kl_to_moment_matched_prior
from jaxvae.models.layers import multi_hot
from jaxvae.models.trained import TrainedModel
from jaxvae.models.vae import VAE, reparameterize

_DRAWS = 50  # Draws per step for a batch: enough to fill the cores, few enough to fit a cache.
_ROWS = 512
_LOGITS = 2**23  # Most logits of a step; a wide vocabulary gets fewer rows and draws.
_EMPTY_DRAWS = 50_000


class RowLikelihood(NamedTuple):
    """Importance-sampling estimates for each row, `[N]` float64, nats.

    Attributes:
      log_likelihood: the importance-weighted bound on log p(x) (Burda et al. 2016).
      variance: its Monte-Carlo variance by the delta method.
      distortion: E_q[-log p(x|z)].
      rate: KL(q(z|x) || p(z)); by the same draws if it has no closed form.
      kl_per_dimension: `[N, L]`, KL of q(z_d|x) from a Gaussian with the prior's moments; with the
        prior N(0, I) these sum to the rate.
    """

    log_likelihood: np.ndarray
    variance: np.ndarray
    distortion: np.ndarray
    rate: np.ndarray
    kl_per_dimension: np.ndarray


def row_likelihood(
    network: TrainedModel,
    rows: np.ndarray,
    *,
    num_importance_samples: int,
    seed: int,
    first_row: int = 0,
) -> RowLikelihood:
    """Estimates log p(x) = log E_q[p(x|z) p(z) / q(z|x)] for every row, by draws from its encoder.

    The bound approaches log p(x) from below as the number of draws grows. The noise is independent
    between rows, so variances of sums are sums of variances.

    Args:
      network: the model.
      rows: `[N, K]` column numbers padded with V.
      num_importance_samples: draws per row.
      seed: seed of the draws.
      first_row: rows before these; rows that come in parts of a multiple of 512 have the draws that
        they would have together.
    """
    at_once = max_batch_rows(network.num_tags, _ROWS)
    max_draws = min(_DRAWS, max(1, _LOGITS // (at_once * network.num_tags)))
    steps, remainder = divmod(num_importance_samples, max_draws)
    programs = [
        (_program(network.graphdef, network.num_tags, draws), times)
        for draws, times in ((max_draws, steps), (remainder, 1))
        if draws and times
    ]
    blocks = []
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        padded = pad_batch(block, fill=network.num_tags)
        key = jax.random.fold_in(jax.random.key(seed), first_row + start)
        log_weights, sums = [], np.zeros((2, len(block)))
        for stream, (run, times) in enumerate(programs):
            weights, *totals, kl = run(
                network.params,
                network.batch_stats,
                padded,
                jax.random.split(jax.random.fold_in(key, stream), times),
            )
            log_weights.append(np.asarray(weights, np.float64).reshape(-1, len(padded)))
            sums += np.asarray(totals, np.float64)[:, : len(block)]
        kl = np.asarray(kl, np.float64)[: len(block)]
        log_likelihood, variance = _log_mean(np.concatenate(log_weights)[:, : len(block)])
        blocks.append((log_likelihood, variance, *(sums / num_importance_samples), kl))
    return RowLikelihood(*(np.concatenate(block) for block in zip(*blocks, strict=True)))


def mix(members: Sequence[RowLikelihood], draws: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mixes the estimates of several models, or of a single one, with equal weights.

    Args:
      members: each model's estimates.
      draws: importance samples per row of each.

    Returns:
      The mixture's log-likelihood, its Monte-Carlo variance, and the effective sample size of all
      members' draws (Kish 1965), each `[N]`.
    """
    log_p = np.stack([member.log_likelihood for member in members])
    variance = np.stack([member.variance for member in members])
    total = np.logaddexp.reduce(log_p, axis=0)
    square = np.square(np.exp(log_p - total))  # of each member's share of the likelihood
    per_draw = (1.0 + np.nan_to_num(variance) * (draws - 1)) / draws
    return (
        total - np.log(len(members)),
        (square * variance).sum(axis=0),
        1.0 / (square * per_draw).sum(axis=0),
    )


def log_prob_empty(network: TrainedModel, *, seed: int) -> float:
    """Estimates the log-probability of the empty set by draws from the prior; nats."""
    draws = _empty_program(network.graphdef)(
        network.params,
        network.batch_stats,
        jax.random.split(jax.random.key(seed), _EMPTY_DRAWS // 1000),
    )
    return float(_log_mean(np.asarray(draws, np.float64).reshape(-1, 1))[0][0])


def _log_mean(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log of the mean over draws `[K, N]`, and that estimate's variance, each `[N]`."""
    top = log_weights.max(axis=0)
    weights = np.exp(log_weights - top)
    mean = weights.mean(axis=0)
    spread = weights.var(axis=0, ddof=1) if len(weights) > 1 else np.full_like(mean, np.nan)
    return top + np.log(mean), spread / (len(weights) * np.square(mean))


@functools.lru_cache(maxsize=16)
def _program(graphdef: nnx.GraphDef, num_tags: int, draws: int):
    """Builds a compiled scan over keys, each giving `draws` log weights per row."""

    def log_weights(params, batch_stats, columns, keys):
        model = nnx.merge(graphdef, params, batch_stats)
        x = multi_hot(columns, jnp.ones(columns.shape, jnp.float32), num_tags)
        mean, logvar = model.encode(x)
        size, latent_dim = mean.shape

        def step(total, key):
            noise = jax.random.normal(key, (draws, size, latent_dim))
            log_p, log_ratio = _log_ratios(model, x, mean, logvar, noise)
            sums = total[0] - jnp.sum(log_p, axis=0), total[1] + jnp.sum(log_ratio, axis=0)
            return sums, log_p - log_ratio

        zeros = jnp.zeros((size,), jnp.float32)
        (distortion, rate), weights = jax.lax.scan(step, (zeros, zeros), keys)
        centre, variance = model.prior_moments()
        kl = kl_to_moment_matched_prior(mean, logvar, centre, variance)
        if model.prior is None:  # the rate has a closed form
            rate = jnp.sum(kl, axis=-1) * (draws * len(keys))
        return weights, distortion, rate, kl

    return jax.jit(log_weights)


def _log_ratios(
    model: VAE, x: jax.Array, mean: jax.Array, logvar: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns log p(x|z) and log q(z|x) - log p(z), `[draws, N]`, for noise `[draws, N, L]`."""
    draws, size, latent_dim = noise.shape
    z = reparameterize(mean[None], logvar[None], noise)
    logits = model.decode(z.reshape(-1, latent_dim)).reshape(draws, size, -1)
    # The product selects the present tags' logits; softplus applies to all tags.
    log_p = jnp.sum(x[None] * logits - jax.nn.softplus(logits), axis=-1)
    return log_p, gaussian_log_prob(z, mean[None], logvar[None]) - model.log_prior(z)


@functools.lru_cache(maxsize=8)
def make_likelihood_bound(
    graphdef: nnx.GraphDef,
    *,
    num_rows: int,
    num_tags: int,
    latent_dim: int,
    num_draws: int,
    draw_noise: Callable[[jax.Array, jax.Array, tuple[int, ...]], jax.Array],
) -> Callable:
    """Builds the compiled importance-weighted bound of some rows, for use between epochs.

    The noise depends only on the key, so that values of different epochs differ only by the
    parameters. The program is cached for equal arguments.

    Args:
      graphdef: the model's static graph.
      num_rows: N.
      num_tags: V.
      latent_dim: L.
      num_draws: importance samples per row.
      draw_noise: function of (the run's root key, the block's number, shape) to standard normal
        numbers.

    Returns:
      A jitted function of (params, batch_stats, the run's root key, rows `[N, K]`) to the mean of
      the bound as a negative log-likelihood, nats, a scalar.
    """
    block = min(num_rows, max(1, _LOGITS // (num_draws * num_tags)))
    blocks = -(-num_rows // block)

    def bound(params, batch_stats, key, rows):
        model = nnx.merge(graphdef, params, batch_stats)
        padding = ((0, blocks * block - num_rows), (0, 0))
        rows = jnp.pad(rows, padding, constant_values=num_tags)

        def body(total, inputs):
            number, columns = inputs
            x = multi_hot(columns, jnp.ones(columns.shape, jnp.float32), num_tags)
            mean, logvar = model.encode(x)
            noise = draw_noise(key, number, (num_draws, block, latent_dim))
            log_p, log_ratio = _log_ratios(model, x, mean, logvar, noise)
            log_likelihood = jax.nn.logsumexp(log_p - log_ratio, axis=0) - np.log(num_draws)
            is_row = number * block + jnp.arange(block) < num_rows
            return total - jnp.sum(jnp.where(is_row, log_likelihood, 0.0)), None

        inputs = jnp.arange(blocks), rows.reshape(blocks, block, -1)
        total, _ = jax.lax.scan(body, jnp.zeros((), jnp.float32), inputs)
        return total / num_rows

    return jax.jit(bound)


@functools.lru_cache(maxsize=4)
def _empty_program(graphdef: nnx.GraphDef):
    def log_empty(params, batch_stats, keys):
        model = nnx.merge(graphdef, params, batch_stats)

        def step(carry, key):
            logits = model.decode(model.draw_prior(key, 1000))
            return carry, -jnp.sum(jax.nn.softplus(logits), axis=-1)

        return jax.lax.scan(step, None, keys)[1]

    return jax.jit(log_empty)
