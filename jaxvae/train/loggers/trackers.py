"""Experiment trackers beside the run's own files: Weights & Biases, trackio, MLflow.

One interface, with a module for each tracker. Every start makes a tracker agree with
`metrics.jsonl`, so it has each epoch once, however often the run was killed. Nothing is sent
anywhere unless `logger.name` asks for it, and a tracker that fails while a run trains is given up:
the run goes on without it.
"""

import contextlib
import importlib.util
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxvae.errors import InputError, one_line
from jaxvae.runtime.escapes import escaped
from jaxvae.storage import atomic_files, run_files
from jaxvae.train.loggers import mlflow_tracker, trackio_tracker, wandb_tracker

FILE = "trackers.json"
"""File in a run's folder with the run's names and keys in its trackers."""
ARTIFACTS = (
    run_files.MODEL,
    run_files.SAFETENSORS,
    run_files.MODEL_MEANING,
    run_files.METRICS,
    run_files.REPORT,
)
"""Files of a run's folder that `logger.artifacts` attaches if they exist."""
_LONGEST_NAME = 120
_UNNAMED = ("model_name", "logger", "trainer.enable_progress_bar")


class Tracker(Protocol):
    """A run in one tracker. Any of its methods may raise; the caller then gives it up.

    Attributes:
      key: the identifier by which the next start finds the run.
      last_epoch: the last epoch it has from earlier starts; 0 for none.
      adds_final: whether adding final metrics twice duplicates them.
    """

    key: str
    last_epoch: int
    adds_final: bool

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds an epoch: numbers by logged name."""

    def sync(self) -> None:
        """Raises if added epochs did not arrive; called before a checkpoint."""

    def finish(self, metrics: Mapping[str, float], files: Sequence[Path], epoch: int) -> None:
        """Adds final metrics (none if it has them) and files, and ends the run as finished."""

    def close(self) -> None:
        """Ends the run as interrupted; it may be resumed."""


class _Kind(NamedTuple):
    """A kind of tracker: its opener, the modules that it imports, and their pip packages.

    `open_run` has the arguments `name` (the run's name), `key` (tells it from others of that name;
    the same at every start), `config` (nested), `folder` (the run's folder), `project` (the project
    that lists the run) and `offline` (nothing may leave this machine).
    """

    open_run: Callable[..., Tracker]
    modules: tuple[str, ...]
    packages: str


_KINDS = {
    "wandb": _Kind(wandb_tracker.open_run, ("wandb",), "wandb"),
    "trackio": _Kind(trackio_tracker.open_run, ("trackio",), "trackio"),
    "mlflow": _Kind(
        mlflow_tracker.open_run,
        ("mlflow", "sqlalchemy", "alembic"),
        "mlflow-skinny sqlalchemy alembic",
    ),
}


def check_installed(names: Sequence[str]) -> None:
    """Raises InputError, which says what to install, for a tracker that is not installed."""
    for name in names:
        kind = _KINDS.get(name)
        if kind and any(importlib.util.find_spec(module) is None for module in kind.modules):
            raise InputError(
                f"--config.logger.name={name}: it is not installed; pip install {kind.packages}"
            )


def run_name(model_name: str, overrides: Mapping[str, Any]) -> str:
    """Returns a run's name, the model's with the overrides behind it, as "vae kld_weight=4.0".

    Args:
      model_name: the config's `model_name`.
      overrides: values by dotted field name.
    """
    named = [
        (field, value)
        for field, value in overrides.items()
        if not any(field == name or field.startswith(name + ".") for name in _UNNAMED)
    ]
    leaves = [field.rpartition(".")[2] for field, _ in named]
    words = [model_name]
    for (field, value), leaf in zip(named, leaves, strict=True):
        if isinstance(value, str):
            value = Path(value).name  # a file's name without its folder
        elif isinstance(value, list | tuple):
            value = ",".join(map(str, value))
        words.append(f"{leaf if leaves.count(leaf) == 1 else field}={value}")
    name = " ".join(words)
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


class TrackerGroup:
    """A run in all of its trackers.

    Args:
      trackers: by name, as opened.
      say: called once for each tracker that is given up, with its name and the reason.
      kept: each tracker's entry in `trackers.json`, with `final`, the epochs after which the final
        metrics were added.
      keep: called when an entry changed.
    """

    def __init__(
        self,
        trackers: Mapping[str, Tracker],
        *,
        say: Callable[[str], None],
        kept: Mapping[str, dict[str, Any]],
        keep: Callable[[], None],
    ):
        self._trackers = dict(trackers)
        self._say, self._kept, self._keep = say, kept, keep

    def catch_up(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Adds to each tracker the epochs of `metrics.jsonl` that it lacks."""
        for line in lines:
            self.append(line)

    def append(self, line: Mapping[str, Any]) -> None:
        """Adds an epoch, a line of `metrics.jsonl`, to those trackers that do not have it."""
        if not self._trackers:
            return
        values = _numbers({"train/step": line["step"], **line}, leave_out=("epoch", "step"))
        for name, tracker in self._all():
            if line["epoch"] > tracker.last_epoch:
                with self._giving_up(name):
                    tracker.append(line["epoch"], values)

    def sync(self) -> None:
        """Gives up trackers that failed silently."""
        for name, tracker in self._all():
            with self._giving_up(name):
                tracker.sync()

    def finish(
        self, stages: Mapping[str, Mapping[str, Any]], *, folder: Path, artifacts: bool, epoch: int
    ) -> None:
        """Adds the results of a finished run.

        Args:
          stages: the final metrics, nested as in `metrics.json`.
          folder: the run's folder.
          artifacts: whether to attach `ARTIFACTS`.
          epoch: epochs trained.
        """
        final = {
            **{f"best/{metric}": value for metric, value in stages.get("val", {}).items()},
            **stages.get("test", {}),
            **stages.get("inference", {}),
        }
        files = [folder / file for file in ARTIFACTS if artifacts and (folder / file).is_file()]
        for name, tracker in self._all():
            with self._giving_up(name):
                has = tracker.adds_final and self._kept[name].get("final") == epoch
                tracker.finish({} if has else _numbers(final), files, epoch)
                del self._trackers[name]
                self._kept[name]["final"] = epoch
                self._keep()

    def close(self) -> None:
        """Ends trackers that are not finished, as of an interrupted run that may be resumed."""
        for name, tracker in self._all():
            with self._giving_up(name):
                tracker.close()
                del self._trackers[name]

    def _all(self) -> list[tuple[str, Tracker]]:
        return list(self._trackers.items())

    @contextlib.contextmanager
    def _giving_up(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a library, a server, a disk
            tracker = self._trackers.pop(name, None)
            with contextlib.suppress(Exception):  # its threads and processes end, if they still can
                if tracker is not None:
                    tracker.close()
            self._say(
                f"{name} failed, and the run goes on without it: {one_line(error, kind=True)}"
            )


def no_trackers() -> TrackerGroup:
    """Returns the group of a run without trackers."""
    return TrackerGroup({}, say=lambda text: None, kept={}, keep=lambda: None)


def open_trackers(
    names: Sequence[str],
    *,
    folder: Path,
    config: dict[str, Any],
    overrides: Mapping[str, Any],
    say: Callable[[str], None],
) -> TrackerGroup:
    """Opens the trackers of a run, and in them the same runs as at its earlier starts.

    Args:
      names: from the config's `logger.name`; names that are not trackers are left out.
      folder: the run's folder, whose `trackers.json` has the keys of earlier starts.
      config: the whole config, nested; its `logger` has the project and `offline`.
      overrides: values that the user typed, for the name.
      say: called with a message for each tracker that is given up.

    Raises:
      InputError: a tracker is not installed or can't be opened; a new `trackers.json` is removed.
    """
    check_installed(names)
    names = [name for name in names if name in _KINDS]
    if not names:
        return no_trackers()
    logger, path = config["logger"], folder / FILE
    record = atomic_files.read_json(path) if path.exists() else {}
    record.setdefault("name", escaped(run_name(config["model_name"], overrides)))
    # A run has an entry of its own in each project.
    entries = {name: f"{name}:{logger['project']}" for name in names}
    mine = {name: record.setdefault(entry, {}) for name, entry in entries.items()}
    opened: dict[str, Tracker] = {}
    is_new = not path.exists()
    try:
        for name in names:
            mine[name].setdefault("key", uuid.uuid4().hex[:8])
        # Written before opening, so that a run that is killed meanwhile is found again.
        atomic_files.write_json(path, record)
        for name in names:
            opened[name] = _KINDS[name].open_run(
                name=record["name"],
                key=mine[name]["key"],
                config=escaped(config),
                folder=folder,
                project=logger["project"],
                offline=logger["offline"],
            )
            mine[name]["key"] = opened[name].key
        atomic_files.write_json(path, record)
    except BaseException as error:
        TrackerGroup(opened, say=lambda text: None, kept={}, keep=lambda: None).close()
        if is_new:
            path.unlink(missing_ok=True)
        if not isinstance(error, Exception) or isinstance(error, InputError):
            raise
        raise InputError(
            f"--config.logger.name={name}: it can't be opened: {one_line(error, kind=True)}"
        ) from error
    return TrackerGroup(
        opened, say=say, kept=mine, keep=lambda: atomic_files.write_json(path, record)
    )


def _numbers(values: Mapping[str, Any], leave_out: Sequence[str] = ()) -> dict[str, float]:
    """Returns the values that a chart can show: finite numbers."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value) and name not in leave_out
    }
