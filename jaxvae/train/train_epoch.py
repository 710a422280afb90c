"""Compiled programs: one call trains an epoch, one call evaluates a split.

The shuffle, the gather of rows, dropout, noise, the optimizer step and the metrics are inside; the
host gets sums back.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.evaluation import streaming_metrics
from jaxvae.runtime.sharding import Sharding
from jaxvae.train import objectives, rng
from jaxvae.train.forward import forward
from jaxvae.train.hyperparams import Hyperparams
from jaxvae.train.objectives import ELBO, Objective
from jaxvae.train.progress import steps_per_epoch
from jaxvae.train.train_state import TrainState, apply_gradients

_WASTE = 1 / 16
"""Share of an epoch that may be padding; beyond it the last batch is compiled at its own size."""
_DRAWN = 1 << 15
"""Random numbers that are drawn at a time, for as many steps as they last."""


def _last_batch(num_rows: int, batch_size: int, accumulate: int) -> int:
    """Rows of the last batch if it is to be compiled at its own size, else 0.

    At its own size it costs a second compilation of the step, and saves the work on its padding.
    The rows and their noise are the same either way.
    """
    rest = num_rows % batch_size
    padded = steps_per_epoch(num_rows, batch_size) * batch_size
    worth_it = accumulate == 1 and batch_size - rest > _WASTE * padded
    return rest if worth_it else 0


@functools.lru_cache(maxsize=8)
def make_train_epoch(
    graphdef: nnx.GraphDef,
    *,
    num_rows: int,
    num_tags: int,
    latent_dim: int,
    batch_size: int,
    split_rows: int | None = None,
    shuffle: bool = True,
    accumulate: int = 1,
    objective: Objective = ELBO,
    dropout_per_row: bool = False,
    hidden_dropout: int = 0,
    decoupled: bool = False,
    sharding: Sharding | None = None,
) -> Callable[[TrainState, Hyperparams, jax.Array], tuple[TrainState, streaming_metrics.Losses]]:
    """Builds the compiled training epoch, which is kept for equal arguments: runs share it.

    Args:
      graphdef: the model's static graph (see `train_state.create_train_state`).
      num_rows: N, rows of the epoch.
      num_tags: V.
      latent_dim: L.
      batch_size: rows of a forward pass, over all devices.
      split_rows: rows of the training split that an epoch's are drawn from; None: N.
      shuffle: whether the order is drawn anew each epoch.
      accumulate: batches whose gradients make one optimizer step; their sum is divided by their
        rows once, so 2 batches of 16 are one of 32 (batch norm sees 16).
      objective: what is minimised.
      dropout_per_row: whether each row has an input dropout rate of its own.
      hidden_dropout: H, all hidden units each way, where they have dropout, else 0.
      decoupled: whether weight decay stands apart from Adam.
      sharding: how arrays lie on several devices; None for one.

    Returns:
      A jitted function of (state, numbers, rows) to (state, sums of the losses). `rows` is
      `[N + 1, K]` or longer: the epoch's, and empty rows behind that padding points to. Steps that
      `hyperparams.max_steps` leaves no room for are not taken. The state is donated.
    """
    steps = steps_per_epoch(num_rows, batch_size, accumulate)
    loss_of = objectives.OBJECTIVES[objective.name]

    def batch_loss(params, batch_stats, columns, mask, drawn, count, weights):
        model = nnx.merge(graphdef, params, batch_stats)
        terms = forward(
            model,
            columns,
            objective=objective,
            noise=drawn.noise,
            mask=mask,
            values=drawn.values,
            keep=drawn.keep,
            train=True,
        )
        loss = loss_of(terms, weights, split_rows or num_rows)
        bce = jnp.mean(terms.reconstruction, axis=0)
        sums = streaming_metrics.Losses.from_batch(loss=loss, bce=bce, kld=terms.rate, mask=mask)
        batch_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return objectives.masked_mean(loss, mask, count), (batch_stats, sums)

    gradient = jax.value_and_grad(batch_loss, has_aux=True)

    def layout(rows: jax.Array) -> rng.RandomLayout:
        return rng.RandomLayout(
            entries=rows.shape[-1],
            noise=objective.num_draws * latent_dim,
            rates=int(dropout_per_row),
            hidden=2 * hidden_dropout,
        )

    def step(state: TrainState, hyperparams: Hyperparams, mask, count, columns, uniforms):
        """`[accumulate, B]`, `[]`, `[accumulate, B, K]`, `[accumulate, B, numbers a row]`."""
        drawn = rng.split_uniforms(
            uniforms,
            layout(columns),
            rate=hyperparams.dropout_p,
            hidden_rate=hyperparams.hidden_dropout_p,
        )
        share = objectives.kl_annealing(
            objective.schedule, state.step, hyperparams.kld_warmup_steps, hyperparams.kld_cycles
        )
        weights = objectives.anneal_weights(hyperparams.loss_weights, share, objective.name)

        def micro(batch_stats, inputs):
            columns, mask, drawn = inputs
            return gradient(state.params, batch_stats, columns, mask, drawn, count, weights)

        batches = (columns, mask, drawn)
        if accumulate == 1:
            first = jax.tree.map(lambda leaf: leaf[0], batches)
            (loss, (batch_stats, sums)), grads = micro(state.batch_stats, first)
        else:

            def add(carry, inputs):
                batch_stats, *totals = carry
                (loss, (batch_stats, sums)), grads = micro(batch_stats, inputs)
                totals = jax.tree.map(jnp.add, totals, [loss, sums, grads])
                return (batch_stats, *totals), None

            zeros = jax.tree.map(jnp.zeros_like, state.params)
            start = (state.batch_stats, jnp.zeros(()), streaming_metrics.Losses.empty(), zeros)
            (batch_stats, loss, sums, grads), _ = jax.lax.scan(add, start, batches)
        state = apply_gradients(
            state,
            grads,
            batch_stats=batch_stats,
            loss=loss,
            hyperparams=hyperparams,
            decoupled=decoupled,
            real=count > 0.0,
        )
        return (sharding.keep(state) if sharding else state), sums

    def inputs(rows: jax.Array, row_numbers: jax.Array, uniforms: jax.Array, taken: jax.Array):
        """What `step` takes, for S steps, where it is needed; those not `taken` have no rows."""
        if sharding is not None:
            behind = sharding.padded(row_numbers.shape[-1]) - row_numbers.shape[-1]
            row_numbers = _pad(row_numbers, -1, behind, num_rows)
            uniforms = sharding.split(_pad(uniforms, -2, behind, 0.0))
        columns = sharding.take(rows, row_numbers) if sharding else rows[row_numbers]
        mask = (row_numbers < num_rows) & taken[:, None, None]
        return mask, jnp.sum(mask.astype(jnp.float32), axis=(1, 2)), columns, uniforms

    last = _last_batch(num_rows, batch_size, accumulate)
    whole = steps - 1 if last else steps

    def train_epoch(state: TrainState, hyperparams: Hyperparams, rows: jax.Array):
        start, width = state.step, sum(layout(rows))
        in_whole = whole * accumulate * batch_size
        order = rng.epoch_permutation(
            state.key, start // steps, num_rows=num_rows, length=in_whole + last, shuffle=shuffle
        )
        batches = order[:in_whole].reshape(whole, accumulate, batch_size)

        def advance(carry, given):
            state, total = carry
            state, sums = step(state, hyperparams, *given)
            return state, total.merge(sums)

        # A generator's many small operations are a ninth of a small step, so they run for several
        # steps at once, and devices exchange rows as often. Both loops have an end that is known
        # when they are compiled, since a GPU has to ask the host about any other; what the last
        # turn has too many are steps without rows, which change nothing.
        shape = (accumulate, batch_size, width)
        most = max(1, _DRAWN // math.prod(shape))
        turns = -(-whole // most)
        together = -(-whole // turns) if whole else 0
        behind = [(0, turns * together - whole), (0, 0), (0, 0)]
        batches = jnp.pad(batches, behind, constant_values=num_rows)

        def some_steps(number, carry):
            at = number * together + jnp.arange(together)
            uniforms = rng.step_uniforms(state.key, start + at, shape)
            given = inputs(rows, batches[at], uniforms, start + at < hyperparams.max_steps)
            return jax.lax.fori_loop(
                0,
                together,
                lambda n, carry: advance(carry, jax.tree.map(lambda leaf: leaf[n], given)),
                carry,
            )

        carry = state, streaming_metrics.Losses.empty()
        if whole:
            carry = jax.lax.fori_loop(0, turns, some_steps, carry)
        if last:
            at = (start + whole)[None]
            uniforms = rng.step_uniforms(state.key, at, (1, last, width))
            in_last = order[in_whole:].reshape(1, 1, last)
            given = inputs(rows, in_last, uniforms, at < hyperparams.max_steps)
            carry = advance(carry, jax.tree.map(lambda leaf: leaf[0], given))
        state, total = carry
        return state, sharding.whole(total) if sharding else total

    return jax.jit(train_epoch, donate_argnums=0)


def _pad(array: jax.Array, axis: int, behind: int, value: float) -> jax.Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, behind)
    return jnp.pad(array, widths, constant_values=value)
