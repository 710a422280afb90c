"""Reads tables of JSON: objects one after the other or in a list, and the shapes of other writers.

Other writers wrap the list in an object, write columns of values by row (pandas' default), columns
of lists, or one object of tags by row.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvae.data.readers.json_values import describe_json, is_row, json_values, main_member
from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError

_PEEKED = 1000
"""Objects whose keys are the column names."""
ID, TAGS = "id", "tags"
"""Columns of a file that is one object of tags by row."""


def open_json(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a file of JSON values as a table whose columns are the objects' keys.

    Args:
        path: a `.json`, `.jsonl` or `.ndjson` file, perhaps compressed.
        wanted: the columns that will be read.

    Raises:
        InputError: the file is empty, not JSON, or of a shape that is not read.
    """
    column = wanted[0] if wanted else ""
    values = json_values(path)
    start = list(itertools.islice(values, _PEEKED))
    if not start or start[0][1] == []:
        raise InputError(f"{path} is empty")
    only = start[0][1] if len(start) == 1 else None
    if isinstance(only, list):
        return _of_list(path, column, only, "a list of objects")
    if isinstance(only, dict) and not is_row(only, column):
        return _of_object(path, column, only)

    def records() -> Iterator[tuple[int | None, Any]]:
        return json_values(path)

    return _of_records(path, column, [value for _, value in start], records, "JSON objects")


def _of_list(path: Path, column: str, items: list, kind: str) -> Table:
    for number, record in enumerate(items):
        if not isinstance(record, dict):
            raise InputError(f"{path}, item {number}: {_unread(record, column)}")

    def records() -> Iterator[tuple[int | None, Any]]:
        return ((None, record) for record in items)

    return _of_records(path, column, items, records, f"JSON, {kind}")


def _of_object(path: Path, column: str, whole: dict[str, Any]) -> Table:
    """Opens a file that is one object, which is not itself a row."""
    if _are_columns_by_row(whole, column):
        columns = {name: list(cells.values()) for name, cells in whole.items()}
        return _of_columns(path, columns, "JSON, an object of columns")
    if _are_columns_of_lists(whole):
        return _of_columns(path, whole, "JSON, an object of columns")
    if _are_tags_by_row(whole) and column not in whole:
        columns = {ID: list(whole), TAGS: list(whole.values())}
        return _of_columns(path, columns, "JSON, an object of tags by row")
    member = main_member(whole, column)
    inner = whole.get(member) if member else None
    if isinstance(inner, list) and inner and all(isinstance(item, dict) for item in inner):
        return _of_list(path, column, inner, f"the list under {str(member)[:40]!r}")
    raise InputError(f"{path}: {_unread(whole, column)}")


def _are_columns_by_row(whole: dict[str, Any], column: str) -> bool:
    """Tests for `{"tags": {"0": …, "1": …}, …}`, which pandas' `to_json` writes."""
    first = next(iter(whole.values()), None)
    if not isinstance(first, dict) or (len(first) < 2 and column not in whole):
        return False
    return all(
        isinstance(cells, dict) and cells and list(cells) == list(first) for cells in whole.values()
    )


def _are_columns_of_lists(whole: dict[str, Any]) -> bool:
    """Tests for `{"id": [1, 2], "tags": [[…], […]]}`: lists of one length, one of lists."""
    columns = list(whole.values())
    return (
        all(isinstance(cells, list) for cells in columns)
        and len(set(map(len, columns))) == 1
        and any(cells and all(isinstance(cell, list) for cell in cells) for cells in columns)
    )


def _are_tags_by_row(whole: dict[str, Any]) -> bool:
    """Tests for `{"track 1": ["rock"], "track 2": [], …}`."""
    return len(whole) > 1 and all(
        isinstance(cell, list) and all(isinstance(tag, str | None) for tag in cell)
        for cell in whole.values()
    )


def _of_columns(path: Path, columns: dict[str, list], kind: str) -> Table:
    def rows(names: Sequence[str]) -> Rows:
        check_columns(names, list(columns), str(path))
        selected = [columns[name] for name in names]
        return ((None, list(cells)) for cells in zip(*selected, strict=True))

    return Table(str(path), list(columns), rows, kind)


def _of_records(
    path: Path,
    column: str,
    first: list,
    records: Callable[[], Iterator[tuple[int | None, Any]]],
    kind: str,
) -> Table:
    names: dict[str, None] = {}
    if first and not isinstance(first[0], dict):
        raise InputError(f"{path}, line 1: {_unread(first[0], column)}")
    for record in first:
        names |= dict.fromkeys(record if isinstance(record, dict) else ())

    def rows(wanted: Sequence[str]) -> Rows:
        present: dict[str, None] = {}
        for line, record in records():
            if not isinstance(record, dict):
                raise InputError(f"{path}, line {line}: {_unread(record, column)}")
            present |= dict.fromkeys(record)
            yield line, [record.get(name) for name in wanted]  # Writers omit null values.
        check_columns(wanted, list(present), str(path))

    return Table(str(path), list(names), rows, kind)


def _unread(value: object, column: str) -> str:
    """Describes a JSON value that is not a row, the shape of rows, and the remedy."""
    example = json.dumps({column or TAGS: ["a tag", "another"]}, ensure_ascii=False)
    shapes = f"rows are objects such as {example}, a line each, one after the other, or in a list"
    if not isinstance(value, dict):
        way = "make it an object"
    elif column in value:
        way = "in pandas, write them by to_json(path, orient='records', lines=True)"
    elif key := main_member(value, column):
        way = f"save what is under {key[:80]!r} alone, in such a shape"
    else:
        way = "make a row of each member"
    return f"{describe_json(value, column)}; {shapes}; {way}"
