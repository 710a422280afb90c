"""Fills in the fields of a config that follow the data: sizes, dropout, batch and epochs.

The values are a function of the training rows alone, never of the machine, so that the same data
gives the same model everywhere. How the numbers were found: docs/quality.md.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxvae.config import schema
from jaxvae.data.dataset import Dataset
from jaxvae.data.encoding import tag_counts
from jaxvae.storage import run_dir, run_files


class DataSize(NamedTuple):
    """What the rule looks at.

    Attributes:
      rows: N, training rows.
      tags: V, columns.
      tags_per_row: mean number of tags of a training row.
    """

    rows: int
    tags: int
    tags_per_row: float


MANY_ROWS = 15_000
"""Training rows from which the importance-weighted bound is worth its draws."""
WIDE_TAGS = 1000
"""Tags above which a vocabulary is wide: most of its tags are rare, and each step is dear."""
_MOST_WEIGHTS = 2**22

SMALL = DataSize(rows=1000, tags=100, tags_per_row=4.0)
"""Some data, for what has to be tried before the rows are read."""


def measure(dataset: Dataset) -> DataSize:
    """Measures a data set's training rows."""
    rows, tags = dataset.rows[dataset.splits["train"]], dataset.taxonomy.num_tags
    return DataSize(len(rows), tags, float(tag_counts(rows, tags).sum()) / max(len(rows), 1))


def rule(size: DataSize) -> dict[str, Any]:
    """Returns the value of every field that can follow the data, by its dotted name.

    Width grows with the rows: what a wide model learns by heart of a few thousand is structure in
    tens of thousands. Few rows want more epochs, for their steps, and weight decay. Many are worth
    the draws of the importance-weighted bound, with more dropout, since it fits faster; beyond
    20,000 dropout and epochs shrink, so that a run's time grows more slowly than its rows. A wide
    vocabulary is learned by heart before the bound is worth its draws, so it has none, half of the
    epochs and more dropout; its width shrinks with its tags, as a step's time is their product.

    Args:
      size: of the training rows.
    """
    rows = max(size.rows, 1)
    width = _power_of_two(rows / 14.0, low=128, high=1024)
    width = max(128, min(width, 2 ** int(math.log2(_MOST_WEIGHTS / max(size.tags, 1)))))
    many, wide = rows >= MANY_ROWS, size.tags > WIDE_TAGS
    if many:
        dropout_p = 0.3 if wide else 0.2 * min(1.0, (20_000 / rows) ** 2)
        epochs = (40 if wide else 80) * min(1.0, (20_000 / rows) ** 0.7)
    else:
        dropout_p = 0.1
        epochs = min(320.0, max(80.0, 80 * math.sqrt(8_000 / rows)))
    return {
        "model.hidden_dim": width,
        "model.latent_dim": 32 if width <= 256 else 64,
        "model.prior_components": min(500, max(50, rows // 4)),
        "model.dropout_p": round(dropout_p, 3),
        "data.batch_size": min(512, max(128, width // 2)),
        "loss.objective": "iw" if many and not wide else "elbo",
        "trainer.optimizer.weight_decay": round(min(1.0, (750 / rows) ** 1.5), 4),
        "trainer.max_epochs": max(1, round(epochs)),
    }


def _power_of_two(value: float, *, low: int, high: int) -> int:
    """Returns the power of two nearest to a value, by ratio, from `low` to `high`."""
    return min(high, max(low, 2 ** round(math.log2(max(value, 1.0)))))


def following(config: ConfigDict) -> list[str]:
    """Returns the dotted names of the fields of a config that follow the data."""
    values = dict(schema.flatten(config))
    return [name for name in schema.FOLLOWS_DATA if schema.follows_data(name, values[name])]


def resolve(
    config: ConfigDict, measured: Callable[[], DataSize], *, start: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the values of the fields that follow the data, {} where none does.

    Args:
      config: every field of `configs/base.py`.
      measured: returns the size of the training rows; asked only if a field follows them.
      start: sizes of the model that training starts from, by the names of `model`, if there is one.
    """
    names = following(config)
    if not names:
        return {}
    values = rule(measured())
    if not config.loss.use_binary_cross_entropy:  # a squared error is no likelihood to bound
        values["loss.objective"] = "elbo"
    values |= {f"model.{name}": value for name, value in (start or {}).items()}
    return {name: values[name] for name in names}


def recorded(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Returns the values that a folder's run resolved before; those stay, whatever the rule says.

    With a budget of minutes its number of epochs is among them, once that is settled. A folder
    without `config.json` has no run.

    Raises:
      InputError: `resolved.json` is damaged.
    """
    if not (folder / run_files.CONFIG).exists():
        return {}
    saved = run_dir.read_resolved(folder)
    names = {*following(config), *(["trainer.max_epochs"] if config.trainer.max_minutes else [])}
    return {name: value for name, value in saved.items() if name in names}


def fill_in(config: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    """Returns a copy of a config with the resolved values in place; without any, the config."""
    if not values:
        return config
    filled = config.copy_and_resolve_references()
    with filled.unlocked():
        filled.update_from_flattened_dict(values)
    return filled.lock()


def describe(values: dict[str, Any], size: DataSize) -> str:
    """Formats the resolved values as a line for the user."""
    listed = ", ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
    return (
        f"Following the data ({size.rows:,} training rows, {size.tags:,} tags, "
        f"{size.tags_per_row:.1f} a row): {listed}"
    )
