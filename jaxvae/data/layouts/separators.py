"""Finds what stands between the tags of a column of text, where that is certain.

Known tags decide where there is a taxonomy: a separator explains the cells that hold it if it cuts
at least half of them into known tags. Without a taxonomy, a separator explains them if the tags
that it makes come again in other rows.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable

from jaxvae.data.cells.tag_parser import (
    MAX_CELL,
    MISSING,
    SEPARATORS,
    TagParseError,
    parse_tags,
)
from jaxvae.data.spelling import normalize
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

COMMA = ","
CANDIDATES = SEPARATORS.replace(COMMA, "")
"""Separators other than the comma."""
SAMPLE = 10_000
_ENOUGH, _NEARLY_ALL = 0.5, 0.9
_FEW = 0.1


def find_separator(cells: Iterable[object], taxonomy: Taxonomy | None, where: str) -> str:
    """Returns what stands between the tags of a column: the comma, unless another one explains it.

    Args:
        cells: the column's first cells.
        taxonomy: the known tags; None if they are not known.
        where: the source, for messages.

    Raises:
        InputError: two separators would do.
    """
    cells = list(cells)
    texts = [text for cell in cells if isinstance(cell, str) and (text := _plain(cell))]
    if not texts:
        return COMMA
    listed_tags = set() if taxonomy is not None else _listed_tags(cells)
    holders = {mark: [text for text in texts if mark in text] for mark in (COMMA, *CANDIDATES)}
    would_do = []
    for mark, holding in holders.items():
        if mark == "/" and taxonomy is None and len(holding) < _FEW * len(texts):
            continue  # tags such as "r&b/soul"
        alone = {normalize(text) for text in texts if mark not in text} | listed_tags
        if _explains(mark, holding, alone, taxonomy):
            would_do.append(mark)
    if len(would_do) > 1:
        example = next(text for text in holders[would_do[-1]])
        listed = " or ".join(repr(shown(mark)) for mark in would_do)
        every = "".join(map(shown, would_do))
        raise InputError(
            f"{where}: tags may be separated by {listed}, as in {example[:60]!r}; say which by "
            f"--config.data.separator={shown(would_do[-1])!r}, or, where all do, ={every!r}"
        )
    return would_do[0] if would_do else COMMA


def shown(separator: str) -> str:
    """Returns a separator as one types it in `data.separator`."""
    return "\\n" if separator == "\n" else separator


def unescape(text: str) -> str:
    r"""Returns the separator that a value of `data.separator` stands for: `\n` and `\t` count."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _plain(cell: str) -> str:
    """Returns a cell's text, "" if it is in a list's notation or holds no tag."""
    text = cell.strip()
    is_list = text[:1] in ("[", "{", '"', "'")
    is_odd = "\0" in text or len(text) > MAX_CELL
    return "" if is_list or is_odd or text.casefold() in MISSING else text


def _listed_tags(cells: Iterable[object]) -> set[str]:
    """Returns the normalised tags of the cells that are lists."""
    listed: set[str] = set()
    for cell in cells:
        if not isinstance(cell, str) or not _plain(cell):
            with contextlib.suppress(TagParseError):
                listed |= {normalize(tag) for tag in parse_tags(cell)}
    return listed


def _explains(mark: str, holders: list[str], alone: set[str], taxonomy: Taxonomy | None) -> bool:
    """Tests whether a separator cuts the texts that hold it into known, or recurring, tags."""
    if not holders or (mark == "#" and not all(text.startswith("#") for text in holders)):
        return False
    rows = [[normalize(tag_text) for tag_text in _parts(text, mark)] for text in holders]
    num_parts = sum(map(len, rows))
    if taxonomy is not None:
        num_known = sum(map(taxonomy.knows, (tag for row in rows for tag in row)))
        # A tag such as "funk / soul" is known as a whole, and its parts are not.
        return num_known >= _ENOUGH * num_parts and num_known > sum(map(taxonomy.knows, holders))
    num_rows = Counter(tag for row in rows for tag in set(row))
    recurring = sum(num_rows[tag] > 1 or tag in alone for row in rows for tag in row)
    if recurring < _ENOUGH * num_parts:
        return False
    # The parts of one tag such as "funk / soul" are always together.
    companies = {frozenset(row) for row in rows}
    num_companies = Counter(tag for company in companies for tag in company)
    apart = [
        any(num_companies[tag] > 1 or tag in alone for tag in company) for company in companies
    ]
    if mark == "/":  # a part of many tags, and of URLs
        slashed = [text for text in holders if "//" in text]
        return not slashed and sum(apart) >= _NEARLY_ALL * len(apart)
    return any(apart)


def _parts(text: str, mark: str) -> list[str]:
    return [tag_text.strip() for tag_text in text.split(mark) if tag_text.strip()]
