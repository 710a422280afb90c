"""Derives step counts and hyperparameters from a config."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvae.config.monitor import Monitor
from jaxvae.errors import InputError
from jaxvae.train.objectives import LossWeights, make_loss_weights
from jaxvae.train.plan import progress
from jaxvae.train.plan.progress import RunPlan

_LOSS = {"bce_weight": 1.0, "kld_weight": 1.0, "kld_cycles": 1.0}
"""Numbers that every loss has, where a caller names none."""


class Hyperparams(NamedTuple):
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
    ema_decay: jax.Array
    kld_warmup_steps: jax.Array
    max_steps: jax.Array
    loss: LossWeights


def make_hyperparams(
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
    ema_decay: float = 0.0,
    kld_warmup_steps: float = 0.0,
    max_steps: int = 0,
    **loss: float,
) -> Hyperparams:
    """Collects the tunable numbers of a run.

    Args:
      learning_rate: peak learning rate.
      betas: Adam's decay rates.
      weight_decay: coupled L2 coefficient, added to the gradient before Adam as torch does; or the
        coefficient of the decoupled decay of kernels, where that is chosen.
      clip_norm: global gradient norm to clip at; 0 is off.
      lr_schedule: "constant" or "cosine" (from the end of warm-up to `total_steps`).
      warmup_steps: steps of linear warm-up from 0.
      total_steps: steps of the whole run, where the cosine ends.
      final_fraction: share of the peak that the cosine ends at.
      dropout_p: input dropout rate in [0, 1).
      hidden_dropout_p: dropout rate of the hidden layers.
      ema_decay: decay per step of the parameters' moving average.
      kld_warmup_steps: steps of the warm-up of the KL's weight.
      max_steps: maximum number of optimizer steps, which may end an epoch early; 0: unlimited.
      **loss: numbers of the config's `loss`, by their fields' names.
    """

    def number(value: float) -> jax.Array:
        return jnp.asarray(value, jnp.float32)

    return Hyperparams(
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
        ema_decay=number(ema_decay),
        kld_warmup_steps=number(kld_warmup_steps),
        max_steps=jnp.asarray(max_steps or np.iinfo(np.int32).max, jnp.int32),
        loss=make_loss_weights({name: number(value) for name, value in (_LOSS | loss).items()}),
    )


def steps_per_epoch_from_config(config: ConfigDict, *, num_rows: int, growth: int = 1) -> int:
    """Optimizer steps of a config's epoch.

    Args:
      config: every field of `configs/base.py`.
      num_rows: N, training rows.
      growth: the batch size as a multiple of `data.batch_size`.
    """
    return progress.steps_per_epoch(
        config.data.rows_per_epoch or num_rows,
        config.data.batch_size * growth,
        config.trainer.accumulate_grad_batches,
    )


def run_plan_from_config(config: ConfigDict, *, steps: int) -> RunPlan:
    """Returns the plan of a config's run: its length, and how often it validates and saves.

    Args:
      config: every field of `configs/base.py`.
      steps: optimizer steps of an epoch.
    """
    trainer, total = config.trainer, _total_steps(config, steps)
    return RunPlan(
        max_epochs=-(-total // steps),
        max_steps=trainer.max_steps,
        warmup_epochs=_warmup_steps(config, steps) / steps,
        check_val_every_n_epoch=trainer.check_val_every_n_epoch,
        patience=trainer.early_stopping_patience,
        min_delta=trainer.early_stopping_min_delta,
        checkpoint_every_seconds=trainer.checkpoint_every_seconds,
        monitor=Monitor(trainer.monitor, trainer.monitor_mode),
    )


def _total_steps(config: ConfigDict, steps: int) -> int:
    """Optimizer steps of the whole run."""
    total = config.trainer.max_epochs * steps
    return min(total, config.trainer.max_steps) if config.trainer.max_steps else total


def _warmup_steps(config: ConfigDict, steps: int) -> float:
    """Steps until the loss has its final weights; a `kld_warmup` below 1 is a share of the run."""
    warmup = config.loss.kld_warmup
    if config.loss.kld_schedule == "constant":
        return 0.0
    return warmup * (_total_steps(config, steps) if warmup < 1.0 else steps)


def loss_numbers(config: ConfigDict) -> dict[str, float]:
    """Returns the numbers of a config's `loss`, those that a user's config file adds included."""
    return {
        name: value
        for name, value in config.loss.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def hyperparams_from_config(config: ConfigDict, *, steps: int, growth: int = 1) -> Hyperparams:
    """Returns the hyperparameters of a config, which its compiled programs take as inputs.

    Args:
      config: every field of `configs/base.py`.
      steps: optimizer steps of an epoch.
      growth: the batch size as a multiple of `data.batch_size`.

    Raises:
      InputError: `trainer.max_steps` ends the run before a warm-up ends.
    """
    trainer = config.trainer
    total_steps = _total_steps(config, steps)
    warmup_steps = round(trainer.lr_scheduler.warmup_epochs * steps)
    kld_warmup_steps = _warmup_steps(config, steps)
    for field, length in (
        ("trainer.lr_scheduler.warmup_epochs", warmup_steps),
        ("loss.kld_warmup", kld_warmup_steps),
    ):
        # The config was validated against `max_epochs` before steps per epoch were known.
        if trainer.max_steps and length >= total_steps:
            raise InputError(
                f"--config.{field}: a warm-up of {length:,.0f} steps would never end within "
                f"--config.trainer.max_steps={trainer.max_steps}"
            )
    return make_hyperparams(
        learning_rate=trainer.optimizer.lr * math.sqrt(growth),
        betas=trainer.optimizer.betas,
        weight_decay=trainer.optimizer.weight_decay,
        clip_norm=trainer.gradient_clip_val,
        lr_schedule=trainer.lr_scheduler.name,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        final_fraction=trainer.lr_scheduler.final_fraction,
        dropout_p=config.model.dropout_p,
        hidden_dropout_p=config.model.hidden_dropout_p,
        ema_decay=trainer.ema_decay,
        kld_warmup_steps=kld_warmup_steps,
        max_steps=trainer.max_steps,
        **loss_numbers(config),
    )
