"""Reads tables with a row for each tag of an item, in any order, perhaps with weights.

A row costs eight bytes, whatever its texts; they are numbered as they come.
"""

import array
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxvae.data.cells.tag_parser import MAX_CELL, MISSING
from jaxvae.data.encoding import BLOCK, TagBlock
from jaxvae.data.layouts.options import Reading
from jaxvae.data.readers.tables import Table, check_columns, list_names, row_place, single_rows
from jaxvae.data.splits import SplitWords
from jaxvae.errors import InputError, type_name

WEIGHT_COLUMNS = ("weight", "score", "count", "confidence")
"""Names of a column of weights that is found without being named."""


def read_long(
    table: Table,
    column: str,
    *,
    group_by: str,
    weight_column: str,
    min_weight: float,
    split_column: str,
) -> Reading:
    """Gathers the rows of each item.

    Args:
        table: the source.
        column: the column with one tag.
        group_by: the column that names the item; items are in the order of their first rows.
        weight_column: the column of weights; "" takes one called as in `WEIGHT_COLUMNS`.
        min_weight: the least weight; 0.0 takes all rows, and reads no weights.
        split_column: the column with the item's split, alike in all its rows; "" if there is none.

    Raises:
        InputError: a column is missing, a row has no item, a weight is no number, or an item is in
            two splits.
    """
    weighted = min_weight != 0.0
    if weighted and not weight_column:
        named = [name for name in table.names if name.casefold() in WEIGHT_COLUMNS]
        if len(named) != 1:
            raise InputError(
                f"{table.where}: --config.data.min_weight={min_weight} needs the column of "
                f"weights: --config.data.weight_column=NAME, one of "
                f"{list_names(table.names)}"
            )
        weight_column = named[0]
    columns = [group_by, column, *([weight_column] * weighted), *filter(None, [split_column])]
    check_columns(columns, table.names, table.where)
    least = f", of weight {min_weight:g} or more in {weight_column}" * weighted
    read_as = f"a row for each tag, in column {column}, of the items in {group_by}{least}"
    return Reading(
        _blocks(
            table,
            columns,
            min_weight=min_weight if weighted else None,
            split_column=split_column,
        ),
        read_as,
    )


def _blocks(
    table: Table, columns: Sequence[str], *, min_weight: float | None, split_column: str
) -> Iterator[TagBlock]:
    gathered = _Taggings(table.where, columns, min_weight, split_column)
    for number, (line, cells) in enumerate(single_rows(table.rows(columns))):
        gathered.add(line, cells, number)
    yield from gathered.blocks()


class _Taggings:
    """The taggings of a table, numbered by item and tag; see `read_long`."""

    def __init__(
        self, where: str, columns: Sequence[str], min_weight: float | None, split_column: str
    ):
        self._where, self._columns = where, columns
        self._min_weight = min_weight
        self._splits = SplitWords(split_column, where) if split_column else None
        self._items: dict[Any, int] = {}
        self._words: dict[str, int] = {}
        self._item, self._word = array.array("i"), array.array("i")
        self._split = array.array("B")
        self._num_gaps = self._num_light = 0

    def add(self, line: int | None, cells: Sequence[Any], number: int) -> None:
        """Adds one row of the table."""
        item, tag = cells[0], cells[1]
        if item is None or item == "":
            raise InputError(
                f"{self._at(line, number)}: no value in column {self._columns[0]!r}, which says "
                f"what the tag belongs to; leave the row out, or name another column by "
                f"--config.data.group_by"
            )
        num_items = len(self._items)
        index = self._items.setdefault(item, num_items)
        if self._splits is not None:
            split = self._splits.number(cells[-1], row=number, line=line)
            if index == num_items:
                self._split.append(split)
            elif self._split[index] != split:
                raise InputError(
                    f"{self._at(line, number)}: item {str(item)[:60]!r} is in another split "
                    f"({str(cells[-1])[:20]!r}) than in its rows before; an item has one"
                )
        if self._min_weight is not None and self._weight(cells[2], line, number) < self._min_weight:
            self._num_light += 1
            return
        if tag is None or (isinstance(tag, float) and math.isnan(tag)):
            self._num_gaps += 1
            return
        if not isinstance(tag, str) or len(tag) > MAX_CELL:
            what = type_name(tag) if not isinstance(tag, str) else f"{len(tag):,} characters"
            raise InputError(
                f"{self._at(line, number)}: expected one tag in column {self._columns[1]!r}, "
                f"found {what}"
            )
        tag = tag.strip()
        if tag.casefold() in MISSING:
            self._num_gaps += 1
            return
        self._item.append(index)
        self._word.append(self._words.setdefault(tag, len(self._words)))

    def blocks(self) -> Iterator[TagBlock]:
        """Yields the items as rows, in the order of their first taggings."""
        item = np.frombuffer(self._item, np.int32) if self._item else np.zeros(0, np.int32)
        word = np.frombuffer(self._word, np.int32) if self._word else np.zeros(0, np.int32)
        order = np.argsort(item, kind="stable")
        item, word = item[order], word[order]
        words = list(self._words)
        split = np.frombuffer(self._split, np.uint8) if self._splits is not None else None
        for start in range(0, len(self._items), BLOCK):
            stop = min(start + BLOCK, len(self._items))
            first, last = np.searchsorted(item, [start, stop])
            distinct, numbers = np.unique(word[first:last], return_inverse=True)
            yield TagBlock(
                num_rows=stop - start,
                words=[words[index] for index in distinct],
                word=numbers.reshape(-1),
                row=item[first:last].astype(np.int64) - start,
                unreadable=[],
                split=None if split is None else split[start:stop],
                num_gaps=self._num_gaps if start == 0 else 0,
                num_light=self._num_light if start == 0 else 0,
            )

    def _weight(self, cell: Any, line: int | None, number: int) -> float:
        try:
            weight = float(cell)
        except (TypeError, ValueError):
            weight = math.nan
        if math.isnan(weight):
            raise InputError(
                f"{self._at(line, number)}: no weight in column {self._columns[2]!r}, found "
                f"{str(cell)[:40]!r}"
            )
        return weight

    def _at(self, line: int | None, number: int) -> str:
        return f"{self._where}, {row_place(number, line)}"
