"""Builds the model of a config, and fresh states of it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxvae.config.extensions import Extension, is_reference
from jaxvae.data import encoding
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import transfer
from jaxvae.inference.load import load
from jaxvae.models.architecture import Architecture
from jaxvae.models.priors import Prior
from jaxvae.models.trained import UserClasses, model_arguments
from jaxvae.train.objectives import Objective
from jaxvae.train.train_state import TrainState, make_init_fn
from jaxvae.train.user_code import PACKAGES, UserCode, try_model


class ModelSetup(NamedTuple):
    """The model and its initialiser, shared by all runs with the same compiled program.

    Attributes:
      graphdef: the model's static graph.
      initial: makes a fresh state from (config, training rows `[N, K]`); the config may differ
        from the one that the model was built from in its numbers alone.
      state_shapes: the shapes and types of such a state's arrays.
      objective: what is minimised.
      user_code: what the config names of a user's own.
      user_classes: those classes that a trained model is rebuilt from.
      start: the trained model that `initial` starts from, if there is one.
    """

    graphdef: nnx.GraphDef
    initial: Callable[[ConfigDict, np.ndarray], TrainState]
    state_shapes: TrainState
    objective: Objective
    user_code: UserCode = PACKAGES
    user_classes: UserClasses | None = None
    start: transfer.Start | None = None


def build_model(
    config: ConfigDict,
    taxonomy: Taxonomy,
    num_rows: int,
    *,
    user_code: UserCode = PACKAGES,
    start: transfer.Start | None = None,
) -> ModelSetup:
    """Builds the model of a config and its initialiser.

    Args:
      config: every field of `configs/base.py`.
      taxonomy: what the columns mean.
      num_rows: N, training rows.
      user_code: what the config names of a user's own (`load_user_code`).
      start: the trained model to start from (`load_start`).
    """
    num_tags = taxonomy.num_tags
    try_model(user_code, config, num_tags=num_tags)
    prior = user_code.prior_class(config)
    inputs = _inputs(config, prior, num_tags, np.full((num_rows, 1), num_tags))
    graphdef, make = _make_init_inputs(
        user_code.architecture_class(config),
        num_tags=num_tags,
        prior=prior,
        **model_arguments(config.model),
        compute_dtype=jnp.bfloat16 if config.trainer.precision == "bf16" else jnp.float32,
        inputs=tuple((name, array.shape) for name, array in inputs.items()),
        average=config.trainer.ema_decay > 0.0,
        decoupled=config.trainer.optimizer.decoupled_weight_decay,
    )

    def initial(config: ConfigDict, rows: np.ndarray) -> TrainState:
        state = make(config.seed, _inputs(config, prior, num_tags, rows))
        return state if start is None else _start_from(start, state, rows)

    return ModelSetup(
        graphdef,
        initial,
        state_shapes=jax.eval_shape(functools.partial(make, config.seed), inputs),
        objective=objective_from_config(config, user_code.objective),
        user_code=user_code,
        user_classes=user_code.classes(config, num_tags),
        start=start,
    )


def load_start(config: ConfigDict, taxonomy: Taxonomy) -> transfer.Start | None:
    """Loads the trained model that a config starts from; None if it starts afresh.

    Raises:
      InputError: there is no such model, it has other sizes, or it shares no tag.
    """
    if not config.init_from:
        return None
    if is_reference(config.model.architecture):
        raise InputError(
            f"--config.init_from={config.init_from}: parameters are taken over between models of "
            f"the package's architecture, not --config.model.architecture="
            f"{config.model.architecture}"
        )
    source = load(config.init_from)
    if source.network.user_architecture:
        raise InputError(
            f"--config.init_from={config.init_from}: is of an architecture of its own, "
            f"{source.network.user_architecture}, whose parameters can't be taken over"
        )
    start = transfer.match_tags(source, taxonomy, source=config.init_from)
    transfer.check_sizes(start, config.model.to_dict())
    return start


def _start_from(start: transfer.Start, state: TrainState, rows: np.ndarray) -> TrainState:
    """Replaces a fresh state's parameters by those of a trained model."""
    num_tags = len(start.source_column)
    params, batch_stats = transfer.transfer_params(
        start,
        state.params,
        log_odds=_log_odds(rows, num_tags),
        rates=encoding.tag_counts(rows, num_tags) / len(rows),
    )
    params, batch_stats = jax.tree.map(jnp.array, (params, batch_stats))
    average = jax.tree.map(jnp.copy, params) if state.average else {}
    return dataclasses.replace(state, params=params, batch_stats=batch_stats, average=average)


@functools.lru_cache(maxsize=8)
def _make_init_inputs(
    architecture: type[Architecture],
    *,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    average: bool,
    decoupled: bool,
    **arguments,
) -> tuple[nnx.GraphDef, Callable[..., TrainState]]:
    """Compiles the initialiser of a model: see `make_init_fn`.

    Args:
      architecture: the model's class.
      inputs: names and shapes of the data-dependent initial values.
      average: whether an average of the parameters is kept.
      decoupled: whether weight decay stands apart from Adam.
      **arguments: arguments of the class.
    """

    def build(rngs: nnx.Rngs, inputs: dict[str, Any]) -> Architecture:
        return architecture(
            **arguments,
            pseudo_inputs=inputs.get("pseudo_inputs"),
            decoder_bias=inputs.get("log_odds"),
            rngs=rngs,
        )

    shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in inputs}
    return make_init_fn(build, shapes, average=average, decoupled=decoupled)


def _inputs(
    config: ConfigDict, prior: type[Prior], num_tags: int, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Data-dependent initial values: log-odds of the tags, and rows that the prior starts from."""
    inputs = {}
    if config.model.decoder_bias == "log_odds":
        inputs["log_odds"] = _log_odds(rows, num_tags)
    if prior.from_rows:
        order = np.random.default_rng(config.seed).permutation(len(rows))
        pseudo_rows = rows[np.resize(order, config.model.prior_components)]
        inputs["pseudo_inputs"] = encoding.to_multi_hot(pseudo_rows, num_tags).astype(np.float32)
    return inputs


def _log_odds(rows: np.ndarray, num_tags: int) -> np.ndarray:
    """Log-odds of every tag among rows, `[V]`, as if half a row more had it and half had not."""
    present = encoding.tag_counts(rows, num_tags) + 0.5
    return (np.log(present) - np.log(len(rows) + 1.0 - present)).astype(np.float32)


def objective_from_config(config: ConfigDict, extension: Extension | None = None) -> Objective:
    """Returns the objective of a config; `extension` has the user's own."""
    loss = config.loss
    return Objective(
        own=extension.function if extension else None,
        name=loss.objective,
        num_draws=loss.num_importance_samples if loss.objective == "iw" else 1,
        schedule=loss.kld_schedule,
        use_binary_cross_entropy=loss.use_binary_cross_entropy,
    )
