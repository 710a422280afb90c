"""Completes many rows by one pool of draws: the likeliest other tags of each, given its own.

Draws z from the prior serve all rows. The weight of a draw for a row is p(row's tags | z), so the
weighted mean of p(tag | z) is p(tag | row's tags), other tags unspecified. Weights and means are
matrix products, compiled once. A row with many or unusual tags agrees with few of the draws; its
effective sample size says with how many.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.data.encoding import to_multi_hot
from jaxvae.errors import InputError
from jaxvae.inference import queries
from jaxvae.inference.arguments import check_count
from jaxvae.models.distributions import full_precision_product
from jaxvae.models.trained import TrainedModel

DRAWS = 32_768
_MOST_PROBABILITIES = 2**23
_FEWEST = 512
_MOST_WEIGHTS = 2**24
_MOST_IN_MEMORY = 2**28


class Pool(NamedTuple):
    """Draws from the prior of one model, or of several in equal shares, as their probabilities.

    Attributes:
      log_present: `[V, S]`, log p(tag | z) of every draw.
      probabilities: `[S, V]`, p(tag | z).
    """

    log_present: jax.Array
    probabilities: jax.Array


class Likeliest(NamedTuple):
    """The likeliest other tags of some rows.

    Attributes:
      columns: `[N, top]`, likeliest first.
      probabilities: `[N, top]`, p(tag | the row's tags); -1 past the last tag that a row lacks.
      effective_draws: `[N]`, effective sample size of the row's weights (Kish 1965).
    """

    columns: np.ndarray
    probabilities: np.ndarray
    effective_draws: np.ndarray


def default_draws(num_tags: int) -> int:
    """Returns the draws of a pool, fewer for a wide vocabulary, so that no row takes longer."""
    return min(DRAWS, max(_FEWEST, _MOST_PROBABILITIES // num_tags))


def check_draws(draws: int, num_tags: int) -> None:
    """Raises InputError unless a pool of so many draws fits in memory."""
    check_count("draws", draws)
    limit = max(_FEWEST, _MOST_IN_MEMORY // num_tags)
    if draws > limit:
        raise InputError(f"draws {draws}: for {num_tags} tags at most {limit}, or memory runs out")


def draw_pool(networks: Sequence[TrainedModel], *, draws: int, seed: int) -> Pool:
    """Draws from the prior and decodes.

    Args:
      networks: the model; several form a mixture with equal weights, and each gives its share.
      draws: S, rounded up to a multiple of the models.
      seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    per_network = -(-draws // len(networks))
    logits = np.concatenate(
        [
            queries.logits(
                network,
                queries.draw_prior(network, per_network, seed=int(rng.integers(2**31))).astype(
                    np.float32
                ),
            )
            for network in networks
        ]
    )
    return Pool(jax.nn.log_sigmoid(jnp.asarray(logits.T)), jax.nn.sigmoid(jnp.asarray(logits)))


def likeliest_tags(pool: Pool, rows: np.ndarray, *, top: int) -> Likeliest:
    """Finds the likeliest tags of every row beside its own.

    Args:
      pool: draws from the prior.
      rows: `[N, K]` column numbers padded with V.
      top: number of tags, at most V.
    """
    num_tags, draws = pool.log_present.shape
    at_once = max(1, min(1024, _MOST_WEIGHTS // draws))
    blocks = []
    for block in _blocks(rows, at_once, fill=num_tags):
        blocks.append(_likeliest(pool, to_multi_hot(block, num_tags), top=top))
    columns, probabilities, effective = (
        np.concatenate(arrays)[: len(rows)] for arrays in zip(*jax.device_get(blocks), strict=True)
    )
    return Likeliest(columns, probabilities, effective)


def _blocks(rows: np.ndarray, size: int, *, fill: int) -> Iterator[np.ndarray]:
    """Yields blocks of equally many rows; the last one is padded with empty rows."""
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        yield np.pad(block, ((0, size - len(block)), (0, 0)), constant_values=fill)


@functools.partial(jax.jit, static_argnames="top")
def _likeliest(pool: Pool, present: jax.Array, *, top: int):
    log_weights = full_precision_product(present.astype(jnp.float32), pool.log_present)
    weights = jnp.exp(log_weights - jnp.max(log_weights, axis=1, keepdims=True))
    total = jnp.sum(weights, axis=1)
    marginals = full_precision_product(weights, pool.probabilities) / total[:, None]
    probabilities, columns = jax.lax.top_k(jnp.where(present, -1.0, marginals), top)
    return columns, probabilities, jnp.square(total) / jnp.sum(jnp.square(weights), axis=1)
