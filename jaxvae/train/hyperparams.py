"""From a config: how long a run is, in steps and epochs, and the numbers it is steered by."""

import math

from ml_collections import ConfigDict

from jaxvae.config.monitor import Monitor
from jaxvae.errors import InputError
from jaxvae.train import train_epoch
from jaxvae.train.progress import Plan
from jaxvae.train.train_state import Numbers, make_numbers


def steps_of(config: ConfigDict, *, num_rows: int, growth: int = 1) -> int:
    """Optimizer steps of a config's epoch.

    Args:
      config: every field of `configs/base.py`.
      num_rows: N, training rows.
      growth: how many times `data.batch_size` a batch has.
    """
    return train_epoch.steps_per_epoch(
        config.data.rows_per_epoch or num_rows,
        config.data.batch_size * growth,
        config.trainer.accumulate_grad_batches,
    )


def plan_of(config: ConfigDict, *, steps: int) -> Plan:
    """How long a config's run is, and how often what happens in it.

    Args:
      config: every field of `configs/base.py`.
      steps: of an epoch.
    """
    trainer, total = config.trainer, _total_steps(config, steps)
    return Plan(
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
    """Steps until the loss has its final weights; a warm-up below 1 is a share of all."""
    warmup = config.loss.kld_warmup
    if config.loss.kld_schedule == "constant":
        return 0.0
    return warmup * (_total_steps(config, steps) if warmup < 1.0 else steps)


def numbers_of(config: ConfigDict, *, steps: int, growth: int = 1) -> Numbers:
    """The numbers that a config's compiled programs are called with.

    Args:
      config: every field of `configs/base.py`.
      steps: of an epoch.
      growth: how many times `data.batch_size` a batch has.

    Raises:
      InputError: `trainer.max_steps` ends the run before a warm-up ends.
    """
    trainer, loss = config.trainer, config.loss
    total_steps = _total_steps(config, steps)
    warmup_steps = round(trainer.lr_scheduler.warmup_epochs * steps)
    kld_warmup_steps = _warmup_steps(config, steps)
    for field, length in (
        ("trainer.lr_scheduler.warmup_epochs", warmup_steps),
        ("loss.kld_warmup", kld_warmup_steps),
    ):
        # Against the epochs it was checked before there were any steps.
        if trainer.max_steps and length >= total_steps:
            raise InputError(
                f"--config.{field}: a warm-up of {length:,.0f} steps would never end within "
                f"--config.trainer.max_steps={trainer.max_steps}"
            )
    return make_numbers(
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
        average_decay=trainer.ema_decay,
        bce_weight=loss.bce_weight,
        kld_weight=loss.kld_weight,
        kld_warmup_steps=kld_warmup_steps,
        kld_cycles=loss.kld_cycles,
        free_bits=loss.free_bits,
        capacity=loss.capacity,
        max_steps=trainer.max_steps,
    )
