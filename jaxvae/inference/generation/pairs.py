"""Draws matched pairs of tag sets: with a tag and without it, the rest the same."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.errors import InputError
from jaxvae.inference.generation.constraints import Constraints, Range, refuse_contradictions
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.draws import Draws
from jaxvae.inference.generation.order import LabelledSets, Task, derive_seed

_AT_ONCE = 2048


class PairedGeneration(Generation):
    """Pairs of sets that differ in one tag; the rest meets the constraints.

    The rest of a pair is drawn from p(rest | tag, constraints) or p(rest | no tag, constraints),
    each with probability one half, and has a tag. The blocks are the rests; `labelled` yields two
    sets for each, the one with the tag first. Both share the split of the one without.

    Args:
      task: the pairs to draw: the rest of each meets the constraints, distinct are the rests, and
        both sets of a pair keep their distance from training rows.
      tag: the tag's column.

    Raises:
      InputError: the constraints are about the tag; or as in `Generation`.
    """

    fields: Mapping[str, str] = MappingProxyType({"pair": "count", "with_tag": "count"})

    def __init__(self, task: Task, tag: int):
        constraints, order = task.constraints, task.order
        self._tag = tag
        self._name = quote_tag(constraints.taxonomy.spellings[tag])
        if tag in (*constraints.present, *constraints.absent):
            raise InputError(f"pairs {self._name}: the tag must not be among present or absent too")
        without, having = _without_tag(constraints, tag), _with_tag(constraints, tag)
        super().__init__(dataclasses.replace(task, constraints=without))
        seed = derive_seed(order.seed, tag, 1)
        draws = Draws(task.network, having, temperature=order.temperature, seed=seed)
        logs = draws.log_probability, self.log_probability
        # A set has the tag or has not, so the probabilities add up.
        self.log_probability = float(np.logaddexp(*logs))
        self._share = float(np.exp(logs[0] - self.log_probability))
        self._draws = self._mixed(draws, self._draws)
        self.constraints = constraints

    def labelled(self) -> Iterator[LabelledSets]:
        """Yields two sets for each rest, with their pair's number."""
        first = 0
        for remainder in self.blocks():
            sets = np.repeat(remainder, 2, axis=0)
            sets[::2, self._tag] = True
            labels = {
                "temperature": np.full(len(sets), float(self.order.temperature)),
                "pair": first + np.repeat(np.arange(len(remainder)), 2),
                "with_tag": np.tile([1, 0], len(remainder)),
            }
            first += len(remainder)
            yield LabelledSets(sets, np.repeat(remainder, 2, axis=0), labels)

    def describe(self) -> dict:
        """Returns the tag, and the share of the model's sets like these that have it."""
        return {"pairs": {"tag": self._name, "share_with_tag_in_model": self._share}}

    def _near_training(self, sets: np.ndarray) -> np.ndarray:
        having = sets.copy()
        having[:, self._tag] = True
        return super()._near_training(sets) | super()._near_training(having)

    def _mixed(self, *halves: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields rests, each from a half that a coin chooses, with their latents' numbers."""
        rng = np.random.default_rng(np.random.SeedSequence([self.order.seed, self._tag, 0]))
        waiting = [_Waiting(half) for half in halves]
        while True:
            coins = rng.integers(2, size=_AT_ONCE)
            sets = np.zeros((_AT_ONCE, self.network.num_tags), bool)
            origins = np.zeros(_AT_ONCE, np.int64)
            for half, source in enumerate(waiting):
                from_half = coins == half
                sets[from_half], numbers = source.take(int(from_half.sum()))
                origins[from_half] = 2 * numbers + half
            sets[:, self._tag] = False
            yield sets, origins


class _Waiting:
    """Draws that are taken a few at a time."""

    def __init__(self, draws: Iterable[tuple[np.ndarray, np.ndarray]]):
        self._draws = iter(draws)
        self._sets, self._origins = next(self._draws)

    def take(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        while len(self._sets) < num:
            sets, origins = next(self._draws)
            self._sets = np.concatenate([self._sets, sets])
            self._origins = np.concatenate([self._origins, origins])
        result = self._sets[:num], self._origins[:num]
        self._sets, self._origins = self._sets[num:], self._origins[num:]
        return result


def _without_tag(constraints: Constraints, tag: int) -> Constraints:
    """Returns the constraints on a set without the tag whose rest, all of it, meets some."""
    stricter = dataclasses.replace(constraints, absent=tuple(sorted({*constraints.absent, tag})))
    refuse_contradictions(stricter)
    return stricter


def _with_tag(constraints: Constraints, tag: int) -> Constraints:
    """Returns the constraints on a set with the tag whose rest meets some."""

    def one_more(span: Range, size: int) -> Range:
        return Range(span.least + 1, min(span.most + 1, size))

    count = {
        name: one_more(span, len(columns)) if tag in columns else span
        for name, columns in constraints.taxonomy.concepts
        if (span := constraints.count.get(name)) is not None
    }
    return dataclasses.replace(
        constraints,
        present=tuple(sorted({*constraints.present, tag})),
        count=count,
        tags=one_more(constraints.tags, constraints.taxonomy.num_tags),
    )
