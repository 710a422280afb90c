"""A run in MLflow: its server, or the SQLite file it makes where the command was started."""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_PARAMS = 100
"""Most parameters that MLflow takes at once."""
_METRICS = 1000
"""Most metrics that MLflow takes at once."""
_EVERY_SECONDS = 1.0
"""Epochs are written together after this time: a transaction takes as long as a small epoch."""
_LONGEST = 6000
_FILE = "sqlite:///"
_LOCAL = ("sqlite:", "file:", "/", ".")
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Training waits for each answer, and MLflow's default timeouts are minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MlflowRun:
    """See `trackers.Tracker`."""

    def __init__(self, client, key: str, last_epoch: int):
        self._client, self.key = client, key
        self.last_epoch = last_epoch
        self.adds_final = True
        self._waiting: list = []
        self._written = time.monotonic()

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds an epoch."""
        if len(self._waiting) + len(values) + 1 > _METRICS:
            self.sync()
        self._add({"epoch": epoch, **values}, epoch)
        if time.monotonic() - self._written > _EVERY_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Writes the waiting metrics; returns once the database or the server has them."""
        if self._waiting:
            self._client.log_batch(self.key, metrics=self._waiting)
        self._waiting, self._written = [], time.monotonic()

    def finish(self, metrics: Mapping[str, float], files: Sequence[Path], epoch: int) -> None:
        """Adds final metrics and files, and ends the run as finished."""
        self._add(metrics, epoch)
        self.sync()
        for file in files:
            self._client.log_artifact(self.key, str(file))
        self._client.set_terminated(self.key, "FINISHED")

    def close(self) -> None:
        """Ends the run as interrupted."""
        self.sync()
        self._client.set_terminated(self.key, "KILLED")

    def _add(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        milliseconds = int(1000 * time.time())
        self._waiting += [
            Metric(name, float(value), milliseconds, epoch) for name, value in values.items()
        ]


def open_run(
    *, name: str, key: str, config: dict[str, Any], folder: Path, project: str, offline: bool
) -> MlflowRun:
    """Starts or continues a run; see `trackers.Tracker`."""
    for variable, default in _DEFAULTS.items():
        os.environ.setdefault(variable, default)
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    # Tells of a file that breaks within a transaction by a traceback; we say it in a line.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    uri = mlflow.get_tracking_uri()
    if offline and not uri.startswith(_LOCAL):
        uri = f"{_FILE}{Path.cwd() / 'mlflow.db'}"
    with _alone(uri):
        client = MlflowClient(tracking_uri=uri)
        try:
            run = client.get_run(key)
            client.update_run(key, status="RUNNING")
        except MlflowException:  # it is new, or was tracked elsewhere
            run = client.create_run(_experiment(client, project), run_name=name)
    key = run.info.run_id
    # MLflow's parameters can't be changed, so a changed field keeps its first value.
    fields = [(field, value) for field, value in _flat(config) if field not in run.data.params]
    params = [Param(field, str(value)[:_LONGEST]) for field, value in fields]
    for first in range(0, len(params), _PARAMS):
        client.log_batch(key, params=params[first : first + _PARAMS])
    return MlflowRun(client, key, int(run.data.metrics.get("epoch", 0)))


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Locks the folder of a SQLite file, so that concurrent runs do not both create the schema."""
    with contextlib.ExitStack() as stack:
        # Without a folder, or without file locks, goes on as if there were no other run.
        with contextlib.suppress(OSError):
            if uri.startswith(_FILE):
                parent = Path(uri.removeprefix(_FILE).partition("?")[0]).parent
                folder = os.open(parent, os.O_RDONLY)
                stack.callback(os.close, folder)  # and with it the lock
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _experiment(client, project: str) -> str:
    """Returns the id of the experiment of this name, which is made if missing."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(project)
    if experiment is None:
        try:
            return client.create_experiment(project)
        except MlflowException:
            experiment = client.get_experiment_by_name(project)
            if experiment is None:
                raise  # the cause was not a race with another run
    return experiment.experiment_id


def _flat(config: Mapping[str, Any], prefix: str = ""):
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
