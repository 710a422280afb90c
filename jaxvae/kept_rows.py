"""The data a run keeps: its rows, where they came from, and which split each is in."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxvae.errors import InputError, did_you_mean
from jaxvae.record import read_json


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
            raise InputError(f"no split {split!r}{did_you_mean(split, self.splits)}")
        return self.splits[split]


def load_kept_rows(folder: Path) -> KeptRows:
    """Reads `rows.npz` and `splits.json` of a run.

    Raises:
      InputError: the run keeps none (an imported model), or they are damaged.
    """
    path = folder / "rows.npz"
    if not path.is_file():
        raise InputError(f"{folder} keeps no rows: the model was imported without data")
    splits = read_json(folder / "splits.json")
    try:
        # Opened here: of a damaged file numpy would leave its own handle open.
        with path.open("rb") as stream, np.load(stream) as stored:
            return KeptRows(stored["rows"], stored["source_row"], splits)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged: {reason}") from error
