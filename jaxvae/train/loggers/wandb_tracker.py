"""A run in Weights & Biases.

Offline, W&B's service keeps the last 32 KB in memory and loses them if the run is killed. So every
start writes the whole history again and removes the folders of earlier starts; the remaining folder
is the whole run, for `wandb sync`.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvae.config.paths import user_path
from jaxvae.errors import InputError

_START_SECONDS = 30.0
_FINISH_SECONDS = 60.0


class WandbRun:
    """See `trackers.Tracker`."""

    def __init__(self, run, key: str, *, new: Path | None):
        self._run, self.key = run, key
        self._new = new if run.offline else None  # its folder, as long as nothing is in the run
        # A resumed online run continues its count of steps, which are epochs here.
        self.last_epoch = run.step - 1 if run.resumed and not run.offline else 0
        self.adds_final = False  # a summary is replaced, not added to

    def append(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds an epoch."""
        self._new = None
        self._run.log({"epoch": epoch, **values}, step=epoch)

    def sync(self) -> None:
        """Does nothing, because `append` raises if the service is gone."""

    def finish(self, metrics: Mapping[str, float], files: Sequence[Path], epoch: int) -> None:
        """Adds summary and files, and ends the run as finished."""
        import wandb

        with _quiet():
            self._run.summary.update(dict(metrics))
            if files:
                artifact = wandb.Artifact(f"run-{self.key}", type="model")
                for file in files:
                    artifact.add_file(str(file), policy="immutable")
                self._run.log_artifact(artifact)
            self._end(0)

    def close(self) -> None:
        """Ends the run as interrupted."""
        with _quiet():
            self._end(1)
        if self._new is not None:
            shutil.rmtree(self._new, ignore_errors=True)

    def _end(self, code: int) -> None:
        try:
            self._run.finish(exit_code=code)
        finally:
            _end_service()


def open_run(
    *, name: str, key: str, config: dict[str, Any], folder: Path, project: str, offline: bool
) -> WandbRun:
    """Starts or continues a run; see `trackers.Tracker`.

    Raises:
      InputError: W&B is to be online and has no key.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    mode = "offline" if offline else os.environ.get("WANDB_MODE", "online")
    directory = user_path(os.environ.get("WANDB_DIR") or folder)
    was_there = (directory / "wandb").exists()
    with _quiet():
        # W&B would prompt for a key, and the run would wait for an answer.
        if mode == "online" and not wandb.login(prompt=False):
            raise InputError(
                "--config.logger.name=wandb: no key for Weights & Biases; `wandb login` or "
                "WANDB_API_KEY gives one, --config.logger.offline=True keeps the run here"
            )
        directory.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "mode": mode,
            "silent": True,
            "console": "off",
            "disable_git": True,
            "disable_code": True,
            "init_timeout": _START_SECONDS,
            "finish_timeout": _FINISH_SECONDS,
        }
        try:
            run = wandb.init(
                project=project,
                name=name,
                id=key,
                resume="allow",
                config=config,
                dir=str(directory),
                settings=wandb.Settings(**settings),
            )
        except BaseException:
            _end_service()
            if not was_there:
                shutil.rmtree(directory / "wandb", ignore_errors=True)
            raise
    if run.offline:
        for folder in (directory / "wandb").glob(f"offline-run-*-{key}"):
            if folder != Path(run.dir).parent:
                shutil.rmtree(folder, ignore_errors=True)
    return WandbRun(run, key, new=None if was_there else directory / "wandb")


def _end_service() -> None:
    """Ends W&B's service process now, not at interpreter shutdown."""
    import wandb

    with contextlib.suppress(SystemExit):  # raised if the process did not end well
        wandb.teardown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses W&B's console output about logins, files and links."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield
