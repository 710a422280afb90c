"""Compiled queries of a trained model: posteriors of rows, probabilities of latent vectors.

Rows are padded to a few sizes, so that any number of them runs on a handful of compiled programs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.models.distributions import kl_to_moment_matched_prior
from jaxvae.models.trained import TrainedModel

BUCKETS = (8, 64, 512, 4096)
"""Rows of one call; more rows are several calls of the largest."""


def padded_batch_size(count: int) -> int:
    """The smallest program size that `count` rows fit in, or the largest there is."""
    return next((size for size in BUCKETS if count <= size), BUCKETS[-1])


def max_batch_rows(num_tags: int, largest: int = BUCKETS[-1]) -> int:
    """The most rows of one call, a program size, whose logits stay within 64 MiB."""
    return max(n for n in BUCKETS if n <= largest and (n * num_tags <= 2**24 or n == BUCKETS[0]))


def pad_batch(rows: np.ndarray, *, fill: int) -> np.ndarray:
    """Pads `[n, K]` with `fill`: to a bucket of rows, and to a multiple of 8 columns.

    Widths go in steps so that a longer row seldom means another program.
    """
    padded = np.full((padded_batch_size(len(rows)), -(-rows.shape[1] // 8) * 8), fill, np.int32)
    padded[: len(rows), : rows.shape[1]] = rows
    return padded


def posterior(network: TrainedModel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q(z|x) of every row.

    Args:
      network: the model.
      rows: `[N, K]` column numbers padded with V.

    Returns:
      (mean, logvar), each `[N, L]` float32.
    """
    encode, num_tags = _encode(network.graphdef), network.num_tags
    parts = []
    size = max_batch_rows(num_tags)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        padded = pad_batch(part, fill=num_tags)
        mean, logvar = encode(network.params, network.batch_stats, padded)
        parts.append((np.asarray(mean)[: len(part)], np.asarray(logvar)[: len(part)]))
    empty = np.zeros((0, network.latent_dim), np.float32)
    means, logvars = zip(*parts, strict=True) if parts else ((empty,), (empty,))
    return np.concatenate(means), np.concatenate(logvars)


def logits(network: TrainedModel, z: np.ndarray) -> np.ndarray:
    """Logits `[N, V]` float32 of the tags given latent vectors `[N, L]`."""
    decode = _decode(network.graphdef)
    parts = [np.zeros((0, network.num_tags), np.float32)]
    size = max_batch_rows(network.num_tags)
    for start in range(0, len(z), size):
        part = z[start : start + size]
        padded = np.zeros((padded_batch_size(len(part)), network.latent_dim), np.float32)
        padded[: len(part)] = part
        values = decode(network.params, network.batch_stats, padded)
        parts.append(np.asarray(values)[: len(part)])
    return np.concatenate(parts)


def log_prior(network: TrainedModel, z: np.ndarray) -> np.ndarray:
    """Log p(z) `[N]` float64 of latent vectors `[N, L]`, nats."""
    measure = _prior_programs(network.graphdef)[0]
    parts = [np.zeros(0)]
    for start in range(0, len(z), BUCKETS[-1]):
        part = z[start : start + BUCKETS[-1]]
        padded = np.zeros((padded_batch_size(len(part)), network.latent_dim), np.float32)
        padded[: len(part)] = part
        values = measure(network.params, network.batch_stats, padded)
        parts.append(np.asarray(values, np.float64)[: len(part)])
    return np.concatenate(parts)


def draw_prior(network: TrainedModel, num: int, *, seed: int) -> np.ndarray:
    """Draws `[num, L]` float64 from p(z)."""
    draw = _prior_programs(network.graphdef)[1]
    keys = jax.random.split(jax.random.key(seed), -(-num // BUCKETS[-1]))
    parts = [draw(network.params, network.batch_stats, key) for key in keys]
    return np.concatenate(parts).astype(np.float64)[:num]


def prior_moments(network: TrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension under p(z), `[L]`."""
    moments = _prior_programs(network.graphdef)[2]
    centre, variance = moments(network.params, network.batch_stats)
    return np.asarray(centre), np.sqrt(np.asarray(variance))


def kl_per_dimension(network: TrainedModel, mean: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL `[N, L]` of every dimension from a Gaussian of the prior's moments, nats."""
    centre, deviation = prior_moments(network)
    given = map(jnp.asarray, (mean, logvar, centre, np.square(deviation)))
    return np.asarray(kl_to_moment_matched_prior(*given))


def probabilities(network: TrainedModel, z: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """p(tag present | z) `[N, V]`, its logits divided by `temperature`."""
    return sigmoid(logits(network, z) / np.float32(temperature))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-l)) by tanh, since exp(-l) overflows in float32 for logits below -88."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits)


@functools.lru_cache(maxsize=8)
def _encode(graphdef: nnx.GraphDef):
    def encode(params, batch_stats, columns):
        model = nnx.merge(graphdef, params, batch_stats)
        return model.encode_rows(columns)

    return jax.jit(encode)


@functools.lru_cache(maxsize=8)
def _decode(graphdef: nnx.GraphDef):
    def decode(params, batch_stats, z):
        return nnx.merge(graphdef, params, batch_stats).decode(z)

    return jax.jit(decode)


@functools.lru_cache(maxsize=8)
def _prior_programs(graphdef: nnx.GraphDef):
    """Log density, draws and moments of the prior."""

    def model(params, batch_stats):
        return nnx.merge(graphdef, params, batch_stats)

    return (
        jax.jit(lambda params, stats, z: model(params, stats).log_prior(z)),
        jax.jit(lambda params, stats, key: model(params, stats).draw_prior(key, BUCKETS[-1])),
        jax.jit(lambda params, stats: model(params, stats).prior_moments()),
    )
