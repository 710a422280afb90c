"""A run's folder: how it was made, and whether a command may go on in it."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.data.dataset import Dataset
from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.models.layer_names import is_valid_hidden_dims
from jaxvae.storage import atomic_files, environment, manifest
from jaxvae.storage.saved_rows import write_rows

RESUMABLE_FIELDS = (
    "model_name",
    "data.hub_streaming",
    "data.max_unreadable_fraction",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.checkpoint_every_seconds",
    "inference",
    "logger",
)
"""Fields a resumed run may change: none of them changes what is trained."""


def check_is_run(path: Path) -> None:
    """Raises InputError unless a path is a folder that holds a run, saying what it is instead."""
    if (path / "config.json").is_file():
        return
    if within := sorted(each.parent for each in path.glob("*/config.json")):
        raise InputError(f"{path}: holds {len(within)} runs; name one of them, such as {within[0]}")
    if path.is_dir():
        raise InputError(f"{path}: not a run's folder (it has no config.json)")
    what = "it is a file" if path.exists() else "nothing is there"
    raise InputError(f"{path}: not a run's folder ({what})")


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config, as it was written.

    Raises:
      InputError: it is missing or damaged: of a finished run its digest differs, of another the
        groups are not what a config has.
    """
    path = folder / "config.json"
    config = atomic_files.read_json(path)
    if manifest.is_sealed(folder):
        manifest.check(folder, ["config.json", "taxonomy.json"])
    groups = ("model", "data", "loss", "trainer", "inference")
    wrong = [name for name in groups if not isinstance(config.get(name, {}), dict)]
    model = config.get("model")
    if wrong or not isinstance(model, dict) or not _has_sizes(model):
        raise InputError(f"{path}: damaged: {', '.join(wrong) or 'model'} is not a config's")
    return config


def _has_sizes(model: dict[str, Any]) -> bool:
    """Whether a config's `model` says how large it is; older ones know no `hidden_dims`."""
    known = all(type(model.get(name)) is int for name in ("latent_dim", "hidden_dim"))
    return known and is_valid_hidden_dims(model.get("hidden_dims", ()))


FILES = (
    *("config.json", "overrides.json", "environment.json", "taxonomy.json", "data_report.json"),
    *("rows.npz", "metrics.jsonl", "metrics.json", "summary.json", "samples.json"),
    *("model.pth", "model.safetensors", "model.json"),
)
"""What a run writes itself; commands add others later."""


def seal(folder: Path) -> None:
    """Writes the manifest of a run's own files: the run is finished."""
    manifest.seal(folder, [name for name in FILES if (folder / name).exists()])


def check_same_settings(folder: Path, fields: dict[str, Any]) -> None:
    """A folder resumes only the run it was made for.

    Args:
      folder: the run's folder; one without a `config.json` is new.
      fields: the config as {dotted name: JSON-able value}.

    Raises:
      InputError: naming every field that differs, with both values.
    """
    path = folder / "config.json"
    if not path.exists():
        if any((folder / "checkpoints").glob("*/" + manifest.NAME)):
            raise InputError(
                f"{folder} has checkpoints but no config.json, so whether they are this config's "
                f"can't be told; put it back, or give another --workdir"
            )
        return
    before = recorded_fields(folder)
    may_change = list(RESUMABLE_FIELDS)
    was, now = before.get("trainer.max_epochs"), fields["trainer.max_epochs"]
    if not fields["trainer.scale_batch_with_devices"]:
        may_change += ["trainer.devices", "trainer.mesh"]  # where it is done, not what
    if _can_be_extended(fields) and isinstance(was, int) and now >= was:
        may_change.append("trainer.max_epochs")
    changed = [
        f"{name} (was {before.get(name)}, now {fields.get(name)})"
        for name in sorted({*before, *fields})
        if before.get(name) != fields.get(name)
        and not any(name == free or name.startswith(free + ".") for free in may_change)
    ]
    if changed:
        raise InputError(
            f"{folder} holds a run with other settings: {', '.join(changed)}; "
            f"give them as they were to resume, or another --workdir"
        )


def recorded_fields(folder: Path) -> dict[str, Any]:
    """The settings a folder was made with; a field that it is too old to know has its default.

    That is what was done then: a new field is off unless it is asked for.
    """
    base = parsing.load_config(str(parsing.find_file("configs/base.py")))
    kept = atomic_files.read_json(folder / "config.json")
    return dict(schema.flatten(json.loads(base.to_json()))) | dict(schema.flatten(kept))


def keep_values_of_older_run(
    folder: Path, config: ConfigDict, *, typed: Collection[str]
) -> list[str]:
    """Sets fields that a run is too old to know to what it did, where nobody asks for another.

    Args:
      folder: the run's folder; one without a `config.json` is new, and changes nothing.
      config: every field; changed in place.
      typed: dotted names of the fields that the user set.

    Returns:
      A line for each field that a preset has another value of.
    """
    if not (folder / "config.json").exists():
        return []
    recorded = dict(schema.flatten(atomic_files.read_json(folder / "config.json")))
    before = recorded_fields(folder)
    lines = []
    for name, value in schema.flatten(json.loads(config.to_json())):
        if name in recorded or name in typed or before.get(name) == value:
            continue
        with config.unlocked():
            config.update_from_flattened_dict({name: before[name]})
        lines.append(
            f"the run is older than --config.{name} and goes on as it began; from now on give "
            f"--config.{name}={before[name]}"
        )
    return lines


EXECUTION_FIELDS = (
    "trainer.accelerator",
    "trainer.devices",
    "trainer.mesh",
    "trainer.enable_progress_bar",
    "trainer.checkpoint_every_seconds",
)
"""Fields that say where and how a run is computed: of a finished one nothing follows from them."""


def is_finished_run_of(folder: Path, fields: dict[str, Any]) -> bool:
    """Whether a folder holds a finished run of these very settings.

    Args:
      folder: the run's folder.
      fields: the config as {dotted name: JSON-able value}.
    """
    if not manifest.is_sealed(folder):
        return False
    before = recorded_fields(folder)
    return all(
        before.get(name) == fields.get(name)
        for name in {*before, *fields}
        if not any(name == free or name.startswith(free + ".") for free in EXECUTION_FIELDS)
    )


def finished_message(folder: Path, fields: dict[str, Any]) -> str:
    """That a run is finished, and how to go on."""
    more = (
        "give more --config.trainer.max_epochs to go on, or "
        if _can_be_extended(fields)
        else "give "
    )
    return (
        f"{folder} is finished and whole, and left as it is; {more}another --workdir for a new run"
    )


def _can_be_extended(fields: dict[str, Any]) -> bool:
    """Whether more epochs leave those that were trained as they are: no schedule is a share.

    After `max_steps` there are none, and the last may have been cut short.
    """
    share = fields["loss.kld_schedule"] != "constant" and fields["loss.kld_warmup"] < 1.0
    constant = fields["trainer.lr_scheduler.name"] == "constant"
    return constant and not share and not fields["trainer.max_steps"]


def check_same_data(folder: Path, taxonomy: Taxonomy, dataset: Dataset) -> None:
    """Raises InputError when the taxonomy or the rows are not those the folder was made with."""
    path = folder / "data_report.json"
    if not (folder / "config.json").exists():
        return  # a new run's
    taxonomy_path = folder / "taxonomy.json"
    difference = _tag_difference(Taxonomy.load(taxonomy_path).tags, taxonomy.tags)
    if difference:
        raise InputError(
            f"{folder} holds a run with another taxonomy: {difference}; restore the one in "
            f"{taxonomy_path}, or give another --workdir"
        )
    before = str(atomic_files.read_json(path).get("fingerprint"))
    if before != dataset.fingerprint:
        raise InputError(
            f"{folder} holds a run on other rows (fingerprint {before[:12]}, now "
            f"{dataset.fingerprint[:12]}); restore the data, or give another --workdir"
        )


def _tag_difference(before: tuple[str, ...], now: tuple[str, ...]) -> str:
    """What became of the tags, or "" where they are the same in the same order."""
    if before == now:
        return ""
    parts = []
    for what, tags in (("added", set(now) - set(before)), ("missing", set(before) - set(now))):
        if tags:
            listed = ", ".join(map(repr, sorted(tags)[:3]))
            more = f" and {len(tags) - 3} more" if len(tags) > 3 else ""
            parts.append(f"{what} {listed}{more}")
    if not parts:
        at = next(i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        parts.append(f"the same tags in another order, from column {at} ({before[at]!r} was there)")
    return "; ".join(parts)


def _check_readable_files(folder: Path) -> None:
    for name in ("checkpoints", "final"):
        for place, _, files in os.walk(
            folder / name, onerror=lambda error: refuse_unreadable(error.filename, error)
        ):
            for file in files:
                try:
                    with open_regular(Path(place, file)) as opened:
                        opened.read(1)
                except OSError as error:
                    refuse_unreadable(Path(place, file), error)


def write_start(
    folder: Path,
    *,
    config: dict,
    overrides: dict[str, Any],
    devices: str,
    taxonomy: Taxonomy,
    dataset: Dataset,
) -> None:
    """Writes what is known before training: config, environment, taxonomy and rows.

    Raises:
      Unreadable: what the run will go on from, or replace, can't be read; nothing is written.
    """
    _check_readable_files(folder)
    (folder / manifest.NAME).unlink(missing_ok=True)  # finished once, and now going on
    atomic_files.write_json(folder / "overrides.json", overrides)
    atomic_files.write_json(folder / "environment.json", environment.environment(devices))
    atomic_files.write_json(folder / "taxonomy.json", taxonomy.to_mapping())
    atomic_files.write_json(folder / "data_report.json", dataset.report)
    write_rows(folder, dataset)
    # The config last: it makes the folder a run's.
    atomic_files.write_json(folder / "config.json", config)
