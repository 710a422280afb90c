"""The log of a run's epochs, `metrics.jsonl`, and the same numbers for TensorBoard."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import atomic_write, finite_json, name_file_in_errors
from jaxvae.train.loggers import tensorboard_events


class MetricsLog:
    """`metrics.jsonl`: one line per epoch, and the same numbers for TensorBoard.

    Args:
      folder: the run's folder.
      tensorboard: whether to write TensorBoard's files.
      finished: epochs that a resumed run has finished; later lines are dropped, since they will be
        written again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, finished: int):
        self._path = folder / run_files.EPOCHS
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        valid: list[bytes] = []
        for line in lines:
            # Each epoch once and in order, whatever happened to the file in the meantime.
            if (_epoch_of(valid[-1]) if valid else 0) < _epoch_of(line) <= finished:
                valid.append(line)
        with atomic_write(self._path) as file:
            file.write(b"".join(line + b"\n" for line in valid))
        self._events = None
        self.note = ""
        if lost := sorted(set(range(1, finished + 1)) - {_epoch_of(line) for line in valid}):
            self.note = (
                f"{self._path}: damaged: of {finished:,} epochs it lacks {len(lost):,}, the first "
                f"is {lost[0]}; they are part of the model and are not trained again"
            )
        if tensorboard:
            if not tensorboard_events.is_installed():
                self.note += "\n" if self.note else ""
                self.note += "no TensorBoard files: pip install tensorboard to have them"
            else:
                with name_file_in_errors(folder / run_files.TENSORBOARD):
                    self._events = tensorboard_events.EventFile(
                        folder / run_files.TENSORBOARD, first_epoch=finished + 1
                    )

    def append(self, line: dict[str, Any], kl_per_dimension: Sequence[float] | None = None) -> None:
        """Adds an epoch.

        Args:
          line: has `epoch`, `step` and metrics by logged name.
          kl_per_dimension: `[L]` nats on the validation split, for TensorBoard alone.
        """
        # Do not recreate the file: if the folder was replaced, the run must fail.
        with name_file_in_errors(self._path), open(self._path, "ab", opener=_open_existing) as file:
            file.write((json.dumps(finite_json(line), allow_nan=False) + "\n").encode())
        if self._events is not None:
            with name_file_in_errors(self._events.path):
                self._events.append(line, kl_per_dimension)

    def sync(self) -> None:
        """Flushes the log before a checkpoint, so that it covers every checkpointed epoch."""
        for path in (self._path, *([self._events.path] if self._events else [])):
            with name_file_in_errors(path), path.open("rb") as file:
                os.fsync(file.fileno())


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def _epoch_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf  # half a line, from a run that was killed while writing it
