"""Batches of an epoch: its plan, the order of its rows, and the rows of each step.

An epoch has every row once. What is missing to whole batches are empty rows, which are masked.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvae.runtime.sharding import Sharding
from jaxvae.train.plan.progress import steps_per_epoch
from jaxvae.train.steps.rng import ORDER

_WASTE = 1 / 16
"""Share of an epoch that may be padding; beyond it the last batch may get its own program."""
_WORTH_COMPILING = 1 << 17
"""Padding rows times V beyond which it does: a run spends less on fewer than on compiling."""
_DRAWN = 1 << 15
"""Random numbers drawn at a time, for as many steps as they suffice."""


def _last_batch(*, num_rows: int, num_tags: int, batch_size: int, accumulate: int) -> int:
    """Rows of the last batch if it is to be compiled at its own size, else 0.

    At its own size it costs a second compilation of the step, and saves the work on its padding.
    The rows and their noise are the same either way.
    """
    remainder = num_rows % batch_size
    padded = steps_per_epoch(num_rows, batch_size) * batch_size
    padding = padded - num_rows
    worth_it = (
        accumulate == 1 and padding > _WASTE * padded and padding * num_tags > _WORTH_COMPILING
    )
    return remainder if worth_it else 0


class Batch(NamedTuple):
    """Rows of one optimizer step, as A micro-batches of B rows.

    Attributes:
      mask: `[A, B]`, which rows are real.
      num_rows: `[]` float32, how many rows are real.
      columns: `[A, B, K]` column numbers, padded with V.
      uniforms: `[A, B, W]` random numbers on (-1, 1), as `random_layout` uses them.
    """

    mask: jax.Array
    num_rows: jax.Array
    columns: jax.Array
    uniforms: jax.Array


class EpochPlan(NamedTuple):
    """The batches of an epoch.

    Attributes:
      num_rows: N, rows of the epoch.
      steps: optimizer steps.
      whole: steps whose batch has the full shape.
      in_whole: rows of these steps, padding included.
      last: rows of a last batch that is compiled at its own size, else 0.
      step_shape: (accumulate, batch size).
    """

    num_rows: int
    steps: int
    whole: int
    in_whole: int
    last: int
    step_shape: tuple[int, int]

    @classmethod
    def of(cls, *, num_rows: int, num_tags: int, batch_size: int, accumulate: int) -> "EpochPlan":
        """Plans an epoch of N rows, in steps of `accumulate` batches each."""
        steps = steps_per_epoch(num_rows, batch_size, accumulate)
        last = _last_batch(
            num_rows=num_rows, num_tags=num_tags, batch_size=batch_size, accumulate=accumulate
        )
        num_whole = steps - 1 if last else steps
        in_whole = num_whole * accumulate * batch_size
        return cls(num_rows, steps, num_whole, in_whole, last, (accumulate, batch_size))

    def chunks(self, width: int) -> tuple[int, int]:
        """Returns (steps of a chunk, number of chunks), for W random numbers per row.

        A chunk is the steps whose random numbers are drawn at a time.
        """
        max_steps = max(1, _DRAWN // math.prod((*self.step_shape, width)))
        num_chunks = -(-self.whole // max_steps)
        return -(-self.whole // num_chunks) if self.whole else 0, num_chunks


def epoch_permutation(
    key: jax.Array, epoch: jax.Array, *, num_rows: int, length: int, shuffle: bool
) -> jax.Array:
    """Row numbers of an epoch `[length]`: each once, then `num_rows`, the empty row.

    Sorts once by random words; `jax.random.permutation` sorts two or three times to leave no tie.
    Rows with equal words (none among thousands, one row in 400 of ten million) keep their relative
    order; the bias is negligible.

    Args:
      key: the run's root key.
      epoch: number of the epoch, a scalar.
      num_rows: N.
      length: at least N.
      shuffle: whether the order is random, else rising.
    """
    order = jnp.arange(num_rows, dtype=jnp.int32)
    if shuffle:
        key = jax.random.fold_in(jax.random.fold_in(key, ORDER), epoch)
        order = jax.lax.sort_key_val(jax.random.bits(key, (num_rows,)), order)[1]
    return jnp.pad(order, (0, length - num_rows), constant_values=num_rows)


def gather_batches(
    rows: jax.Array,
    row_numbers: jax.Array,
    uniforms: jax.Array,
    taken: jax.Array,
    num_rows: int,
    sharding: Sharding | None,
) -> Batch:
    """Gathers the batches of S steps, sharded over the devices.

    Args:
      rows: `[N + 1, K]` or longer, the epoch's rows and an empty one.
      row_numbers: `[S, A, B]`.
      uniforms: `[S, A, B, W]`.
      taken: `[S]`; a step that is not taken has no rows.
      num_rows: N.
      sharding: how arrays lie on several devices.
    """
    if sharding is not None:
        padding = sharding.padded(row_numbers.shape[-1]) - row_numbers.shape[-1]
        row_numbers = _pad(row_numbers, -1, padding, num_rows)
        uniforms = sharding.split(_pad(uniforms, -2, padding, 0.0))
    columns = sharding.take(rows, row_numbers) if sharding else rows[row_numbers]
    mask = (row_numbers < num_rows) & taken[:, None, None]
    return Batch(mask, jnp.sum(mask.astype(jnp.float32), axis=(1, 2)), columns, uniforms)


def _pad(array: jax.Array, axis: int, behind: int, value: float) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, behind)
    return jnp.pad(array, widths, constant_values=value)
