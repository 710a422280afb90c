"""From a config and its data to what trains: model, fresh states, compiled programs, numbers.

With `train`, the only room that sees a config object.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxvae import epoch, evaluate, loop
from jaxvae.dataset import Dataset
from jaxvae.hidden_layers import widths_of
from jaxvae.losses import Objective
from jaxvae.model import VAE
from jaxvae.progress import Plan
from jaxvae.sharding import Sharding
from jaxvae.state import Numbers, TrainState, make_initial, make_numbers
from jaxvae.taxonomy import Taxonomy


class Blueprint(NamedTuple):
    """What runs of one shape share: everything that is compiled.

    Attributes:
      graphdef: the model's static graph.
      initial: a fresh state from (config, training rows `[N, K]`); only the numbers of the config
        may differ from the one the blueprint was made of.
      objective: what is minimised.
    """

    graphdef: nnx.GraphDef
    initial: Callable[[ConfigDict, np.ndarray], TrainState]
    objective: Objective


def blueprint(config: ConfigDict, taxonomy: Taxonomy, num_rows: int) -> Blueprint:
    """The model of a config, and how its states are made.

    Args:
      config: every field of `configs/base.py`.
      taxonomy: what the columns mean.
      num_rows: N, training rows.
    """
    settings, num_tags = config.model, taxonomy.num_tags

    def build(rngs: nnx.Rngs, inputs: dict[str, Any]) -> VAE:
        return VAE(
            num_tags=num_tags,
            latent_dim=settings.latent_dim,
            hidden_dim=settings.hidden_dim,
            hidden_dims=settings.hidden_dims,
            use_batch_norm=settings.use_batch_norm,
            use_layer_norm=settings.use_layer_norm,
            tied_weights=settings.tied_weights,
            prior=settings.prior,
            num_components=settings.prior_components,
            pseudo_inputs=inputs.get("pseudo_inputs"),
            decoder_bias=inputs.get("log_odds"),
            compute_dtype=jnp.bfloat16 if config.trainer.precision == "bf16" else jnp.float32,
            rngs=rngs,
        )

    graphdef, make = make_initial(
        build,
        _inputs(config, num_tags, np.full((num_rows, 1), num_tags)),
        average=config.trainer.ema_decay > 0.0,
        decoupled=config.trainer.optimizer.decoupled_weight_decay,
    )

    def initial(config: ConfigDict, rows: np.ndarray) -> TrainState:
        return make(config.seed, _inputs(config, num_tags, rows))

    return Blueprint(graphdef, initial, objective_of(config))


def _inputs(config: ConfigDict, num_tags: int, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the rows say of a fresh model."""
    inputs = {}
    if config.model.decoder_bias == "log_odds":
        present = np.bincount(rows.ravel(), minlength=num_tags + 1)[:num_tags] + 0.5
        log_odds = np.log(present) - np.log(len(rows) + 1.0 - present)
        inputs["log_odds"] = log_odds.astype(np.float32)
    if config.model.prior == "vamp":
        drawn = np.random.default_rng(config.seed).permutation(len(rows))
        chosen = rows[np.resize(drawn, config.model.prior_components)]
        inputs["pseudo_inputs"] = evaluate.to_multi_hot(chosen, num_tags).astype(np.float32)
    return inputs


def objective_of(config: ConfigDict) -> Objective:
    """What a config says is minimised."""
    loss = config.loss
    return Objective(
        name=loss.objective,
        num_draws=loss.num_importance_samples if loss.objective == "iw" else 1,
        schedule=loss.kld_schedule,
        use_binary_cross_entropy=loss.use_binary_cross_entropy,
    )


def plan_of(config: ConfigDict) -> Plan:
    """How long a config's run is, and how often what happens in it."""
    trainer = config.trainer
    return Plan(
        max_epochs=trainer.max_epochs,
        warmup_epochs=_warmup_epochs(config),
        check_val_every_n_epoch=trainer.check_val_every_n_epoch,
        patience=trainer.early_stopping_patience,
        min_delta=trainer.early_stopping_min_delta,
        checkpoint_every_seconds=trainer.checkpoint_every_seconds,
    )


def _warmup_epochs(config: ConfigDict) -> float:
    """Epochs until the loss has its final weights; a number below 1 is a share of all."""
    warmup = config.loss.kld_warmup
    if config.loss.kld_schedule == "constant":
        return 0.0
    return warmup * config.trainer.max_epochs if warmup < 1.0 else warmup


def numbers_of(config: ConfigDict, *, num_rows: int, growth: int = 1) -> Numbers:
    """The numbers that a config's compiled programs are called with.

    Args:
      config: every field of `configs/base.py`.
      num_rows: N, training rows.
      growth: how many times `data.batch_size` a batch has.
    """
    trainer, loss = config.trainer, config.loss
    steps = epoch.steps_per_epoch(
        num_rows, config.data.batch_size * growth, trainer.accumulate_grad_batches
    )
    return make_numbers(
        learning_rate=trainer.optimizer.lr * math.sqrt(growth),
        betas=trainer.optimizer.betas,
        weight_decay=trainer.optimizer.weight_decay,
        clip_norm=trainer.gradient_clip_val,
        lr_schedule=trainer.lr_scheduler.name,
        warmup_steps=round(trainer.lr_scheduler.warmup_epochs * steps),
        total_steps=trainer.max_epochs * steps,
        final_fraction=trainer.lr_scheduler.final_fraction,
        dropout_p=config.model.dropout_p,
        hidden_dropout_p=config.model.hidden_dropout_p,
        average_decay=trainer.ema_decay,
        bce_weight=loss.bce_weight,
        kld_weight=loss.kld_weight,
        kld_warmup_steps=_warmup_epochs(config) * steps,
        kld_cycles=loss.kld_cycles,
        free_bits=loss.free_bits,
        capacity=loss.capacity,
    )


def train_epoch_of(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    *,
    num_rows: int,
    num_tags: int,
    batch_size: int,
    sharding: Sharding | None = None,
) -> Callable:
    """The training epoch of a config: see `epoch.make_train_epoch`."""
    hidden = sum(widths_of(config.model.hidden_dim, config.model.hidden_dims))
    return epoch.make_train_epoch(
        graphdef,
        num_rows=num_rows,
        num_tags=num_tags,
        latent_dim=config.model.latent_dim,
        batch_size=batch_size,
        shuffle=config.data.shuffle,
        accumulate=config.trainer.accumulate_grad_batches,
        objective=objective_of(config),
        dropout_per_row=config.model.dropout_per_row,
        hidden_dropout=hidden if config.model.hidden_dropout_p else 0,
        decoupled=config.trainer.optimizer.decoupled_weight_decay,
        sharding=sharding,
    )


def validation_of(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    *,
    num_rows: int,
    num_tags: int,
    sharding: Sharding | None = None,
) -> Callable:
    """The pass over the validation split: see `epoch.make_eval_pass`."""
    return epoch.make_eval_pass(
        graphdef,
        num_rows=num_rows,
        num_tags=num_tags,
        latent_dim=config.model.latent_dim,
        batch_size=epoch.eval_batch_size(num_rows, num_tags),
        objective=objective_of(config),
        sharding=sharding,
    )


def programs_of(
    config: ConfigDict,
    graphdef: nnx.GraphDef,
    taxonomy: Taxonomy,
    dataset: Dataset,
    sharding: Sharding,
) -> loop.Programs:
    """The compiled programs of one run, on a mesh, with the rows placed."""
    growth = sharding.mesh.shape["data"] if config.trainer.scale_batch_with_devices else 1
    train, val = (dataset.rows[dataset.splits[name]] for name in ("train", "val"))
    num_tags = taxonomy.num_tags
    # A program for one device need not know of the others.
    several = sharding if sharding.mesh.size > 1 else None
    return loop.Programs(
        train_epoch=train_epoch_of(
            config,
            graphdef,
            num_rows=len(train),
            num_tags=num_tags,
            batch_size=config.data.batch_size * growth,
            sharding=several,
        ),
        validate=validation_of(
            config, graphdef, num_rows=len(val), num_tags=num_tags, sharding=several
        ),
        numbers=numbers_of(config, num_rows=len(train), growth=growth),
        train_rows=sharding.place_rows(train, num_tags=num_tags),
        val_rows=sharding.place_rows(val, num_tags=num_tags),
        labelled_rows=val[: evaluate.SILHOUETTE_ROWS],
        steps=epoch.steps_per_epoch(
            len(train), config.data.batch_size * growth, config.trainer.accumulate_grad_batches
        ),
        # One process writes what it has, wherever it lies.
        gather=sharding.gather if not sharding.is_here else lambda tree: tree,
    )
