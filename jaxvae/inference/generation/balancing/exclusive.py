"""Draws balanced tag sets: so many with each of some tags, each with one of them alone."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.splits import SPLITS
from jaxvae.errors import InputError
from jaxvae.inference.arguments import MAX_COUNT
from jaxvae.inference.generation.balancing.shares import divide
from jaxvae.inference.generation.constraints import Constraints, refuse_contradictions
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.order import SetSource, Tally, Task
from jaxvae.inference.generation.splits import identify

_MOST_IN_VAIN = 65_536
"""Draws of a tag without one for a split that lacks some, after which it is given up."""


class BalancedGeneration(SetSource):
    """Orders under way, one for each tag to balance.

    Given which of the tags a set has, it has the distribution that the model gives it. Sets come
    tag by tag, in the order of the columns.

    Args:
      task: the sets to draw in all; what they must meet beside.
      shares: the share of the sets with each of the tags, by its column.

    Raises:
      InputError: there are fewer sets than tags, or none of a tag; or as in `Generation` for one
        of the tags, which the message names.
    """

    def __init__(self, task: Task, shares: Mapping[int, float]):
        order = task.order
        if order.num < len(shares):
            raise InputError(f"num {order.num}: fewer than the {len(shares)} tags to balance")
        super().__init__(task)
        self._kept, self._shares, self._numbers = 0, shares, divide(order.num, shares)
        self._parts: dict[int, Generation] = {}
        for column, num in self._numbers.items():
            seed = int(np.random.SeedSequence([order.seed, column]).generate_state(1)[0])
            with self._naming(column):
                if not num:
                    raise InputError(f"its share of num {order.num} is no set")
                one = dataclasses.replace(
                    task,
                    constraints=_with_one_of(task.constraints, column, shares),
                    order=dataclasses.replace(order, num=MAX_COUNT, seed=seed),
                )
                self._parts[column] = Generation(one)
        # The events that a set has one of the tags alone exclude each other.
        logs = [part.log_probability for part in self._parts.values()]
        self.log_probability = float(np.logaddexp.reduce(logs))

    @property
    def tally(self) -> Tally:  # type: ignore[override]
        """Counts of the draws so far; those beyond a tag's share are not among the kept."""
        total = sum((part.tally for part in self._parts.values()), start=Tally())
        return dataclasses.replace(total, kept=self._kept)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, in each split each tag's share, or one more.

        Raises:
          InputError: as in `Generation.blocks`, for a tag that the message names.
        """
        for column, part in self._parts.items():
            yield from self._blocks_of(column, part, self._numbers[column])

    def describe(self) -> dict:
        """Returns each tag's share of these sets, and of the model's sets like these."""
        names = self.constraints.taxonomy.names(self._parts)
        in_model = {
            name: float(np.exp(part.log_probability - self.log_probability))
            for name, part in zip(names, self._parts.values(), strict=True)
        }
        shares = dict(zip(names, self._shares.values(), strict=True))
        return {"balance": {"shares": shares, "shares_in_model": in_model}}

    def _blocks_of(self, column: int, part: Generation, num: int) -> Iterator[np.ndarray]:
        taxonomy, shares = self.constraints.taxonomy, self.order.splits
        edges = np.round(np.cumsum([0.0, *shares]) / sum(shares) * num).astype(int)
        missing = Counter(dict(zip(SPLITS, np.diff(edges).tolist(), strict=True)))
        in_vain = 0
        with self._naming(column):
            for block in part.blocks():
                kept = []
                for position, row in enumerate(block):
                    split = identify(taxonomy, np.flatnonzero(row), shares)[1]
                    if missing[split]:
                        missing[split] -= 1
                        kept.append(position)
                self._kept += len(kept)
                yield block[kept]
                if not missing.total():
                    return
                in_vain = 0 if kept else in_vain + len(block)
                if in_vain >= _MOST_IN_VAIN:
                    splits = ", ".join(name for name, number in missing.items() if number)
                    raise InputError(
                        f"none of {in_vain:,} draws belongs to {splits}, where {missing.total():,} "
                        f"sets are missing: the tag has too few different sets; leave the split "
                        f"out (splits 1,0,0), or loosen the constraints"
                    )

    @contextlib.contextmanager
    def _naming(self, column: int) -> Iterator[None]:
        """Names the tag in errors."""
        try:
            yield
        except InputError as error:
            name = quote_tag(self.constraints.taxonomy.spellings[column])
            raise InputError(f"balance, {name}: {error}") from error


def _with_one_of(constraints: Constraints, column: int, columns: Iterable[int]) -> Constraints:
    """Returns the constraints with one more: of some tags, sets have a certain one alone.

    Raises:
      InputError: no set meets them all.
    """
    stricter = dataclasses.replace(
        constraints,
        present=tuple(sorted({*constraints.present, column})),
        absent=tuple(sorted({*constraints.absent, *columns} - {column})),
    )
    if column in constraints.absent:
        raise InputError("the tag must be absent")
    refuse_contradictions(stricter)
    return stricter
