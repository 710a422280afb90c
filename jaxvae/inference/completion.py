"""Completes partial tag sets: the distribution of the other tags, given tags present and absent.

p(rest | present, absent) = E[p(rest | z)] over p(z | present, absent), estimated by importance
sampling. The proposals are the prior, the encoder's posterior, and Gaussians fitted to the draws of
earlier rounds. Decoding the encoder's mean of a partial set would be wrong: the encoder treats
unspecified tags as absent.
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
    """Completions of a partial set.

    Attributes:
      sets: `[M, V]` boolean, distinct, consistent with the evidence, most probable first.
      probability: `[M]`, p(set | present, absent).
      marginals: `[V]`, p(tag | present, absent); 1 and 0 for the given tags.
      log_evidence: log p(present, absent), nats.
      effective_draws: effective number of independent draws.
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
      networks: the model; several form a mixture with equal prior weights, which the evidence
        updates.
      present: columns of the tags that the sets must have.
      absent: columns of the tags that the sets must not have.
      num: number of distinct sets; fewer if not as many are found. None of them is empty.
      seed: seed of every draw.
    """
    rng = np.random.default_rng(seed)
    num_tags = networks[0].num_tags
    # A draw's weight over its model's number of draws is its share of that model's evidence, so
    # the draws of all models together are draws of the mixture.
    draws = [_draw_latents(network, present, absent, rng) for network in networks]
    log_weights = np.concatenate([weights - np.log(len(weights)) for weights, _ in draws])
    logits = np.concatenate([model_logits for _, model_logits in draws])
    weights, effective = _normalise(log_weights)
    log_evidence = float(np.logaddexp.reduce(log_weights) - np.log(len(networks)))

    probs = queries.sigmoid(logits)
    marginals = weights @ probs
    marginals[present], marginals[absent] = 1.0, 0.0

    at_once = _at_most(_SETS, num_tags)
    distinct: dict[bytes, np.ndarray] = {}
    for _ in range(8):  # Bounded, since fewer than `num` distinct sets may exist.
        indices = rng.choice(len(weights), at_once, p=weights)
        sets = rng.random((at_once, num_tags)) < probs[indices]
        sets[:, present], sets[:, absent] = True, False
        for row, packed in zip(sets, np.packbits(sets, axis=1), strict=True):
            if row.any():
                distinct.setdefault(packed.tobytes(), row)
            if len(distinct) == num:
                break
        if len(distinct) == num:
            break
    sets = np.array(list(distinct.values()), bool).reshape(len(distinct), num_tags)
    probability = _set_probability(sets, logits, weights, present + absent)
    order = np.argsort(-probability, kind="stable")
    return Completion(sets[order], probability[order], marginals, log_evidence, effective)


def predict(
    network: TrainedModel, present: np.ndarray, mean: np.ndarray, logvar: np.ndarray, *, seed: int
) -> np.ndarray:
    """p(tag | the tags in `present`), the others unspecified, for many rows.

    All rows share one pool of 20,000 draws (fewer for a wide vocabulary): half from the prior, half
    from posteriors of data.

    Args:
      network: the model.
      present: boolean `[N, V]`.
      mean: `[M, L]` posterior means of some training rows.
      logvar: `[M, L]` their log-variances.
      seed: seed of the draws.

    Returns:
      `[N, V]`; a present tag has 1.
    """
    rng = np.random.default_rng(seed)
    indices = rng.permutation(len(mean))[:_POOL_POSTERIORS]
    mean, spread = (
        mean[indices].astype(np.float64),
        np.exp(0.5 * logvar[indices].astype(np.float64)),
    )
    half = _at_most(_POOL, network.num_tags) // 2
    component = rng.integers(0, len(mean), half)
    z = np.concatenate(
        [
            queries.draw_prior(network, half, seed=seed),
            mean[component] + spread[component] * rng.standard_normal((half, mean.shape[1])),
        ]
    )
    log_prior = queries.log_prior(network, z)
    # Squared distances to every posterior, expanded into two matrix products.
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
        block = present[start : start + 128]
        log_weights = (block.astype(np.float32) @ log_present.T) + (log_prior - log_q)[None, :]
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        marginals[start : start + 128] = weights.astype(np.float32) @ probs
    return np.where(present, 1.0, marginals)


def _at_most(draws: int, num_tags: int) -> int:
    """Returns `draws`, or fewer for a wide vocabulary, so that the decoded draws fit in memory."""
    return min(draws, max(_FEWEST, _MOST_VALUES // num_tags))


def _draw_latents(network, present, absent, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draws z from proposals that cover p(z | evidence): log weights `[K]`, logits `[K, V]`."""
    width, draws = network.latent_dim, _at_most(_DRAWS, network.num_tags)
    row = encoding.pad_tag_ids([present], network.num_tags)
    mean, logvar = (values[0].astype(np.float64) for values in queries.posterior(network, row))
    # The first proposal beside the prior: the encoder's posterior, 1.5 times wider, because the
    # encoder treats unspecified tags as absent.
    proposals = [(mean, np.exp(0.5 * logvar) * 1.5)]
    z = queries.draw_prior(network, draws, seed=int(rng.integers(2**31)))
    logits = queries.logits(network, z.astype(np.float32))
    log_prior = queries.log_prior(network, z)
    for _ in range(_ROUNDS):
        centre, spread = proposals[-1]
        proposed = centre + spread * rng.standard_normal((draws, width))
        z = np.concatenate([z, proposed])
        log_prior = np.concatenate([log_prior, queries.log_prior(network, proposed)])
        logits = np.concatenate([logits, queries.logits(network, proposed.astype(np.float32))])
        log_p = -np.logaddexp(0.0, -logits[:, present].astype(np.float64)).sum(axis=1)
        log_p -= np.logaddexp(0.0, logits[:, absent].astype(np.float64)).sum(axis=1)
        # All draws are weighted as draws from the mixture of all proposals (Veach & Guibas 1995):
        # no weight is large if any proposal has density there.
        log_q = [
            -0.5 * (np.square((z - m) / s).sum(axis=1) + width * _LOG_2_PI) - np.log(s).sum()
            for m, s in proposals
        ]
        log_mixture = np.logaddexp.reduce(np.stack([log_prior, *log_q]))
        log_weights = log_p + log_prior - log_mixture + np.log(1.0 + len(proposals))
        weights, effective = _normalise(log_weights)
        if effective >= min(_ENOUGH, draws / 2):
            break
        centre = weights @ z
        spread = np.sqrt(weights @ np.square(z - centre))
        proposals.append((centre, np.maximum(1.2 * spread, 0.05)))
    return log_weights, logits


def _normalise(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalises weights to sum to one; also returns the effective sample size (Kish 1965)."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return weights, float(1.0 / np.square(weights).sum())


def _set_probability(sets, logits, weights, given) -> np.ndarray:
    """Computes p(set | evidence) `[M]` as an average over all draws of z, not by counting sets."""
    free = np.ones(logits.shape[1], bool)
    free[given] = False
    absent = np.logaddexp(0.0, logits[:, free].astype(np.float64)).sum(axis=1)
    probability = np.zeros(len(sets))
    for start in range(0, len(sets), 256):
        block = sets[start : start + 256, free].astype(np.float32)
        log_p = (block @ logits[:, free].T).astype(np.float64) - absent[None, :]
        probability[start : start + 256] = np.exp(log_p) @ weights
    return probability
