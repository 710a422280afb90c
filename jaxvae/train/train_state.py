"""What training carries from step to step, the numbers it is steered by, and the optimizer."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxvae.train.objectives import LossWeights


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


class Numbers(NamedTuple):
    """The numbers a user tunes, as scalars that compiled programs take as inputs.

    None of them is a constant of a program: overriding one never recompiles, and a population of
    runs is a `vmap` over them.
    """

    learning_rate: jax.Array
    b1: jax.Array
    b2: jax.Array
    weight_decay: jax.Array
    clip_norm: jax.Array
    warmup_steps: jax.Array
    decay_steps: jax.Array
    final_fraction: jax.Array
    dropout_p: jax.Array
    hidden_dropout_p: jax.Array
    average_decay: jax.Array
    kld_warmup_steps: jax.Array
    kld_cycles: jax.Array
    max_steps: jax.Array
    loss_weights: LossWeights


def make_numbers(
    *,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    lr_schedule: str = "constant",
    warmup_steps: int = 0,
    total_steps: int = 1,
    final_fraction: float = 0.0,
    dropout_p: float = 0.0,
    hidden_dropout_p: float = 0.0,
    average_decay: float = 0.0,
    bce_weight: float = 1.0,
    kld_weight: float = 1.0,
    kld_warmup_steps: float = 0.0,
    kld_cycles: float = 1.0,
    free_bits: float = 0.0,
    capacity: float = 0.0,
    max_steps: int = 0,
) -> Numbers:
    """Collects the tunable numbers of a run.

    Args:
      learning_rate: peak learning rate.
      betas: Adam's decay rates.
      weight_decay: coupled L2 coefficient, added to the gradient before Adam as torch does; or of
        the decoupled decay of kernels, where that is chosen.
      clip_norm: global gradient norm to clip at; 0 is off.
      lr_schedule: "constant" or "cosine" (from the end of warm-up to `total_steps`).
      warmup_steps: steps of linear warm-up from 0.
      total_steps: steps of the whole run, where the cosine ends.
      final_fraction: share of the peak that the cosine ends at.
      dropout_p: input dropout rate in [0, 1).
      hidden_dropout_p: dropout rate of the hidden layers.
      average_decay: decay a step of the average of the parameters.
      bce_weight: weight of the reconstruction term.
      kld_weight: weight of the KL term (beta), when its warm-up is over.
      kld_warmup_steps: steps of its warm-up.
      kld_cycles: cycles of a cyclical warm-up.
      free_bits: nats that each latent dimension has for nothing.
      capacity: nats that the rate is held at.
      max_steps: steps after which none is taken, in the middle of an epoch or not; 0: no end.
    """

    def number(value: float) -> jax.Array:
        return jnp.asarray(value, jnp.float32)

    return Numbers(
        learning_rate=number(learning_rate),
        b1=number(betas[0]),
        b2=number(betas[1]),
        weight_decay=number(weight_decay),
        clip_norm=number(clip_norm if clip_norm > 0 else jnp.inf),
        warmup_steps=number(warmup_steps),
        decay_steps=number(max(total_steps - warmup_steps, 1)),
        final_fraction=number(1.0 if lr_schedule == "constant" else final_fraction),
        dropout_p=number(dropout_p),
        hidden_dropout_p=number(hidden_dropout_p),
        average_decay=number(average_decay),
        kld_warmup_steps=number(kld_warmup_steps),
        kld_cycles=number(kld_cycles),
        max_steps=jnp.asarray(max_steps or np.iinfo(np.int32).max, jnp.int32),
        loss_weights=LossWeights(
            bce=number(bce_weight),
            kld=number(kld_weight),
            free_bits=number(free_bits),
            capacity=number(capacity),
        ),
    )


def learning_rate_at(numbers: Numbers, step: jax.Array) -> jax.Array:
    """The learning rate of a step: linear warm-up, then a cosine to the final fraction.

    optax's schedules want their lengths at trace time; these are traced (see `Numbers`).
    """
    done = step.astype(jnp.float32)
    warmup = jnp.minimum(1.0, (done + 1.0) / jnp.maximum(numbers.warmup_steps, 1.0))
    progress = jnp.clip((done - numbers.warmup_steps) / numbers.decay_steps, 0.0, 1.0)
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    decay = numbers.final_fraction + (1.0 - numbers.final_fraction) * cosine
    return numbers.learning_rate * warmup * decay


def _chain(
    numbers: Numbers, step: jax.Array, norm: jax.Array, decoupled: bool
) -> optax.GradientTransformation:
    """Clip, coupled L2, Adam: in this order the chain is torch's Adam(weight_decay) after clip.

    Decoupled, the decay comes after Adam and touches kernels alone (Loshchilov & Hutter 2019). The
    global norm is given, since the test for finiteness needs it too: optax's own clipping would
    read every gradient once more.
    """
    clipped = jnp.where(norm > numbers.clip_norm, numbers.clip_norm / norm, 1.0)
    adam = optax.scale_by_adam(b1=numbers.b1, b2=numbers.b2)
    if decoupled:
        middle = (adam, optax.add_decayed_weights(numbers.weight_decay, mask=_kernels))
    else:
        middle = (optax.add_decayed_weights(numbers.weight_decay), adam)
    return optax.chain(
        optax.scale(clipped),
        *middle,
        optax.scale_by_learning_rate(learning_rate_at(numbers, step)),
    )


def _kernels(params: dict) -> dict:
    return {layer: {name: name == "kernel" for name in arrays} for layer, arrays in params.items()}


def apply_gradients(
    state: TrainState,
    gradients: dict,
    *,
    batch_stats: dict,
    loss: jax.Array,
    numbers: Numbers,
    decoupled: bool = False,
    real: jax.typing.ArrayLike = True,
) -> TrainState:
    """One optimizer step, or none: a non-finite loss or gradient freezes the state for good.

    Args:
      state: the state before the step.
      gradients: gradients of the loss, shaped like `state.params`.
      batch_stats: running statistics after the step's forward pass.
      loss: the step's scalar loss.
      numbers: the tunable numbers.
      decoupled: whether weight decay stands apart from Adam.
      real: False for a step without rows, which is none.
    """
    norm = _global_norm(gradients)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    ok = finite & (state.bad_step < 0) & real

    def advance(state: TrainState) -> TrainState:
        # optax mixes dtypes inside; our own code is tested under strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = _chain(numbers, state.step, norm, decoupled).update(
                gradients, state.opt_state, state.params
            )
            params = optax.apply_updates(state.params, updates)
        return dataclasses.replace(
            state,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            step=state.step + 1,
            average=_average(state, params, numbers.average_decay),
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


def _average(state: TrainState, params: dict, decay: jax.Array) -> dict:
    """The moving average after a step; a young one forgets faster and is not held to its start."""
    if not state.average:
        return {}
    done = state.step.astype(jnp.float32)
    kept = jnp.minimum(decay, (1.0 + done) / (10.0 + done))
    return jax.tree.map(lambda old, new: kept * old + (1.0 - kept) * new, state.average, params)


def _global_norm(gradients: dict) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):
        return optax.tree.norm(gradients)


def make_initial(
    build: Callable[..., nnx.Module], *inputs, average: bool = False, decoupled: bool = False
) -> tuple[nnx.GraphDef, Callable[..., TrainState]]:
    """Splits a model once into its static graph and a function that makes fresh states of it.

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
            numbers, step = make_numbers(learning_rate=1.0), jnp.zeros((), jnp.int32)
            return _chain(numbers, step, jnp.ones(()), decoupled).init(params)

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


def create_state(
    build: Callable[..., nnx.Module],
    *inputs,
    seed: int,
    average: bool = False,
    decoupled: bool = False,
) -> tuple[nnx.GraphDef, TrainState]:
    """The static graph and one fresh state: see `make_initial`."""
    graphdef, initial = make_initial(build, *inputs, average=average, decoupled=decoupled)
    return graphdef, initial(seed, *inputs)


def best_of(state) -> dict:
    """What is judged, and kept at its best: the averaged parameters where there are any."""
    return {"params": state.average or state.params, "batch_stats": state.batch_stats}
