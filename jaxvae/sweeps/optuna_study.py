"""An Optuna study: proposes trials, and stores their results, from which a search resumes.

The module is independent of configs and models: fields are drawn by name, and values come back.
"""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxvae.errors import InputError, StudyLost, one_line
from jaxvae.sweeps.optuna_storage import first_cause, load_optuna, open_storage, storage_name
from jaxvae.sweeps.search_space import Dimension, Draw

SAMPLERS = ("tpe", "random", "qmc")
PRUNERS = ("median", "hyperband", "none")
_STARTUP_TRIALS = 10
_MEASURES, _DRAWN, _WORKER, _REASON = "measures", "drawn", "worker", "reason"
_TERMS = "terms"


class TrialResult(NamedTuple):
    """A trial as the storage has it.

    Attributes:
      number: the trial's number, from 0.
      state: "complete", "pruned", "failed" or "running".
      value: the metric's value; None unless complete.
      drawn: the values tried, by field.
      measures: other results, by name.
    """

    number: int
    state: str
    value: float | None
    drawn: dict[str, Any]
    measures: dict[str, Any]


class Study:
    """A search in progress.

    Args:
      name: the study's name in its storage.
      storage: URL of a database, or of a journal file (`journal:///path`).
      worker: id of this worker, used to reclaim its interrupted trials.
      maximise: whether more of the metric is better.
      sampler: one of `SAMPLERS`.
      pruner: one of `PRUNERS`.
      seed: the sampler's seed.
      begun: whether the study must already exist.

    Raises:
      InputError: Optuna is not installed, or the storage can't be opened or lacks the study.
    """

    def __init__(
        self,
        *,
        name: str,
        storage: str,
        worker: str,
        maximise: bool,
        sampler: str,
        pruner: str,
        seed: int,
        begun: bool = False,
    ):
        self._optuna = optuna = load_optuna()
        self._worker, self._place = worker, storage_name(storage)
        try:
            self._storage = open_storage(optuna, storage)
            if begun and name not in {
                study.study_name for study in self._storage.get_all_studies()
            }:
                raise InputError(
                    f"{self._place}: has no study {name!r} any more, and with it every trial is "
                    f"gone; begin another"
                )
            self._study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                direction="maximize" if maximise else "minimize",
                pruner=_pruner(optuna, pruner),
                load_if_exists=True,
            )
        except InputError:
            raise
        except Exception as error:  # from any database driver
            raise InputError(
                f"{self._place}: can't be opened: {one_line(first_cause(error))}"
            ) from error
        # A resumed sampler must not repeat its first draws.
        num_trials = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(optuna, sampler, seed + num_trials)
        self._trials = {
            trial.number: optuna.trial.Trial(self._study, trial._trial_id)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == optuna.trial.TrialState.RUNNING
            and trial.user_attrs.get(_WORKER) == worker
        }
        self._left_over = sorted(self._trials)

    @contextlib.contextmanager
    def _reaching_storage(self) -> Iterator[None]:
        """Converts any error of the storage's driver into a StudyLost."""
        from sqlalchemy.exc import SQLAlchemyError

        broken = (self._optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)
        try:
            yield
        except broken as error:
            raise StudyLost(f"{self._place}: {one_line(first_cause(error))}") from error

    def terms(self) -> tuple[dict[str, Any] | None, bool]:
        """Returns (terms common to all trials, whether there is a trial); see `study_terms`.

        The terms are None for a new study, and for one that an older version began without them.
        """
        with self._reaching_storage():
            stored = self._study.user_attrs.get(_TERMS)
            return stored, bool(self._study.get_trials(deepcopy=False))

    def agree_on_terms(self, terms: dict[str, Any], *, alone: bool) -> dict[str, Any]:
        """Stores the terms common to all trials, unless another process was first.

        Args:
          terms: this process's terms.
          alone: whether no other process can begin the study now.

        Returns:
          The first process's terms, the same in every process and at every call.
        """
        with self._reaching_storage():
            stored = self._study.user_attrs.get(_TERMS)
            if stored is None:
                stored = terms if alone else self._first_terms(terms)
                self._study.set_user_attr(_TERMS, stored)
            return stored

    def _first_terms(self, terms: dict[str, Any]) -> dict[str, Any]:
        """Returns the terms of the first of all processes that call this.

        The last process to set an attribute overwrites it, but the storage numbers trials one after
        the other. So each process adds its terms as a trial of an extra study.
        """
        beside = self._optuna.create_study(
            study_name=f"{self._study.study_name} (terms)",
            storage=self._storage,
            load_if_exists=True,
        )
        failed = self._optuna.trial.TrialState.FAIL
        beside.add_trial(self._optuna.trial.create_trial(state=failed, user_attrs={_TERMS: terms}))
        return min(beside.get_trials(), key=lambda trial: trial.number).user_attrs[_TERMS]

    @property
    def maximises(self) -> bool:
        """True if the stored study maximises its metric."""
        return self._study.direction.name == "MAXIMIZE"

    def suggest_first(self, drawn: dict[str, Any]) -> None:
        """Makes the first trial of a new study try the given values, by field."""
        with self._reaching_storage():
            if not self._study.get_trials(deepcopy=False):
                labelled = {field: _label(value) for field, value in drawn.items()}
                self._study.enqueue_trial(labelled, user_attrs={_WORKER: self._worker})

    def ask(self, at_most: int) -> tuple[int, Draw] | None:
        """Returns the next trial's number and the function that draws its fields.

        A trial that was running when this worker was killed comes first, with its earlier values.

        Args:
          at_most: trials of the whole study, other workers' included; None is returned after them.
        """
        with self._reaching_storage():
            if self._left_over:
                number = self._left_over.pop(0)
                return number, self._draw(self._trials[number])
            waiting = self._optuna.trial.TrialState.WAITING
            begun = [t for t in self._study.get_trials(deepcopy=False) if t.state != waiting]
            if len(begun) >= at_most:
                return None
            trial = self._study.ask()
            trial.set_user_attr(_WORKER, self._worker)
            self._trials[trial.number] = trial
            return trial.number, self._draw(trial)

    def _draw(self, trial) -> Draw:
        def suggest(field: str, dimension: Dimension) -> Any:
            if dimension.kind == "choice":
                by_label = {_label(value): value for value in dimension.values}
                return by_label[trial.suggest_categorical(field, list(by_label))]
            low, high = dimension.values
            if dimension.kind == "integer":
                return trial.suggest_int(field, low, high)
            return trial.suggest_float(field, low, high, log=dimension.kind == "log")

        def draw(field: str, dimension: Dimension) -> Any:
            with self._reaching_storage():
                return suggest(field, dimension)

        return draw

    def note_drawn(self, number: int, drawn: dict[str, Any]) -> None:
        """Stores the values that a trial tries, for tables."""
        with self._reaching_storage():
            self._trials[number].set_user_attr(_DRAWN, drawn)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Reports the metric at an epoch; returns whether the trial should be pruned."""
        trial = self._trials[number]
        if isinstance(self._study.pruner, self._optuna.pruners.NopPruner):
            return False  # an unused report would still be a write to the disk
        with self._reaching_storage(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed trial reports its first epochs twice
            trial.report(value, epoch)
            return trial.should_prune()

    def finish(self, number: int, value: float, measures: dict[str, Any]) -> None:
        """Ends a trial with the value of its metric."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_MEASURES, measures)
            self._study.tell(trial, value)

    def prune(self, number: int, measures: dict[str, Any]) -> None:
        """Ends a trial as pruned."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_MEASURES, measures)
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial as failed, with the reason."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def outcomes(self) -> list[TrialResult]:
        """Returns every trial that was begun, in order."""
        with self._reaching_storage():
            states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
            return [
                TrialResult(
                    trial.number,
                    states.get(trial.state.name, "running"),
                    trial.value if trial.state.name == "COMPLETE" else None,
                    trial.user_attrs.get(_DRAWN, {}),
                    trial.user_attrs.get(_MEASURES, {}),
                )
                for trial in self._study.get_trials(deepcopy=False)
                if trial.state != self._optuna.trial.TrialState.WAITING
            ]

    def best(self) -> TrialResult | None:
        """Returns the complete trial with the best value, or None."""
        complete = [(trial.value, trial) for trial in self.outcomes() if trial.value is not None]
        sign = -1.0 if self.maximises else 1.0
        best = min(complete, key=lambda pair: sign * pair[0], default=None)
        return best and best[1]

    def importance(self) -> dict[str, float]:
        """Each field's share of the metric's variance (PED-ANOVA, Watanabe et al. 2023).

        Only fields that every complete trial drew are included; {} while there are too few trials.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return dict(
                    self._optuna.importance.get_param_importances(
                        self._study,
                        evaluator=self._optuna.importance.PedAnovaImportanceEvaluator(),
                    )
                )
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}  # too few trials, or trials that do not differ


def _label(value: Any) -> Any:
    """Converts a choice to a value that a database can store; lists and tuples become JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _sampler(optuna, name: str, seed: int):
    makers: dict[str, Callable] = {
        # A running trial counts as a bad one, so that trials proposed together differ.
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=seed,
            constant_liar=True,
            multivariate=True,
            group=True,
            n_startup_trials=_STARTUP_TRIALS,
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
    }
    return makers[name]()


def _pruner(optuna, name: str):
    makers: dict[str, Callable] = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS),
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    return makers[name]()
