"""The data a run keeps: its rows, where they came from, and which split each is in."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxvae.dataset import Dataset, fingerprint_rows
from jaxvae.errors import InputError, did_you_mean
from jaxvae.record import read_json
from jaxvae.taxonomy import Taxonomy


@dataclasses.dataclass(frozen=True)
class KeptRows:
    """Rows as they were used in training.

    Attributes:
      rows: `[N, K]` column numbers padded with the vocabulary's size.
      source_row: `[N]`, each row's 0-based position among the source's rows.
      splits: positions in `rows` under "train", "val" and "test".
    """

    rows: np.ndarray
    source_row: np.ndarray
    splits: dict[str, list[int]]

    def positions(self, split: str) -> list[int]:
        """Where a split's rows are; InputError proposes the nearest name of an unknown one."""
        if split not in self.splits:
            near = did_you_mean(split, self.splits)
            raise InputError(f"no split {split!r}{near}; it is one of {', '.join(self.splits)}")
        return self.splits[split]


def load_kept_rows(folder: Path, taxonomy: Taxonomy) -> KeptRows:
    """Reads `rows.npz` and `splits.json` of a run.

    Args:
      folder: the run's folder.
      taxonomy: what the rows' columns mean.

    Raises:
      InputError: the run keeps none (an imported model), or they are damaged or not its own.
    """
    path = folder / "rows.npz"
    if not path.is_file():
        raise InputError(
            f"{folder} has no rows.npz: a model that was imported or published, or a lone .pth, "
            f"has no data; give the folder of the run that trained it"
        )
    splits = read_json(folder / "splits.json")
    lists = [at for at in splits.values() if isinstance(at, list)]
    if len(lists) < len(splits) or {type(at) for each in lists for at in each} - {int}:
        raise InputError(f"{folder / 'splits.json'}: damaged: expected lists of positions")
    kept = KeptRows(*_read(path), splits)
    expected = read_json(folder / "data_report.json").get("fingerprint")
    if fingerprint_rows(kept.rows, taxonomy) != expected:
        raise InputError(f"{path}: not the rows this run was trained with; restore its own file")
    return kept


def damage_to_repair(folder: Path, taxonomy: Taxonomy, dataset: Dataset) -> list[str]:
    """What is wrong with the rows and splits of a run that goes on, and will be written again.

    Args:
      folder: the run's folder; before its start was written there is nothing to damage.
      taxonomy: what the rows' columns mean.
      dataset: the source as it is now, with the fingerprint that the run began with.

    Returns:
      One line for each file that is not what was written at the start.
    """
    if not (folder / "config.json").exists():  # which is written after the others
        return []
    again = f"written again from {dataset.source} (fingerprint {dataset.fingerprint[:12]})"
    lines = []
    path = folder / "rows.npz"
    try:
        rows, source_row = _read(path)
        found = fingerprint_rows(rows, taxonomy)
        if found != dataset.fingerprint:
            lines.append(f"{path}: holds other rows (fingerprint {found[:12]}); {again}")
        elif not np.array_equal(source_row, dataset.source_row):
            lines.append(f"{path}: places its rows elsewhere in the source; {again}")
    except InputError as error:
        lines.append(f"{error}; {again}" if path.exists() else f"{path}: missing; {again}")
    path = folder / "splits.json"
    try:
        before = read_json(path)
    except InputError as error:
        lines.append(f"{error}; {again}")
    else:
        if before != {name: at.tolist() for name, at in dataset.splits.items()}:
            lines.append(f"{path}: splits the rows in another way; {again}")
    return lines


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        # Opened here: of a damaged file numpy would leave its own handle open.
        with path.open("rb") as stream, np.load(stream) as stored:
            return stored["rows"], stored["source_row"]
    except Exception as error:
        raise InputError(f"{path}: damaged: {str(error)[:200]}") from error
