"""Draws sets with one or several of some tags, which are as frequent as their shares say."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from jaxvae.errors import InputError
from jaxvae.inference.generation.balancing.factors import ROUNDS, fit_tilt, needs_one
from jaxvae.inference.generation.balancing.pacing import Pace
from jaxvae.inference.generation.balancing.shares import check_enough
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.order import Task, derive_seed
from jaxvae.inference.generation.splits import identify


class TiltedGeneration(Generation):
    """Sets with one or several of some tags, whose rates are in proportion to their shares.

    Where the tags' concept must have a tag, each set has one of these at least.

    Args:
      task: the sets to draw.
      shares: by column.

    Raises:
      InputError: as in `Generation`, or sets that meet the constraints can't have such rates.
    """

    def __init__(self, task: Task, shares: Mapping[int, float]):
        constraints, order = task.constraints, task.order
        check_enough(order.num, shares)
        self._shares, self._columns = shares, list(shares)
        self._tilt = fit_tilt(
            task.network, constraints, shares, temperature=order.temperature, seed=order.seed
        )
        factors = {column: self._tilt.boost * f for column, f in self._tilt.factors.items()}
        tilted = dataclasses.replace(constraints, factors=factors)
        super().__init__(dataclasses.replace(task, constraints=tilted))
        self._needs_one = needs_one(constraints, self._columns)
        self._pace = Pace(shares, derive_seed(order.seed, ROUNDS))
        self.log_probability = self._tilt.log_probability

    @property
    def sets_are(self) -> str:
        """Says that tags that lag were favoured."""
        return f"{super().sets_are}, kept by coins that favour the balanced tags that lag"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, as `Generation.blocks` does.

        Raises:
          InputError: as there, or one of the tags falls behind its share, as too few sets with it
            are left.
        """
        for sets in super().blocks():
            if lag := self._pace.lagging():
                name, tally = self.constraints.taxonomy.names([lag.column])[0], self.tally
                raise InputError(
                    f"balance, {name}: only {lag.found:,} of {lag.due:,.0f} sets that are due in "
                    f"{lag.split} by now, with {tally.repeats:,} repeats and "
                    f"{tally.near_training:,} sets near training rows turned away: they are too "
                    f"rare; leave the tag out, or the split (splits 1,0,0), or loosen constraints"
                )
            yield sets

    def describe(self) -> dict:
        """Returns the tags' shares, the factors, and the tags' rates in the model and here."""
        tags = self.constraints.taxonomy.names(self._shares)
        rates = (self._pace.counts / max(1, self.tally.kept)).tolist()
        by_name = {
            "shares": self._shares.values(),
            "factors": self._tilt.factors.values(),
            "rates_in_model": self._tilt.rates_in_model.values(),
            "rates": rates,
        }
        return {
            "balance": {
                name: dict(zip(tags, values, strict=True)) for name, values in by_name.items()
            }
        }

    def _is_wanted(self, row: np.ndarray) -> bool:
        has = row[self._columns]
        number = int(has.sum())
        if self._needs_one and not number:
            return False
        # Sets with several are drawn too often by the boost to the power of their others.
        probability = self._tilt.boost ** (1 - number)
        split = identify(self.constraints.taxonomy, np.flatnonzero(row), self.order.splits)[1]
        return self._pace.keeps(has, split, probability)
