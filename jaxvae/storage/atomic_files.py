"""Everything a run writes for people: JSON files, a line per epoch, the terminal."""

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.errors import InputError, json_fault
from jaxvae.runtime.escapes import ERRORS
from jaxvae.train.loggers import tensorboard_events

_LINE_EVERY_SECONDS = 5.0
_PACKAGES = ("jaxvae", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "datasets", "numpy")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one step: a reader sees the old file or the new one, never half of one.

    Numbers that are not finite become null, which every JSON reader accepts.
    """
    write_text(path, to_json(value) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text in one step, as `write_json` does."""
    with replacing(path) as file:
        file.write(text.encode(errors=ERRORS))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name, and the place of an older one, when it is whole.

    Raises:
      InputError: the disk refused; what was there is as it was.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a lost power line leaves the new name with nothing in it
        os.replace(fresh, path)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes an InputError that names the file of what the operating system says about it.

    Of a write that fails, as on a full disk, it does not say to which file.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def to_json(value: Any) -> str:
    """JSON text of a value; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; InputError names the file that is missing or broken."""
    try:
        with open_regular(path) as file:
            value = json.loads(file.read().decode())
    except (OSError, ValueError, RecursionError) as error:
        refuse_unreadable(path, error)
        raise InputError(f"{path}: missing or not JSON: {json_fault(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value


def _finite(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def environment(devices: str) -> dict[str, Any]:
    """Versions and machine of a run, for its `environment.json`."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": devices,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions,
    }


class EpochLog:
    """`metrics.jsonl`: one line per epoch, and the same numbers for TensorBoard.

    Args:
      folder: the run's folder.
      tensorboard: whether TensorBoard's files are wanted.
      finished: epochs that a resumed run has behind it; later lines are dropped, since they will
        be written again.
    """

    def __init__(self, folder: Path, *, tensorboard: bool, finished: int):
        self._path = folder / "metrics.jsonl"
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        kept: list[bytes] = []
        for line in lines:
            # Each epoch once and in order, whatever happened to the file in the meantime.
            if (_epoch_of(kept[-1]) if kept else 0) < _epoch_of(line) <= finished:
                kept.append(line)
        with replacing(self._path) as file:
            file.write(b"".join(line + b"\n" for line in kept))
        self._events = None
        self.note = ""
        if lost := sorted(set(range(1, finished + 1)) - {_epoch_of(line) for line in kept}):
            self.note = (
                f"{self._path}: damaged: of {finished:,} epochs it lacks {len(lost):,}, the first "
                f"is {lost[0]}; they are part of the model and are not trained again"
            )
        if tensorboard:
            if not tensorboard_events.is_installed():
                self.note += "\n" if self.note else ""
                self.note += "no TensorBoard files: pip install tensorboard to have them"
            else:
                with naming(folder / "tensorboard"):
                    self._events = tensorboard_events.EventFile(
                        folder / "tensorboard", first_epoch=finished + 1
                    )

    def append(self, line: dict[str, Any], kl_per_dimension: Sequence[float] | None = None) -> None:
        """Adds an epoch.

        Args:
          line: has `epoch`, `step` and metrics by logged name.
          kl_per_dimension: `[L]` nats on the validation split, for TensorBoard alone.
        """
        # Never made anew: where the folder is gone, and made again by someone, the run must end.
        with naming(self._path), open(self._path, "ab", opener=_open_existing) as file:
            file.write((json.dumps(_finite(line), allow_nan=False) + "\n").encode())
        if self._events is not None:
            with naming(self._events.path):
                self._events.append(line, kl_per_dimension)

    def sync(self) -> None:
        """Puts the lines on the disk: a checkpoint must not know of epochs that the log lacks."""
        for path in (self._path, *([self._events.path] if self._events else [])):
            with naming(path), path.open("rb") as file:
                os.fsync(file.fileno())


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; InputError names one that is damaged."""
    path = folder / "metrics.jsonl"
    lines = []
    with naming(path), open_regular(path) as file:
        read = file.read().splitlines()
    for number, line in enumerate(read, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: damaged; delete that line")
        lines.append(value)
    return lines


def has_epochs(folder: Path) -> bool:
    """Whether a run's log has a line."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def _epoch_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf  # half a line, from a run that was killed while writing it


class PlainConsole(Console):
    """Standard error, on which text is shown as it is: no markup, no emoji codes, no links.

    Its reader may go away: rich would end the process then, and a run with it.

    Args:
      quiet: whether nothing is shown.
    """

    def __init__(self, *, quiet: bool = False):
        super().__init__(stderr=True, markup=False, emoji=False, highlight=False, quiet=quiet)

    def on_broken_pipe(self) -> None:
        """Goes on in silence."""
        self.quiet = True


class Terminal:
    """What a run says while it goes on: to standard error, so that pipes stay clean."""

    def __init__(self, *, progress_bar: bool = True, silent: bool = False):
        self._console = PlainConsole(quiet=silent)
        self._bar = progress_bar and self._console.is_terminal

    def say(self, text: str) -> None:
        """Prints a line or a block as it is."""
        with contextlib.suppress(OSError):  # what is said is not worth a run
            self._console.print(text, soft_wrap=True)

    def summary(self, title: str, rows: dict[str, str]) -> None:
        """Prints a two-column table."""
        table = Table(title=title, show_header=False, title_justify="left")
        table.add_column()
        table.add_column(overflow="fold")
        for name, value in rows.items():
            table.add_row(name, value)
        with contextlib.suppress(OSError):
            self._console.print(table)

    @contextlib.contextmanager
    def epochs(self, total: int, finished: int) -> Iterator["EpochDisplay"]:
        """Shows epochs as they end: a bar on a terminal, a line now and then elsewhere."""
        if not self._bar:
            yield EpochDisplay(total, say=self.say)
            return
        columns = (
            TextColumn("epoch {task.completed}/{task.total}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[losses]}", markup=False),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("", total=total, completed=finished, losses="compiling")
            yield EpochDisplay(total, progress=progress, task=task)


class EpochDisplay:
    """Shows one epoch after the other (see `Terminal.epochs`)."""

    def __init__(self, total: int, *, say=None, progress=None, task=None):
        self._total, self._say = total, say
        self._progress, self._task = progress, task
        self._last = -math.inf
        self._started = time.monotonic()
        self._first: int | None = None

    def show(self, line: dict[str, Any]) -> None:
        """Shows the epoch of a metrics line."""
        losses = f"train {line['train/loss']:.3f}"
        if "val/loss" in line:
            losses += f"  val {line['val/loss']:.3f}  kl {line['val/kld']:.2f}"
        losses += f"  {line['examples_per_second']:,.0f} rows/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=line["epoch"], losses=losses)
            return
        now, epoch = time.monotonic(), line["epoch"]
        if self._first is None:
            self._first, self._started = epoch, now
        due = now - self._last >= _LINE_EVERY_SECONDS or epoch == self._total
        if due:
            self._last = now
            self._say(f"epoch {epoch}/{self._total}  {losses}{self._left(epoch, now)}")

    def _left(self, epoch: int, now: float) -> str:
        done = epoch - (self._first or 0)
        if not done or epoch == self._total:
            return ""
        return f"  {(now - self._started) / done * (self._total - epoch):.0f} s left"
