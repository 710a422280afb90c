"""Settles a run's length by the speed of its first epochs, so that training ends on time."""

from collections.abc import Callable

from jaxvae.runtime import multihost
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.plan.progress import RunPlan

LONGER = 4
"""A run whose epochs follow the data is at most this many times as long as the data ask for."""
_TIMED_SECONDS = 5.0
_TIMED_SHARE = 0.05


class Budget:
    """A run's training time, from which its number of epochs follows once their speed is known.

    Compiling is not training: a process's first epoch is not timed, and counts as one like the
    others.

    Args:
      seconds: training time of the whole run, resumed processes together.
      replan: returns the (hyperparameters, plan) of a run of so many epochs.
      record: keeps the number of epochs, so that a resumed run goes on by it.
    """

    def __init__(
        self,
        seconds: float,
        *,
        replan: Callable[[int], tuple[Hyperparams, RunPlan]],
        record: Callable[[int], None],
    ):
        self.replan, self.record = replan, record
        self._seconds = seconds
        self._epochs = -1  # timed ones; the first is not
        self._timed = 0.0

    def settle(self, epoch: int, seconds: float, *, most: int) -> int:
        """Takes an epoch's duration; returns the epochs of the whole run, 0 while it is not known.

        The first process's clock decides for all.

        Args:
          epoch: finished epochs.
          seconds: duration of the latest one's training.
          most: epochs that the run may have at most.
        """
        self._epochs += 1
        if self._epochs > 0:
            self._timed += seconds
        enough = min(_TIMED_SECONDS, _TIMED_SHARE * self._seconds)
        length = 0
        if self._epochs > 0 and self._timed >= enough:
            fitting = int(self._seconds * self._epochs / self._timed)
            length = min(max(fitting, epoch), most)
        (length,) = multihost.max_across_hosts(length if multihost.is_primary() else 0)
        return length
