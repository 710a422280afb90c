"""Validates the values of a config's fields, each by itself and in combination."""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config.extensions import is_reference
from jaxvae.config.monitor import check_monitor
from jaxvae.config.schema import FOLLOWS_DATA, flatten, follows_data
from jaxvae.errors import InputError, did_you_mean
from jaxvae.models.layer_names import MAX_HIDDEN_LAYERS, is_valid_hidden_dims


def _at_least(low):
    return lambda value: value >= low, f"must be at least {low}"


def _from_to(low, high):
    return lambda value: low <= value <= high, f"must be at least {low} and at most {high:,}"


def _positive():
    return lambda value: value > 0, "must be above 0"


def _one_of(*choices):
    listed = ", ".join(repr(choice) for choice in choices)
    return lambda value: value in choices, f"must be one of {listed}"


def _between(low, high, text):
    return lambda value: low <= value < high, text


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _between(0, 2**32, "must be between 0 and 4294967295"),
    "model_name": (
        lambda value: bool(_NAME.fullmatch(value)),
        "must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
    ),
    "model.latent_dim": _from_to(1, 2**16),
    "model.hidden_dim": _from_to(1, 2**20),
    "model.hidden_dims": (
        is_valid_hidden_dims,
        f"must be up to {MAX_HIDDEN_LAYERS} whole numbers from 1 to 1,048,576, such as 256,128, "
        "or ()",
    ),
    "model.dropout_p": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "model.hidden_dropout_p": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "model.decoder_bias": _one_of("random", "log_odds"),
    "model.prior_components": _from_to(1, 2**20),
    "data.min_tag_rows": _at_least(1),
    "data.min_weight": _at_least(0.0),
    "data.max_unreadable_fraction": (
        lambda value: 0.0 <= value <= 1.0,
        "must be at least 0 and at most 1",
    ),
    "data.val_fraction": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "data.test_fraction": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "data.split_by": _one_of("row", "set"),
    "data.split_seed": _between(0, 2**32, "must be between 0 and 4294967295"),
    "data.batch_size": _from_to(1, 2**24),
    "data.rows_per_epoch": _from_to(0, 2**31 - 2),
    "loss.bce_weight": _at_least(0.0),
    "loss.kld_weight": _at_least(0.0),
    "loss.kld_warmup": _at_least(0.0),
    "loss.kld_cycles": _at_least(1),
    "loss.free_bits": _at_least(0.0),
    "loss.capacity": _at_least(0.0),
    "loss.num_importance_samples": _from_to(1, 10_000),
    "trainer.max_epochs": _from_to(1, 10**9),
    "trainer.max_minutes": _at_least(0.0),
    "trainer.max_steps": _from_to(0, 2**31 - 2),
    "trainer.accelerator": _one_of("auto", "cpu", "gpu", "tpu"),
    "trainer.devices": (
        lambda value: value == -1 or value >= 1,
        "must be at least 1, or -1 for all devices",
    ),
    "trainer.mesh.data": (
        lambda value: value == -1 or value >= 1,
        "must be at least 1, or -1 for as many as mesh.model leaves",
    ),
    "trainer.mesh.model": _at_least(1),
    "trainer.precision": _one_of("32", "bf16"),
    "trainer.gradient_clip_val": _at_least(0.0),
    "trainer.accumulate_grad_batches": _from_to(1, 2**20),
    "trainer.check_val_every_n_epoch": _at_least(1),
    "trainer.optimizer.lr": _positive(),
    "trainer.optimizer.betas": (
        lambda value: (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(beta, int | float) and 0.0 <= beta < 1.0 for beta in value)
        ),
        "must be two numbers at least 0 and below 1, such as 0.9,0.999",
    ),
    "trainer.optimizer.weight_decay": _at_least(0.0),
    "trainer.lr_scheduler.name": _one_of("constant", "cosine"),
    "trainer.lr_scheduler.warmup_epochs": _at_least(0.0),
    "trainer.lr_scheduler.final_fraction": (
        lambda value: 0.0 <= value <= 1.0,
        "must be between 0 and 1",
    ),
    "trainer.ema_decay": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "trainer.early_stopping_patience": _at_least(0),
    "trainer.early_stopping_min_delta": _at_least(0.0),
    "trainer.checkpoint_every_seconds": _at_least(0.0),
    "trainer.callbacks": (
        lambda value: isinstance(value, tuple) and all(map(is_reference, value)),
        "must be files and names in them, such as my_callbacks.py:gap, or () for none",
    ),
    "logger.project": (
        lambda value: bool(_NAME.fullmatch(value)),
        "must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
    ),
    "inference.num_samples": _from_to(1, 10**7),
    "inference.temperature": _positive(),
    "inference.decode": _one_of("bernoulli", "threshold"),
    "inference.threshold": (lambda value: 0.0 < value < 1.0, "must be above 0 and below 1"),
    "inference.seed": _between(0, 2**32, "must be between 0 and 4294967295"),
}
USER_CODE = {
    "loss.objective": "my_losses.py:name",
    "model.prior": "my_priors.py:Name",
    "model.architecture": "my_models.py:Name",
}
"""Fields that a user's own code may be chosen in, each with an example."""
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")

Choices = Mapping[str, Collection[str]]
"""The names that each field may choose from."""


def _holds(holds: Callable[[Any], bool], value: Any) -> bool:
    try:
        return holds(value)
    except TypeError:  # A config made in Python may hold values of any type.
        return False


def check(config: ConfigDict, values: dict[str, Any], choices: Choices) -> None:
    """Checks a config.

    Args:
      config: every field of `configs/base.py`.
      values: the same fields by dotted name.
      choices: the names that fields may choose from.

    Raises:
      InputError: a value is invalid; the message has the field, the value and the valid range.
    """
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str | tuple | list | None):
            raise InputError(
                f"--config.{name}={value}: must be a number, a text or a tuple of them, not "
                f"{type(value).__name__}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--config.{name}={value}: must be a finite number")
        holds, text = RANGES.get(name, (None, ""))
        if name == "trainer.precision" and value == "16":
            raise InputError(
                "--config.trainer.precision=16: float16 would need loss scaling; use bf16 or 32"
            )
        if holds is None or _holds(holds, value) or follows_data(name, value):
            continue
        if name in FOLLOWS_DATA:
            text += f", or {FOLLOWS_DATA[name]} to follow the data"
        raise InputError(f"--config.{name}={value}: {text}")
    for name, options in choices.items():
        _check_choice(name, values[name], options)
    if config.data.val_fraction + config.data.test_fraction >= 1.0:
        raise InputError(
            f"--config.data.val_fraction={config.data.val_fraction} and --config.data."
            f"test_fraction={config.data.test_fraction} leave no rows to train on"
        )
    warmup, epochs = config.trainer.lr_scheduler.warmup_epochs, config.trainer.max_epochs
    if epochs and warmup >= epochs:
        raise InputError(
            f"--config.trainer.lr_scheduler.warmup_epochs={warmup}: warm-up would never end "
            f"within --config.trainer.max_epochs={epochs}"
        )
    _validate_objective(config)
    check_monitor(values)
    names = config.logger.name
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"--config.logger.name={names}: must be names such as tensorboard, or () for none"
        )
    if repeated := [name for name in TRACKERS if names.count(name) > 1]:
        raise InputError(f"--config.logger.name: {repeated[0]!r} is given twice")
    for tracker in names:
        if tracker not in TRACKERS:
            raise InputError(
                f"--config.logger.name: no tracker {tracker!r}"
                f"{did_you_mean(tracker, TRACKERS)}; known: {', '.join(TRACKERS)}, or () for none"
            )


def _check_choice(name: str, value: Any, options: Collection[str]) -> None:
    """Raises InputError unless a value is an option, or a user's own code where that may be."""
    if value in options or (name in USER_CODE and is_reference(value)):
        return
    if follows_data(name, value):
        return
    example = f", {FOLLOWS_DATA[name]!r} to follow the data" if name in FOLLOWS_DATA else ""
    example += f", or of your own, {USER_CODE[name]}" if name in USER_CODE else ""
    listed = ", ".join(map(repr, options))
    raise InputError(f"--config.{name}={value}: must be one of {listed}{example}")


def _validate_objective(config: ConfigDict) -> None:
    loss, epochs = config.loss, config.trainer.max_epochs or math.inf
    if loss.objective == "iw" and not loss.use_binary_cross_entropy:
        raise InputError(
            "--config.loss.objective=iw bounds a likelihood, and "
            "--config.loss.use_binary_cross_entropy=False has none"
        )
    if loss.objective == "iw" and loss.num_importance_samples < 2:
        raise InputError(
            f"--config.loss.num_importance_samples={loss.num_importance_samples}: with one draw "
            f"objective=iw is objective=elbo; take at least 2"
        )
    if loss.kld_schedule == "constant" and loss.kld_warmup:
        raise InputError(
            f"--config.loss.kld_warmup={loss.kld_warmup} does nothing with --config.loss."
            f"kld_schedule=constant; take linear, cosine or cyclical"
        )
    if loss.kld_schedule != "constant" and not 0.0 < loss.kld_warmup < epochs:
        raise InputError(
            f"--config.loss.kld_warmup={loss.kld_warmup}: --config.loss.kld_schedule="
            f"{loss.kld_schedule} needs epochs of warm-up, fewer than --config.trainer.max_epochs="
            f"{epochs}, or a share of them below 1.0"
        )


def validate(config: ConfigDict, choices: Choices) -> None:
    """Checks every value's range, and the combinations of values.

    Args:
      config: every field of `configs/base.py`.
      choices: the names that fields may choose from.

    Raises:
      InputError: a value is invalid; the message has the field, the value and the valid range.
    """
    check(config, dict(flatten(config)), choices)
