"""Parses one cell of a tag column, in any notation that data sets use, into a list of tags."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxvae.data.cells.list_notation import (
    TagParseError,
    check_tokens,
    excerpt,
    parse_list,
    parse_literal,
)
from jaxvae.data.cells.tag_lists import NO_TAG, split_tags
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import type_name

__all__ = ["MAX_CELL", "TagParseError", "parse_cell", "parse_tags"]

MAX_CELL = 65_536
MISSING = frozenset(("", "nan", "none", "null", "set()", "frozenset()", NO_TAG))
SEPARATORS = ",|;/\n#，、،"
"""What stands between tags; a text of several of these marks is any of them."""

# A remark in a tag, such as "rock (live)", rather than a call of a function.
_ROUND = re.compile(r"(?<![^\s,;|/#])\([^()'\"]+\)(?=[\s,;|/#]|\Z)")
_BRACKET = re.compile(r"[\[\](){}]")
# Characters that may occur in a tag but have a meaning in a list's notation.
_SPECIAL = re.compile(r"[\[\](){}\"']")
# A known tag may look like a missing cell, as "null", or like a quoted one.
_AMBIGUOUS = frozenset("\"'nN")
# The commonest notation, which needs no parser: a bracketed, comma-separated list of quoted tags
# without backslashes and control characters.
_TAG = r"""(?:'[^'\\\x00-\x1f]*+'|"[^"\\\x00-\x1f]*+")"""
_PLAIN_LIST = re.compile(rf"\[ *+{_TAG}(?: *+, *+{_TAG})*+ *+\]")
_PLAIN_TAG = re.compile(_TAG)


def parse_tags(cell: object, taxonomy: Taxonomy | None = None, separator: str = ",") -> list[str]:
    """Parses a cell into its tags, as written, without blank ones; see `parse_cell`."""
    return parse_cell(cell, taxonomy, separator).tags


class ParsedCell(NamedTuple):
    """The tags of a cell.

    Attributes:
        tags: as written, without blank ones.
        num_gaps: missing tags among them.
        num_rated: tags that came in an object with a number, which is not used.
    """

    tags: list[str]
    num_gaps: int = 0
    num_rated: int = 0


def parse_cell(cell: object, taxonomy: Taxonomy | None = None, separator: str = ",") -> ParsedCell:
    """Parses a cell into its tags.

    A cell may be a list, tuple or array of texts, or of objects with one text each; a text that
    holds such a list in a notation of `list_notation.parse_list`; tags separated by commas; or a
    single tag. None, NaN and the texts '', 'nan', 'none', 'null' and '(no tag)' in any case mean no
    tags; among the items of a list, None and NaN are missing tags.

    Args:
        cell: a value from a table reader.
        taxonomy: known tags, which may hold commas, quotes and brackets in a text without a list's
            notation, such as the text that commands print. None if the tags are not known.
        separator: what stands between tags in a text without a list's notation.

    Raises:
        TagParseError: the cell is over `MAX_CELL` characters, nested, like code, or anything
            else than text or a list of texts.
    """
    if isinstance(cell, str):
        items = _parse_text(cell, taxonomy, separator)
    else:
        items = _parse_native(cell, taxonomy, separator)
    tags: list[str] = []
    size = gaps = rated = 0
    for position, item in enumerate(items, start=1):
        tag = item if isinstance(item, str) else _text_of(item, position)
        if tag is None:
            gaps += 1
            continue
        if isinstance(item, Mapping):
            rated += any(isinstance(value, int | float) for value in item.values())
        size += len(tag)
        if not tag.isascii() and any("\ud800" <= letter <= "\udfff" for letter in tag):
            raise TagParseError("not valid Unicode text")
        if tag and not tag.isspace():
            tags.append(tag)
    if size > MAX_CELL:
        raise TagParseError(f"holds {size:,} characters; the limit is {MAX_CELL:,}")
    return ParsedCell(tags, gaps, rated)


def _text_of(item: Any, position: int) -> str | None:
    """Returns the tag that an item other than text stands for, None for a missing one."""
    if item is None or (isinstance(item, float) and item != item):
        return None
    if isinstance(item, Mapping):
        texts = [value for value in item.values() if isinstance(value, str)]
        if len(texts) == 1:
            return texts[0]
        raise TagParseError(
            f"item {position} of the list is an object with {len(texts)} texts; one is the tag"
        )
    raise TagParseError(f"item {position} of the list is {type_name(item)}, not text")


def _parse_native(cell: Any, taxonomy: Taxonomy | None, separator: str) -> list:
    """Converts a cell of a typed format to a list."""
    for method in ("tolist", "to_pylist", "as_py"):  # NumPy, then Arrow arrays and scalars
        if hasattr(cell, method):
            cell = getattr(cell, method)()
            break
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, str):
        return _parse_text(cell, taxonomy, separator)
    if isinstance(cell, list | tuple):
        return list(cell)
    if isinstance(cell, set | frozenset):
        return sorted(cell, key=str)
    raise TagParseError(f"expected text or a list of texts, found {type_name(cell)}")


def _parse_text(text: str, taxonomy: Taxonomy | None, separator: str) -> list:
    """Parses a cell's text into a list."""
    if len(text) > MAX_CELL:
        raise TagParseError(f"{len(text):,} characters long; the limit is {MAX_CELL:,}")
    text = text.strip()
    if taxonomy is not None and text[:1] in _AMBIGUOUS and taxonomy.knows(text):
        return [text]
    if text.casefold() in MISSING:
        return []
    if "\0" in text:
        raise TagParseError("holds a NUL character")
    if len(separator) > 1 and set(separator) <= set(SEPARATORS):
        if text[0] not in "[{":
            text = text.translate(dict.fromkeys(map(ord, separator), separator[0]))
        separator = separator[0]
    if _PLAIN_LIST.fullmatch(text):
        return [tag[1:-1] for tag in _PLAIN_TAG.findall(text)]
    if taxonomy is None or not _SPECIAL.search(text):
        return _parse_notation(text, taxonomy, separator)
    tags = split_tags(text, taxonomy, separator)
    if not all(map(taxonomy.knows, tags)):
        return _parse_notation(text, taxonomy, separator)
    if text[0] != "[":
        return tags
    try:
        listed = _parse_notation(text, taxonomy, separator)
    except TagParseError:
        return tags
    # A list comes before a tag that begins like one, unless its own tags are unknown.
    all_known = all(isinstance(tag, str) and taxonomy.knows(tag) for tag in listed)
    return listed if all_known else tags


def _parse_notation(text: str, taxonomy: Taxonomy | None, separator: str) -> list:
    """Parses a text that is in a list's notation, or else holds tags between separators."""
    if text[0] in "[{(" and not _ROUND.match(text):
        try:
            return parse_list(text)
        except TagParseError:
            if separator == "," or separator not in text:
                raise
            return _split(text, taxonomy, separator)  # a tag that begins with a bracket
    if text[0] in "'\"":
        # Quoted tags without brackets; but a tag may also begin with a quote: '90s rock, jazz
        try:
            check_tokens(text)
        except TagParseError:
            pass
        else:
            tags = parse_literal(text)
            if len(tags) != 1:
                return tags
            text = tags[0]  # A quoted text is the text it holds.
    outside = _ROUND.sub("", text)
    inside = "".join(_ROUND.findall(text))
    if _BRACKET.search(outside) or separator in inside:
        raise TagParseError(f"brackets in text that is no list of quoted tags: {excerpt(text)}")
    return _split(text, taxonomy, separator)


def _split(text: str, taxonomy: Taxonomy | None, separator: str) -> list[str]:
    return text.split(separator) if taxonomy is None else split_tags(text, taxonomy, separator)
