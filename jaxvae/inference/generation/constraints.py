"""Constraints on a tag set: present and absent tags, numbers of tags of a concept and in all."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import jax


class Range(NamedTuple):
    """A range of counts, both ends included."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}..{self.most}"


RangeLike = int | tuple[int | None, int | None]
"""A count, or the least and the most; None is no limit."""


class Tables(NamedTuple):
    """Constraints as the arrays that `conditioning` computes with.

    Counts are capped: the last state of a count stands for itself and everything above. No tag of
    `absent` and every tag of `present` is in a set.

    Attributes:
      present: boolean `[V]`.
      absent: boolean `[V]`.
      last: boolean `[V]`, whether a tag is the last of its concept.
      concept_allows: float32 `[V, K + 1]`, 1 for the counts that a tag's concept may have.
      total_allows: float32 `[T + 1]`, 1 for the numbers of tags that a set may have.
      factors: float32 `[V]`, by which each tag of a set multiplies the set's weight.
    """

    present: np.ndarray
    absent: np.ndarray
    last: np.ndarray
    concept_allows: np.ndarray
    total_allows: np.ndarray
    factors: "np.ndarray | jax.Array"


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Constraints that some set of tags meets; made by `make_constraints`.

    Attributes:
      taxonomy: the tags and their concepts.
      present: columns of the tags that every set has.
      absent: columns of the tags that no set has.
      count: the range of each constrained concept, by name.
      tags: the range of the number of tags; the least is at least 1.
      factors: by column, what a tag multiplies the weights of its sets by, if not by 1.
    """

    taxonomy: Taxonomy
    present: tuple[int, ...]
    absent: tuple[int, ...]
    count: dict[str, Range]
    tags: Range
    factors: Mapping[int, float] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict:
        """Returns the constraints as JSON-able values, for a record of what was drawn."""
        return {
            "present": self.taxonomy.names(self.present),
            "absent": self.taxonomy.names(self.absent),
            "count": {concept: list(span) for concept, span in self.count.items()},
            "tags": list(self.tags),
        }

    def parts(self) -> list[tuple[str, "Constraints"]]:
        """Lists every single constraint by name, with all the constraints but that one."""
        names = self.taxonomy.spellings
        replace = dataclasses.replace
        entries = [
            (f"{field} {quote_tag(names[v])}", replace(self, **{field: _without(columns, v)}))
            for field, columns in (("present", self.present), ("absent", self.absent))
            for v in columns
        ]
        for concept, span in self.count.items():
            count = {name: limits for name, limits in self.count.items() if name != concept}
            entries.append((f"count {concept}={span}", replace(self, count=count)))
        everything = Range(1, self.taxonomy.num_tags)
        if self.tags != everything:
            entries.append((f"tags {self.tags}", replace(self, tags=everything)))
        return entries

    def met_by(self, sets: np.ndarray) -> np.ndarray:
        """Returns whether each of some boolean sets `[n, V]` meets the constraints, `[n]`."""
        met = sets[:, list(self.present)].all(axis=1) & ~sets[:, list(self.absent)].any(axis=1)
        counts = [(sets.sum(axis=1), self.tags)]
        for name, columns in self.taxonomy.concepts:
            if (span := self.count.get(name)) is not None:
                counts.append((sets[:, columns.start : columns.stop].sum(axis=1), span))
        for number, span in counts:
            met &= (number >= span.least) & (number <= span.most)
        return met

    def tables(self) -> Tables:
        """Returns the constraints as arrays, with counts capped as low as the ranges allow."""
        num_tags, concepts = self.taxonomy.num_tags, self.taxonomy.concepts
        bounded = self.tags.most < num_tags
        total_cap = self.tags.most + 1 if bounded else self.tags.least
        spans = [self.count.get(name, Range(0, len(columns))) for name, columns in concepts]
        caps = []
        for span, (_, columns) in zip(spans, concepts, strict=True):
            if span.most == len(columns):
                caps.append(max(span.least, min(len(columns), total_cap)))
            else:
                caps.append(min(span.most + 1, total_cap) if bounded else span.most + 1)
        cap = max(caps)
        last = np.zeros(num_tags, bool)
        concept_allows = np.zeros((num_tags, cap + 1), np.float32)
        for span, (_, columns) in zip(spans, concepts, strict=True):
            last[columns[-1]] = True
            numbers = np.arange(cap + 1)
            allows = (numbers >= span.least) & (numbers <= span.most)
            allows[cap] = span.most == len(columns)  # the cap and everything above
            concept_allows[columns.start : columns.stop] = allows
        total_allows = np.arange(total_cap + 1) >= self.tags.least
        total_allows[total_cap] = not bounded
        present, absent = np.zeros((2, num_tags), bool)
        present[list(self.present)], absent[list(self.absent)] = True, True
        factors = np.ones(num_tags, np.float32)
        factors[list(self.factors)] = list(self.factors.values())
        total_allows = total_allows.astype(np.float32)
        return Tables(present, absent, last, concept_allows, total_allows, factors)


def make_constraints(
    taxonomy: Taxonomy,
    *,
    present: Iterable[str] = (),
    absent: Iterable[str] = (),
    count: Mapping[str, RangeLike] | None = None,
    tags: RangeLike | None = None,
) -> Constraints:
    """Checks constraints, and that some set meets them all.

    Args:
      taxonomy: the known tags and concepts.
      present: tags that every set must have.
      absent: tags that no set may have.
      count: by concept, the number of its tags in a set.
      tags: the number of tags in a set; no set is empty.

    Raises:
      InputError: a tag or concept is unknown, a range is empty or wider than what there is, or no
        set meets the constraints; the message names those that contradict each other.
    """
    sizes = {name: len(columns) for name, columns in taxonomy.concepts}
    spans = {}
    for concept, value in (count or {}).items():
        if concept not in sizes:
            raise InputError(
                f"count: unknown concept {str(concept)[:80]!r}{did_you_mean(str(concept), sizes)}; "
                f"the concepts are {', '.join(sizes)}"
            )
        spans[concept] = _range(f"count {concept}", value, 0, sizes[concept], f"{concept} has")
    total = _range("tags", (1, None) if tags is None else tags, 1, taxonomy.num_tags, "there are")
    constraints = Constraints(
        taxonomy, tuple(taxonomy.columns(present)), tuple(taxonomy.columns(absent)), spans, total
    )
    refuse_contradictions(constraints)
    return constraints


def _range(name: str, value: RangeLike, lowest: int, highest: int, there: str) -> Range:
    ends = value if isinstance(value, tuple | list) else (value, value)
    are_whole = [
        end is None or (isinstance(end, int | np.integer) and not isinstance(end, bool))
        for end in ends
    ]
    if len(ends) != 2 or not all(are_whole):
        raise InputError(f"{name}: {value!r} is neither a whole number nor the least and the most")
    lower, upper = ends
    span = Range(lowest if lower is None else int(lower), highest if upper is None else int(upper))
    if span.least < lowest:
        reason = "no set is empty" if lowest else "there is no negative count"
        raise InputError(f"{name}={span}: {reason}, so the least is {lowest} or more")
    if span.least > span.most:
        raise InputError(f"{name}={span}: the range is empty; the least comes first")
    if span.most > highest:
        raise InputError(f"{name}={span}: {there} only {highest} tags")
    return span


def refuse_contradictions(constraints: Constraints) -> None:
    """Raises InputError if no set meets the constraints, naming those that contradict."""
    taxonomy = constraints.taxonomy
    present, absent = {*constraints.present}, {*constraints.absent}
    if common := sorted(present & absent):
        raise InputError(f"both present and absent: {_names(taxonomy, common)}")
    fewest, largest = 0, 0
    for concept, columns in taxonomy.concepts:
        span = constraints.count.get(concept, Range(0, len(columns)))
        with_, without = sorted(present & {*columns}), sorted(absent & {*columns})
        where = f"no set has count {concept}={span}"
        if len(with_) > span.most:
            raise InputError(f"{where} and all that must be present: {_names(taxonomy, with_)}")
        if len(columns) - len(without) < span.least:
            remaining = len(columns) - len(without)
            raise InputError(
                f"{where}: the absent tags leave {remaining} of {len(columns)} tags of it"
            )
        fewest += max(span.least, len(with_))
        largest += min(span.most, len(columns) - len(without))
    if fewest > constraints.tags.most:
        raise InputError(
            f"no set has tags {constraints.tags}: the present tags and the counts of concepts "
            f"need at least {fewest}"
        )
    if largest < constraints.tags.least:
        raise InputError(
            f"no set has tags {constraints.tags}: the absent tags and the counts of concepts "
            f"leave at most {largest}"
        )


def _names(taxonomy: Taxonomy, columns: Iterable[int]) -> str:
    return ", ".join(map(quote_tag, taxonomy.names(columns)))


def _without(columns: tuple[int, ...], column: int) -> tuple[int, ...]:
    return tuple(number for number in columns if number != column)
