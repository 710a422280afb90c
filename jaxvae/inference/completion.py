"""Completion of partial tag sets: the distribution of the rest, given tags present and absent.

p(rest | present, absent) = E[p(rest | z)] over p(z | present, absent), which is sampled by
importance from a proposal that covers it: the encoder's guess, the prior, and Gaussians fitted to
what earlier rounds found. Decoding the encoder's mean of a partial set would not do: to the encoder
every tag that is not given is absent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.inference import queries
from jaxvae.models.trained import TrainedModel

_DRAWS = 4096
_LOG_2_PI = float(np.log(2.0 * np.pi))
_ROUNDS = 5
_ENOUGH = 2000.0
_SETS = 4096
_POOL = 20_000
_POOL_POSTERIORS = 500
_MOST_VALUES = 2**26
_FEWEST = 512


class Completion(NamedTuple):
    """What a partial set may be completed to.

    Attributes:
      sets: `[M, V]` boolean, distinct, consistent with the evidence, most probable first.
      probability: `[M]`, p(set | present, absent).
      marginals: `[V]`, p(tag | present, absent); 1 and 0 for the given ones.
      log_evidence: log p(present, absent), nats.
      effective_draws: how many independent draws the weighted ones are worth.
    """

    sets: np.ndarray
    probability: np.ndarray
    marginals: np.ndarray
    log_evidence: float
    effective_draws: float


def complete(
    networks: Sequence[TrainedModel], present: list[int], absent: list[int], *, num: int, seed: int
) -> Completion:
    """Draws distinct completions and computes every tag's probability given the evidence.

    Args:
      networks: the model; several are a mixture of them in equal parts, each of which the evidence
        makes more or less probable.
      present: columns of the tags that must be there.
      absent: columns of the tags that must not.
      num: how many distinct sets; fewer where so many can't be found. The empty set is never one.
      seed: of every draw.
    """
    rng = np.random.default_rng(seed)
    num_tags = networks[0].num_tags
    # A draw's weight over its model's number of draws is its part of that model's evidence, so
    # that all models' draws together are draws of the mixture.
    drawn = [_draw_latents(network, present, absent, rng) for network in networks]
    log_weights = np.concatenate([weights - np.log(len(weights)) for weights, _ in drawn])
    logits = np.concatenate([each for _, each in drawn])
    weights, effective = _normalise(log_weights)
    log_evidence = float(np.logaddexp.reduce(log_weights) - np.log(len(networks)))

    probs = queries.sigmoid(logits)
    marginals = weights @ probs
    marginals[present], marginals[absent] = 1.0, 0.0

    at_once = _at_most(_SETS, num_tags)
    found: dict[bytes, np.ndarray] = {}
    for _ in range(8):  # few distinct sets may be left to find: stop looking some time
        chosen = rng.choice(len(weights), at_once, p=weights)
        sets = rng.random((at_once, num_tags)) < probs[chosen]
        sets[:, present], sets[:, absent] = True, False
        for row, packed in zip(sets, np.packbits(sets, axis=1), strict=True):
            if row.any():
                found.setdefault(packed.tobytes(), row)
            if len(found) == num:
                break
        if len(found) == num:
            break
    sets = np.array(list(found.values()), bool).reshape(len(found), num_tags)
    probability = _set_probability(sets, logits, weights, present + absent)
    order = np.argsort(-probability, kind="stable")
    return Completion(sets[order], probability[order], marginals, log_evidence, effective)


def predict(
    network: TrainedModel, present: np.ndarray, mean: np.ndarray, logvar: np.ndarray, *, seed: int
) -> np.ndarray:
    """p(tag | the tags in `present` are there, of the others nothing is known), for many rows.

    All rows share one pool of 20,000 draws, of a wide vocabulary fewer: half from the prior, half
    from posteriors of data.

    Args:
      network: the model.
      present: boolean `[N, V]`.
      mean: `[M, L]` posterior means of some training rows.
      logvar: `[M, L]` their log-variances.
      seed: of the draws.

    Returns:
      `[N, V]`; a present tag has 1.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(mean))[:_POOL_POSTERIORS]
    mean, spread = mean[chosen].astype(np.float64), np.exp(0.5 * logvar[chosen].astype(np.float64))
    half = _at_most(_POOL, network.num_tags) // 2
    at = rng.integers(0, len(mean), half)
    z = np.concatenate(
        [
            queries.draw_prior(network, half, seed=seed),
            mean[at] + spread[at] * rng.standard_normal((half, mean.shape[1])),
        ]
    )
    log_prior = queries.log_prior(network, z)
    # Squared distances to every posterior, multiplied out into two products.
    precision = np.square(spread) ** -1
    constant = -0.5 * (np.square(mean) * precision).sum(axis=1) - np.log(spread).sum(axis=1)
    constant -= 0.5 * mean.shape[1] * _LOG_2_PI
    log_part = z @ (mean * precision).T - 0.5 * np.square(z) @ precision.T + constant
    log_q = np.logaddexp(log_prior, np.logaddexp.reduce(log_part, axis=1) - np.log(len(mean)))
    logits = queries.logits(network, z.astype(np.float32))
    probs = queries.sigmoid(logits)
    log_present = -np.logaddexp(0.0, -logits)
    marginals = np.empty(present.shape)
    for start in range(0, len(present), 128):
        part = present[start : start + 128]
        log_weights = (part.astype(np.float32) @ log_present.T) + (log_prior - log_q)[None, :]
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        marginals[start : start + 128] = weights.astype(np.float32) @ probs
    return np.where(present, 1.0, marginals)


def _at_most(draws: int, num_tags: int) -> int:
    """That many draws, or of a wide vocabulary fewer: what is decoded of them must fit."""
    return min(draws, max(_FEWEST, _MOST_VALUES // num_tags))


def _draw_latents(network, present, absent, rng) -> tuple[np.ndarray, np.ndarray]:
    """Log importance weights `[K]` and logits `[K, V]` of draws that cover p(z | evidence)."""
    width, draws = network.latent_dim, _at_most(_DRAWS, network.num_tags)
    row = encoding.pad_tag_ids([present], network.num_tags)
    mean, logvar = (part[0].astype(np.float64) for part in queries.posterior(network, row))
    # Besides the prior itself: heavier than the encoder's guess, which knows nothing of what is
    # not said.
    parts = [(mean, np.exp(0.5 * logvar) * 1.5)]
    z = queries.draw_prior(network, draws, seed=int(rng.integers(2**31)))
    logits = queries.logits(network, z.astype(np.float32))
    log_prior = queries.log_prior(network, z)
    for _ in range(_ROUNDS):
        centre, spread = parts[-1]
        fresh = centre + spread * rng.standard_normal((draws, width))
        z = np.concatenate([z, fresh])
        log_prior = np.concatenate([log_prior, queries.log_prior(network, fresh)])
        logits = np.concatenate([logits, queries.logits(network, fresh.astype(np.float32))])
        log_p = -np.logaddexp(0.0, -logits[:, present].astype(np.float64)).sum(axis=1)
        log_p -= np.logaddexp(0.0, logits[:, absent].astype(np.float64)).sum(axis=1)
        # All draws count as if from the mixture of all proposals, whichever they came from
        # (Veach & Guibas 1995): no weight can be large where any proposal is.
        log_q = [
            -0.5 * (np.square((z - m) / s).sum(axis=1) + width * _LOG_2_PI) - np.log(s).sum()
            for m, s in parts
        ]
        log_mixture = np.logaddexp.reduce(np.stack([log_prior, *log_q]))
        log_weights = log_p + log_prior - log_mixture + np.log(1.0 + len(parts))
        weights, effective = _normalise(log_weights)
        if effective >= min(_ENOUGH, draws / 2):
            break
        centre = weights @ z
        spread = np.sqrt(weights @ np.square(z - centre))
        parts.append((centre, np.maximum(1.2 * spread, 0.05)))
    return log_weights, logits


def _normalise(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights that sum to one, and how many equal ones they are worth (Kish 1965)."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return weights, float(1.0 / np.square(weights).sum())


def _set_probability(sets, logits, weights, given) -> np.ndarray:
    """p(set | evidence) `[M]`, averaged over all draws of z rather than counted."""
    free = np.ones(logits.shape[1], bool)
    free[given] = False
    absent = np.logaddexp(0.0, logits[:, free].astype(np.float64)).sum(axis=1)
    probability = np.zeros(len(sets))
    for start in range(0, len(sets), 256):
        part = sets[start : start + 256, free].astype(np.float32)
        log_p = (part @ logits[:, free].T).astype(np.float64) - absent[None, :]
        probability[start : start + 256] = np.exp(log_p) @ weights
    return probability
