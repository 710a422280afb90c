"""The outputs of a run in training: epochs, checkpoints, trackers and hooks."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxvae.runtime import multihost
from jaxvae.storage import epoch_metrics
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.train.loggers import display, metrics_log
from jaxvae.train.loggers.callbacks import CallbackFailed
from jaxvae.train.loggers.trackers import TrackerGroup
from jaxvae.train.plan.progress import RunProgress
from jaxvae.train.train_state import TrainState

Hook = Callable[[int, dict[str, Any], TrainState], None]
"""Called once an epoch with (epoch, its metrics, state)."""


class Outputs:
    """Writes epochs and checkpoints, in the first process alone.

    Args:
      gather: gathers a tree of arrays for writing.
      checkpoints: checkpoints of the run's folder; None in every process but the first.
      tracked: the run's trackers.
      hooks: called after each epoch.
      check_held: called before each write; raises if another process has taken over the folder.
      tensorboard: whether to write TensorBoard's files beside metrics.jsonl.
    """

    def __init__(
        self,
        gather: Callable,
        checkpoints: Checkpoints | None,
        *,
        tracked: TrackerGroup,
        hooks: Sequence[Hook],
        check_held: Callable[[], None],
        tensorboard: bool,
    ):
        self.checkpoints = checkpoints
        self._gather, self._tracked, self._tensorboard = gather, tracked, tensorboard
        self._hooks, self._check_held = hooks, check_held
        self._log: metrics_log.MetricsLog | None = None

    def open_log(self, folder: Path, terminal: display.Terminal, *, finished: int) -> None:
        """Opens the log of epochs, and adds to trackers the epochs that they lack."""
        with multihost.raise_together():
            if self.checkpoints is None:
                return
            self._log = metrics_log.MetricsLog(
                folder, tensorboard=self._tensorboard, finished=finished
            )
            if self._log.note:
                terminal.say(self._log.note)
            self._tracked.catch_up(epoch_metrics.read_epochs(folder))

    def append(
        self,
        line: dict[str, Any],
        kl_per_dimension: list[float] | None,
        state: TrainState,
        progress_display: display.ProgressDisplay,
    ) -> CallbackFailed | None:
        """Writes and shows an epoch's line, and calls the hooks.

        Returns:
          The error of a callback that raised, after which the epoch is still to be saved.
        """
        if self._log is None:
            return None
        self._check_held()
        self._log.append(line, kl_per_dimension)
        self._tracked.append(line)
        progress_display.show(line)
        try:
            for hook in self._hooks:
                # Containers of its own: what it does to them is neither logged nor trained on.
                hook(line["epoch"], dict(line), jax.tree.map(lambda leaf: leaf, state))
        except CallbackFailed as error:
            return error
        return None

    def save(self, state: TrainState, best: dict, progress: RunProgress) -> None:
        """Saves a checkpoint after the log of its epochs was flushed to the disk."""
        tree = self._gather({"state": state, "best": best})
        if self.checkpoints is None or self._log is None:
            return
        self._check_held()
        self._log.sync()
        self._tracked.sync()
        self.checkpoints.save(progress.epoch, tree, dataclasses.asdict(progress))
