"""Random numbers of training and validation: dropout and noise.

All are pure functions of the run's root key and the epoch or step, so the state of the data
iterator is one integer, and a resumed run draws what an uninterrupted one does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.layers import dropout_mask

ORDER, _NOISE, _EVAL, _BOUND = 0, 1, 2, 3  # streams of the root key


def step_uniforms(key: jax.Array, steps: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws the random numbers of some steps, uniform on (-1, 1).

    Those of a step are a function of the root key and the step alone, and those of a row do not
    depend on how many rows follow it.

    Args:
      key: the run's root key.
      steps: `[S]`, numbers of the steps.
      shape: the shape of one step's random numbers.

    Returns:
      `[S, *shape]`.
    """
    key = jax.random.fold_in(key, _NOISE)
    least = np.nextafter(np.float32(-1.0), np.float32(0.0))

    def one(step: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, step), shape, minval=least, maxval=1.0)

    return jax.vmap(one)(steps)


class RandomLayout(NamedTuple):
    """Number of random values a row needs, by purpose.

    Attributes:
      entries: K, one for each entry of a row.
      noise: D times L, for the draws of z.
      rates: 1 if each row has its own dropout rate, else 0.
      hidden: hidden units with dropout, of encoder and decoder together.
    """

    entries: int
    noise: int
    rates: int = 0
    hidden: int = 0


class StepRandomness(NamedTuple):
    """Dropout masks and noise of a step's rows.

    Attributes:
      values: `[..., B, K]`, input weights after dropout (0 or 1 / (1 - p)).
      noise: `[..., B, D * L]`, standard normal.
      keep: `[..., B, hidden]`, dropout masks of the hidden units; None without dropout.
    """

    values: jax.Array
    noise: jax.Array
    keep: jax.Array | None


def split_uniforms(
    uniforms: jax.Array, layout: RandomLayout, *, rate: jax.Array, hidden_rate: jax.Array
) -> StepRandomness:
    """Turns random numbers `[..., B, sum(layout)]` on (-1, 1) into dropout masks and noise.

    Args:
      uniforms: the random numbers, those of a row along the last axis.
      layout: how many of them serve each purpose.
      rate: input dropout rate. Rates of single rows are uniform from 0 to twice this, but under
        0.95.
      hidden_rate: dropout rate of hidden units.
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
