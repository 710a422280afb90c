"""Rows of tags as arrays: the typed way must say what the way of single cells says."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvae.data import encoding
from jaxvae.data.cells.tag_parser import MAX_CELL
from jaxvae.data.layouts import columns as layout

KNOWN = {"rock": 0, "jazz": 1, "dub": 2}
TAGS = [
    "rock",
    "jazz",
    "dub",
    "Rock",
    "unknown",
    "日本",
    "",
    " \t",
    "x" * (MAX_CELL // 2 + 1),
    None,
]
CELLS = st.lists(st.none() | st.lists(st.sampled_from(TAGS), max_size=5), max_size=30)
NUMBERED = pa.dictionary(pa.int16(), pa.string())
TYPES = [
    *(pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_view(pa.string())),
    pa.list_(NUMBERED),
]


def column_of(tag: str) -> int:
    return KNOWN.get(tag.strip().lower(), -1)


def as_row(cell):
    """A cell of one column, or an array of them, as a table yields them."""
    if isinstance(cell, tuple):
        return cell[0], [cell[1]]
    return pa.RecordBatch.from_arrays([cell], names=["tags"])


def read(cells) -> tuple:
    """Rows, unknown tags and unreadable rows of all blocks, rows counted through."""
    rows, unknown, unreadable = [], Counter(), []
    for block in layout.read_blocks(map(as_row, cells)):
        unreadable += [(len(rows) + row, line, why) for row, line, why in block.unreadable]
        columns, lengths, unknown_here = encoding.encode_block(block, column_of, len(KNOWN))
        assert len(lengths) == block.num_rows
        ends = np.cumsum(lengths)
        rows += [columns[end - n : end].tolist() for end, n in zip(ends, lengths, strict=True)]
        unknown += unknown_here
    return rows, unknown, unreadable


@settings(max_examples=150)
@given(cells=CELLS, kind=st.sampled_from(TYPES), start=st.integers(0, 5))
def test_an_array_reads_as_its_cells_do(cells, kind, start):
    array = pa.array(cells, kind)[start:]
    assert read([array]) == read([(None, cell) for cell in cells[start:]])


def test_blocks_worked_out_by_hand():
    typed = pa.array([["dub", "rock", "dub"], None, ["rock", None], ["what", "jazz", "what"]])
    single = [(7, "jazz, rock"), (8, "['rock"), (9, None)]
    rows, unknown, unreadable = read([typed, *single, typed])
    half = [[0, 2], [], [0], [1]]
    assert rows == [*half, [0, 1], [], [], *half]
    assert unknown == {"what": 4}
    assert [(row, line) for row, line, _ in unreadable] == [(5, 8)]
    assert sum(block.num_gaps for block in layout.read_blocks([as_row(typed), as_row(typed)])) == 2


def test_a_gap_hides_what_lies_under_it():
    """An Arrow list that is null may still have items of its own in the array below."""
    lists = pa.ListArray.from_arrays(
        pa.array([0, 1, 2, 3]),
        pa.array(["rock", "jazz", "dub"]),
        mask=pa.array([False, True, False]),
    )
    assert read([lists])[0] == [[0], [], [2]]


def test_numbered_words_are_read_without_a_loop_over_cells(monkeypatch):
    """Also where the file's own dictionary has a word twice, or a gap."""
    words = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, 3, None, 4]), pa.array(["rock", "jazz", "rock", None, "dub"])
    )
    array = pa.ListArray.from_arrays(pa.array([0, 3, 4, 5, 6]), words)
    expected = read([(None, cell) for cell in array.to_pylist()])
    assert expected[0] == [[0, 1], [], [], [2]]  # the gaps are no tags
    monkeypatch.setattr(layout._Reader, "of_cells", lambda *given: pytest.fail("cell by cell"))
    assert read([array]) == expected


def test_many_cells_make_many_blocks(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK", 4)
    cells = [(n, ["rock", "jazz"][: n % 3]) for n in range(10)]
    assert [block.num_rows for block in layout.read_blocks(map(as_row, cells))] == [4, 4, 2]
    assert read(cells)[0] == [[0, 1][: n % 3] for n in range(10)]


@pytest.mark.parametrize("block", [1, 2, 100])
def test_padding(monkeypatch, block):
    monkeypatch.setattr(encoding, "_PADDED", 3 * block)
    rows = encoding.pad_ragged(np.array([5, 1, 2, 3]), np.array([1, 0, 3]), fill=9, dtype=np.uint8)
    assert rows.tolist() == [[5, 9, 9], [9, 9, 9], [1, 2, 3]]
    assert rows.dtype == np.uint8
    empty = encoding.pad_ragged(np.array([], int), np.array([0, 0]), fill=9, dtype=np.uint16)
    assert empty.tolist() == [[9], [9]]
