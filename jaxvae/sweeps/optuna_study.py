"""Optuna decides what to try next; its storage is what a search resumes from.

Nothing here knows what a trial is made of: fields are drawn by name, and values come back.
"""

import contextlib
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae.errors import InputError, StudyLost, one_line
from jaxvae.sweeps.search_space import Dimension, Draw

SAMPLERS = ("tpe", "random", "qmc")
PRUNERS = ("median", "hyperband", "none")
_STARTUP_TRIALS = 10
_MEASURES, _DRAWN, _WORKER, _REASON = "measures", "drawn", "worker", "reason"
_TERMS = "terms"
_OPEN_AGAIN = 20
_OPEN_AGAIN_SECONDS = 0.1


class TrialResult(NamedTuple):
    """A trial as the storage has it.

    Attributes:
      number: from 0.
      state: "complete", "pruned", "failed" or "running".
      value: of the metric; None unless complete.
      drawn: what was tried, by field.
      measures: what was found besides.
    """

    number: int
    state: str
    value: float | None
    drawn: dict[str, Any]
    measures: dict[str, Any]


class Study:
    """A search in progress.

    Args:
      name: of the study in its storage.
      storage: URL of a database, or of a journal file (`journal:///path`).
      worker: who asks here: trials that were running when it was killed are its own again.
      maximise: whether more of the metric is better.
      sampler: of `SAMPLERS`.
      pruner: of `PRUNERS`.
      seed: of the sampler.
      begun: whether the study is there already, and must be.

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
        self._worker, self._place = worker, _place(storage)
        try:
            self._storage = _open(optuna, storage)
            if begun and name not in {each.study_name for each in self._storage.get_all_studies()}:
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
        except Exception as error:  # of whatever database driver
            raise InputError(
                f"{self._place}: can't be opened: {one_line(_first_cause(error))}"
            ) from error
        # A resumed sampler must not draw its first numbers once more.
        done = len(self._study.get_trials(deepcopy=False))
        self._study.sampler = _sampler(optuna, sampler, seed + done)
        self._trials = {
            trial.number: optuna.trial.Trial(self._study, trial._trial_id)
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state == optuna.trial.TrialState.RUNNING
            and trial.user_attrs.get(_WORKER) == worker
        }
        self._left_over = sorted(self._trials)

    @contextlib.contextmanager
    def _reaching_storage(self) -> Iterator[None]:
        """Makes a StudyLost of whatever the storage's driver says when it can't go on."""
        from sqlalchemy.exc import SQLAlchemyError

        broken = (self._optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)
        try:
            yield
        except broken as error:
            raise StudyLost(f"{self._place}: {one_line(_first_cause(error))}") from error

    def terms(self) -> tuple[dict[str, Any] | None, bool]:
        """Terms that all trials have in common (see `study_terms`), and whether there is a trial.

        The terms of a new study, and of one that was begun before they were stored, are None.
        """
        with self._reaching_storage():
            stored = self._study.user_attrs.get(_TERMS)
            return stored, bool(self._study.get_trials(deepcopy=False))

    def agree_on_terms(self, terms: dict[str, Any], *, alone: bool) -> dict[str, Any]:
        """Stores what all trials must have in common, unless another process was first.

        Args:
          terms: this process's.
          alone: whether no other process can begin the study now.

        Returns:
          The first process's terms, which each process gets, whenever it asks.
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
        the other: each process adds its terms as a trial of a study beside this one.
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
        """True where the study, as it was begun, takes more of its metric for better."""
        return self._study.direction.name == "MAXIMIZE"

    def suggest_first(self, drawn: dict[str, Any]) -> None:
        """Makes the first trial of a new study what was drawn, by field."""
        with self._reaching_storage():
            if not self._study.get_trials(deepcopy=False):
                labelled = {field: _label(value) for field, value in drawn.items()}
                self._study.enqueue_trial(labelled, user_attrs={_WORKER: self._worker})

    def ask(self, at_most: int) -> tuple[int, Draw] | None:
        """The next trial's number and what draws its fields.

        A trial that was running when its worker was killed comes first, with what it drew.

        Args:
          at_most: trials of the whole study, other workers' included; then None.
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
        """Keeps what a trial is, for tables."""
        with self._reaching_storage():
            self._trials[number].set_user_attr(_DRAWN, drawn)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Tells the value of a metric at an epoch; whether the trial should end there."""
        trial = self._trials[number]
        if isinstance(self._study.pruner, self._optuna.pruners.NopPruner):
            return False  # and nobody to read it: each value is a write to the disk
        with self._reaching_storage(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # reported before its worker was killed: the same again
            trial.report(value, epoch)
            return trial.should_prune()

    def finish(self, number: int, value: float, measures: dict[str, Any]) -> None:
        """Ends a trial with the value of its metric."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_MEASURES, measures)
            self._study.tell(trial, value)

    def prune(self, number: int, measures: dict[str, Any]) -> None:
        """Ends a trial that is not worth going on with."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_MEASURES, measures)
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial that could not be trained."""
        with self._reaching_storage():
            trial = self._trials.pop(number)
            trial.set_user_attr(_REASON, reason)
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def outcomes(self) -> list[TrialResult]:
        """Every trial that was begun, in order."""
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
        """The complete trial with the best value."""
        complete = [(trial.value, trial) for trial in self.outcomes() if trial.value is not None]
        sign = -1.0 if self.maximises else 1.0
        best = min(complete, key=lambda pair: sign * pair[0], default=None)
        return best and best[1]

    def importance(self) -> dict[str, float]:
        """Each field's share of the metric's variance (PED-ANOVA, Watanabe et al. 2023); {} early.

        Of fields that every complete trial drew.
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
    """A choice as a database keeps it: lists and tuples have no form there."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def load_optuna():
    """Optuna, quiet.

    Raises:
      InputError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("search needs Optuna: pip install 'optuna>=4.0'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _place(storage: str) -> str:
    """A storage as messages name it: its file, or its URL without a password."""
    if storage.startswith("sqlite:///"):
        return storage.removeprefix("sqlite:///")
    return "--storage=" + re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def _first_cause(error: BaseException) -> BaseException:
    """What went wrong in the end: drivers wrap it in statements and links."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _open(optuna, storage: str):
    if not storage.startswith("journal:"):
        return _open_database(optuna, storage)
    path = storage.removeprefix("journal:").removeprefix("//")
    backend = optuna.storages.journal.JournalFileBackend(path)
    return optuna.storages.JournalStorage(backend)


def _open_database(optuna, url: str):
    from sqlalchemy.exc import DatabaseError, IntegrityError
    from sqlalchemy.pool import NullPool

    for left in reversed(range(_OPEN_AGAIN)):
        try:
            # A connection for each use: none is left open when the command ends.
            return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        except DatabaseError as error:
            # Another process is making the tables of a new database.
            half_made = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not half_made or not left:
                raise
            time.sleep(_OPEN_AGAIN_SECONDS)


def _sampler(optuna, name: str, seed: int):
    makers: dict[str, Callable] = {
        # A running trial counts as a bad one, so that those asked together differ.
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


def sqlite_url(path: Path) -> str:
    """The storage that is one file."""
    return f"sqlite:///{path}"
