"""The train state: its arrays, its update by gradients, its initialisation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxvae.train.optimizer import global_norm, make_optimizer
from jaxvae.train.plan.hyperparams import Hyperparams, make_hyperparams


@flax.struct.dataclass
class TrainState:
    """Everything a resumed run needs: a pytree of plain nested dictionaries and arrays.

    Attributes:
      params: `{layer: {"kernel" | "bias" | "scale": array}}`.
      batch_stats: running statistics of batch norm, `{}` without it.
      opt_state: the optimizer's state.
      step: optimizer steps taken, int32.
      key: the run's root PRNG key; every random number is a pure function of it and the step.
      bad_step: the first step whose loss or gradient was not finite, -1 while there is none.
        From there on the state is frozen.
      average: the exponential moving average of `params`, `{}` where none is kept.
    """

    params: dict
    batch_stats: dict
    opt_state: Any
    step: jax.Array
    key: jax.Array
    bad_step: jax.Array
    average: dict


def apply_gradients(
    state: TrainState,
    gradients: dict,
    *,
    batch_stats: dict,
    loss: jax.Array,
    hyperparams: Hyperparams,
    decoupled: bool = False,
    real: jax.typing.ArrayLike = True,
) -> TrainState:
    """Takes one optimizer step; a non-finite loss or gradient freezes the state for good instead.

    Args:
      state: the state before the step.
      gradients: gradients of the loss, shaped like `state.params`.
      batch_stats: running statistics after the step's forward pass.
      loss: the step's scalar loss.
      hyperparams: the tunable numbers.
      decoupled: whether weight decay stands apart from Adam.
      real: whether the batch has any rows; if not, the state is returned unchanged.
    """
    norm = global_norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    ok = finite & (state.bad_step < 0) & real

    def advance(state: TrainState) -> TrainState:
        # optax mixes dtypes inside; our own code is tested under strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = make_optimizer(hyperparams, state.step, norm, decoupled).update(
                gradients, state.opt_state, state.params
            )
            params = optax.apply_updates(state.params, updates)
        return dataclasses.replace(
            state,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            step=state.step + 1,
            average=_update_ema(state, params, hyperparams.trainer.ema_decay),
        )

    def branch(state: TrainState) -> TrainState:
        return jax.lax.cond(ok, advance, lambda state: state, state)

    def select(state: TrainState) -> TrainState:
        return jax.tree.map(lambda new, old: jnp.where(ok, new, old), advance(state), state)

    is_bad = (state.bad_step < 0) & ~finite & real
    bad_step = jnp.where(is_bad, state.step, state.bad_step)
    # On a CPU the select would cost an eighth of a step; elsewhere it costs nothing, and a branch
    # waits until the host has seen which way to go.
    state = jax.lax.platform_dependent(state, cpu=branch, default=select)
    return dataclasses.replace(state, bad_step=bad_step)


def _update_ema(state: TrainState, params: dict, decay: jax.Array) -> dict:
    """Updates the EMA with a warm-up: the effective decay is min(decay, (1 + t) / (10 + t))."""
    if not state.average:
        return {}
    steps_taken = state.step.astype(jnp.float32)
    effective = jnp.minimum(decay, (1.0 + steps_taken) / (10.0 + steps_taken))
    return jax.tree.map(
        lambda old, new: effective * old + (1.0 - effective) * new, state.average, params
    )


def make_init_fn(
    build: Callable[..., nnx.Module], *inputs, average: bool = False, decoupled: bool = False
) -> tuple[nnx.GraphDef, Callable[..., TrainState]]:
    """Splits a model into its static graph and an initialiser of its state.

    Args:
      build: makes the initialised module from (rngs, *inputs); traced, so that it is one compiled
        program for every seed.
      *inputs: pytrees of arrays with the shapes that `build` will be given.
      average: whether an average of the parameters is kept.
      decoupled: whether weight decay stands apart from Adam.

    Returns:
      (graphdef, function of (seed, *inputs) to the state); `nnx.merge(graphdef, state.params,
      state.batch_stats)` is the model, and the seed's key is also the state's root key (batch
      order, dropout, posterior samples).
    """

    def make(seed: jax.Array, *inputs) -> nnx.Module:
        return build(nnx.Rngs(jax.random.key(seed)), *inputs)

    def arrays(seed: jax.Array, *inputs) -> tuple[dict, dict]:
        model = make(seed, *inputs)
        params, batch_stats = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)

    def moments(params: dict) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            # The state's structure does not depend on the numbers, so any will do here.
            hyperparams, step = make_hyperparams(), jnp.zeros((), jnp.int32)
            return make_optimizer(hyperparams, step, jnp.ones(()), decoupled).init(params)

    # Two programs: the first one's working memory is free before the second's results are made.
    arrays_of, moments_of = jax.jit(arrays), jax.jit(moments)

    def initial(seed: int, *inputs) -> TrainState:
        params, batch_stats = arrays_of(np.uint32(seed), *inputs)
        return TrainState(
            params=params,
            batch_stats=batch_stats,
            opt_state=moments_of(params),
            step=jnp.zeros((), jnp.int32),
            key=jax.random.key(seed),
            bad_step=jnp.full((), -1, jnp.int32),
            average=jax.tree.map(jnp.copy, params) if average else {},
        )

    return nnx.graphdef(nnx.eval_shape(make, np.uint32(0), *inputs)), initial


def create_train_state(
    build: Callable[..., nnx.Module],
    *inputs,
    seed: int,
    average: bool = False,
    decoupled: bool = False,
) -> tuple[nnx.GraphDef, TrainState]:
    """Returns the static graph and one fresh state: see `make_init_fn`."""
    graphdef, initial = make_init_fn(build, *inputs, average=average, decoupled=decoupled)
    return graphdef, initial(seed, *inputs)


def eval_params(state) -> dict:
    """Returns the variables used for evaluation: EMA parameters if kept, else the raw ones."""
    return {"params": state.average or state.params, "batch_stats": state.batch_stats}
