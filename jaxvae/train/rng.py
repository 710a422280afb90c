"""What is random in training and validation: batch order, dropout and noise.

All are pure functions of the run's root key and the epoch or step, so the state of the data
iterator is one integer, and a resumed run draws what an uninterrupted one does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.vae import dropout_mask

_ORDER, _NOISE, _EVAL, _BOUND = 0, 1, 2, 3  # streams of the root key


def epoch_permutation(
    key: jax.Array, epoch: jax.Array, *, num_rows: int, length: int, shuffle: bool
) -> jax.Array:
    """Row numbers of an epoch `[length]`: each once, then `num_rows`, the empty row.

    One sort by random words, where `jax.random.permutation` sorts two or three times so that no tie
    is left: two rows of equal words (none among thousands, one row in 400 of ten million) keep
    their order among themselves, wherever the two may come to lie.

    Args:
      key: the run's root key.
      epoch: number of the epoch, a scalar.
      num_rows: N.
      length: at least N.
      shuffle: whether the order is random, else rising.
    """
    order = jnp.arange(num_rows, dtype=jnp.int32)
    if shuffle:
        key = jax.random.fold_in(jax.random.fold_in(key, _ORDER), epoch)
        order = jax.lax.sort_key_val(jax.random.bits(key, (num_rows,)), order)[1]
    return jnp.pad(order, (0, length - num_rows), constant_values=num_rows)


def step_uniforms(key: jax.Array, steps: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The random numbers of some steps, uniform on (-1, 1).

    A step's are a function of the root key and its number alone, and a row's do not depend on how
    many rows follow it.

    Args:
      key: the run's root key.
      steps: `[S]`, numbers of the steps.
      shape: of one step's numbers.

    Returns:
      `[S, *shape]`.
    """
    key = jax.random.fold_in(key, _NOISE)
    least = np.nextafter(np.float32(-1.0), np.float32(0.0))

    def one(step: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, step), shape, minval=least, maxval=1.0)

    return jax.vmap(one)(steps)


class RandomLayout(NamedTuple):
    """How the random numbers of a row are used: their counts.

    Attributes:
      entries: K, one for each entry of a row.
      noise: D times L, for the draws of z.
      rates: 1 where every row has a dropout rate of its own, else 0.
      hidden: the hidden units with dropout, encoder's and decoder's together.
    """

    entries: int
    noise: int
    rates: int = 0
    hidden: int = 0


class StepRandomness(NamedTuple):
    """What a step draws for its rows.

    Attributes:
      values: `[..., B, K]`, what dropout makes of each entry.
      noise: `[..., B, D * L]`, standard normal.
      keep: `[..., B, hidden]`, what dropout multiplies hidden units with; None without.
    """

    values: jax.Array
    noise: jax.Array
    keep: jax.Array | None


def split_uniforms(
    uniforms: jax.Array, layout: RandomLayout, *, rate: jax.Array, hidden_rate: jax.Array
) -> StepRandomness:
    """Makes of random numbers `[..., B, sum(layout)]` on (-1, 1) what a step needs.

    Args:
      uniforms: one row's numbers side by side.
      layout: their use.
      rate: input dropout. Where rows have rates of their own, they are uniform from 0 to twice
        this, but under 0.95.
      hidden_rate: dropout of hidden units.
    """
    stops = np.cumsum(layout)
    entries, noise, rates, hidden = jnp.split(uniforms, stops[:-1], axis=-1)
    if layout.rates:
        rate = jnp.minimum(rate * (rates + 1.0), 0.95)
    values = dropout_mask(0.5 * (entries + 1.0), rate)
    keep = dropout_mask(0.5 * (hidden + 1.0), hidden_rate) if layout.hidden else None
    return StepRandomness(values, np.float32(2**0.5) * jax.lax.erf_inv(noise), keep)


def eval_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of an evaluation pass, the same in every pass of a run."""
    return jax.random.normal(jax.random.fold_in(key, _EVAL), shape)


def bound_noise(key: jax.Array, block: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise of a block of rows whose likelihood is bounded during training."""
    key = jax.random.fold_in(jax.random.fold_in(key, _BOUND), block)
    return jax.random.normal(key, shape)
