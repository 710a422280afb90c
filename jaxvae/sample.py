"""New tag sets: draws from the prior, decoded."""

from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

_CHUNK = 4096
_MAX_DRAWS_PER_SAMPLE = 100


class Samples(NamedTuple):
    """Tag sets drawn from a model.

    Attributes:
      multi_hot: `[num, V]` boolean.
      probabilities: `[num, V]` float32, of the latent vectors behind the sets.
      empty_fraction: share of all draws that came out empty, before any was redrawn.
    """

    multi_hot: np.ndarray
    probabilities: np.ndarray
    empty_fraction: float


def make_prior_draw(graphdef: nnx.GraphDef, *, latent_dim: int, decode: str):
    """Builds the compiled draw of `_CHUNK` latent vectors and their tag sets.

    Args:
      graphdef: the model's static graph.
      latent_dim: L.
      decode: "bernoulli" draws each tag with its probability; "threshold" cuts at one.

    Returns:
      A jitted function of (params, batch_stats, temperature, threshold, key) to
      (boolean `[_CHUNK, V]`, probabilities `[_CHUNK, V]`).
    """

    def draw(params, batch_stats, temperature, threshold, key):
        latent_key, tag_key = jax.random.split(key)
        model = nnx.merge(graphdef, params, batch_stats)
        z = jax.random.normal(latent_key, (_CHUNK, latent_dim))
        probabilities = jax.nn.sigmoid(model.decode(z) / temperature)
        if decode == "threshold":
            return probabilities > threshold, probabilities
        uniform = jax.random.uniform(tag_key, probabilities.shape)
        return uniform < probabilities, probabilities

    return jax.jit(draw)


def sample_prior(
    graphdef: nnx.GraphDef,
    params: dict,
    batch_stats: dict,
    *,
    latent_dim: int,
    num_samples: int,
    temperature: float = 1.0,
    decode: str = "bernoulli",
    threshold: float = 0.5,
    seed: int = 0,
) -> Samples:
    """Samples tag sets: z from N(0, I), then tags from p(x|z).

    With `decode="bernoulli"` empty sets are redrawn together with their z, which samples
    p(x | x not empty), since data never has an empty set; a model that yields almost nothing else
    keeps its empty ones after 100 draws per set asked for. "threshold" keeps them: it is
    deterministic given z.

    Args:
      graphdef: the model's static graph.
      params: its parameters.
      batch_stats: its running statistics.
      latent_dim: L.
      num_samples: how many sets.
      temperature: divides the logits.
      decode: "bernoulli" or "threshold".
      threshold: probability cut, used by "threshold" alone.
      seed: fixes the samples.
    """
    draw = make_prior_draw(graphdef, latent_dim=latent_dim, decode=decode)
    key = jax.random.key(seed)
    most = _MAX_DRAWS_PER_SAMPLE * max(num_samples, _CHUNK)
    sets, probabilities, short = [], [], num_samples
    drawn = empty = 0
    while short:
        hot, probs = draw(
            params,
            batch_stats,
            np.float32(temperature),
            np.float32(threshold),
            jax.random.fold_in(key, drawn // _CHUNK),
        )
        hot, probs = np.asarray(hot), np.asarray(probs)
        filled = hot.any(axis=1)
        drawn += _CHUNK
        empty += int((~filled).sum())
        redraw = decode == "bernoulli" and drawn < most
        keep = filled if redraw else np.ones(_CHUNK, bool)
        sets.append(hot[keep][:short])
        probabilities.append(probs[keep][:short])
        short -= len(sets[-1])
    return Samples(np.concatenate(sets), np.concatenate(probabilities), empty / drawn)


def describe(samples: Samples) -> dict[str, float]:
    """Statistics of samples under the original's names (without `inference/`)."""
    size = samples.multi_hot.sum(axis=1)
    unique = len(np.unique(np.packbits(samples.multi_hot, axis=1), axis=0))
    p = samples.probabilities.astype(np.float64)
    entropy = -(_xlogx(p) + _xlogx(1.0 - p)).sum(axis=1)
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
        "mean_probability": float(p.mean()),
        "std_probability": float(p.std()),
        "avg_entropy": float(entropy.mean()),
    }


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0.0, p, 1.0))
