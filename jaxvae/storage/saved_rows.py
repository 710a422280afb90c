"""The data that a run saves: its rows, their positions in the source, and their splits."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxvae.data.dataset import Dataset, fingerprint_rows
from jaxvae.data.readers.regular_file import refuse_unreadable
from jaxvae.data.splits import SPLITS, subsample
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, Unreadable, did_you_mean
from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import atomic_write, read_json

_IN_NONE = 255


@dataclasses.dataclass(frozen=True)
class SavedRows:
    """Rows as they were used in training.

    Attributes:
      rows: `[N, K]` column numbers padded with the vocabulary's size.
      source_row: `[N]`, each row's 0-based position among the source's rows.
      split: `[N]` uint8, each row's split: 0, 1 and 2 for "train", "val" and "test".
    """

    rows: np.ndarray
    source_row: np.ndarray
    split: np.ndarray

    def positions(self, split: str) -> np.ndarray:
        """Returns the positions of a split's rows; InputError suggests a known name."""
        if split not in SPLITS:
            near = did_you_mean(split, SPLITS)
            raise InputError(f"no split {split!r}{near}; it is one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.split == SPLITS.index(split))

    def at_most(self, *, train: int, others: int) -> "SavedRows":
        """Returns a copy that subsamples large splits with a fixed seed."""
        split = self.split.copy()
        for name, limit in (("train", train), ("val", others), ("test", others)):
            positions = self.positions(name)
            split[np.delete(positions, subsample(len(positions), limit))] = _IN_NONE
        return dataclasses.replace(self, split=split)


def write_rows(folder: Path, dataset: Dataset) -> None:
    """Writes a data set's rows into a run's folder, as `rows.npz`."""
    with atomic_write(folder / run_files.ROWS) as file:
        np.savez(
            file,
            rows=dataset.rows,
            source_row=dataset.source_row,
            split=_split_numbers(dataset),
        )


def load_saved_rows(folder: Path, taxonomy: Taxonomy) -> SavedRows:
    """Reads `rows.npz` of a run.

    Args:
      folder: the run's folder.
      taxonomy: what the rows' columns mean.

    Raises:
      InputError: the run has no rows (an imported model), or they are damaged or not its own.
    """
    path = folder / run_files.ROWS
    if not path.is_file():
        raise InputError(
            f"{folder} has no rows.npz: a model that was imported or published, or a lone .pth, "
            f"has no data; give the folder of the run that trained it"
        )
    saved = _read(path)
    expected = read_json(folder / run_files.DATA_REPORT).get("fingerprint")
    if fingerprint_rows(saved.rows, taxonomy) != expected:
        raise InputError(f"{path}: not the rows this run was trained with; restore its own file")
    return saved


def describe_damage(folder: Path, taxonomy: Taxonomy, dataset: Dataset) -> str:
    """Describes damage to the saved rows of a resumed run, which will be written again.

    Args:
      folder: the run's folder; one without `config.json` is new and can't be damaged.
      taxonomy: what the rows' columns mean.
      dataset: the source as it is now, with the fingerprint that the run began with.

    Returns:
      A line if the file is not what was written at the start, else "".

    Raises:
      Unreadable: the file can't be read now, which is no damage.
    """
    if not (folder / run_files.CONFIG).exists():  # written after the other files
        return ""
    path = folder / run_files.ROWS
    remedy = f"written again from {dataset.source} (fingerprint {dataset.fingerprint[:12]})"
    try:
        saved = _read(path)
    except Unreadable:
        raise
    except InputError as error:
        return f"{error}; {remedy}" if path.exists() else f"{path}: missing; {remedy}"
    fingerprint = fingerprint_rows(saved.rows, taxonomy)
    if fingerprint != dataset.fingerprint:
        return f"{path}: holds other rows (fingerprint {fingerprint[:12]}); {remedy}"
    if not np.array_equal(saved.source_row, dataset.source_row):
        return f"{path}: places its rows elsewhere in the source; {remedy}"
    if not np.array_equal(saved.split, _split_numbers(dataset)):
        return f"{path}: splits the rows in another way; {remedy}"
    return ""


def _split_numbers(dataset: Dataset) -> np.ndarray:
    split = np.full(len(dataset.rows), _IN_NONE, np.uint8)
    for name, positions in dataset.splits.items():
        split[positions] = SPLITS.index(name)
    return split


def _read(path: Path) -> SavedRows:
    try:
        # The file is opened here, because numpy would leave its handle of a damaged one open.
        with path.open("rb") as stream, np.load(stream) as stored:
            rows, source_row = stored["rows"], stored["source_row"]
            split = stored["split"] if "split" in stored else _older(path, len(rows))
    except InputError:
        raise
    except Exception as error:
        refuse_unreadable(path, error)
        raise InputError(f"{path}: damaged: {str(error)[:200]}") from error
    if split.shape != rows.shape[:1] or split.max(initial=0) >= len(SPLITS):
        raise InputError(f"{path}: damaged: does not put each of {len(rows):,} rows in one split")
    return SavedRows(rows, source_row, split)


def _older(path: Path, num_rows: int) -> np.ndarray:
    """Reads the splits of an older version's run, which saved them as lists of positions."""
    path = path.with_name("splits.json")
    lists = read_json(path)
    split = np.full(num_rows, _IN_NONE, np.uint8)
    try:
        for name, positions in lists.items():
            split[np.array(positions, np.int64).reshape(len(positions))] = SPLITS.index(name)
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged: expected lists of positions") from error
    if sum(map(len, lists.values())) != num_rows or split.max(initial=0) == _IN_NONE:
        raise InputError(f"{path}: damaged: does not put each of {num_rows:,} rows in one split")
    return split
