"""Makes a taxonomy of the tags of the data themselves: those with enough training rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxvae.data.spelling import normalize
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

FROM_DATA = "from_data"
"""The value of `data.taxonomy_path` that makes the taxonomy of the data."""
ALL = "tags"
"""The only concept, where the data name none."""
_MARKS = ("---", "::", ":")
_ALMOST_ALL = 0.9


@dataclass(frozen=True)
class FromData:
    """Asks for a taxonomy of the tags with enough training rows.

    Attributes:
        min_tag_rows: the least number of training rows of a tag.
        made_before: the taxonomy that a run made of the same rows when it began, which is taken as
            it is; None makes one.
    """

    min_tag_rows: int = 10
    made_before: Taxonomy | None = None


@dataclass(frozen=True)
class Vocabulary:
    """A taxonomy made of data.

    Attributes:
        taxonomy: the tags that are kept, by concept; in a concept the commonest first.
        column_of: [T] int64, the column of each tag of the data, -1 if it is left out.
        left_out: (tag, training rows) of the tags left out, the commonest first.
        kept: likewise of the tags of the taxonomy.
    """

    taxonomy: Taxonomy
    column_of: np.ndarray
    left_out: list[tuple[str, int]]
    kept: list[tuple[str, int]]


def make_vocabulary(
    wanted: FromData,
    *,
    tags: Sequence[str],
    spellings: Sequence[str],
    concepts: Sequence[str] | None,
    num_rows: np.ndarray,
    source: str,
) -> Vocabulary:
    """Makes a taxonomy of the commoner tags.

    A tag's concept is that of its column, if the data have several, or else what stands before the
    first "---", "::" or ":" in it, if at least nine tags of ten have one; otherwise all tags are of
    one concept.

    Args:
        wanted: the least number of rows, or the taxonomy that was made before.
        tags: T normalised tags.
        spellings: T commonest spellings.
        concepts: T concepts, or None.
        num_rows: [T] training rows of each tag.
        source: the data, for messages.

    Raises:
        InputError: no tag has enough rows.
    """
    order = sorted(range(len(tags)), key=lambda number: (-int(num_rows[number]), tags[number]))
    if wanted.made_before is not None:
        taxonomy = wanted.made_before
    else:
        frequent = [number for number in order if num_rows[number] >= wanted.min_tag_rows]
        if not frequent:
            largest = int(num_rows[order[0]]) if order else 0
            raise InputError(
                f"{source}: no tag has {wanted.min_tag_rows} training rows, the commonest has "
                f"{largest}; lower --config.data.min_tag_rows, or give more rows"
            )
        taxonomy = _by_concept(frequent, spellings, concepts, source)
    column_of = np.fromiter(
        (taxonomy.column(tag) if taxonomy.knows(tag) else -1 for tag in tags), np.int64, len(tags)
    )
    counts = [(spellings[number], int(num_rows[number])) for number in order]
    is_kept = [column_of[number] >= 0 for number in order]
    return Vocabulary(
        taxonomy,
        column_of,
        left_out=[count for count, frequent in zip(counts, is_kept, strict=True) if not frequent],
        kept=[count for count, frequent in zip(counts, is_kept, strict=True) if frequent],
    )


def _by_concept(
    kept: list[int], spellings: Sequence[str], concepts: Sequence[str] | None, source: str
) -> Taxonomy:
    if concepts is None:
        names = _prefixes([spellings[number] for number in kept])
    else:
        names = [concepts[number] for number in kept]
    # Concepts are compared like tags, in the order in which the data have them.
    display_name: dict[str, str] = {}
    for _, name in sorted(zip(kept, names, strict=True)):
        display_name.setdefault(normalize(name), name)
    mapping: dict[str, list[str]] = {name: [] for name in display_name.values()}
    for number, name in zip(kept, names, strict=True):
        mapping[display_name[normalize(name)]].append(spellings[number])
    return Taxonomy.from_mapping(mapping, source=f"the tags of {source}")


def _prefixes(spellings: list[str]) -> list[str]:
    for mark in _MARKS:
        cut = [spelling.partition(mark) for spelling in spellings]
        names = [
            prefix.strip() if prefix.strip() and rest.strip() else "" for prefix, _, rest in cut
        ]
        distinct = {normalize(name) for name in names}
        almost_all = sum(map(bool, names)) >= _ALMOST_ALL * len(names)
        if almost_all and 2 * len(distinct) <= len(names):
            return [name or ALL for name in names]
    return [ALL] * len(spellings)
