"""Parses one cell of a tag column, in any notation that data sets use, into a list of tags.

Cells come from untrusted files. The text's length and tokens are checked before any parser sees it:
outside quoted strings only brackets, commas and white space are allowed, so no text that reaches
`ast.literal_eval` is deeply nested, is an expression, or joins two tags into one.
"""

import ast
import json
import re
import warnings

from jaxvae.data.tag_lists import NO_TAG, split_tags
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import type_name

MAX_CELL = 65_536
MAX_DEPTH = 2
MISSING = frozenset(("", "nan", "none", "null", NO_TAG))

_ERRORS = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
_BRACKET = re.compile(r"[\[\](){}]")
# Characters that may occur in a tag but have a meaning in a list's notation.
_SPECIAL = re.compile(r"[\[\](){}\"']")
# A known tag may look like a missing cell, as "null", or like a quoted one.
_AMBIGUOUS = frozenset("\"'nN")
# Tokens allowed between strings. Python 2 wrote u'rock'; no other prefix makes a text.
_BETWEEN = re.compile(r"\s*(?:([\[({])|([\])}])|(,)|u?(['\"]))")
# Possessive, so that an unclosed quote costs one pass.
_REST_OF_STRING = {
    "'": re.compile(r"[^'\\]*+(?:\\.[^'\\]*+)*+'", re.DOTALL),
    '"': re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL),
}
# The commonest notation, which needs no parser: a bracketed, comma-separated list of quoted tags
# without backslashes and control characters.
_TAG = r"""(?:'[^'\\\x00-\x1f]*+'|"[^"\\\x00-\x1f]*+")"""
_PLAIN_LIST = re.compile(rf"\[ *+{_TAG}(?: *+, *+{_TAG})*+ *+\]")
_PLAIN_TAG = re.compile(_TAG)


class TagParseError(ValueError):
    """Raised for a cell that is not a set of tags; the message is the reason, on one line."""


def parse_tags(cell: object, taxonomy: Taxonomy | None = None) -> list[str]:
    """Parses a cell into its tags, as written, without blank ones.

    A cell may be a list, tuple or array of texts; a text that holds such a list as JSON or as a
    Python literal; tags separated by commas; or a single tag. None, NaN and the texts '', 'nan',
    'none', 'null' and '(no tag)' in any case mean no tags.

    Args:
        cell: a value from a table reader.
        taxonomy: known tags, which may hold commas, quotes and brackets in a text without a list's
            notation, such as the text that commands print. None if the tags are not known.

    Raises:
        TagParseError: the cell is over `MAX_CELL` characters, nested, like code, or anything
            else than text or a list of texts.
    """
    tags = _parse_text(cell, taxonomy) if isinstance(cell, str) else _parse_native(cell, taxonomy)
    size = 0
    for position, tag in enumerate(tags, start=1):
        if not isinstance(tag, str):
            raise TagParseError(f"item {position} of the list is {type_name(tag)}, not text")
        size += len(tag)
        if not tag.isascii() and any("\ud800" <= letter <= "\udfff" for letter in tag):
            raise TagParseError("not valid Unicode text")
    if size > MAX_CELL:
        raise TagParseError(f"holds {size:,} characters; the limit is {MAX_CELL:,}")
    return [tag for tag in tags if tag and not tag.isspace()]


def _parse_native(cell: object, taxonomy: Taxonomy | None) -> list:
    """Converts a cell of a typed format to a list."""
    for method in ("tolist", "to_pylist", "as_py"):  # NumPy, then Arrow arrays and scalars
        if hasattr(cell, method):
            cell = getattr(cell, method)()
            break
    if cell is None or (isinstance(cell, float) and cell != cell):
        return []
    if isinstance(cell, str):
        return _parse_text(cell, taxonomy)
    if isinstance(cell, list | tuple):
        return list(cell)
    raise TagParseError(f"expected text or a list of texts, found {type_name(cell)}")


def _parse_text(text: str, taxonomy: Taxonomy | None) -> list:
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
    if _PLAIN_LIST.fullmatch(text):
        return [tag[1:-1] for tag in _PLAIN_TAG.findall(text)]
    if taxonomy is None or not _SPECIAL.search(text):
        return _parse_notation(text, taxonomy)
    tags = split_tags(text, taxonomy)
    if not all(map(taxonomy.knows, tags)):
        return _parse_notation(text, taxonomy)
    if text[0] != "[":
        return tags
    try:
        return _parse_notation(text, taxonomy)  # a list, before a tag that begins like one
    except TagParseError:
        return tags


def _parse_notation(text: str, taxonomy: Taxonomy | None) -> list:
    """Parses a text that is in a list's notation, or else holds tags between commas."""
    if text[0] in "[({":
        _scan(text)
        return _parse_literal(text)
    if text[0] in "'\"":
        # Quoted tags without brackets; but a tag may also begin with a quote: '90s rock, jazz
        try:
            _scan(text)
        except TagParseError:
            pass
        else:
            tags = _parse_literal(text)
            if len(tags) != 1:
                return tags
            text = tags[0]  # A quoted text is the text it holds.
    if _BRACKET.search(text):
        raise TagParseError(f"brackets in text that is no list of quoted tags: {_excerpt(text)}")
    return text.split(",") if taxonomy is None else split_tags(text, taxonomy)


def _scan(text: str) -> None:
    """Checks that a text holds only quoted strings, brackets, commas and white space."""
    position, depth, after_string = 0, 0, False
    while token := _BETWEEN.match(text, position):
        opening, closing, _, quote = token.groups()
        position = token.end()
        depth += bool(opening) - bool(closing)
        if depth > MAX_DEPTH:
            raise TagParseError(f"brackets nested more than {MAX_DEPTH} deep")
        if quote:
            if after_string:  # Python would join them: ['rock' 'jazz'] is one tag, 'rockjazz'.
                raise TagParseError(f"two tags without a comma between them: {_excerpt(text)}")
            string_rest = _REST_OF_STRING[quote].match(text, position)
            if string_rest is None:
                raise TagParseError(f"a quote that is not closed: {_excerpt(text)}")
            position = string_rest.end()
        after_string = bool(quote)
    if text[position:].strip():
        where = _excerpt(text[position:].strip())
        raise TagParseError(f"something other than quoted tags in a list: {where}")


def _parse_literal(text: str) -> list:
    """Parses a text that passed `_scan`, as JSON or else as a Python literal."""
    try:
        value = json.loads(text)
    except _ERRORS:
        try:
            value = _literal_eval(text)
        except _ERRORS:
            raise TagParseError(f"not a list of quoted tags: {_excerpt(text)}") from None
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set):
        return sorted(value, key=str)
    raise TagParseError(f"expected a list of tags, found {type_name(value)}")


def _literal_eval(text: str) -> object:
    if "\\" not in text:
        return ast.literal_eval(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a backslash as in 'AC\DC'.
        return ast.literal_eval(text)


def _excerpt(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")
