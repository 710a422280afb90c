"""Splits rows into training, validation and test: as the source says, or drawn by a seed."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxvae.data.readers.tables import row_place
from jaxvae.errors import InputError

SPLITS = ("train", "val", "test")
_PART_BYTES = 2**24


def subsample(num_rows: int, most: int) -> np.ndarray:
    """Draws at most `most` of some rows by a fixed seed; returns their positions, rising.

    The first rows would not do: files are in an order that means something, such as albums.
    """
    if num_rows <= most:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(0).permutation(num_rows)[:most])


_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), 1),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), 2),
}
_TRUE, _FALSE = frozenset(("true", "1", "yes")), frozenset(("false", "0", "no"))


class SplitWords:
    """Reads the cells of a column that says which split each row is in.

    Such a cell is a word (train, val, test, validation, dev, eval, …), or, in a column whose name
    has one of these words, true or false: `is_audioset_eval` is true for rows of the test.

    Args:
        column: the column's name.
        where: the table, for messages.
    """

    def __init__(self, column: str, where: str):
        self._column, self._where = column, where
        words = re.split(r"[^a-z]+", column.casefold())
        named = {_WORDS[word] for word in words if word in _WORDS}
        is_plain = len(named) == 1 and not {"not", "non", "no"} & set(words)
        self._of_truth = named.pop() if is_plain else None
        self._known: dict[Any, int] = {}

    def numbers(
        self, cells: Sequence[Any], *, first_row: int, lines: Sequence[int | None] | None
    ) -> np.ndarray:
        """Returns positions in `SPLITS`, uint8, of rows.

        Args:
            cells: the column's values.
            first_row: the first one's row, counted from 0.
            lines: the rows' lines in the file, if it has lines.

        Raises:
            InputError: a cell is no split.
        """
        numbers = (
            self.number(cell, row=first_row + n, line=lines[n] if lines else None)
            for n, cell in enumerate(cells)
        )
        return np.fromiter(numbers, np.uint8, len(cells))

    def number(self, cell: Any, *, row: int, line: int | None) -> int:
        """Returns the position in `SPLITS` of one row; see `numbers`."""
        number = self._known.get(cell) if isinstance(cell, str | bool | int) else None
        if number is None:
            number = self._known[cell] = self._read(cell, row, line)
        return number

    def _read(self, cell: Any, row: int, line: int | None) -> int:
        text = str(cell).strip().casefold()
        if (number := _WORDS.get(text)) is not None:
            return number
        if self._of_truth is not None and text in _TRUE | _FALSE:
            opposite = 2 if self._of_truth == 0 else 0  # what is not in training is in the test
            return self._of_truth if text in _TRUE else opposite
        raise InputError(
            f"{self._where}, {row_place(row, line)}: {str(cell)[:40]!r} in column "
            f"{self._column!r} is no split; a split is train, val or test, or true or false in a "
            f"column named after one"
        )


def complete_splits(
    given: np.ndarray,
    rows: np.ndarray,
    *,
    val_fraction: float,
    test_fraction: float,
    split_by: str,
    seed: int,
) -> dict[str, np.ndarray]:
    """Returns the splits that a source gives; those that it lacks are drawn from its training rows.

    Args:
        given: [N] positions in `SPLITS`.
        rows: [N, K] column numbers, as in `split_rows`.
        val_fraction: share of the training rows for a validation that is not given.
        test_fraction: likewise for the test.
        split_by: "row" or "set", for what is drawn.
        seed: seed of what is drawn.

    Raises:
        InputError: as in `split_rows`, or no row is given as training.
    """
    splits = {name: np.flatnonzero(given == number) for number, name in enumerate(SPLITS)}
    if not len(splits["train"]):
        counts = ", ".join(f"{name} {len(positions)}" for name, positions in splits.items())
        raise InputError(f"no row is given as training ({counts})")
    lacking = [name for name in ("val", "test") if not len(splits[name])]
    if lacking:
        train = splits["train"]
        new_splits = split_rows(
            rows[train],
            val_fraction=val_fraction if "val" in lacking else 0.0,
            test_fraction=test_fraction if "test" in lacking else 0.0,
            split_by=split_by,
            seed=seed,
            required=("train", *lacking),
        )
        for name in ("train", *lacking):
            splits[name] = train[new_splits[name]]
    return splits


def split_rows(
    rows: np.ndarray,
    *,
    val_fraction: float,
    test_fraction: float,
    split_by: str,
    seed: int,
    required: Sequence[str] = SPLITS,
) -> dict[str, np.ndarray]:
    """Divides rows into disjoint splits that cover them all.

    "row" draws rows one by one. "set" keeps rows with equal tag sets together, so that no row of
    validation or test has a duplicate in training; sizes are as near as whole groups allow.

    Args:
        rows: [N, K] column numbers, each row sorted and padded alike.
        val_fraction: share of the rows for validation, in [0, 1); the size is rounded down.
        test_fraction: share of the rows for test, likewise.
        split_by: "row" or "set".
        seed: seed of the permutation; equal arguments give equal splits.
        required: the splits that must not be empty.

    Returns:
        Positions in `rows`, rising, int64, under "train", "val" and "test".

    Raises:
        InputError: a fraction is out of range, `split_by` is unknown, or a split would be empty.
    """
    number = len(rows)
    if split_by not in ("row", "set"):
        raise InputError(f"split_by must be 'row' or 'set', not {split_by!r}")
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise InputError(f"{name} must be at least 0 and below 1, not {fraction!r}")
    num_val, num_test = _floor(number * val_fraction), _floor(number * test_fraction)
    rng = np.random.default_rng(seed)
    if split_by == "row":
        order = rng.permutation(number)
        test, val = order[:num_test], order[num_test : num_test + num_val]
        subsets = [order[num_test + num_val :], val, test]
    else:
        subsets = _split_groups(group_rows(rows), num_val, num_test, rng)
    splits = {name: np.sort(positions) for name, positions in zip(SPLITS, subsets, strict=True)}
    if empty := [name for name in required if not len(splits[name])]:
        sizes = ", ".join(f"{name} {len(positions)}" for name, positions in splits.items())
        raise InputError(
            f"no row is left for {' and '.join(empty)}: {number} rows at val_fraction "
            f"{val_fraction}, test_fraction {test_fraction}, split_by {split_by!r} give {sizes}; "
            "use more rows or other fractions"
        )
    return splits


def group_rows(rows: np.ndarray) -> np.ndarray:
    """Numbers the distinct rows; equal rows get equal numbers.

    Args:
        rows: [N, K] integers.

    Returns:
        [N], 0 to the number of distinct rows - 1; int32 if they fit.
    """
    number = len(rows)
    # Rows are sorted by a 64-bit hash: one key for any K. If different rows share a hash, which
    # almost never happens, they are sorted again with all their words as keys.
    mixed = np.zeros(number, np.uint64)
    for word in _words(rows):
        mixed ^= word
        mixed *= np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    order = np.argsort(mixed)
    mixed = mixed[order]
    shared = mixed[1:] == mixed[:-1]
    del mixed  # With tens of millions of rows every array takes much memory.
    new = _differs_from_previous(rows, order)
    if np.any(new[1:] & shared):
        order = np.lexsort(tuple(_words(rows)))
        new = _differs_from_previous(rows, order)
    groups = np.empty(number, np.int32 if number < 2**31 else np.int64)
    groups[order] = np.cumsum(new, dtype=groups.dtype)
    return groups


def _words(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yields `[N]` uint64 arrays that together hold each row's bytes."""
    content = np.ascontiguousarray(rows).view(np.uint8)
    for start in range(0, content.shape[1], 8):
        packed = np.zeros((len(rows), 8), np.uint8)
        chunk = content[:, start : start + 8]
        packed[:, : chunk.shape[1]] = chunk
        yield packed.view(np.uint64)[:, 0]


def _differs_from_previous(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Returns `[N]`: True where a row, in that order, differs from the one before; first False."""
    new = np.zeros(len(rows), bool)
    size = max(1, _PART_BYTES // rows[:1].nbytes)
    for start in range(1, len(rows), size):
        current, previous = order[start : start + size], order[start - 1 : start + size - 1]
        new[start : start + size] = np.any(rows[current] != rows[previous[: len(current)]], axis=1)
    return new


def count_duplicates(groups: np.ndarray, splits: dict[str, np.ndarray]) -> dict[str, int]:
    """Counts the rows of validation and of test that equal some row of training.

    Args:
        groups: [N] from `group_rows`.
        splits: from `split_rows`.
    """
    in_train = np.zeros(groups.max(initial=-1) + 1, bool)
    in_train[groups[splits["train"]]] = True
    return {name: int(in_train[groups[splits[name]]].sum()) for name in ("val", "test")}


def _floor(size: float) -> int:
    # 100 * 0.29 is 28.999999999999996 and yet 29 rows.
    return math.floor(size + 1e-9 * max(1.0, size))


def _split_groups(
    groups: np.ndarray, num_val: int, num_test: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Deals whole groups, in a random order, to test, then validation, the rest to training."""
    sizes = np.bincount(groups)
    remaining = rng.permutation(len(sizes))
    owner = np.zeros(len(sizes), np.uint8)  # The position in SPLITS.
    for split, target in ((2, num_test), (1, num_val)):
        selected = _take(sizes[remaining], target)
        owner[remaining[selected]] = split
        remaining = remaining[~selected]
    by_row = owner[groups]
    return [np.flatnonzero(by_row == split) for split in range(3)]


def _take(sizes: np.ndarray, wanted: int) -> np.ndarray:
    """Marks groups, the first that fit, whose sizes add up to `wanted` or as near as is simple."""
    selected = np.zeros(len(sizes), bool)
    missing = wanted
    while missing > 0:
        fits = np.flatnonzero(~selected & (sizes <= missing))
        total = np.cumsum(sizes[fits])
        num_fitting = np.searchsorted(total, missing, side="right")
        if not num_fitting:
            break
        selected[fits[:num_fitting]] = True
        missing -= int(total[num_fitting - 1])
    unselected = np.flatnonzero(~selected)
    if missing > 0 and len(unselected):
        # No group fits: overshoot by the smallest one if that ends nearer than falling short.
        smallest = unselected[np.argmin(sizes[unselected])]
        selected[smallest] = sizes[smallest] - missing < missing
    return selected
