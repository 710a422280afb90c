"""Rows that come in blocks, put together."""

import numpy as np
import pytest

from jaxvae.data.encoding import TagBlock
from jaxvae.data.row_collector import CollectedRows

JAZZ, CALM = 0, 1
COLUMN = {"jazz": JAZZ, "calm": CALM}


def block(rows: list[list[str] | None]) -> TagBlock:
    """Rows of spellings; None is an unreadable one."""
    words = sorted({word for row in rows for word in row or ()})
    pairs = [(number, words.index(word)) for number, row in enumerate(rows) for word in row or ()]
    row, word = np.array(pairs, np.int64).reshape(-1, 2).T
    unreadable = [(number, 2 + number, "bad") for number, row in enumerate(rows) if row is None]
    return TagBlock(len(rows), words, word, row, unreadable)


ROWS = [["jazz"], [], ["calm", "jazz"], None, ["loud"], ["calm"], ["jazz"]]


@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 5], [4, 4]])
def test_blocks_are_the_rows_of_one(cuts):
    blocks = [block(ROWS[a:b]) for a, b in zip([0, *cuts], [*cuts, len(ROWS)], strict=True)]
    collected = CollectedRows(iter(blocks), lambda word: COLUMN.get(word, -1), num_tags=2)
    assert collected.source_row.tolist() == [0, 2, 5, 6]
    assert collected.lengths.tolist() == [1, 2, 1, 1]
    assert collected.columns.tolist() == [JAZZ, JAZZ, CALM, CALM, JAZZ]
    assert [each["row"] for each in collected.unreadable] == [3]
    assert collected.unknown == {"loud": 1}
    assert (collected.num_read, collected.num_known) == (7, 5)
