"""A run's folder: its first files, its config, its seal."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvae.config.extensions import Extension
from jaxvae.config.schema import FOLLOWS_DATA
from jaxvae.data.dataset import Dataset
from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.models.layer_names import is_valid_hidden_dims
from jaxvae.storage import atomic_files, environment, manifest, run_files
from jaxvae.storage.saved_rows import write_rows


def check_is_run(path: Path) -> None:
    """Raises InputError, which says what the path is instead, unless it is a run's folder."""
    if (path / run_files.CONFIG).is_file():
        return
    if runs := sorted(config.parent for config in path.glob("*/config.json")):
        raise InputError(f"{path}: holds {len(runs)} runs; name one of them, such as {runs[0]}")
    if path.is_dir():
        raise InputError(f"{path}: not a run's folder (it has no config.json)")
    what = "it is a file" if path.exists() else "nothing is there"
    raise InputError(f"{path}: not a run's folder ({what})")


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a run's config, with the values that it resolved where fields follow the data.

    Raises:
      InputError: the config is missing or damaged: the digest of a finished run's differs, or its
        groups are not those of a config.
    """
    path = folder / run_files.CONFIG
    config = atomic_files.read_json(path)
    if manifest.is_sealed(folder):
        manifest.check(folder, [run_files.CONFIG, run_files.TAXONOMY])
        if (folder / run_files.RESOLVED).exists():
            manifest.check(folder, [run_files.RESOLVED])
    groups = ("model", "data", "loss", "trainer", "inference")
    wrong = [name for name in groups if not isinstance(config.get(name, {}), dict)]
    model = config.get("model")
    if wrong or not isinstance(model, dict) or not _has_sizes(model):
        raise InputError(f"{path}: damaged: {', '.join(wrong) or 'model'} is not a config's")
    for name, value in read_resolved(folder).items():
        group, _, field = name.rpartition(".")
        config.setdefault(group, {})[field] = value
    if not (model["latent_dim"] and model["hidden_dim"]):
        raise InputError(
            f"{path}: its sizes follow the data, and {run_files.RESOLVED}, which has their values, "
            f"is missing; restore it"
        )
    return config


def read_resolved(folder: Path) -> dict[str, Any]:
    """Reads the values of a run's fields that follow the data, by their dotted names; {} if none.

    Raises:
      InputError: the file is damaged.
    """
    path = folder / run_files.RESOLVED
    if not path.exists():
        return {}
    values = atomic_files.read_json(path)
    for name, value in values.items():
        if name not in FOLLOWS_DATA or type(value) is not type(FOLLOWS_DATA[name]):
            raise InputError(f"{path}: damaged: {name[:80]} has no value that a run resolves")
    return values


def write_resolved(folder: Path, values: dict[str, Any]) -> None:
    """Writes the values that a run resolved; where there are none, there is no file."""
    if values:
        atomic_files.write_json(folder / run_files.RESOLVED, values)


def _has_sizes(model: dict[str, Any]) -> bool:
    """Returns whether a config's `model` has its sizes; older configs lack `hidden_dims`."""
    has_dims = all(type(model.get(name)) is int for name in ("latent_dim", "hidden_dim"))
    return has_dims and is_valid_hidden_dims(model.get("hidden_dims", ()))


def seal(folder: Path) -> None:
    """Writes the manifest of a run's own files, which marks the run as finished."""
    manifest.seal(folder, [name for name in run_files.SEALED if (folder / name).exists()])


def _check_readable_files(folder: Path) -> None:
    for name in ("checkpoints", "final"):
        for directory, _, files in os.walk(
            folder / name, onerror=lambda error: refuse_unreadable(error.filename, error)
        ):
            for file in files:
                try:
                    with open_regular(Path(directory, file)) as opened:
                        opened.read(1)
                except OSError as error:
                    refuse_unreadable(Path(directory, file), error)


def write_start(
    folder: Path,
    *,
    config: dict,
    resolved: dict[str, Any],
    overrides: dict[str, Any],
    devices: str,
    taxonomy: Taxonomy,
    dataset: Dataset,
    extensions: Sequence[Extension] = (),
    init_from: dict[str, Any] | None = None,
) -> None:
    """Writes the files that are known before training: config, environment, taxonomy and rows.

    `config` is as it was asked for; `resolved` has the values of its fields that follow the data.
    Of a user's own files there are copies in `extensions/`, named by their digest; of a model that
    training starts from there is the record `init_from`, which a resumed run leaves as it is.

    Raises:
      Unreadable: a checkpoint or export of the folder can't be read; nothing is written.
    """
    _check_readable_files(folder)
    (folder / manifest.NAME).unlink(missing_ok=True)  # a finished run that is extended
    atomic_files.write_json(folder / run_files.OVERRIDES, overrides)
    atomic_files.write_json(folder / run_files.ENVIRONMENT, environment.environment(devices))
    atomic_files.write_json(folder / run_files.TAXONOMY, taxonomy.to_file())
    atomic_files.write_json(folder / run_files.DATA_REPORT, dataset.report)
    write_rows(folder, dataset)
    if init_from is not None:
        atomic_files.write_json(folder / run_files.INIT_FROM, init_from)
    for extension in extensions:
        if extension.field != "trainer.callbacks":  # a run is of one content of each other file
            for copy in (folder / run_files.EXTENSIONS).glob(
                f"*_{glob.escape(extension.path.name)}"
            ):
                copy.unlink()
        with atomic_files.atomic_write(folder / run_files.EXTENSIONS / extension.copy_name) as file:
            file.write(extension.source)
    write_resolved(folder, resolved)
    # The config is last, since it marks the folder as a run's.
    atomic_files.write_json(folder / run_files.CONFIG, config)
