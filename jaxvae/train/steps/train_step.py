"""One optimizer step: dropout and noise, forward pass, loss, gradients, update."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.evaluation.streaming_metrics import Losses
from jaxvae.runtime.sharding import Sharding
from jaxvae.train import objectives
from jaxvae.train.objectives import ELBO, LossWeights, Objective
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.steps import rng
from jaxvae.train.steps.batches import Batch
from jaxvae.train.steps.forward import forward
from jaxvae.train.train_state import TrainState, apply_gradients


class StepOptions(NamedTuple):
    """Static options of a training step: changing one recompiles.

    Attributes:
      graphdef: the model's static graph (see `train_state.create_train_state`).
      num_rows: N, rows of the training split.
      latent_dim: L.
      objective: what is minimised.
      dropout_per_row: whether each row has an input dropout rate of its own.
      hidden_dropout: H, all hidden units each way, where they have dropout, else 0.
      decoupled: whether weight decay stands apart from Adam.
      sharding: how arrays lie on several devices; None for one.
    """

    graphdef: nnx.GraphDef
    num_rows: int
    latent_dim: int
    objective: Objective = ELBO
    dropout_per_row: bool = False
    hidden_dropout: int = 0
    decoupled: bool = False
    sharding: Sharding | None = None


def random_layout(options: StepOptions, entries: int) -> rng.RandomLayout:
    """Returns the number of random values that a row of K entries needs in a step, by purpose.

    Args:
      options: the step's options.
      entries: K.
    """
    return rng.RandomLayout(
        entries=entries,
        noise=options.objective.num_draws * options.latent_dim,
        rates=int(options.dropout_per_row),
        hidden=2 * options.hidden_dropout,
    )


def train_step(
    state: TrainState, batch: Batch, hyperparams: Hyperparams, *, options: StepOptions
) -> tuple[TrainState, Losses]:
    """Takes one optimizer step; a batch without rows leaves the state unchanged.

    Gradients of the micro-batches are summed and divided by the rows of the whole step once, so two
    of 16 rows are one of 32 (batch norm sees 16).

    Args:
      state: the state before the step.
      batch: the step's rows and random numbers.
      hyperparams: the tunable numbers.
      options: the static ones.

    Returns:
      (the state after the step, sums of the losses over its rows).
    """
    randomness = rng.split_uniforms(
        batch.uniforms,
        random_layout(options, batch.columns.shape[-1]),
        rate=hyperparams.model.dropout_p,
        hidden_rate=hyperparams.model.hidden_dropout_p,
    )
    weights = _weights_at(state.step, hyperparams, options.objective)
    gradient = jax.value_and_grad(_batch_loss, has_aux=True)

    def micro_step(batch_stats: dict, inputs: tuple):
        columns, mask, randomness = inputs
        return gradient(
            state.params,
            batch_stats,
            columns,
            mask=mask,
            drawn=randomness,
            count=batch.num_rows,
            weights=weights,
            options=options,
        )

    micro_batches = (batch.columns, batch.mask, randomness)
    if len(batch.mask) == 1:
        first = jax.tree.map(lambda leaf: leaf[0], micro_batches)
        (loss, (batch_stats, sums)), grads = micro_step(state.batch_stats, first)
    else:

        def add(carry, inputs):
            batch_stats, *totals = carry
            (loss, (batch_stats, sums)), grads = micro_step(batch_stats, inputs)
            totals = jax.tree.map(jnp.add, totals, [loss, sums, grads])
            return (batch_stats, *totals), None

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        start = (state.batch_stats, jnp.zeros(()), Losses.empty(), zeros)
        (batch_stats, loss, sums, grads), _ = jax.lax.scan(add, start, micro_batches)
    state = apply_gradients(
        state,
        grads,
        batch_stats=batch_stats,
        loss=loss,
        hyperparams=hyperparams,
        decoupled=options.decoupled,
        real=batch.num_rows > 0.0,
    )
    return (options.sharding.keep(state) if options.sharding else state), sums


def _weights_at(step: jax.Array, hyperparams: Hyperparams, objective: Objective) -> LossWeights:
    """Returns the weights of the loss terms at a step, by the KL's annealing."""
    share = objectives.kl_annealing(
        objective.schedule, step, hyperparams.lengths.kld_warmup, hyperparams.loss.kld_cycles
    )
    return objectives.anneal_weights(hyperparams.loss, share, objective.name)


def _batch_loss(
    params: dict,
    batch_stats: dict,
    columns: jax.Array,
    *,
    mask: jax.Array,
    drawn: rng.StepRandomness,
    count: jax.Array,
    weights: LossWeights,
    options: StepOptions,
) -> tuple[jax.Array, tuple[dict, Losses]]:
    """Returns a micro-batch's share of the mean loss, and (running statistics, sums of losses)."""
    model = nnx.merge(options.graphdef, params, batch_stats)
    terms = forward(
        model,
        columns,
        objective=options.objective,
        noise=drawn.noise,
        mask=mask,
        values=drawn.values,
        keep=drawn.keep,
        train=True,
    )
    loss = options.objective.loss(terms, weights, options.num_rows)
    bce = jnp.mean(terms.reconstruction, axis=0)
    sums = Losses.from_batch(loss=loss, bce=bce, kld=terms.rate, mask=mask)
    batch_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
    return objectives.masked_mean(loss, mask, count), (batch_stats, sums)
