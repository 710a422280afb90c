"""Run length, progress counters and early stopping."""

import dataclasses
import math
from typing import Any, NamedTuple

from jaxvae.config.monitor import Monitor


class RunPlan(NamedTuple):
    """Length of a run, and how often it validates and saves.

    Attributes:
      max_epochs: epochs; the last may be cut short.
      max_steps: maximum number of optimizer steps, which may end an epoch early; 0: unlimited.
      warmup_epochs: epochs until the loss has its final weights; early stopping waits for them.
      check_val_every_n_epoch: epochs between validations.
      patience: validations without a gain that end the run; 0: never.
      min_delta: how much of a gain counts, in the monitor's unit.
      checkpoint_every_seconds: seconds between checkpoints; 0 saves every epoch.
      monitor: the validation metric by which epochs are compared.
    """

    max_epochs: int
    max_steps: int
    warmup_epochs: float
    check_val_every_n_epoch: int
    patience: int
    min_delta: float
    checkpoint_every_seconds: float
    monitor: Monitor = Monitor()

    def validates(self, epoch: int) -> bool:
        """Returns whether a validation follows the epoch of this number."""
        return epoch % self.check_val_every_n_epoch == 0 or epoch == self.max_epochs

    def steps_after(self, epoch: int, steps: int) -> int:
        """Optimizer steps taken after `epoch` epochs of `steps` steps each."""
        return min(epoch * steps, self.max_steps) if self.max_steps else epoch * steps


@dataclasses.dataclass
class RunProgress:
    """Counters of a run, kept in every checkpoint.

    Attributes:
      epoch: finished epochs.
      best_epoch: the epoch of the best validation, 0 before the first.
      best_value: the monitor's value at that epoch.
      stale_validations: validations in a row without a gain that counts.
      stopped_early: whether patience ran out.
      nonfinite_step: the first step whose loss was not finite, -1 while there is none.
      nonfinite_terms: the terms of the loss that were not finite, in words.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_value: float = math.inf
    stale_validations: int = 0
    stopped_early: bool = False
    nonfinite_step: int = -1
    nonfinite_terms: str = ""

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "RunProgress":
        """Restores the counters of a checkpoint; older ones call `best_value` `best_loss`."""
        renamed = {"best_loss": "best_value"}
        return cls(**{renamed.get(name, name): value for name, value in facts.items()})

    def observe(self, value: float, plan: RunPlan) -> bool:
        """Updates the best value and early stopping after a validation.

        Args:
          value: the value of the plan's monitor.
          plan: the run's plan; patience waits while its warm-up lasts.

        Returns:
          Whether the value is the best so far, by however little.
        """
        if math.isnan(value):
            gain = -math.inf
        else:
            gain = plan.monitor.gain(value, self.best_value) if self.best_epoch else math.inf
        warming = self.epoch < plan.warmup_epochs
        counts = gain > plan.min_delta or warming
        self.stale_validations = 0 if counts else self.stale_validations + 1
        self.stopped_early = plan.patience > 0 and self.stale_validations >= plan.patience
        if gain <= 0:
            return False
        self.best_value, self.best_epoch = value, self.epoch
        return True

    def fail(self, step: int, values: dict[str, float]) -> None:
        """Records that the loss stopped being finite.

        Args:
          step: the first step whose loss was not finite.
          values: the loss's terms by name, `bce` and `kld`, of the epoch or the validation.
        """
        names = {
            "bce": "the reconstruction term",
            "kld": "the KL term (a log-variance grew too large)",
        }
        terms = [text for name, text in names.items() if not math.isfinite(values[name])]
        self.nonfinite_step = step
        self.nonfinite_terms = " and ".join(terms) or "the gradient, both terms being finite"


def steps_per_epoch(num_rows: int, batch_size: int, accumulate: int = 1) -> int:
    """Optimizer steps that visit every row once; the last one may be short."""
    return -(-num_rows // (batch_size * accumulate))
