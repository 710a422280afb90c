"""A search: trains trials that Optuna proposes, many at a time, and makes the best one a run.

Takes config objects.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.errors import InputError
from jaxvae.runtime import signals
from jaxvae.storage import atomic_files
from jaxvae.sweeps.member_loop import Member, MemberCallbacks
from jaxvae.sweeps.optuna_study import Study, TrialResult
from jaxvae.sweeps.search_space import Dimension, Draw, Space
from jaxvae.sweeps.trials import TrialRunner, validation_measures

_REPORTS = 20
"""Reports of a trial to the pruner: every one is a write to the database."""
_HIGHER_IS_BETTER = ("jaccard", "active_units")


def is_higher_better(metric: str) -> bool:
    """Returns whether more of a metric is better."""
    return any(word in metric for word in _HIGHER_IS_BETTER)


def as_given(config: ConfigDict) -> Draw:
    """Returns a sampler of the config's own values, clipped to the search space."""
    fields = dict(schema.flatten(config))

    def draw(field: str, dimension: Dimension) -> Any:
        value = fields[field]
        if dimension.kind == "choice":
            return value if value in dimension.values else dimension.values[0]
        low, high = dimension.values
        return min(max(value, low), high)

    return draw


def search(
    trials: TrialRunner,
    study: Study,
    apply: Callable[[ConfigDict, Draw], Space],
    base: ConfigDict,
    *,
    num_trials: int,
    metric: str,
    requests: signals.StopRequest,
    ended: Callable[[TrialResult], None],
) -> dict[int, tuple[Member, dict[str, Any]]]:
    """Trains trials until the study has `num_trials`.

    Args:
      trials: trains the trials.
      study: proposes trials and stores their results.
      apply: sets a trial's fields (see `search_space.load_space`).
      base: the config that trials start from.
      num_trials: number of trials of the whole study.
      metric: one of `trials.METRICS`.
      requests: signals that ask the training to stop.
      ended: called with each trial that ended.

    Returns:
      {number: (member, trees)} of the best trial that was trained here, if any.

    Raises:
      InputError: a trial's config is invalid.
      StudyLost: the results of trials can't be stored.
      Interrupted: SIGINT or SIGTERM was received; trials in training start again next time.
    """
    trial_loop = _TrialLoop(trials, study, apply, base, num_trials, metric, ended)
    callbacks = MemberCallbacks(trial_loop.report_epoch, trial_loop.end_trial)
    trials.train(trial_loop.ask, callbacks, requests)
    return trial_loop.leading


class _TrialLoop:
    """Takes trials from the study, and reports their epochs and results to it.

    The arguments are those of `search`.

    Attributes:
      leading: {number: (member, trees)} of the best trial that was trained here, if any.
    """

    def __init__(
        self,
        trials: TrialRunner,
        study: Study,
        apply: Callable[[ConfigDict, Draw], Space],
        base: ConfigDict,
        num_trials: int,
        metric: str,
        ended: Callable[[TrialResult], None],
    ):
        self._trials, self._study, self._apply, self._base = trials, study, apply, base
        self._num_trials, self._metric, self._ended = num_trials, metric, ended
        self._started: dict[int, float] = {}
        self.leading: dict[int, tuple[Member, dict[str, Any]]] = {}

    def ask(self) -> Member | None:
        """Returns the next trial as a member, or None if there are enough."""
        proposal = self._study.ask(self._num_trials)
        if proposal is None:
            return None
        number, draw = proposal
        config = self._base.copy_and_resolve_references()
        try:
            space = self._apply(config, draw)
            member = self._trials.member(number, config)
        except InputError as error:
            self._study.fail(number, str(error))
            raise
        self._study.note_drawn(number, space.drawn)
        self._started[number] = time.monotonic()
        return member

    def report_epoch(self, member: Member) -> None:
        """Reports a validation now and then, by which the study may prune the trial."""
        line = member.lines[-1]
        between = max(1, member.plan.max_epochs // _REPORTS)
        if "val/loss" not in line or line["epoch"] % between or member.ended:
            return
        # The one-draw bound stands in for `val/nll_iw`, whose many draws would take too long.
        value = line.get(self._metric, line["val/bce"] + line["val/kld"])
        member.pruned = self._study.report(member.name, line["epoch"], value)

    def end_trial(self, member: Member, trees: dict[str, Any]) -> None:
        """Reports a trial's result to the study, and keeps the best trial's parameters."""
        number = member.name
        facts: dict[str, float] = {
            "epochs": member.progress.epoch,
            "best_epoch": member.progress.best_epoch,
            "seconds": time.monotonic() - self._started[number],
        }
        if member.failed or not member.progress.best_epoch:
            self._study.fail(number, member.progress.nonfinite_terms or "never validated")
        elif member.pruned:
            self._study.prune(number, facts)
        else:
            measures = validation_measures(member, self._trials.likelihood(member, trees))
            value = measures[self._metric]
            if not math.isfinite(value):
                self._study.fail(number, f"{self._metric} is not finite")
            else:
                self._study.finish(number, value, {**measures, **facts})
        best = self._study.best()
        if best is not None and best.number == number:
            self.leading.clear()
            self.leading[number] = member, trees
        self._ended(self._study.outcomes()[number])


def config_of(
    outcome: TrialResult, apply: Callable[[ConfigDict, Draw], Space], base: ConfigDict
) -> ConfigDict:
    """Returns the config of a trial.

    Args:
      outcome: the trial.
      apply: sets a trial's fields.
      base: the config that trials start from.
    """
    config = base.copy_and_resolve_references()
    apply(config, lambda field, dimension: outcome.drawn[field])
    return config


def best_run(
    trials: TrialRunner,
    apply: Callable[[ConfigDict, Draw], Space],
    base: ConfigDict,
    best: TrialResult,
    leading: dict[int, tuple[Member, dict[str, Any]]],
    folder: Path,
    requests: signals.StopRequest,
) -> dict[str, dict[str, Any]]:
    """Makes the best trial a run; trains it again if another process or start trained it.

    Args:
      trials: trained the trials.
      apply: sets a trial's fields.
      base: the config that trials start from.
      best: the best trial.
      leading: the result of `search`.
      folder: the run's folder.
      requests: signals that ask the training to stop.

    Returns:
      The run's final metrics.
    """
    config = config_of(best, apply, base)
    if best.number not in leading:
        waiting = [trials.member(best.number, config)]

        def end(member: Member, trees: dict[str, Any]) -> None:
            leading[best.number] = member, trees

        trials.train(
            lambda: waiting.pop() if waiting else None,
            MemberCallbacks(lambda member: None, end),
            requests,
        )
    return trials.write_run(folder, config, *leading[best.number], overrides=best.drawn)


def config_file(base: ConfigDict, origin: ConfigDict, best: TrialResult, title: str) -> str:
    """Returns the text of a config file for the best trial, which `launch.py` runs.

    Args:
      base: the config that trials started from.
      origin: the config of `configs/base.py`.
      best: the best trial.
      title: the file's docstring.
    """
    fields = {**dict(schema.flatten(base)), **best.drawn}
    lines = [f'"""{title}"""', "", "from configs import base", "", ""]
    lines += ['def get_config(presets: str = ""):', "    c = base.get_config()"]
    defaults = dict(schema.flatten(origin))
    for name, best_value in fields.items():
        if name not in defaults:  # a number of an objective's own
            lines.append(f"    c.{name} = {best_value!r}")
            continue
        value = defaults[name]
        if isinstance(value, tuple):
            best_value = tuple(best_value)
        if best_value != value:
            text = json.dumps(best_value) if isinstance(value, str) else repr(best_value)
            lines.append(f"    c.{name} = {text}")
    lines.append("    return base.with_presets(c, presets)")
    return "\n".join(lines) + "\n"


def write_best_config(folder: Path, config: ConfigDict, best: TrialResult, metric: str) -> None:
    """Writes `best.py`, a config file of the best trial, into a study's folder."""
    title = f"Trial {best.number} of a search: {metric} {best.value:.4f} on validation."
    origin = parsing.load_config("configs/base.py")
    atomic_files.write_text(folder / "best.py", config_file(config, origin, best, title))
