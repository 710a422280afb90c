"""Draws tag sets at several temperatures, one temperature after the other."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from jaxvae.errors import InputError
from jaxvae.inference.generation.order import LabelledSets, SetSource, Tally, Task


class Temperatures(SetSource):
    """Sets at several temperatures: those of one temperature alone, as many of each.

    If the order is for distinct sets, none is at two temperatures: it stays at the first.

    Args:
      make: makes the source of a task's sets.
      task: the sets to draw at each temperature.
      temperatures: the temperatures, at least one.

    Raises:
      InputError: a temperature comes twice or is out of range; or as `make` raises.
    """

    def __init__(
        self, make: Callable[[Task], SetSource], task: Task, temperatures: Sequence[float]
    ):
        super().__init__(task)
        if not temperatures:
            raise InputError("temperature: give at least one")
        if len({*temperatures}) < len(temperatures):
            text = ", ".join(f"{value:g}" for value in temperatures)
            raise InputError(f"temperature {text}: one of them comes twice")
        orders = [dataclasses.replace(task.order, temperature=value) for value in temperatures]
        self._sources = [make(dataclasses.replace(task, order=order)) for order in orders]
        self.fields = self._sources[0].fields
        logs = [source.log_probability for source in self._sources]
        self.log_probability = float(np.logaddexp.reduce(logs) - math.log(len(logs)))

    @property
    def tally(self) -> Tally:  # type: ignore[override]
        """Counts of the draws so far, at all temperatures."""
        return sum((source.tally for source in self._sources), start=Tally())

    @property
    def sets_are(self) -> str:
        """Says how the sets of each temperature were drawn."""
        return self._sources[0].sets_are

    @property
    def temperature(self) -> list[float]:
        """The temperatures, in their order."""
        return [source.order.temperature for source in self._sources]

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, those of the first temperature first."""
        for block in self.labelled():
            yield block.sets

    def labelled(self) -> Iterator[LabelledSets]:
        """Yields the sets of `blocks` with their labels, the temperature among them."""
        for number, source in enumerate(self._sources):
            temperature = source.order.temperature
            try:
                for block in source.labelled():
                    if "pair" in block.labels:  # one number for each pair of them all
                        block.labels["pair"] += number * self.order.num
                    yield block
            except InputError as error:
                raise InputError(f"temperature {temperature:g}: {error}") from error

    def describe(self) -> dict:
        """Returns the probability and the counts at each temperature."""
        return {
            "by_temperature": [
                {
                    "temperature": source.order.temperature,
                    "log_probability": source.log_probability,
                    "draws": source.tally.draws,
                    "effective_draws": source.tally.effective_draws,
                    "repeats": source.tally.repeats,
                    "near_training": source.tally.near_training,
                    **source.describe(),
                }
                for source in self._sources
            ]
        }
