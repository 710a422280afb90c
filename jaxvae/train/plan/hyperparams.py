"""Derives step counts and hyperparameters from a config."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvae.config.monitor import Monitor
from jaxvae.errors import InputError
from jaxvae.train.objectives import LossWeights, as_named_tuple
from jaxvae.train.plan import progress
from jaxvae.train.plan.progress import RunPlan

_SECTIONS = {
    "model": "model",
    "loss": "loss",
    "trainer": "trainer",
    "optimizer": "trainer.optimizer",
    "lr_scheduler": "trainer.lr_scheduler",
}
"""Sections of a config whose numbers are tuned, by their names in `Hyperparams`."""
_LEAST: dict[str, dict[str, Any]] = {
    "model": {"dropout_p": 0.0, "hidden_dropout_p": 0.0},
    "loss": {"bce_weight": 1.0, "kld_weight": 1.0, "kld_cycles": 1.0},
    "trainer": {"gradient_clip_val": 0.0, "ema_decay": 0.0},
    "optimizer": {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0},
    "lr_scheduler": {"final_fraction": 1.0},
}
"""Numbers that every step takes, where a caller names none."""


class Lengths(NamedTuple):
    """Lengths of a run in optimizer steps; float32 scalars, the last one int32."""

    warmup: Any = 0.0
    """Of the learning rate's linear warm-up from 0."""
    decay: Any = 1.0
    """From its end to that of the cosine."""
    kld_warmup: Any = 0.0
    """Of the warm-up of the KL's weight."""
    most: Any = np.iinfo(np.int32).max
    """At which training ends, within an epoch too."""


class Hyperparams(NamedTuple):
    """The numbers a user tunes, as scalars that compiled programs take as inputs.

    None of them is a constant of a program: overriding one never recompiles, and a population of
    runs is a `vmap` over them. Each section of the config is a named tuple of its floats by their
    own names, those that are new among them: `hyperparams.optimizer.lr` is
    `--config.trainer.optimizer.lr`.
    """

    model: Any
    loss: LossWeights
    trainer: Any
    optimizer: Any
    lr_scheduler: Any
    lengths: Lengths


def make_hyperparams(lengths: Lengths | None = None, **sections: Mapping[str, Any]) -> Hyperparams:
    """Collects the tunable numbers of a run.

    Args:
      lengths: lengths in optimizer steps; None has no warm-up, and no end.
      **sections: numbers of some of the config's sections, by the names of `Hyperparams`; a
        `gradient_clip_val` of 0 clips nothing.
    """
    numbers = {name: {**least, **sections.get(name, {})} for name, least in _LEAST.items()}
    numbers["trainer"]["gradient_clip_val"] = numbers["trainer"]["gradient_clip_val"] or np.inf
    lengths = lengths or Lengths()
    return Hyperparams(
        **{
            name: as_named_tuple(name, jax.tree.map(_scalar, of_it))
            for name, of_it in numbers.items()
        },
        lengths=Lengths(
            warmup=_scalar(lengths.warmup),
            decay=_scalar(lengths.decay),
            kld_warmup=_scalar(lengths.kld_warmup),
            most=jnp.asarray(lengths.most, jnp.int32),
        ),
    )


def _scalar(value: float) -> jax.Array:
    return jnp.asarray(value, jnp.float32)


def tunable_numbers(config: ConfigDict) -> dict[str, dict[str, Any]]:
    """Returns the numbers of a config that compiled programs take as inputs, by section.

    Those are its floats, those that a user's own config file adds included, and of `loss` the
    integers too.
    """
    return {
        name: {
            field: value
            for field, value in config[section].items()
            if field in _LEAST[name] or _is_number(value, float | int if name == "loss" else float)
        }
        for name, section in _SECTIONS.items()
    }


def tunable_fields(config: ConfigDict) -> set[str]:
    """Returns the dotted names of `tunable_numbers`."""
    return {
        f"{_SECTIONS[name]}.{field}"
        for name, numbers in tunable_numbers(config).items()
        for field in numbers
    }


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


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
    numbers = tunable_numbers(config)
    numbers["optimizer"]["lr"] *= math.sqrt(growth)
    if trainer.lr_scheduler.name == "constant":
        numbers["lr_scheduler"]["final_fraction"] = 1.0
    lengths = Lengths(
        warmup=warmup_steps,
        decay=max(total_steps - warmup_steps, 1),
        kld_warmup=kld_warmup_steps,
        most=trainer.max_steps or Lengths().most,
    )
    return make_hyperparams(lengths, **numbers)
