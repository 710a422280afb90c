"""The monitor: the validation number that selects the best epoch, and its better direction."""

from typing import Any, NamedTuple

from jaxvae.errors import InputError, did_you_mean

MODES = {
    "val/loss": "min",
    "val/elbo": "min",
    "val/nll_iw": "min",
    "val/bce": "min",
    "val/hamming_loss": "min",
    "val/jaccard_index": "max",
}
"""The numbers that can select the best epoch, and the better direction of each."""
NUM_DRAWS = 50
"""Importance samples per row of `val/nll_iw` during training."""
MAX_ROWS = 2000
"""Greatest number of validation rows on which `val/nll_iw` is estimated during training."""


class Monitor(NamedTuple):
    """The validation number by which epochs are compared.

    Attributes:
      name: its name in metrics.jsonl.
      mode: "min" if less is better, "max" if more is.
    """

    name: str = "val/loss"
    mode: str = "min"

    @property
    def direction(self) -> str:
        """The word for the best value, "lowest" or "highest"."""
        return "lowest" if self.mode == "min" else "highest"

    def gain(self, now: float, before: float) -> float:
        """Returns the improvement of a value over an earlier one; negative if it is worse."""
        return before - now if self.mode == "min" else now - before


def added_values(monitor: Monitor, values: dict[str, float], *, bound: float) -> dict[str, float]:
    """Returns the numbers that a monitor adds to those of a validation pass.

    Args:
      monitor: the run's monitor.
      values: the pass's numbers, by name without `val/`.
      bound: the mean bound on -log p(x), nats; used only if it is the monitor.
    """
    if monitor.name == "val/elbo":
        return {"elbo": values["bce"] + values["kld"]}
    return {"nll_iw": float(bound)} if monitor.name == "val/nll_iw" else {}


def check_monitor(values: dict[str, Any]) -> None:
    """Raises InputError for an unknown monitor, a wrong mode, or one that the loss does not have.

    Args:
      values: the config's fields by dotted name.
    """
    name, mode = values["trainer.monitor"], values["trainer.monitor_mode"]
    if name not in MODES:
        raise InputError(
            f"--config.trainer.monitor={name}: must be one of {', '.join(MODES)}"
            f"{did_you_mean(str(name), MODES)}"
        )
    if mode != MODES[name]:
        better = "less" if MODES[name] == "min" else "more"
        raise InputError(
            f"--config.trainer.monitor_mode={mode}: of {name} {better} is better, so it must be "
            f"'{MODES[name]}'"
        )
    if name in ("val/elbo", "val/nll_iw") and not values["loss.use_binary_cross_entropy"]:
        raise InputError(
            f"--config.trainer.monitor={name} is of a likelihood, and --config.loss."
            f"use_binary_cross_entropy=False has none; take val/loss"
        )
