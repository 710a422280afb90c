"""Terminal output of a run: messages, a progress bar, a summary."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_LINE_EVERY_SECONDS = 5.0


class PlainConsole(Console):
    """Standard error, on which text is shown as it is: no markup, no emoji codes, no links.

    A run survives a broken pipe, on which rich would end the process.

    Args:
      quiet: whether nothing is shown.
    """

    def __init__(self, *, quiet: bool = False):
        super().__init__(stderr=True, markup=False, emoji=False, highlight=False, quiet=quiet)

    def on_broken_pipe(self) -> None:
        """Discards all further output."""
        self.quiet = True


class Terminal:
    """Prints a run's messages and progress to standard error, so that pipes stay clean."""

    def __init__(self, *, progress_bar: bool = True, silent: bool = False):
        self._console = PlainConsole(quiet=silent)
        self._bar = progress_bar and self._console.is_terminal

    def say(self, text: str) -> None:
        """Prints a line or a block as it is."""
        with contextlib.suppress(OSError):  # a lost message is no reason to end a run
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
    def epochs(self, total: int, finished: int) -> Iterator["ProgressDisplay"]:
        """Shows epochs as they end: a bar on a terminal, a line now and then elsewhere."""
        if not self._bar:
            yield ProgressDisplay(total, say=self.say)
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
            yield ProgressDisplay(total, progress=progress, task=task)


class ProgressDisplay:
    """Shows one epoch after the other (see `Terminal.epochs`); `total` may change on the way."""

    def __init__(self, total: int, *, say=None, progress=None, task=None):
        self.total, self._say = total, say
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
            self._progress.update(
                self._task, total=self.total, completed=line["epoch"], losses=losses
            )
            return
        clock, epoch = time.monotonic(), line["epoch"]
        if self._first is None:
            self._first, self._started = epoch, clock
        due = clock - self._last >= _LINE_EVERY_SECONDS or epoch == self.total
        if due:
            self._last = clock
            self._say(f"epoch {epoch}/{self.total}  {losses}{self._left(epoch, clock)}")

    def _left(self, epoch: int, now: float) -> str:
        finished = epoch - (self._first or 0)
        if not finished or epoch == self.total:
            return ""
        return f"  {(now - self._started) / finished * (self.total - epoch):.0f} s left"
