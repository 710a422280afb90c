"""A run's folder: who holds it, how it was made, and whether a command may go on in it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import record, settings
from jaxvae.dataset import Dataset
from jaxvae.errors import InputError
from jaxvae.taxonomy import Taxonomy

MAY_CHANGE = (
    "model_name",
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
    if path.is_dir():
        raise InputError(f"{path}: not a run's folder (it has no config.json)")
    what = "it is a file" if path.exists() else "nothing is there"
    raise InputError(f"{path}: not a run's folder ({what})")


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Makes a run folder and holds it for this process; the kernel lets go when the process ends.

    A folder in which nothing was written is removed again.

    Args:
      workdir: absolute path.

    Raises:
      InputError: it can't be made, or another process holds it, naming that process.
    """
    path = workdir / ".lock"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise InputError(f"{workdir}: no run folder can be made here: {error.strerror}") from error
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(f"{workdir}: in use by {holder}; use another --workdir") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if not any(workdir.iterdir()):
                workdir.rmdir()


def refuse_other_settings(folder: Path, fields: dict[str, Any]) -> None:
    """A folder resumes only the run it was made for.

    Args:
      folder: the run's folder; one without a `config.json` is new.
      fields: the config as {dotted name: JSON-able value}.

    Raises:
      InputError: naming every field that differs, with both values.
    """
    path = folder / "config.json"
    if not path.exists():
        return
    before = dict(settings.fields(record.read_json(path)))
    may_change = list(MAY_CHANGE)
    if fields["trainer.lr_scheduler.name"] == "constant":
        may_change.append("trainer.max_epochs")  # no schedule depends on it
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


def refuse_other_data(folder: Path, dataset: Dataset) -> None:
    """Raises InputError when the rows or the taxonomy are not those the folder was made with."""
    path = folder / "data_report.json"
    if not path.exists():
        return
    before = record.read_json(path).get("fingerprint", "")
    if before != dataset.fingerprint:
        raise InputError(
            f"{folder} holds a run on other rows or another taxonomy (fingerprint {before[:12]}, "
            f"now {dataset.fingerprint[:12]}); restore the data, or give another --workdir"
        )


def write_start(
    folder: Path,
    *,
    config: dict,
    overrides: dict[str, Any],
    devices: str,
    taxonomy: Taxonomy,
    dataset: Dataset,
) -> None:
    """Writes what is known before training: config, environment, taxonomy, rows and splits."""
    record.write_json(folder / "overrides.json", overrides)
    record.write_json(folder / "environment.json", record.environment(devices))
    record.write_json(folder / "taxonomy.json", taxonomy.to_mapping())
    record.write_json(folder / "data_report.json", dataset.report)
    splits = {name: positions.tolist() for name, positions in dataset.splits.items()}
    record.write_json(folder / "splits.json", splits)
    np.savez_compressed(folder / "rows.npz", rows=dataset.rows, source_row=dataset.source_row)
    # The config last: it makes the folder a run's.
    record.write_json(folder / "config.json", config)
