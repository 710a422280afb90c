"""Progress of a search: a live table on a terminal, elsewhere one line per trial."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.live import Live
from rich.table import Table

from jaxvae.sweeps.optuna_study import TrialResult
from jaxvae.train.loggers.display import PlainConsole

_SHOWN = 10
_FIELDS = 6


class TrialTable:
    """Shows the trials that ended so far.

    Args:
      metric: the metric of the search.
      maximise: whether more of the metric is better.
      total: number of trials to run.
      show: shows a table or a line.
      live: whether to show tables, each in place of the one before it, instead of lines.
    """

    def __init__(
        self, *, metric: str, maximise: bool, total: int, show: Callable[[Any], None], live: bool
    ):
        self._metric, self._maximise, self._total = metric, maximise, total
        self._show, self._live = show, live

    def update(self, outcomes: list[TrialResult], ended: TrialResult) -> None:
        """Shows the standings after a trial ended.

        Args:
          outcomes: every trial that was begun.
          ended: the trial that ended.
        """
        ranked = sorted(
            (trial for trial in outcomes if trial.value is not None),
            key=lambda trial: trial.value or 0.0,
            reverse=self._maximise,
        )
        self._show(self._table(outcomes, ranked) if self._live else self._line(ranked, ended))

    def _line(self, ranked: list[TrialResult], ended: TrialResult) -> str:
        value = ended.state if ended.value is None else f"{ended.value:.4f}"
        best = f"  best {ranked[0].value:.4f} ({ranked[0].number})" if ranked else ""
        return f"trial {ended.number}: {value}{best}  {_fields(ended.drawn)}"

    def _table(self, outcomes: list[TrialResult], ranked: list[TrialResult]) -> Table:
        states = [trial.state for trial in outcomes]
        counts = [
            f"{states.count(state)} {words}"
            for state, words in (
                ("complete", "complete"),
                ("pruned", "pruned"),
                ("failed", "failed"),
                ("running", "in training"),
            )
            if state in states
        ]
        table = Table(
            title=f"{self._total} trials: {', '.join(counts)}", title_justify="left", expand=False
        )
        names = list(dict.fromkeys(name for trial in ranked[:_SHOWN] for name in trial.drawn))
        table.add_column("trial", justify="right")
        table.add_column(self._metric, justify="right")
        for name in names[:_FIELDS]:
            table.add_column(name.rpartition(".")[2], justify="right")
        for trial in ranked[:_SHOWN]:
            cells = [_text(trial.drawn.get(name, "")) for name in names[:_FIELDS]]
            table.add_row(str(trial.number), f"{trial.value:.4f}", *cells)
        return table


@contextlib.contextmanager
def trial_table(
    *, metric: str, maximise: bool, total: int, say: Callable[[str], None]
) -> Iterator[TrialTable]:
    """Shows standings on standard error: a live table if that is a terminal, else lines.

    Args:
      metric: the metric of the search.
      maximise: whether more of the metric is better.
      total: number of trials to run.
      say: prints a line.
    """
    console = PlainConsole()
    options: dict[str, Any] = {"metric": metric, "maximise": maximise, "total": total}
    if not console.is_terminal:
        yield TrialTable(**options, show=say, live=False)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield TrialTable(**options, show=lambda table: live.update(table, refresh=True), live=True)


def _fields(drawn: dict[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={_text(value)}" for name, value in drawn.items())


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
