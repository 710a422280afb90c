"""The fields of a config: their names, the replacements of retired ones, and their help."""

import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

RETIRED = {
    "model.input_dim": "the width follows from the taxonomy: --config.data.taxonomy_path=FILE",
    "model.beta": "one number weighs the KL term: --config.loss.kld_weight=4.0",
    "model.name": "there is one architecture; name the export with --config.model_name=NAME",
    "data.dataloader_num_workers": "rows live on the device and need no workers; leave it out",
    "trainer.strategy": "use --config.trainer.devices=-1 or the preset trainer=distributed",
    "trainer.log_every_n_steps": "metrics are sums over each whole epoch; leave it out",
    "trainer.val_check_interval": "use --config.trainer.check_val_every_n_epoch=N",
    "trainer.enable_model_summary": "the parameter table is always printed; leave it out",
    "device": "use --config.trainer.accelerator=cpu|gpu|tpu",
    "random_state": "use --config.seed=N, and --config.data.split_seed=N for the splits",
    "save_model": "the model is always exported; leave it out",
    "paths": "use --workdir=FOLDER",
    "run_id": "use --workdir=FOLDER",
}


FOLLOWS_DATA: dict[str, int | float | str] = {
    "model.latent_dim": 0,
    "model.hidden_dim": 0,
    "model.dropout_p": -1.0,
    "model.prior_components": 0,
    "data.batch_size": 0,
    "loss.objective": "auto",
    "trainer.optimizer.weight_decay": -1.0,
    "trainer.max_epochs": 0,
}
"""Fields that can follow the data, each with the value that asks for it."""


def follows_data(name: str, value: Any) -> bool:
    """Tests whether a field, by its dotted name, has the value that asks to follow the data."""
    return name in FOLLOWS_DATA and not isinstance(value, bool) and value == FOLLOWS_DATA[name]


def flatten(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of a config as (dotted name, value)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def field_help(source: str, config: ConfigDict) -> str:
    """Formats the table of fields for `--help`, with the comments of `configs/base.py`.

    Args:
      source: the text of the base config file.
      config: the config whose values are shown as defaults.
    """
    comments = dict(re.findall(r"^\s*c\.([\w.]+) = .*?  # (.*)$", source, flags=re.MULTILINE))
    lines = []
    for name, value in flatten(config):
        default = value if isinstance(value, str) and value else repr(value)
        lines.append(f"  --config.{name}={default}\n      {comments.get(name, '')}".rstrip())
    return "\n".join(lines)
