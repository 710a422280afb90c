"""Reads tables with a column of 0 and 1 for each tag, as MagnaTagATune and scikit-learn have."""

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np

from jaxvae.data.encoding import BLOCK, TagBlock
from jaxvae.data.layouts.options import Reading
from jaxvae.data.readers import containers
from jaxvae.data.readers.tables import Table, check_columns, row_place, single_rows
from jaxvae.data.splits import SplitWords
from jaxvae.errors import InputError

PEEKED = 1000
_VALUES: dict[Any, bool] = {
    **{text: False for text in ("0", "0.0", "false", "False", "FALSE")},
    **{text: True for text in ("1", "1.0", "true", "True", "TRUE")},
    0: False,
    1: True,
}
_MOSTLY = 0.5
_CSV_BLOCK = 2**23


def read_one_hot(table: Table, columns: Sequence[str], *, split_column: str) -> Reading:
    """Reads a tag for each 1 in some columns.

    Args:
        table: the source.
        columns: the tags' columns; their names are the tags.
        split_column: the column with the split of each row; "" if there is none.

    Raises:
        InputError: a column is missing, or a value is neither 0 nor 1.
    """
    check_columns([*columns, *filter(None, [split_column])], table.names, table.where)
    unread = [name for name in table.names if name not in {*columns, split_column}]
    left_out = ""
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        left_out = f"; not read: {', '.join(name[:40] for name in unread[:3])}{more}"
    read_as = f"{len(columns)} columns of 0 and 1, a tag each{left_out}"
    return Reading(_blocks(table, list(columns), split_column), read_as)


def indicator_columns(table: Table, *, share: float = _MOSTLY) -> list[str]:
    """Returns the columns of which more than a share of the first cells are 0 or 1.

    Args:
        table: the source.
        share: 1.0 asks for all of them.
    """
    if table.indicators is not None:
        return table.indicators
    names = [name for name, count in Counter(table.names).items() if count == 1 and name]
    if share < 1.0:  # which are all tags: one called as another would be lost
        check_columns([name for name in table.names if name], table.names, table.where)
    counts = np.zeros(len(names), np.int64)
    num_rows = 0
    with contextlib.closing(table.rows(names)) as rows:  # type: ignore[type-var]
        for _, cells in itertools.islice(single_rows(rows), PEEKED):
            counts += np.fromiter(map(_is_indicator, cells), np.int64, len(names))
            num_rows += 1
    least = share * num_rows
    return [
        name
        for name, count in zip(names, counts.tolist(), strict=True)
        if count and (count >= num_rows if share >= 1.0 else count > least)
    ]


def _is_indicator(cell: Any) -> bool:
    return isinstance(cell, str | int | float) and cell in _VALUES


def _blocks(table: Table, columns: list[str], split_column: str) -> Iterator[TagBlock]:
    num_read = 0
    if table.reader is not None and not split_column:
        num_read, is_whole = yield from _fast_blocks(table, columns)
        if is_whole:
            return
    yield from _slow_blocks(table, columns, split_column, skip=num_read)


def _fast_blocks(table: Table, columns: list[str]) -> Generator[TagBlock, None, tuple[int, bool]]:
    """Reads separated text by pyarrow, up to the first value that is not plainly 0 or 1.

    Returns:
        (the number of rows read, whether they are all).
    """
    import pyarrow as pa
    from pyarrow import csv

    assert table.reader is not None
    path, separator = table.reader
    read = csv.ReadOptions(block_size=_CSV_BLOCK)
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    convert = csv.ConvertOptions(
        include_columns=columns,
        column_types={column: pa.int8() for column in columns},
        null_values=[],
    )
    num_rows = 0
    with containers.open_plain(path) as file:
        try:
            for batch in csv.open_csv(file, read, parse, convert):
                hot = np.stack([column.to_numpy() for column in batch.columns], axis=1)
                if hot.min(initial=0) < 0 or hot.max(initial=0) > 1:
                    return num_rows, False
                yield _of_matrix(hot, columns)
                num_rows += len(hot)
        except pa.ArrowInvalid:
            return num_rows, False  # the other reader says what is wrong, and where
    return num_rows, True


def _of_matrix(hot: np.ndarray, columns: list[str]) -> TagBlock:
    row, word = np.nonzero(hot)
    return TagBlock(len(hot), columns, word, row, [])


def _slow_blocks(
    table: Table, columns: list[str], split_column: str, *, skip: int
) -> Iterator[TagBlock]:
    splits = SplitWords(split_column, table.where) if split_column else None
    rows = single_rows(table.rows([*columns, *filter(None, [split_column])]))
    rows = itertools.islice(rows, skip, None)
    first = skip
    while block_rows := list(itertools.islice(rows, BLOCK)):
        lines = [line for line, _ in block_rows]
        hot = np.array(
            [
                _hot_row(table.where, columns, line, cells, row)
                for row, (line, cells) in enumerate(block_rows, start=first)
            ]
        )
        block = _of_matrix(hot, columns)
        if splits is not None:
            cells = [cells[-1] for _, cells in block_rows]
            split = splits.numbers(cells, first_row=first, lines=lines)
            block = dataclasses.replace(block, split=split)
        yield block
        first += len(block_rows)


def _hot_row(
    where: str, columns: list[str], line: int | None, cells: Sequence[Any], row: int
) -> list[bool]:
    try:
        return [_VALUES[cell] for cell in cells[: len(columns)]]
    except (KeyError, TypeError):
        number = next(n for n, cell in enumerate(cells) if not _is_indicator(cell))
        raise InputError(
            f"{where}, {row_place(row, line)}: {str(cells[number])[:40]!r} in column "
            f"{columns[number][:60]!r}, where 0 or 1 is expected; name the columns that are tags "
            f"by --config.data.aspect_column=a,b,c (--column of a command)"
        ) from None
