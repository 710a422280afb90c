"""Checks that a command goes on with the very run of a folder: its settings, code and rows."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.config.extensions import Extension
from jaxvae.data.dataset import Dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.storage import atomic_files, epoch_metrics, manifest, run_dir, run_files

RESUMABLE_FIELDS = (
    "model_name",
    "data.hub_streaming",
    "data.max_unreadable_fraction",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.checkpoint_every_seconds",
    "trainer.callbacks",
    "inference",
    "logger",
)
"""Fields that a resumed run may change: none of them affects training."""


def check_same_settings(folder: Path, fields: dict[str, Any]) -> None:
    """Checks that a config may resume the run of a folder.

    Args:
      folder: the run's folder; a folder without `config.json` is new.
      fields: the config as {dotted name: JSON-able value}.

    Raises:
      InputError: a field differs; the message names every such field, with both values.
    """
    path = folder / run_files.CONFIG
    if not path.exists():
        if any((folder / run_files.CHECKPOINTS).glob("*/" + manifest.NAME)):
            raise InputError(
                f"{folder} has checkpoints but no config.json, so whether they are this config's "
                f"can't be told; put it back, or give another --workdir"
            )
        return
    recorded = recorded_fields(folder)
    may_change = list(RESUMABLE_FIELDS)
    old_epochs = run_dir.read_resolved(folder).get("trainer.max_epochs") or recorded.get(
        "trainer.max_epochs"
    )
    new_epochs = fields["trainer.max_epochs"]
    if not fields["trainer.scale_batch_with_devices"]:
        may_change += ["trainer.devices", "trainer.mesh"]  # without effect on results
    if _can_be_extended(fields) and isinstance(old_epochs, int) and new_epochs >= old_epochs:
        may_change.append("trainer.max_epochs")
    changed = [
        f"{name} (was {recorded.get(name)}, now {fields.get(name)})"
        for name in sorted({*recorded, *fields})
        if recorded.get(name) != fields.get(name)
        and not any(name == free or name.startswith(free + ".") for free in may_change)
    ]
    if changed:
        follows = any(
            schema.follows_data(name, fields[name])
            and not schema.follows_data(name, recorded.get(name))
            for name in schema.FOLLOWS_DATA
        )
        former = (
            "; if it was begun with configs/best.py before that followed the data, resume with "
            "--config=configs/best_0.py"
        )
        raise InputError(
            f"{folder} holds a run with other settings: {', '.join(changed)}; "
            f"give them as they were to resume, or another --workdir{former if follows else ''}"
        )


def can_resume(folder: Path) -> bool:
    """Returns whether a folder's run has epochs behind it, and a checkpoint to go on from."""
    saved = any((folder / run_files.CHECKPOINTS).glob("*/" + manifest.NAME))
    return saved and epoch_metrics.has_epochs(folder)


def check_same_start(folder: Path, record: dict[str, Any]) -> None:
    """Raises InputError if a run that begins again would start from other parameters."""
    path = folder / run_files.INIT_FROM
    if path.exists() and atomic_files.read_json(path).get("parameters") != record["parameters"]:
        raise InputError(
            f"{folder} has no checkpoint yet and would begin again, but {record['source']} is not "
            f"the model that it began with; restore that, or give another --workdir"
        )


def check_same_extension(folder: Path, extension: Extension) -> None:
    """Checks that a run was trained with this content of a user's file.

    Raises:
      InputError: the folder's run has a copy of another content.
    """
    copies = folder / run_files.EXTENSIONS
    begun = (folder / run_files.CONFIG).exists() and epoch_metrics.has_epochs(folder)
    if begun and not (copies / extension.copy_name).exists():
        own = ", ".join(sorted(path.name for path in copies.glob("*"))) or "nothing"
        raise InputError(
            f"{folder} holds a run with another content of {extension.path.name} (its extensions/ "
            f"has {own}); restore the file, remove it to go on with the run's copy, or give "
            f"another --workdir"
        )


def recorded_fields(folder: Path) -> dict[str, Any]:
    """Returns the settings of a folder's run; fields added since then have their defaults.

    The run did as those defaults say: a new field is off by default.
    """
    base = parsing.load_config(str(parsing.find_file("configs/base.py")))
    recorded = atomic_files.read_json(folder / run_files.CONFIG)
    return dict(schema.flatten(json.loads(base.to_json()))) | dict(schema.flatten(recorded))


def keep_values_of_older_run(
    folder: Path, config: ConfigDict, *, typed: Collection[str]
) -> list[str]:
    """Sets fields added after a run was created to the run's values, unless the user set them.

    Args:
      folder: the run's folder; a folder without `config.json` is new, and changes nothing.
      config: every field; changed in place.
      typed: dotted names of the fields that the user set.

    Returns:
      A line for each field that was changed, because a preset has another value.
    """
    if not (folder / run_files.CONFIG).exists():
        return []
    written = dict(schema.flatten(atomic_files.read_json(folder / run_files.CONFIG)))
    recorded = recorded_fields(folder)
    lines = []
    for name, value in schema.flatten(json.loads(config.to_json())):
        if name in written or name in typed or recorded.get(name, value) == value:
            continue
        with config.unlocked():
            config.update_from_flattened_dict({name: recorded[name]})
        lines.append(
            f"the run is older than --config.{name} and goes on as it began; from now on give "
            f"--config.{name}={recorded[name]}"
        )
    return lines


EXECUTION_FIELDS = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.mesh",
    "trainer.enable_progress_bar",
    "trainer.checkpoint_every_seconds",
    "trainer.callbacks",
)
"""Execution options that do not affect the results of a finished run."""


def is_finished_run_of(folder: Path, fields: dict[str, Any]) -> bool:
    """Returns whether a folder holds a finished run of these very settings.

    Args:
      folder: the run's folder.
      fields: the config as {dotted name: JSON-able value}.
    """
    if not manifest.is_sealed(folder):
        return False
    recorded = recorded_fields(folder)
    return all(
        recorded.get(name) == fields.get(name)
        for name in {*recorded, *fields}
        if not any(name == free or name.startswith(free + ".") for free in EXECUTION_FIELDS)
    )


def finished_message(folder: Path, fields: dict[str, Any]) -> str:
    """Returns the message that a run is finished, and how to continue."""
    more = (
        "give more --config.trainer.max_epochs to go on, or "
        if _can_be_extended(fields)
        else "give "
    )
    return (
        f"{folder} is finished and whole, and left as it is; {more}another --workdir for a new run"
    )


def _can_be_extended(fields: dict[str, Any]) -> bool:
    """Returns whether raising `max_epochs` leaves past epochs unchanged.

    No schedule may depend on the run's length, and neither `max_steps` nor `max_minutes` may end
    it: they would allow no more epochs, and may have cut the last one short.
    """
    share = fields["loss.kld_schedule"] != "constant" and fields["loss.kld_warmup"] < 1.0
    constant = fields["trainer.lr_scheduler.name"] == "constant"
    limited = fields["trainer.max_steps"] or fields["trainer.max_minutes"]
    return constant and not share and not limited


def check_same_data(folder: Path, taxonomy: Taxonomy, dataset: Dataset) -> None:
    """Raises InputError if the taxonomy or the rows are not those of the folder's run."""
    path = folder / run_files.DATA_REPORT
    if not (folder / run_files.CONFIG).exists():
        return  # a new run has no data yet
    taxonomy_path = folder / run_files.TAXONOMY
    difference = _tag_difference(Taxonomy.load(taxonomy_path).tags, taxonomy.tags)
    if difference:
        raise InputError(
            f"{folder} holds a run with another taxonomy: {difference}; restore the one in "
            f"{taxonomy_path}, or give another --workdir"
        )
    fingerprint = str(atomic_files.read_json(path).get("fingerprint"))
    if fingerprint != dataset.fingerprint:
        raise InputError(
            f"{folder} holds a run on other rows (fingerprint {fingerprint[:12]}, now "
            f"{dataset.fingerprint[:12]}); restore the data, or give another --workdir"
        )


def _tag_difference(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """Describes the difference between two lists of tags, "" if they are the same."""
    if before == now:
        return ""
    changes = []
    for what, tags in (("added", set(now) - set(before)), ("missing", set(before) - set(now))):
        if tags:
            listed = ", ".join(map(repr, sorted(tags)[:3]))
            more = f" and {len(tags) - 3} more" if len(tags) > 3 else ""
            changes.append(f"{what} {listed}{more}")
    if not changes:
        column = next(
            i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1]
        )
        changes.append(
            f"the same tags in another order, from column {column} ({before[column]!r} was there)"
        )
    return "; ".join(changes)
