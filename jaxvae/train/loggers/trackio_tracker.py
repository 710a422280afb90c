"""A run in trackio: a SQLite file on this machine, or a Space where the environment names one."""

import contextlib
import io
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_ARRIVES_SECONDS = 5.0
_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL")


class TrackioRun:
    """See `trackers.Tracker`."""

    def __init__(self, run, key: str, *, local: bool):
        self._run, self.key, self._local = run, key, local
        self.last_epoch = max(run._next_step - 1, 0)  # its only source, local or remote
        self.adds_final = True
        self._sent = self._due = self.last_epoch
        self._looked = time.monotonic()

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds an epoch."""
        self._run.log(dict(values), step=epoch)
        self._sent = epoch

    def sync(self) -> None:
        """Raises if trackio's thread has not stored an epoch that it got some time ago."""
        clock = time.monotonic()
        if self._local and clock - self._looked > _ARRIVES_SECONDS:
            self._check(self._due)
            self._due, self._looked = self._sent, clock

    def finish(self, metrics: Mapping[str, float], files: Sequence[Path], epoch: int) -> None:
        """Adds final metrics and files, and ends the run."""
        with _quiet():
            if metrics:
                self._run.log(dict(metrics), step=epoch)
            for file in files:
                name = f"{self.key}-{file.name}"
                self._run.log_artifact(str(file), name=name, type="model")
        self.close()

    def close(self) -> None:
        """Ends the run; trackio does not record whether it was finished."""
        import trackio

        with _quiet():
            trackio.finish()
        if self._local:
            self._check(self._sent)

    def _check(self, epoch: int) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        stored = SQLiteStorage.get_last_step(self._run.project, run_id=self._run.id) or 0
        if stored < epoch:
            raise OSError(f"of {epoch} epochs its file has {stored}")


def open_run(
    *, name: str, key: str, config: dict[str, Any], folder: Path, project: str, offline: bool
) -> TrackioRun:
    """Starts or continues a run; see `trackers.Tracker`."""
    hidden = {name: os.environ.pop(name) for name in _REMOTE if offline and name in os.environ}
    local = not any(os.environ.get(name) for name in _REMOTE[:2])
    # A failure in trackio's thread is only a warning; `sync` detects it.
    warnings.filterwarnings("ignore", module=r"trackio\.")
    try:
        with _quiet(), _without_hub() if local else contextlib.nullcontext():
            import trackio

            run = trackio.init(
                project=project,
                # trackio finds a run by its name alone, and runs of one name would be merged.
                name=f"{name} {key}",
                config=config,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
    finally:
        os.environ.update(hidden)
    return TrackioRun(run, key, local=local)


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    """Keeps trackio from asking the Hugging Face hub for the token's owner, which it need not know.

    A local run is no business of the hub.
    """
    from huggingface_hub import constants

    was_offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences trackio's hints about its files; docs/trackers.md has them."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
