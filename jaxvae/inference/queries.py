"""Compiled queries of a trained model: posteriors of rows, probabilities of latent vectors.

Batches are padded to a few sizes, so that any number of rows needs only a few compiled programs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.models.distributions import kl_to_moment_matched_prior
from jaxvae.models.trained import TrainedModel

BUCKETS = (8, 64, 512, 4096)
"""Batch sizes of one call; more rows are split into several calls of the largest."""


def padded_batch_size(count: int) -> int:
    """Returns the smallest of `BUCKETS` that holds `count` rows, or the largest."""
    return next((size for size in BUCKETS if count <= size), BUCKETS[-1])


def max_batch_rows(num_tags: int, largest: int = BUCKETS[-1]) -> int:
    """Returns the largest of `BUCKETS`, up to `largest`, whose logits stay within 64 MiB."""
    return max(n for n in BUCKETS if n <= largest and (n * num_tags <= 2**24 or n == BUCKETS[0]))


def pad_batch(rows: np.ndarray, *, fill: int) -> np.ndarray:
    """Pads `[n, K]` with `fill`: to a bucket of rows, and to a multiple of 8 columns.

    The width is a multiple of 8 to limit recompilation.
    """
    padded = np.full((padded_batch_size(len(rows)), -(-rows.shape[1] // 8) * 8), fill, np.int32)
    padded[: len(rows), : rows.shape[1]] = rows
    return padded


def posterior(network: TrainedModel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes q(z|x) of every row.

    Args:
      network: the model.
      rows: `[N, K]` column numbers padded with V.

    Returns:
      (mean, logvar), each `[N, L]` float32.
    """
    encode, num_tags = _encode(network.graphdef), network.num_tags
    results = []
    size = max_batch_rows(num_tags)
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        padded = pad_batch(batch, fill=num_tags)
        mean, logvar = encode(network.params, network.batch_stats, padded)
        results.append((np.asarray(mean)[: len(batch)], np.asarray(logvar)[: len(batch)]))
    empty = np.zeros((0, network.latent_dim), np.float32)
    means, logvars = zip(*results, strict=True) if results else ((empty,), (empty,))
    return np.concatenate(means), np.concatenate(logvars)


def logits(network: TrainedModel, z: np.ndarray) -> np.ndarray:
    """Logits `[N, V]` float32 of the tags given latent vectors `[N, L]`."""
    decode = _decode(network.graphdef)
    results = [np.zeros((0, network.num_tags), np.float32)]
    size = max_batch_rows(network.num_tags)
    for start in range(0, len(z), size):
        batch = z[start : start + size]
        padded = np.zeros((padded_batch_size(len(batch)), network.latent_dim), np.float32)
        padded[: len(batch)] = batch
        values = decode(network.params, network.batch_stats, padded)
        results.append(np.asarray(values)[: len(batch)])
    return np.concatenate(results)


def log_prior(network: TrainedModel, z: np.ndarray) -> np.ndarray:
    """Log p(z) `[N]` float64 of latent vectors `[N, L]`, nats."""
    measure = _prior_programs(network.graphdef)[0]
    results = [np.zeros(0)]
    for start in range(0, len(z), BUCKETS[-1]):
        batch = z[start : start + BUCKETS[-1]]
        padded = np.zeros((padded_batch_size(len(batch)), network.latent_dim), np.float32)
        padded[: len(batch)] = batch
        values = measure(network.params, network.batch_stats, padded)
        results.append(np.asarray(values, np.float64)[: len(batch)])
    return np.concatenate(results)


def draw_prior(network: TrainedModel, num: int, *, seed: int) -> np.ndarray:
    """Draws `[num, L]` float64 from p(z)."""
    draw = _prior_programs(network.graphdef)[1]
    keys = jax.random.split(jax.random.key(seed), -(-num // BUCKETS[-1]))
    batches = [draw(network.params, network.batch_stats, key) for key in keys]
    return np.concatenate(batches).astype(np.float64)[:num]


def prior_moments(network: TrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension under p(z), `[L]`."""
    moments = _prior_programs(network.graphdef)[2]
    centre, variance = moments(network.params, network.batch_stats)
    return np.asarray(centre), np.sqrt(np.asarray(variance))


def kl_per_dimension(network: TrainedModel, mean: np.ndarray, logvar: np.ndarray) -> np.ndarray:
    """KL `[N, L]` of every dimension from a Gaussian of the prior's moments, nats."""
    centre, deviation = prior_moments(network)
    arguments = map(jnp.asarray, (mean, logvar, centre, np.square(deviation)))
    return np.asarray(kl_to_moment_matched_prior(*arguments))


def probabilities(network: TrainedModel, z: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """p(tag present | z) `[N, V]`, its logits divided by `temperature`."""
    return sigmoid(logits(network, z) / np.float32(temperature))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Computes 1 / (1 + exp(-l)) by tanh: exp(-l) overflows in float32 for logits below -88."""
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
    """Returns compiled functions for the prior's log density, draws and moments."""

    def model(params, batch_stats):
        return nnx.merge(graphdef, params, batch_stats)

    return (
        jax.jit(lambda params, stats, z: model(params, stats).log_prior(z)),
        jax.jit(lambda params, stats, key: model(params, stats).draw_prior(key, BUCKETS[-1])),
        jax.jit(lambda params, stats: model(params, stats).prior_moments()),
    )
