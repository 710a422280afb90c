"""Configs of equal shape share a compiled program: which fields are part of it, and which can't be.

Takes config objects.
"""

import json

from ml_collections import ConfigDict

from jaxvae.config import schema
from jaxvae.errors import InputError
from jaxvae.train.plan import hyperparams

TRACED_FIELDS = (
    *("seed", "model_name", "model.decoder_bias", "trainer.max_epochs", "trainer.max_steps"),
    *("trainer.lr_scheduler", "trainer.check_val_every_n_epoch", "trainer.enable_progress_bar"),
    *("trainer.early_stopping_patience", "inference", "logger"),
)
"""Fields that members of one program may differ in, beside the numbers that are tuned."""
_ON_OR_OFF = ("model.hidden_dropout_p", "trainer.ema_decay")
"""Fields that may differ, too, but whether they are 0 is part of the shape."""


def program_key(config: ConfigDict) -> str:
    """Returns the shape of a config; configs of equal shape share a compiled program."""
    tunable = hyperparams.tunable_fields(config) - {*_ON_OR_OFF}
    tunable -= {"loss.num_importance_samples"}  # a number of draws is a size of arrays
    fields = {
        name: bool(value) if name in _ON_OR_OFF else value
        for name, value in schema.flatten(config)
        if name not in tunable
        and not any(name == field or name.startswith(field + ".") for field in TRACED_FIELDS)
    }
    return json.dumps(fields, sort_keys=True)


def check_sweepable(config: ConfigDict) -> None:
    """Raises InputError for a field that only a run by itself can have."""
    values = dict(schema.flatten(config))
    shared = "here devices share the models, not a batch or a layer"
    for field, neutral, why in (
        ("trainer.scale_batch_with_devices", False, shared),
        ("trainer.mesh.model", 1, shared),
        ("trainer.max_minutes", 0.0, "here several models train in one program, at one speed"),
        ("trainer.callbacks", (), "a callback follows a run that trains by itself"),
        ("data.rows_per_epoch", 0, "here all models train on the same rows at the same time"),
    ):
        if values[field] != neutral:
            raise InputError(f"--config.{field}={values[field]}: {why}; leave it out")
