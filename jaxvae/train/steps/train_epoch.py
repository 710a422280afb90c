"""A whole epoch of training as one compiled call: shuffle, gather, step by step.

The call returns sums of the losses to the host.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.evaluation import streaming_metrics
from jaxvae.runtime.sharding import Sharding
from jaxvae.train.objectives import ELBO, Objective
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.steps import rng
from jaxvae.train.steps.batches import Batch, EpochPlan, epoch_permutation, gather_batches
from jaxvae.train.steps.train_step import StepOptions, random_layout, train_step
from jaxvae.train.train_state import TrainState


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
    """Builds the compiled training epoch, cached by its arguments, so that runs share it.

    Args:
      graphdef: the model's static graph (see `train_state.create_train_state`).
      num_rows: N, rows of the epoch.
      num_tags: V.
      latent_dim: L.
      batch_size: rows of a forward pass, over all devices.
      split_rows: rows of the training split that an epoch draws its rows from; None: N.
      shuffle: whether the order is drawn anew each epoch.
      accumulate: batches whose gradients make one optimizer step; their sum is divided by their
        rows once, so 2 batches of 16 are one of 32 (batch norm sees 16).
      objective: what is minimised.
      dropout_per_row: whether each row has an input dropout rate of its own.
      hidden_dropout: H, all hidden units each way, where they have dropout, else 0.
      decoupled: whether weight decay stands apart from Adam.
      sharding: how arrays lie on several devices; None for one.

    Returns:
      A jitted function of (state, hyperparams, rows) to (state, sums of the losses). `rows` is
      `[N + 1, K]` or longer: the epoch's rows, followed by at least one empty row used as padding.
      Steps beyond `hyperparams.lengths.most` are skipped. The state is donated.
    """
    options = StepOptions(
        graphdef=graphdef,
        num_rows=split_rows or num_rows,
        latent_dim=latent_dim,
        objective=objective,
        dropout_per_row=dropout_per_row,
        hidden_dropout=hidden_dropout,
        decoupled=decoupled,
        sharding=sharding,
    )
    plan = EpochPlan.of(
        num_rows=num_rows, num_tags=num_tags, batch_size=batch_size, accumulate=accumulate
    )

    def train_epoch(state: TrainState, hyperparams: Hyperparams, rows: jax.Array):
        return _run_epoch(state, hyperparams, rows, options=options, plan=plan, shuffle=shuffle)

    return jax.jit(train_epoch, donate_argnums=0)


def _run_epoch(
    state: TrainState,
    hyperparams: Hyperparams,
    rows: jax.Array,
    *,
    options: StepOptions,
    plan: EpochPlan,
    shuffle: bool,
) -> tuple[TrainState, streaming_metrics.Losses]:
    """Shuffles the rows and takes one step for each batch of them."""
    width = sum(random_layout(options, rows.shape[-1]))
    start = state.step
    order = epoch_permutation(
        state.key,
        start // plan.steps,
        num_rows=plan.num_rows,
        length=plan.in_whole + plan.last,
        shuffle=shuffle,
    )

    def draw_batches(steps: jax.Array, row_numbers: jax.Array) -> Batch:
        """Returns the batches of some steps, `[S, A, B, ...]`, empty beyond `max_steps`."""
        uniforms = rng.step_uniforms(state.key, steps, (*row_numbers.shape[1:], width))
        is_step = steps < hyperparams.lengths.most
        return gather_batches(rows, row_numbers, uniforms, is_step, plan.num_rows, options.sharding)

    def advance(number: jax.Array | int, carry: tuple, batches: Batch) -> tuple:
        state, total = carry
        batch = jax.tree.map(lambda leaf: leaf[number], batches)
        state, sums = train_step(state, batch, hyperparams, options=options)
        return state, total.merge(sums)

    # The random generator's many small operations take a ninth of a small step, so numbers are
    # drawn, and rows exchanged between devices, for several steps at once. Both loops have a
    # length that is known at compile time, since a GPU has to ask the host about any other. The
    # last chunk is padded with empty steps, which leave the state unchanged.
    chunk_steps, num_chunks = plan.chunks(width)
    batches = order[: plan.in_whole].reshape(plan.whole, *plan.step_shape)
    padding = [(0, num_chunks * chunk_steps - plan.whole), (0, 0), (0, 0)]
    batches = jnp.pad(batches, padding, constant_values=plan.num_rows)

    def train_chunk(number: jax.Array, carry: tuple) -> tuple:
        offsets = number * chunk_steps + jnp.arange(chunk_steps)
        chunk = draw_batches(start + offsets, batches[offsets])
        return jax.lax.fori_loop(0, chunk_steps, lambda n, carry: advance(n, carry, chunk), carry)

    carry = state, streaming_metrics.Losses.empty()
    if plan.whole:
        carry = jax.lax.fori_loop(0, num_chunks, train_chunk, carry)
    if plan.last:
        last_step = (start + plan.whole)[None]
        last_batch = draw_batches(last_step, order[plan.in_whole :].reshape(1, 1, plan.last))
        carry = advance(0, carry, last_batch)
    state, total = carry
    return state, options.sharding.whole(total) if options.sharding else total
