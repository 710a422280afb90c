"""Reads tags that fill as many trailing columns as there are, as MTG-Jamendo is published."""

import itertools
from collections.abc import Iterator

import numpy as np

from jaxvae.data.encoding import BLOCK, TagBlock
from jaxvae.data.layouts.options import Reading
from jaxvae.data.readers.tables import Table, check_columns
from jaxvae.data.splits import SplitWords
from jaxvae.errors import InputError


def read_trailing(table: Table, column: str, *, split_column: str) -> Reading:
    """Reads the fields of each row from the last named column on.

    Args:
        table: separated text, whose rows may be longer than its first line.
        column: the last column, in which the tags begin.
        split_column: the column with the split of each row; "" if there is none.

    Raises:
        InputError: the table is not separated text, the column is not its last one, or a row is
            shorter than the first line.
    """
    if table.wide_rows is None:
        raise InputError(
            f"{table.where}: --config.data.layout=trailing is for separated text (CSV, TSV), not "
            f"for {table.kind}"
        )
    check_columns([column], table.names, table.where)
    if table.names[-1] != column:
        raise InputError(
            f"{table.where}: column {column!r} is not the last one, which is {table.names[-1]!r}; "
            f"tags in trailing columns begin in the last named one"
        )
    if split_column:
        check_columns([split_column], table.names, table.where)
    return Reading(
        _blocks(table, len(table.names) - 1, split_column),
        f"the fields from column {column} on, a tag each",
    )


def _blocks(table: Table, first: int, split_column: str) -> Iterator[TagBlock]:
    assert table.wide_rows is not None
    splits = SplitWords(split_column, table.where) if split_column else None
    split_index = table.names.index(split_column) if split_column else 0
    rows = table.wide_rows()
    first_row = 0
    while block_rows := list(itertools.islice(rows, BLOCK)):
        words: dict[str, int] = {}
        word: list[int] = []
        row_of: list[int] = []
        for row, (line, record) in enumerate(block_rows):
            if len(record) < first:
                raise InputError(
                    f"{table.where}, line {line}: {len(record)} fields where the header has "
                    f"{first + 1}"
                )
            for tag in record[first:]:
                if tag and not tag.isspace():
                    word.append(words.setdefault(tag, len(words)))
                    row_of.append(row)
        split = None
        if splits is not None:
            cells = [record[split_index] for _, record in block_rows]
            lines = [line for line, _ in block_rows]
            split = splits.numbers(cells, first_row=first_row, lines=lines)
        yield TagBlock(
            num_rows=len(block_rows),
            words=list(words),
            word=np.array(word, np.int64),
            row=np.array(row_of, np.int64),
            unreadable=[],
            split=split,
        )
        first_row += len(block_rows)
