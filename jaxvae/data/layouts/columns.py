"""Reads tags from a column of lists or texts, or from several columns that are a concept each.

Typed columns of lists (Parquet, the hub) are read without a Python loop over rows or tags.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxvae.data.cells.tag_parser import MAX_CELL, TagParseError, parse_cell
from jaxvae.data.encoding import BLOCK, TagBlock
from jaxvae.data.layouts.options import Reading
from jaxvae.data.layouts.separators import COMMA, SAMPLE, find_separator, shown
from jaxvae.data.readers.tables import Rows, Table, single_rows
from jaxvae.data.spelling import normalize
from jaxvae.data.splits import SplitWords
from jaxvae.data.taxonomy import Taxonomy

_ENDING = re.compile(r"[\s_.-]+(?:tags?|list|labels?|aspects?)$", re.IGNORECASE)


def read_columns(
    table: Table,
    columns: Sequence[str],
    *,
    separator: str,
    split_column: str,
    taxonomy: Taxonomy | None,
) -> Reading:
    """Reads the cells of one or several columns.

    Args:
        table: the source.
        columns: names of columns; of several, each is a concept.
        separator: what stands between the tags of a text; "" finds it.
        split_column: the column with the split of each row; "" if there is none.
        taxonomy: the known tags, or None.

    Raises:
        InputError: a column is missing, its separator uncertain, or a line of the file malformed.
    """
    all_columns = [*columns, *([split_column] if split_column else [])]
    rows = table.rows(all_columns)
    marks = [separator] * len(columns)
    if not separator:
        first_rows, num_cells = [], 0
        while num_cells < SAMPLE and (item := next(rows, None)) is not None:
            first_rows.append(item)
            num_cells += 1 if isinstance(item, tuple) else item.num_rows
        marks = [
            find_separator(_cells(first_rows, number), taxonomy, f"{table.where}, column {column}")
            for number, column in enumerate(columns)
        ]
        rows = itertools.chain(first_rows, rows)
    blocks = read_blocks(
        rows,
        marks=marks,
        concepts=concept_names(columns) if len(columns) > 1 else None,
        splits=SplitWords(split_column, table.where) if split_column else None,
        taxonomy=taxonomy,
    )
    listed = ", ".join(columns)
    what = f"columns {listed}, a concept each" if len(columns) > 1 else f"column {listed}"
    special = {shown(mark) for mark in marks if mark != COMMA}
    by = f", separated by {' and '.join(map(repr, sorted(special)))}" if special else ""
    return Reading(blocks, what + by)


def concept_names(columns: Sequence[str]) -> list[str]:
    """Returns the concepts of columns: `genre` of `genre_tags`.

    Args:
        columns: names of columns, all different.
    """
    short = [_ENDING.sub("", column).strip() or column for column in columns]
    repeated = len({normalize(name) for name in short}) < len(short)
    return list(columns) if repeated else short


def _cells(rows: list, number: int) -> list[object]:
    """Returns at most `SAMPLE` cells of one column; of a typed column of lists none."""
    cells: list[object] = []
    for item in rows:
        if isinstance(item, tuple):
            cells.append(item[1][number])
        elif _is_text(item.column(number).type):
            cells += item.column(number)[: SAMPLE - len(cells)].to_pylist()
    return cells


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(inner) or pa.types.is_large_string(inner)


def read_blocks(
    rows: Rows,
    *,
    marks: Sequence[str] = (COMMA,),
    concepts: Sequence[str] | None = None,
    splits: SplitWords | None = None,
    taxonomy: Taxonomy | None = None,
) -> Iterator[TagBlock]:
    """Gathers rows into blocks, in their order.

    Args:
        rows: pairs of a line number and the row's cells, or record batches, mixed at will; of
            columns of tags, and the column of the split behind them.
        marks: what separates the tags of a text, for each column of tags.
        concepts: the concept of each column of tags, or None.
        splits: reads the last column; None if there is no such column.
        taxonomy: known tags, for `tag_parser.parse_cell`.

    Raises:
        InputError: raised by the iteration over `rows`, or a split is unknown.
    """
    reader = _Reader(list(marks), concepts, splits, taxonomy)
    pending: list[tuple] = []
    for item in rows:
        single = isinstance(item, tuple)
        if single:
            pending.append(item)
        if pending and (not single or len(pending) == BLOCK):
            yield reader.of_cells(pending)
            pending = []
        if not single:
            yield reader.of_batch(item)
    if pending:
        yield reader.of_cells(pending)


class _Reader:
    """Makes blocks of cells; see `read_blocks` for the arguments."""

    def __init__(
        self,
        marks: list[str],
        concepts: Sequence[str] | None,
        splits: SplitWords | None,
        taxonomy: Taxonomy | None,
    ):
        self._marks, self._concepts = marks, concepts
        self._splits, self._taxonomy = splits, taxonomy
        self._num_rows = 0

    def of_cells(self, rows: list[tuple]) -> TagBlock:
        """Makes a block of (line, cells) pairs."""
        words: dict[tuple[int, str], int] = {}
        word: list[int] = []
        lengths = np.zeros(len(rows), np.int64)
        unreadable = []
        num_gaps = num_rated = 0
        parsed: dict[tuple[int, str], tuple[list[int], int, int]] = {}
        concept_of = range(len(self._marks)) if self._concepts else itertools.repeat(0)
        for row, (line, cells) in enumerate(rows):
            row_words: list[int] = []
            try:
                for concept, mark, cell in zip(concept_of, self._marks, cells, strict=False):
                    key = (concept, cell) if isinstance(cell, str) else None
                    if key is not None and key in parsed:
                        numbers, gaps, rated = parsed[key]
                    else:
                        tags, gaps, rated = parse_cell(cell, self._taxonomy, mark)
                        numbers = [words.setdefault((concept, tag), len(words)) for tag in tags]
                        if key is not None:
                            parsed[key] = numbers, gaps, rated
                    row_words += numbers
                    num_gaps += gaps
                    num_rated += rated
            except TagParseError as error:
                unreadable.append((row, line, str(error)))
                continue
            lengths[row] = len(row_words)
            word += row_words
        row_of = np.repeat(np.arange(len(rows)), lengths)
        concepts = None
        if self._concepts is not None:
            concepts = [self._concepts[number] for number, _ in words]
        return TagBlock(
            num_rows=len(rows),
            words=[tag for _, tag in words],
            word=np.array(word, np.int64),
            row=row_of,
            unreadable=unreadable,
            concepts=concepts,
            split=self._split([cells[-1] for _, cells in rows], [line for line, _ in rows]),
            num_gaps=num_gaps,
            num_rated=num_rated,
        )

    def of_batch(self, batch: Any) -> TagBlock:
        """Makes a block of a record batch."""
        arrays = [batch.column(number) for number in range(len(self._marks))]
        if not all(map(_is_list_of_text, arrays)):
            return self.of_cells([*single_rows(iter([batch]))])
        column_blocks = [_of_lists(array) for array in arrays]
        block = column_blocks[0] if len(column_blocks) == 1 else _joined(column_blocks)
        concepts = None
        if self._concepts is not None:
            sizes = [len(block_of_column.words) for block_of_column in column_blocks]
            concepts = np.repeat(self._concepts, sizes).tolist()
        split = None
        if self._splits is not None:
            split = self._split(batch.columns[-1].to_pylist(), None)
        return dataclasses.replace(block, concepts=concepts, split=split)

    def _split(self, cells: list, lines: list | None) -> np.ndarray | None:
        if self._splits is None:
            return None
        numbers = self._splits.numbers(cells, first_row=self._num_rows, lines=lines)
        self._num_rows += len(cells)
        return numbers


def _is_list_of_text(array: Any) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(array.type) for is_kind in kinds) and _is_text(array.type.value_type)


def _of_lists(array: Any) -> TagBlock:
    """Makes a block of an Arrow array of lists of texts."""
    import pyarrow as pa
    from pyarrow import compute

    lengths = compute.list_value_length(array).fill_null(0).to_numpy()
    flat = compute.list_flatten(array)
    # Re-encode: the file's dictionary may contain duplicates or nulls.
    numbered = pa.types.is_dictionary(array.type.value_type)
    encoded = (flat.dictionary_decode() if numbered else flat).dictionary_encode()
    words = encoded.dictionary.to_pylist()
    word = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    row = np.repeat(np.arange(len(array)), lengths)

    # Rows that are too long: `parse_cell` gives the reason.
    sizes = np.array([*map(len, words), 0], np.int64)
    characters = np.bincount(row, weights=sizes[word], minlength=len(array))
    unreadable: list[tuple[int, int | None, str]] = []
    for suspect in np.flatnonzero(characters > MAX_CELL).tolist():
        try:
            parse_cell(array[suspect].as_py())
        except TagParseError as error:
            unreadable.append((suspect, None, str(error)))
    refused = np.isin(row, [suspect for suspect, _, _ in unreadable])
    blank = np.array([not spelling or spelling.isspace() for spelling in words] + [True])
    valid = ~blank[word] & ~refused
    num_gaps = int(((word < 0) & ~refused).sum())
    return TagBlock(len(array), words, word[valid], row[valid], unreadable, num_gaps=num_gaps)


def _joined(parts: list[TagBlock]) -> TagBlock:
    """Joins blocks of the same rows, each of another column."""
    starts = np.cumsum([0, *(len(block.words) for block in parts)])
    word = np.concatenate([block.word + start for block, start in zip(parts, starts, strict=False)])
    row = np.concatenate([block.row for block in parts])
    unreadable = {entry[0]: entry for block in reversed(parts) for entry in block.unreadable}
    order = np.argsort(row, kind="stable")
    order = order[~np.isin(row[order], list(unreadable))]
    return TagBlock(
        num_rows=parts[0].num_rows,
        words=[word for block in parts for word in block.words],
        word=word[order],
        row=row[order],
        unreadable=[unreadable[number] for number in sorted(unreadable)],
        num_gaps=sum(block.num_gaps for block in parts),
    )
