"""Parses lists of tags as text: JSON, Python, NumPy, PostgreSQL and DuckDB write them.

The texts come from untrusted files. Their tokens are checked before any parser sees them: outside
quoted strings only brackets, commas and white space reach `ast.literal_eval`, so no such text is
deeply nested, is an expression, or joins two tags into one.
"""

import ast
import json
import re
import warnings

from jaxvae.errors import type_name

MAX_DEPTH = 2
GAPS = frozenset(("nan", "none", "null", "<na>"))
"""Unquoted words for a missing tag, in any case."""

_ERRORS = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
# Tokens allowed between strings. Python 2 wrote u'rock'; no other prefix makes a text.
_BETWEEN = re.compile(r"\s*(?:([\[({])|([\])}])|(,)|u?(['\"]))")
# Possessive, so that an unclosed quote costs one pass.
_REST_OF_STRING = {
    "'": re.compile(r"[^'\\]*+(?:\\.[^'\\]*+)*+'", re.DOTALL),
    '"': re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL),
}
_CLOSING = {"[": "]", "{": "}"}
_ITEM = re.compile(
    r"""\s*+(?:(?P<single>'[^'\\]*+(?:\\.[^'\\]*+)*+')
    |(?P<double>"[^"\\]*+(?:\\.[^"\\]*+)*+")
    |‘(?P<curly>[^‘’“”]*+)’|“(?P<curly2>[^‘’“”]*+)”
    |(?P<bare>[^\s,'"‘“\[\](){}][^,"\[\](){}]*+))\s*+""",
    re.DOTALL | re.VERBOSE,
)
_PREFIXED = re.compile(r"[bfru]{1,2}(['\"]).*\1\s*", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"[-+*/.\d_ej]*\d[-+*/.\d_ej]*", re.IGNORECASE)


class TagParseError(ValueError):
    """Raised for a cell that is not a set of tags; the message is the reason, on one line."""


def parse_list(text: str) -> list:
    """Parses a text that begins with a bracket into a list, with None for missing tags.

    Args:
        text: a list without white space around it: `["a", null]`, `['a', 'b']`, NumPy's
            `['a' 'b']`, PostgreSQL's `{a,"b c",NULL}`, DuckDB's `[a, b c]`.

    Raises:
        TagParseError: the text is no such list, is cut short, or holds numbers or code.
    """
    if text.startswith("[") and "{" in text and (objects := _parse_objects(text)) is not None:
        return objects
    try:
        check_tokens(text)
        return parse_literal(text)
    except TagParseError as error:
        try:
            return _parse_items(text)
        except _NotItems:
            raise error from None


def check_tokens(text: str) -> None:
    """Checks that a text holds only quoted strings, brackets, commas and white space.

    Raises:
        TagParseError: it holds anything else, or two strings without a comma between them.
    """
    position, depth, after_string = 0, 0, False
    while token := _BETWEEN.match(text, position):
        opening, closing, _, quote = token.groups()
        position = token.end()
        depth += bool(opening) - bool(closing)
        if depth > MAX_DEPTH:
            raise TagParseError(f"brackets nested more than {MAX_DEPTH} deep")
        if quote:
            if after_string:  # Python would join them: ['rock' 'jazz'] is one tag, 'rockjazz'.
                raise TagParseError(f"two tags without a comma between them: {excerpt(text)}")
            string_rest = _REST_OF_STRING[quote].match(text, position)
            if string_rest is None:
                raise TagParseError(f"a quote that is not closed: {excerpt(text)}")
            position = string_rest.end()
        after_string = bool(quote)
    if text[position:].strip():
        where = excerpt(text[position:].strip())
        raise TagParseError(f"something other than quoted tags in a list: {where}")


def parse_literal(text: str) -> list:
    """Parses a text that passed `check_tokens`, as JSON or else as a Python literal.

    Raises:
        TagParseError: it is neither, or not a list, set, tuple or string.
    """
    try:
        value = json.loads(text)
    except _ERRORS:
        try:
            value = _literal_eval(text)
        except _ERRORS:
            raise TagParseError(f"not a list of quoted tags: {excerpt(text)}") from None
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set):
        return sorted(value, key=str)
    if value == {}:  # PostgreSQL's empty array
        return []
    raise TagParseError(f"expected a list of tags, found {type_name(value)}")


def excerpt(text: str) -> str:
    """Quotes the start of a text on one line of ASCII."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


class _NotItems(ValueError):
    """Raised for a text that is not a flat list of quoted and bare tags."""


def _parse_items(text: str) -> list:
    """Parses a flat list whose tags may be bare words, or stand side by side as NumPy has them."""
    if len(text) < 2 or text[-1] != _CLOSING.get(text[0]):
        raise _NotItems
    inner, position = text[1:-1].rstrip(), 0
    items: list[str | None] = []
    commas = 0
    while position < len(inner):
        match = _ITEM.match(inner, position)
        if match is None:
            raise _NotItems
        items.append(_item(match, text))
        position = match.end()
        if inner[position : position + 1] == ",":
            commas += 1
            position += 1
            if position == len(inner) or not inner[position:].strip():
                raise _NotItems  # a comma without a tag after it
        elif position < len(inner) and (match["bare"] or not inner[position - 1].isspace()):
            raise _NotItems
    if commas not in (0, len(items) - 1):
        raise _NotItems  # two tags without a comma among others with one
    if not commas and len(items) > 1 and text[0] == "{":
        raise _NotItems
    return items


def _item(match: re.Match[str], text: str) -> str | None:
    """Returns one tag of a list, None for a missing one."""
    bare = match["bare"]
    if bare is None:
        if (curly := match["curly"] or match["curly2"]) is not None:
            return curly
        quoted = match["single"] or match["double"]
        if text[0] == "{":  # PostgreSQL puts a backslash before a quote and before a backslash.
            return re.sub(r"\\(.)", r"\1", quoted[1:-1], flags=re.DOTALL)
        try:
            value = _literal_eval(quoted)
        except _ERRORS:
            raise _NotItems from None
        return str(value)
    bare = bare.strip()
    if bare.startswith("...") or bare.endswith("..."):
        raise TagParseError(f"a list cut short by '...' when it was printed: {excerpt(text)}")
    if bare.casefold() in GAPS:
        return None
    if _NUMBER.fullmatch(bare):
        raise TagParseError(f"a number where a tag is expected: {excerpt(bare)}")
    if not any(map(str.isalpha, bare)) or _PREFIXED.fullmatch(bare):
        raise _NotItems  # an expression
    if text[0] == "{" and re.search(r":\s", bare):
        raise _NotItems  # a struct
    return bare


def _parse_objects(text: str) -> list | None:
    """Parses a JSON list with objects among its items; returns None for any other text."""
    try:
        value = json.loads(text)
    except _ERRORS:
        return None
    return value if any(isinstance(item, dict) for item in value) else None


def _literal_eval(text: str) -> object:
    if "\\" not in text:
        return ast.literal_eval(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a backslash as in 'AC\DC'.
        return ast.literal_eval(text)
