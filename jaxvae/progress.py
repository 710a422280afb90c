"""Where a run stands between epochs: the best validation so far, and when to stop."""

import dataclasses
import math


@dataclasses.dataclass
class Progress:
    """Counters of a run, kept in every checkpoint.

    Attributes:
      epoch: finished epochs.
      best_epoch: the epoch of the lowest validation loss, 0 before the first.
      best_loss: that loss, nats.
      stale_validations: validations in a row without a gain that counts.
      stopped_early: whether patience ran out.
      nonfinite_step: the first step whose loss was not finite, -1 while there is none.
      nonfinite_terms: which of the loss's terms those were, in words.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    stale_validations: int = 0
    stopped_early: bool = False
    nonfinite_step: int = -1
    nonfinite_terms: str = ""

    def observe(
        self, loss: float, *, patience: int, min_delta: float, warming: bool = False
    ) -> bool:
        """Takes in a validation.

        Args:
          loss: its loss, nats.
          patience: validations without a gain that end the run; 0 never does.
          min_delta: nats by which the loss must fall below the best to count as a gain.
          warming: whether the objective has not its final weights yet: patience waits.

        Returns:
          Whether it is the best so far (by however little).
        """
        gain = self.best_loss - loss
        self.stale_validations = 0 if gain > min_delta or warming else self.stale_validations + 1
        self.stopped_early = patience > 0 and self.stale_validations >= patience
        if gain <= 0:
            return False
        self.best_loss, self.best_epoch = loss, self.epoch
        return True
