"""Reads the values of a JSON file (one a line, or indented), and describes their shapes in words.

An indented value is read in growing pieces, so a large file of small values is never held in memory
whole; a list is.
"""

import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from jaxvae.data.readers.containers import open_plain
from jaxvae.errors import InputError, json_fault

_SPACE = re.compile(r"[ \t\r\n]*")
_REST_OF_LINE = re.compile(r"[ \t\r]*(?:\n|\Z)")
_PLURALS = {
    "null": "nulls",
    "a truth value": "truth values",
    "a number": "numbers",
    "text": "texts",
    "a list": "lists",
    "an object": "objects",
}


class _Twice(ValueError):
    """Raised for an object with a repeated key."""


def json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yields each value of a file with the line on which it begins, counted from 1.

    Args:
        path: a UTF-8 file of JSON values, each ended by a line break or the file's end; perhaps
            compressed.

    Raises:
        InputError: a value is not JSON, is nested too deeply, or has an object with a repeated
            key; the message has the line.
        UnicodeDecodeError: the file is not UTF-8.
    """
    pending: list[str] = []
    first = min_lines = 1
    # In binary, since text iteration would split lines at characters that JSON strings may hold.
    with open_plain(path) as file:
        for number, content in enumerate(file, start=1):
            line = content.decode("utf-8-sig" if number == 1 else "utf-8")
            if not pending:
                if not line.strip():
                    continue
                first, min_lines = number, 1
            pending.append(line)
            if number - first + 1 < min_lines:
                continue
            unfinished, first = yield from _decode("".join(pending), path, first, whole=False)
            pending = [unfinished] if unfinished else []
            # Wait for twice as many lines before the next attempt: decoding an indented value
            # again at each of its lines would take quadratic time.
            min_lines = 2 * (number - first + 1)
            if unfinished.startswith("["):
                pending.append(file.read().decode("utf-8"))
                break
        yield from _decode("".join(pending), path, first, whole=True)


def describe_json(value: object, column: str = "") -> str:
    """Names the shape of a JSON value in a few words.

    Args:
        value: as a parser returns it.
        column: the key of an object to describe first.
    """
    if not isinstance(value, dict) or not value:
        return _brief(value)
    inner = main_member(value, column)
    if inner is None:
        return _brief(value)
    return f"an object whose {inner[:80]!r} is {_brief(value[inner])}"


def main_member(record: dict[str, Any], column: str) -> str | None:
    """Returns the only key of an object that may hold a table, or None.

    Args:
        record: the object.
        column: the wanted column, which takes precedence.
    """
    if column in record:
        return column
    tables = [key for key, value in record.items() if isinstance(value, list) and _nested(value)]
    holders = [key for key, value in record.items() if isinstance(value, list | dict)]
    if len(tables) == 1:
        return tables[0]
    return holders[0] if len(holders) == 1 else None


def is_row(record: dict[str, Any], column: str) -> bool:
    """Tests whether the only object of a file is a row of a table, rather than a whole table.

    Args:
        record: the object.
        column: the wanted column.
    """
    if column in record:
        return not _nested(record[column])
    values = list(record.values())
    lists = len(values) > 1 and all(isinstance(value, list) for value in values)
    return not lists and not any(_nested(value) for value in values)


def _nested(value: object) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, list | dict) for item in value)
    return isinstance(value, dict)


def _brief(value: object) -> str:
    """Names a value's kind, and for a list or an object the number and kind of its values."""
    if not isinstance(value, list | dict):
        return _kind(value)
    name = "a list" if isinstance(value, list) else "an object"
    items = list(value.values()) if isinstance(value, dict) else value
    if not items:
        return f"an empty {name.split()[1]}"
    kinds = {_kind(item) for item in items}
    words = "value" if len(items) == 1 else "values"
    if len(kinds) == 1:
        kind = kinds.pop()
        words = kind.split()[-1] if len(items) == 1 else _PLURALS[kind]
    keys = ""
    if isinstance(value, dict):
        first = ", ".join(repr(key[:40]) for key in list(value)[:2])
        keys = f" ({first}{', ...' * (len(value) > 2)})"
    return f"{name} of {len(items):,} {words}{keys}"


def _kind(value: object) -> str:
    """Names a value's kind in JSON's terms."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "a number"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _Twice
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _decode(
    text: str, path: Path, first: int, *, whole: bool
) -> Generator[tuple[int, Any], None, tuple[str, int]]:
    """Yields the values of a piece of a file; returns an unfinished value's text and line."""
    position, line = 0, first
    while True:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        line += text.count("\n", position, start)
        if start == len(text):
            return "", line
        try:
            value, end = _DECODER.raw_decode(text, start)
            if not _REST_OF_LINE.match(text, end):
                more = _SPACE.match(text, end).end()  # type: ignore[union-attr]
                raise json.JSONDecodeError("Extra data", text, more)
        except json.JSONDecodeError as error:
            fault = min(error.pos, len(text.rstrip()))
            if fault == len(text.rstrip()) and not whole:
                return text[start:], line
            line += text.count("\n", start, fault)
            column = fault - text.rfind("\n", 0, fault)
            raise InputError(
                f"{path}, line {line}, column {column}: not JSON: {error.msg}"
            ) from None
        except _Twice:
            raise InputError(f"{path}, line {line}: a key appears twice in one object") from None
        except RecursionError:
            raise InputError(f"{path}, line {line}: nested too deeply") from None
        except ValueError as error:  # A number with thousands of digits.
            raise InputError(f"{path}, line {line}: {json_fault(error)}") from None
        yield line, value
        line += text.count("\n", start, end)
        position = end
