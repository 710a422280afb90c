"""Encodes blocks of tags as column numbers in flat arrays, and lays these out as rows.

Each distinct spelling of a block is looked up once; everything else is array arithmetic.
"""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxvae.data.spelling import normalize
from jaxvae.data.spill_array import SpillArray
from jaxvae.data.taxonomy import Taxonomy

BLOCK = 65_536
_PADDED = _COUNTED = 2**22


@dataclass(frozen=True)
class TagBlock:
    """The tags of some consecutive rows: the n-th is `words[word[n]]`, of row `row[n]`.

    Attributes:
        num_rows: number of rows, including unreadable ones and those without tags.
        words: distinct spellings.
        word: [T] positions in `words`.
        row: [T] positions among the block's rows, rising.
        unreadable: (row, line of the file if it has lines, reason) of the unreadable rows, which
            have no tags here.
        concepts: the concept of each word, as several columns have; None if unknown.
        split: `[num_rows]` uint8, positions in `splits.SPLITS` where the source gives the split of
            each row; None where it does not.
        num_gaps: missing tags among the others of their rows.
        num_rated: tags that came with a number which is not used.
        num_light: tags left out for their weight.
    """

    num_rows: int
    words: list[str]
    word: np.ndarray
    row: np.ndarray
    unreadable: list[tuple[int, int | None, str]]
    concepts: list[str] | None = None
    split: np.ndarray | None = None
    num_gaps: int = 0
    num_rated: int = 0
    num_light: int = 0


def encode_block(
    block: TagBlock, column_of: Callable[[str], int], num_tags: int
) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Turns a block's tags into column numbers.

    Args:
        block: tags as they were written.
        column_of: maps a spelling to its column, -1 if unknown.
        num_tags: V.

    Returns:
        (columns, lengths, unknown): the rows' distinct columns, rising, one row after the other;
        each row's number of columns, `[num_rows]`; counts of the unknown spellings.
    """
    column = np.fromiter(map(column_of, block.words), np.int64, len(block.words))[block.word]
    is_known = column >= 0
    columns, lengths = distinct_columns(
        block.row[is_known], column[is_known], num_tags=num_tags, num_rows=block.num_rows
    )
    counts = np.bincount(block.word[~is_known], minlength=len(block.words))
    unknown = Counter({block.words[n]: int(counts[n]) for n in np.flatnonzero(counts)})
    return columns, lengths, unknown


def distinct_columns(
    row: np.ndarray, column: np.ndarray, *, num_tags: int, num_rows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sorts the columns of rows, and leaves out repeats.

    Args:
        row: `[T]` the row of each tag.
        column: `[T]` its column, below `num_tags`.
        num_tags: V.
        num_rows: N.

    Returns:
        (columns, lengths): the rows' distinct columns, rising, one row after the other; `[N]` their
        number.
    """
    # Row and column in one number: sorted and distinct, they are the rows with sorted columns.
    cells = np.sort(row * num_tags + column)
    cells = cells[np.diff(cells, prepend=-1) > 0]
    rows, columns = np.divmod(cells, num_tags)
    return columns, np.bincount(rows, minlength=num_rows)


def pad_ragged(columns: np.ndarray, lengths: np.ndarray, *, fill: int, dtype) -> np.ndarray:
    """Pads ragged rows to a read-only `[N, K]`, K the longest row's length and at least one.

    Args:
        columns: the rows' numbers, one row after the other.
        lengths: `[N]` the rows' lengths.
        fill: the padding.
        dtype: the result's type.
    """
    rows = SpillArray(dtype)
    slots = np.arange(max(1, int(lengths.max(initial=0))))
    start = 0
    size = max(1, _PADDED // len(slots))
    for first in range(0, len(lengths), size):
        counts = lengths[first : first + size]
        stop = start + int(counts.sum())
        block = np.full((len(counts), len(slots)), fill, dtype)
        block[slots < counts[:, None]] = columns[start:stop]
        rows.extend(block)
        start = stop
    return rows.array().reshape(-1, len(slots))


def tag_counts(
    rows: np.ndarray, num_tags: int, *, positions: np.ndarray | None = None
) -> np.ndarray:
    """Counts the rows that have each tag, `[V]`.

    Args:
        rows: `[N, K]` column numbers padded with V, or rows' numbers one row after the other.
        num_tags: V.
        positions: `[M]` positions of the rows to count; None counts all.
    """
    counts = np.zeros(num_tags, np.int64)
    # In blocks: `bincount` makes eight bytes of each number.
    size = max(1, _COUNTED // max(1, rows[:1].size))
    for start in range(0, len(rows if positions is None else positions), size):
        span = slice(start, start + size)
        block = rows[span if positions is None else positions[span]]
        counts += np.bincount(block.ravel(), minlength=num_tags + 1)[:num_tags]
    return counts


def to_multi_hot(rows: np.ndarray, num_tags: int) -> np.ndarray:
    """Converts `[N, K]` rows padded with `num_tags` to boolean `[N, V]`."""
    hot = np.zeros((len(rows), num_tags + 1), bool)
    hot[np.arange(len(rows))[:, None], rows] = True
    return hot[:, :num_tags]


def to_csr(rows: np.ndarray, num_tags: int):
    """Converts `[N, K]` rows padded with `num_tags` to a scipy CSR matrix `[N, V]` of ones.

    Use it instead of `to_multi_hot` if a dense matrix would not fit in memory.
    """
    from scipy.sparse import csr_matrix

    active = rows < num_tags
    starts = np.concatenate([[0], np.cumsum(active.sum(axis=1))])
    ones = np.ones(starts[-1], np.int32)
    return csr_matrix((ones, rows[active].astype(np.int32), starts), (len(rows), num_tags))


def pad_tag_ids(columns: list[list[int]], num_tags: int) -> np.ndarray:
    """Pads lists of column numbers to rows `[N, K]` with `num_tags`, K at least one."""
    lengths = np.fromiter(map(len, columns), np.int64, len(columns))
    flat = np.fromiter(itertools.chain.from_iterable(columns), np.int32, lengths.sum())
    return pad_ragged(flat, lengths, fill=num_tags, dtype=np.int32)


def make_tag_lookup(taxonomy: Taxonomy) -> Callable[[str], int]:
    """Returns a function that maps a tag in any spelling to its column, -1 if unknown.

    The function caches every spelling: normalising costs far more than a dictionary lookup.

    Args:
        taxonomy: the known tags.
    """
    column_of = {normalize(alias): column for alias, column in taxonomy.aliases}
    column_of |= {tag: column for column, tag in enumerate(taxonomy.tags)}
    as_written = dict(column_of)

    def column(tag: str) -> int:
        number = as_written.get(tag)
        if number is None:
            number = as_written[tag] = column_of.get(normalize(tag), -1)
        return number

    return column
