"""Samples new tag sets: draws from the prior, decoded."""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

DECODES = ("bernoulli", "threshold", "calibrated", "top_k")
_MAX_AT_ONCE = 4096
_MOST_NUMBERS = 2**24
_MAX_DRAWS_PER_SAMPLE = 100
_CALIBRATION_DRAWS = 5 * 4096


class Samples(NamedTuple):
    """Tag sets drawn from a model.

    Attributes:
      multi_hot: `[num, V]` boolean.
      probabilities: `[num, V]` float32, decoded from the sets' latent vectors.
      empty_fraction: share of empty sets among all draws, before any was redrawn.
    """

    multi_hot: np.ndarray
    probabilities: np.ndarray
    empty_fraction: float


def sample_batch_size(num_tags: int) -> int:
    """Returns the number of sets to draw at a time; their probabilities stay within 64 MiB."""
    return min(_MAX_AT_ONCE, max(64, _MOST_NUMBERS // num_tags))


@functools.lru_cache(maxsize=8)
def make_prior_draw(graphdef: nnx.GraphDef, num: int):
    """Builds the compiled draw of latent vectors and their tags.

    Args:
      graphdef: the model's static graph.
      num: N, the number of draws at a time.

    Returns:
      A jitted function of (params, batch_stats, temperature, key) to (boolean `[N, V]` with each
      tag drawn with its probability, probabilities `[N, V]`).
    """

    def draw(params, batch_stats, temperature, key):
        latent_key, tag_key = jax.random.split(key)
        model = nnx.merge(graphdef, params, batch_stats)
        probabilities = jax.nn.sigmoid(
            model.decode(model.draw_prior(latent_key, num)) / temperature
        )
        uniform = jax.random.uniform(tag_key, probabilities.shape)
        return uniform < probabilities, probabilities

    return jax.jit(draw)


def sample_prior(
    graphdef: nnx.GraphDef,
    params: dict,
    batch_stats: dict,
    *,
    num_samples: int,
    temperature: float = 1.0,
    decode: str = "bernoulli",
    threshold: float | np.ndarray = 0.5,
    top_k: int = 1,
    seed: int = 0,
) -> Samples:
    """Samples tag sets: z from the prior, then tags from p(x|z).

    With "bernoulli" and "calibrated", empty sets are redrawn together with their z. The samples are
    thus conditional on non-empty sets, as data are. If a model yields almost only empty sets, they
    are kept after 100 draws per requested set. "threshold" keeps empty sets.

    Args:
      graphdef: the model's static graph.
      params: its parameters.
      batch_stats: its running statistics.
      num_samples: number of sets.
      temperature: divides the logits.
      decode: "bernoulli" draws each tag with its probability; "threshold" and "calibrated" cut at
        `threshold`, one number or one per tag (see `calibrate`); "top_k" takes the likeliest tags.
      threshold: probability above which a tag is set.
      top_k: number of tags of a set, used only by "top_k".
      seed: seed of the samples.
    """
    chunk = sample_batch_size(nnx.merge(graphdef, params, batch_stats).num_tags)
    draw = make_prior_draw(graphdef, chunk)
    key = jax.random.key(seed)
    max_draws = _MAX_DRAWS_PER_SAMPLE * max(num_samples, chunk)
    sets, probabilities, short = [], [], num_samples
    num_drawn = empty = 0
    while short:
        batch_key = jax.random.fold_in(key, num_drawn // chunk)
        hot, probs = map(np.asarray, draw(params, batch_stats, np.float32(temperature), batch_key))
        if decode == "top_k":
            hot = _largest(probs, top_k)
        elif decode != "bernoulli":
            hot = probs > threshold
        filled = hot.any(axis=1)
        num_drawn += chunk
        empty += int((~filled).sum())
        redraw = decode in ("bernoulli", "calibrated") and num_drawn < max_draws
        keep = filled if redraw else np.ones(chunk, bool)
        sets.append(hot[keep][:short])
        probabilities.append(probs[keep][:short])
        short -= len(sets[-1])
    return Samples(np.concatenate(sets), np.concatenate(probabilities), empty / num_drawn)


def calibrate(
    graphdef: nnx.GraphDef,
    params: dict,
    batch_stats: dict,
    *,
    rates: np.ndarray,
    temperature: float = 1.0,
) -> np.ndarray:
    """Returns thresholds `[V]` with which prior samples have tags as often as data do.

    A fixed threshold of 0.5 would never yield rare tags. Each tag's threshold is the quantile of
    its probability over the prior that passes it at its rate among non-empty sets, so that the mean
    number of tags per set agrees too.

    Args:
      graphdef: the model's static graph.
      params: its parameters.
      batch_stats: its running statistics.
      rates: `[V]`, target share of sets with each tag.
      temperature: divides the logits, as in sampling.
    """
    chunk = sample_batch_size(len(rates))
    draw = make_prior_draw(graphdef, chunk)
    # This key differs from those of all users' seeds.
    key = jax.random.fold_in(jax.random.key(0), 0x5EED)
    keys = jax.random.split(key, -(-_CALIBRATION_DRAWS // chunk))
    probs = np.concatenate(
        [np.asarray(draw(params, batch_stats, np.float32(temperature), key)[1]) for key in keys]
    )
    ordered = np.sort(probs, axis=0)
    filled = 1.0
    for _ in range(20):
        # The threshold is the largest probability that does not pass.
        last = np.floor((1.0 - rates * filled) * len(probs)).astype(int) - 1
        cuts = np.where(last >= 0, ordered[np.maximum(last, 0), np.arange(len(rates))], -1.0)
        share = float((probs > cuts).any(axis=1).mean())
        if abs(share - filled) < 1e-4:
            break
        filled = share
    return cuts


def _largest(probabilities: np.ndarray, count: int) -> np.ndarray:
    best = np.argpartition(-probabilities, count - 1, axis=1)[:, :count]
    sets = np.zeros(probabilities.shape, bool)
    np.put_along_axis(sets, best, True, axis=1)
    return sets


def describe_samples(samples: Samples) -> dict[str, float]:
    """Computes statistics of samples under the original's names (without `inference/`)."""
    size = samples.multi_hot.sum(axis=1)
    unique = len(np.unique(np.packbits(samples.multi_hot, axis=1), axis=0))
    mean = float(samples.probabilities.mean(dtype=np.float64))
    square, entropy = 0.0, 0.0
    rows = sample_batch_size(samples.probabilities.shape[1])
    for start in range(0, len(size), rows):
        p = samples.probabilities[start : start + rows].astype(np.float64)
        square += float(np.square(p - mean).sum())
        entropy -= float((_xlogx(p) + _xlogx(1.0 - p)).sum())
    return {
        "num_samples": len(size),
        "avg_tags_per_sample": float(size.mean()),
        "std_tags_per_sample": float(size.std()),
        "min_tags_per_sample": int(size.min()),
        "max_tags_per_sample": int(size.max()),
        "empty_sets": int((size == 0).sum()),
        "empty_fraction_before_redraw": samples.empty_fraction,
        "unique_combinations": unique,
        "diversity_ratio": unique / len(size),
        "mean_probability": mean,
        "std_probability": math.sqrt(square / samples.probabilities.size),
        "avg_entropy": entropy / len(size),
    }


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0.0, p, 1.0))
