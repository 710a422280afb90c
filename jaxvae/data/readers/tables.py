"""Opens local files as tables: CSV and other separated text, JSON, Parquet, Arrow, Excel.

A table has column names and yields the cells of some of its columns, row by row. Text stays text.
The `datasets` builders would guess types here (a tag 'NA' becomes a null, '007' a number, a date a
timestamp), pad short CSV lines with nulls, and keep a converted copy of each file in a growing
cache; so the standard library reads text files, strictly, and pyarrow typed ones. A malformed line
is an error with the line's number: no row is skipped in silence.
"""

import contextlib
import dataclasses
import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from jaxvae.data.readers import containers
from jaxvae.data.readers.file_kinds import recognise
from jaxvae.data.readers.parts import find_parts
from jaxvae.errors import InputError, did_you_mean

Rows = Iterator[Any]
"""Rows of some columns, in order: pairs of a row's first line (None if the file has no lines) and
its cells, or Arrow record batches of many rows."""

_MOST_COMPARED = 10_000
_READERS = {
    ".csv": "delimited:open_delimited",
    ".tsv": "delimited:open_delimited",
    ".json": "json_tables:open_json",
    ".jsonl": "json_tables:open_json",
    ".ndjson": "json_tables:open_json",
    ".parquet": "arrow_tables:open_parquet",
    ".feather": "arrow_tables:open_feather",
    ".arrow": "arrow_tables:open_feather",
    ".ipc": "arrow_tables:open_feather",
    ".xlsx": "workbooks:open_workbook",
    ".arff": "arff:open_arff",
    ".svm": "label_lines:open_libsvm",
    ".libsvm": "label_lines:open_libsvm",
    ".txt": "label_lines:open_extreme",
}
"""A function `open(path, wanted)` for each suffix, as "module:name" of this package."""
SUFFIXES = tuple(_READERS)
_PACKED = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arff", ".svm", ".libsvm", ".txt")
"""Text formats, which may be compressed."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is read in order, as often as asked.

    Attributes:
        where: the file, for messages.
        names: the column names, in order; of JSON objects the keys of the first ones.
        rows: yields the rows of the columns asked for (see `Rows`).
        kind: the format in words, with what was recognised about it: "CSV separated by tabs".
        wide_rows: of separated text, yields (line, all fields of a row), which may be more than
            there are column names; None for other formats.
        indicators: of a format that marks the tags among its columns, their names; else None.
        reader: separated text's own facts for readers of whole files, (path, separator); else None.
    """

    where: str
    names: list[str]
    rows: Callable[[Sequence[str]], Rows]
    kind: str = ""
    wide_rows: Callable[[], Iterator[tuple[int, list[str]]]] | None = None
    indicators: list[str] | None = None
    reader: tuple[Path, str] | None = None


def open_table(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a file, or a folder or pattern of Parquet files, as one table.

    Args:
        path: a file whose suffix is one of `SUFFIXES`, of text formats also followed by one of
            `containers.SUFFIXES`; a folder of Parquet files; or a pattern such as `part-*.parquet`.
        wanted: the columns that will be read, for messages and for formats that need a hint.

    Raises:
        InputError: the file is missing, of an unknown kind, empty, malformed or not UTF-8; some of
            these are raised only while rows are read.
    """
    try:
        if parts := find_parts(path):
            from jaxvae.data.readers.arrow_tables import open_parts

            return open_parts(path, parts)
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # The name is impossible for a file.
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)[:80]!r}: {reason}") from error
    if not is_file:
        raise InputError(_not_a_file(path))
    if kind := recognise(path):
        raise InputError(f"{path} is {kind}")
    suffix = containers.table_suffix(path)
    opener = _READERS.get(suffix)
    if opener is None or (path.suffix.lower() in containers.SUFFIXES and suffix not in _PACKED):
        kind = f"of unknown kind {path.suffix!r}" if path.suffix else "without a suffix"
        if path.suffix.lower() in containers.SUFFIXES:
            kind = f"of {suffix or 'unknown kind'!r} in a {path.suffix}, which is not read"
        raise InputError(f"{path} is a file {kind}; known are {' '.join(SUFFIXES)}")
    module, _, name = opener.partition(":")
    open_format = getattr(import_module(f"jaxvae.data.readers.{module}"), name)
    with _reported(path):
        table: Table = open_format(path, list(wanted))
    return _guarded(path, table)


def single_rows(rows: Rows) -> Iterator[tuple[int | None, Sequence[Any]]]:
    """Yields (line, cells) of every row, also of those that came in record batches."""
    for item in rows:
        if isinstance(item, tuple):
            yield item
        else:
            lists = [column.to_pylist() for column in item.columns]
            yield from ((None, cells) for cells in zip(*lists, strict=True))


def row_place(row: int, line: int | None) -> str:
    """Returns how a message names a row: by its line, or its number if the file has no lines."""
    return f"row {row} (counted from 0)" if line is None else f"line {line}"


def check_columns(columns: Sequence[str], present: Sequence[str], where: str) -> None:
    """Checks that a table has exactly one column of each name.

    Args:
        columns: the wanted names.
        present: the table's column names.
        where: the table, for messages.

    Raises:
        InputError: a column is missing or repeated; the message for a missing one lists the
            table's columns, the nearest first.
    """
    counts = Counter(present)
    column = next((column for column in columns if counts[column] != 1), None)
    if column is None:
        return
    short_name = column[:80]
    if counts[column] > 1:
        raise InputError(f"{where}: {counts[column]} columns are called {short_name!r}")
    names = [name[:80] for name in present[:_MOST_COMPARED]]
    near = difflib.get_close_matches(short_name, names, n=3)
    ordered = near + [name for name in names if name not in near]
    message = f"{where}: no column {short_name!r}{did_you_mean(short_name, near)}"
    raise InputError(f"{message}; its columns are {list_names(ordered)}")


def list_names(names: Sequence[str]) -> str:
    """Lists up to twenty column names on one line, long ones cut."""
    listing = ", ".join(repr(name[:80]) for name in names[:20])
    return (listing or "none") + ", ..." * (len(names) > 20)


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder without Parquet files; name a file in it"
    if path.exists():
        return f"{path} is not a regular file"
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return f"there is no file {path}: its folder cannot be read"
    return f"there is no file {path}{did_you_mean(path.name, names)}"


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turns errors in reading a file's bytes into an InputError of one line."""
    try:
        yield
    except UnicodeDecodeError:
        line = _first_bad_line(path)
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _guarded(path: Path, table: Table) -> Table:
    """Returns a table whose rows are read under `_reported`."""

    def rows(columns: Sequence[str]) -> Rows:
        with _reported(path):
            yield from table.rows(columns)

    def wide_rows() -> Iterator[tuple[int, list[str]]]:
        assert table.wide_rows is not None
        with _reported(path):
            yield from table.wide_rows()

    return dataclasses.replace(
        table, rows=rows, wide_rows=None if table.wide_rows is None else wide_rows
    )


def _first_bad_line(path: Path) -> int:
    with containers.open_plain(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError:
                return number
    return 0
