"""Draws balanced tag sets: so many with each of some tags, each with one of them alone."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.splits import SPLITS
from jaxvae.errors import InputError
from jaxvae.inference.generation.balancing.shares import check_enough, divide_within
from jaxvae.inference.generation.constraints import Constraints, refuse_contradictions
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.order import SetSource, Tally, Task, derive_seed
from jaxvae.inference.generation.splits import identify

_MOST_IN_VAIN = 65_536
"""Draws of a tag without one for a split that lacks some, after which it is given up."""


class BalancedGeneration(SetSource):
    """Orders under way, one for each tag to balance.

    Given which of the tags a set has, and its split, it has the distribution that the model gives
    it. Sets come tag by tag, in the order of the columns.

    Args:
      task: the sets to draw in all; what they must meet beside.
      shares: the share of the sets with each of the tags, by its column.

    Raises:
      InputError: there are fewer sets than tags, or none of a tag; or as in `Generation` for one
        of the tags, which the message names.
    """

    def __init__(self, task: Task, shares: Mapping[int, float]):
        super().__init__(task)
        order = task.order
        constraints: dict[int, Constraints] = {}
        for column in shares:
            with self._naming(column):
                constraints[column] = _with_one_of(task.constraints, column, shares)
        check_enough(order.num, shares)
        self._shares = shares
        numbers = divide_within(order.num, shares, dict(zip(SPLITS, order.splits, strict=True)))
        self._parts: dict[int, _OfOneTag] = {}
        for column, of_splits in numbers.items():
            seed = derive_seed(order.seed, column)
            num = sum(of_splits.values())
            with self._naming(column):
                if not num:
                    raise InputError(f"its share of num {order.num} is no set")
                task_of_tag = dataclasses.replace(
                    task,
                    constraints=constraints[column],
                    order=dataclasses.replace(order, num=num, seed=seed),
                )
                self._parts[column] = _OfOneTag(task_of_tag, of_splits)
        # The events that a set has one of the tags alone exclude each other.
        logs = [generation.log_probability for generation in self._parts.values()]
        self.log_probability = float(np.logaddexp.reduce(logs))

    @property
    def tally(self) -> Tally:  # type: ignore[override]
        """Counts of the draws so far, without those of which a split had enough."""
        return sum((generation.tally for generation in self._parts.values()), start=Tally())

    @property
    def sets_are(self) -> str:
        """Says that the draws are those of each tag in each split."""
        return f"{super().sets_are}, given each tag's share of each split"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`: in each split each tag's share, or one more or less.

        Raises:
          InputError: as in `Generation.blocks`, for a tag that the message names.
        """
        for column, generation in self._parts.items():
            with self._naming(column):
                yield from generation.blocks()

    def describe(self) -> dict:
        """Returns each tag's share of these sets, and of the model's sets like these."""
        names = self.constraints.taxonomy.names(self._parts)
        in_model = {
            name: float(np.exp(generation.log_probability - self.log_probability))
            for name, generation in zip(names, self._parts.values(), strict=True)
        }
        shares = dict(zip(names, self._shares.values(), strict=True))
        return {"balance": {"shares": shares, "shares_in_model": in_model}}

    @contextlib.contextmanager
    def _naming(self, column: int) -> Iterator[None]:
        """Names the tag in errors."""
        try:
            yield
        except InputError as error:
            name = quote_tag(self.constraints.taxonomy.spellings[column])
            raise InputError(f"balance, {name}: {error}") from error


class _OfOneTag(Generation):
    """The sets with one of the tags to balance: so many in each split.

    Args:
      task: the sets to draw.
      numbers: by split, how many of them; they sum to `task.order.num`.
    """

    def __init__(self, task: Task, numbers: Mapping[str, int]):
        super().__init__(task)
        self._missing = Counter(numbers)
        self._in_vain = 0

    def _keep(self, sets: np.ndarray, origin: np.ndarray, missing: int) -> np.ndarray:
        positions = super()._keep(sets, origin, missing)
        self._in_vain = 0 if len(positions) else self._in_vain + len(sets)
        if self._in_vain >= _MOST_IN_VAIN:
            splits = ", ".join(name for name, number in self._missing.items() if number)
            raise InputError(
                f"none of {self._in_vain:,} draws belongs to {splits}, where "
                f"{self._missing.total():,} sets are missing: the tag has too few different sets; "
                f"leave the split out (splits 1,0,0), or the tag, or loosen the constraints"
            )
        return positions

    def _is_wanted(self, row: np.ndarray) -> bool:
        taxonomy = self.constraints.taxonomy
        split = identify(taxonomy, np.flatnonzero(row), self.order.splits)[1]
        if not self._missing[split]:
            return False
        self._missing[split] -= 1
        return True

    def _way_out(self) -> str:
        return (
            f"{self.order.num:,} with the tag are to be: leave it out of the balance, do without "
            f"{'distinct' if self.order.distinct else 'unseen'}, or loosen the constraints"
        )


def _with_one_of(constraints: Constraints, column: int, columns: Iterable[int]) -> Constraints:
    """Returns the constraints with one more: of some tags, sets have a certain one alone.

    Raises:
      InputError: no set meets them all.
    """
    if others := sorted({*constraints.present} & {*columns} - {column}):
        names = ", ".join(map(quote_tag, constraints.taxonomy.names(others)))
        raise InputError(f"each set has one of the tags alone, but {names} must be present")
    stricter = dataclasses.replace(
        constraints,
        present=tuple(sorted({*constraints.present, column})),
        absent=tuple(sorted({*constraints.absent, *columns} - {column})),
    )
    refuse_contradictions(stricter)
    return stricter
