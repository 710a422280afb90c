"""Draws latent vectors from their posterior under constraints, as copies of weighted proposals.

Proposals come from the prior, or from a mixture of it and a Gaussian that a pilot fits. The weight
of a proposal is p(constraints | z) times the prior's density over the proposal's, and the number of
its copies is random, with a mean in proportion to its weight. So the copies have the posterior's
distribution, without the error of a finite pool. The weight of one copy decides only between many
proposals, of which few are copied, and fewer, some with several copies.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.inference.generation import conditioning
from jaxvae.inference.generation.constraints import Tables
from jaxvae.inference.sampling import sample_batch_size
from jaxvae.models.distributions import gaussian_log_prob
from jaxvae.models.trained import TrainedModel

_ROUND, _LEAST_ROUNDS, _ROUNDS = 8192, 3, 6
_PILOT = 32_768
_EFFICIENT = 0.3
_GAIN = 1.1
_FITTED_TO = 1000.0
_WIDER = 1.02
_FITTED_SHARE = 0.75
_PROPOSALS_PER_DRAW = 16.0
_PILOT_STREAM, _PROPOSALS = 0, 1


class Proposal(NamedTuple):
    """A distribution of z: the prior, mixed with a Gaussian.

    Attributes:
      centre: `[L]`, the Gaussian's mean.
      logvar: `[L]`, its log-variance.
      share: its share of the draws, exactly.
    """

    centre: np.ndarray
    logvar: np.ndarray
    share: float


class Pilot(NamedTuple):
    """The findings of a pilot.

    Attributes:
      proposal: the distribution to propose from.
      unit: the weight of one copy.
      probability: p(constraints), estimated.
      effective: effective sample size of the weights of `_PILOT` proposals (Kish 1965).
    """

    proposal: Proposal
    unit: float
    probability: float
    effective: float


def run_pilot(network: TrainedModel, tables: Tables, *, temperature: float, seed: int) -> Pilot:
    """Estimates the constraints' probability and finds a proposal that meets them often.

    Args:
      network: the model.
      tables: the constraints.
      temperature: divides the logits.
      seed: seed of the draws.
    """
    key = jax.random.fold_in(jax.random.key(seed), _PILOT_STREAM)

    def propose(proposal: Proposal, number: int, least: int) -> tuple[np.ndarray, np.ndarray]:
        keys = jax.random.split(
            jax.random.fold_in(key, number), -(-least // sample_batch_size(network.num_tags))
        )
        batches = [_propose(network, tables, proposal, temperature, key) for key in keys]
        z, weights = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        return z, weights.astype(np.float64)

    zeros = np.zeros(network.latent_dim, np.float32)
    proposal = best = Proposal(zeros, zeros, 0.0)
    share = 0.0
    for number in range(_ROUNDS):
        z, weights = propose(proposal, number, _ROUND)
        if not weights.any():
            break
        effective = _effective(weights) / len(weights)
        is_better = effective > _GAIN * share
        if is_better:
            best, share = proposal, effective
        if share >= _EFFICIENT or (number >= _LEAST_ROUNDS - 1 and not is_better):
            break
        proposal = _fit(z, weights)
    z, weights = propose(best, _ROUNDS, _PILOT)
    if not weights.any():
        return Pilot(best, 0.0, 0.0, 0.0)
    unit = min(weights.max(), _PROPOSALS_PER_DRAW * weights.mean())
    return Pilot(best, float(unit), float(weights.mean()), _effective(weights))


def draw_posterior(
    network: TrainedModel, tables: Tables, pilot: Pilot, *, temperature: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields draws of p(z | constraints) without end.

    Yields:
      (`[n, L]` float32, one row for each proposal that has copies; their numbers of copies `[n]`).
    """
    key = jax.random.fold_in(jax.random.key(seed), _PROPOSALS)
    batch = 0
    while True:
        batch_key, copies_key = jax.random.split(jax.random.fold_in(key, batch))
        z, weights = _propose(network, tables, pilot.proposal, temperature, batch_key)
        uniform = np.asarray(jax.random.uniform(copies_key, weights.shape), np.float64)
        copies = np.floor(np.asarray(weights, np.float64) / pilot.unit + uniform).astype(np.int64)
        copied = np.flatnonzero(copies)
        yield np.asarray(z)[copied], copies[copied]
        batch += 1


def _propose(network, tables, proposal, temperature, key):
    num = sample_batch_size(network.num_tags)
    program = _program(network.graphdef, num, int(proposal.share * num))
    return program(
        network.params,
        network.batch_stats,
        tables,
        proposal.centre,
        proposal.logvar,
        np.float32(temperature),
        key,
    )


def _fit(z: np.ndarray, weights: np.ndarray) -> Proposal:
    """Fits a Gaussian to weighted draws, the weights flattened until enough draws count."""
    log_weights = np.log(np.maximum(weights, 1e-300))
    log_weights -= log_weights.max()
    power = 1.0
    while _effective(np.exp(power * log_weights)) < _FITTED_TO and power > 1e-3:
        power *= 0.8
    shares = np.exp(power * log_weights)
    shares /= shares.sum()
    centre = shares @ z
    variance = np.maximum(shares @ np.square(z - centre), 1e-6) * _WIDER**2
    return Proposal(centre.astype(np.float32), np.log(variance).astype(np.float32), _FITTED_SHARE)


def _effective(weights: np.ndarray) -> float:
    return float(np.square(weights.sum()) / np.square(weights).sum())


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef, num: int, num_fitted: int):
    """Builds the compiled proposal of latent vectors `[num, L]` with their weights `[num]`.

    Args:
      graphdef: the model's static graph.
      num: number of proposals, in random order.
      num_fitted: number of them that the Gaussian draws; the prior draws the others.
    """

    def propose(params, batch_stats, tables, centre, logvar, temperature, key):
        model = nnx.merge(graphdef, params, batch_stats)
        prior_key, noise_key, order_key = jax.random.split(key, 3)
        z = model.draw_prior(prior_key, num - num_fitted)
        density = jnp.ones((num,), jnp.float32)
        if num_fitted:
            noise = jax.random.normal(noise_key, (num_fitted, len(centre)))
            fitted = centre[None, :] + jnp.exp(0.5 * logvar)[None, :] * noise
            z = jax.random.permutation(order_key, jnp.concatenate([z, fitted]))
            share = num_fitted / num
            log_ratio = gaussian_log_prob(z, centre[None, :], logvar[None, :]) - model.log_prior(z)
            # The proposal's density over the prior's (Veach & Guibas 1995).
            density = (1.0 - share) + share * jnp.exp(log_ratio)
        logits = model.decode(z) / temperature
        return z, conditioning.probability(logits, tables) / density

    return jax.jit(propose)
