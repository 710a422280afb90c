"""Reads one column of a local table, cell by cell: CSV, TSV, JSON, JSON Lines, Parquet.

Text stays text. The `datasets` builders would guess types here (a tag 'NA' becomes a null, '007' a
number, a date a timestamp), pad short CSV lines with nulls, and keep a converted copy of each file
in a growing cache; so the standard library reads text files, strictly, and pyarrow Parquet. A
malformed line is an error with the line's number: no row is skipped in silence.
"""

import csv
import difflib
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxvae.data.readers.file_kinds import recognise, wrong_header
from jaxvae.data.readers.json_values import describe_json, is_row, json_values, main_member
from jaxvae.errors import InputError, did_you_mean

Cells = Iterator[Any]
"""Pairs of a cell's first line (None if the file has no lines) and the cell; typed formats give
Arrow arrays of many cells."""
MAX_FIELD = 2**26
ARROW_BATCH = 65_536


def read_column(path: Path, column: str) -> Cells:
    """Yields a column's cells in order (see `Cells`).

    Args:
        path: a file whose suffix is one of `SUFFIXES`.
        column: the name of the column.

    Raises:
        InputError: the file is missing, of an unknown kind, empty, malformed or not UTF-8, or has
            no such column; some of these are raised only while the cells are iterated.
    """
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as error:  # The name is impossible for a file.
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)[:80]!r}: {reason}") from error
    if not is_file:
        raise InputError(_not_a_file(path))
    if kind := recognise(path):
        raise InputError(f"{path} is {kind}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kind = f"of unknown kind {path.suffix!r}" if path.suffix else "without a suffix"
        raise InputError(f"{path} is a file {kind}; known are {' '.join(SUFFIXES)}")
    return _guarded(path, reader(path, column))


def check_column(column: str, present: list[str], where: str) -> None:
    """Checks that a table has exactly one column of a name.

    Args:
        column: the wanted name.
        present: the table's column names.
        where: the table, for messages.

    Raises:
        InputError: the column is missing or repeated; the message for a missing one lists the
            table's columns, the nearest first.
    """
    if present.count(column) > 1:
        raise InputError(f"{where}: {present.count(column)} columns are called {column!r}")
    if column in present:
        return
    names = [name[:80] for name in present]
    near = difflib.get_close_matches(column, names, n=3)
    ordered = near + [name for name in names if name not in near]
    listing = ", ".join(map(repr, ordered[:20])) + ", ..." * (len(ordered) > 20)
    message = f"{where}: no column {column!r}{did_you_mean(column, near)}"
    raise InputError(f"{message}; aspect_column must be one of: {listing or 'none'}")


def arrow_cells(batches: Iterator, column: str) -> Cells:
    """Yields a column of Arrow tables or record batches, an array at a time.

    Args:
        batches: tables that each have the column.
        column: the column's name.

    Raises:
        pyarrow.ArrowInvalid: an array is malformed, for example holds text that is not UTF-8.
    """
    for batch in batches:
        values = batch.column(column)
        for array in getattr(values, "chunks", [values]):
            array.validate(full=True)
            yield array


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; name a file in it"
    if path.exists():
        return f"{path} is not a regular file"
    try:
        names = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in SUFFIXES]
    except OSError:
        return f"there is no file {path}: its folder cannot be read"
    return f"there is no file {path}{did_you_mean(path.name, names)}"


def _guarded(path: Path, cells: Cells) -> Cells:
    """Passes cells on; errors in reading the file's bytes become an InputError of one line."""
    try:
        yield from cells
    except UnicodeDecodeError:
        line = _first_bad_line(path)
        raise InputError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def _first_bad_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError:
                return number
    return 0


def _read_csv(path: Path, column: str) -> Cells:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file, _wide_fields():
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        records = _csv_records(path, reader)
        _, header = next(records, (0, None))
        if header is None:
            raise InputError(f"{path} is empty")
        if column not in header and (fault := wrong_header(path, header, column, delimiter)):
            raise InputError(f"{path}: {fault}")
        check_column(column, header, str(path))
        index = header.index(column)
        for line, record in records:
            if len(record) != len(header):
                raise InputError(
                    f"{path}, line {line}: {len(record)} fields where the header has "
                    f"{len(header)}; a field that holds the separator must be in double quotes"
                )
            yield line, record[index]


def _csv_records(path: Path, reader) -> Iterator[tuple[int, list[str]]]:
    """Yields each record with its first line's number; blank lines are skipped."""
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, record from line {line}: malformed CSV: {error}") from error
        if record:
            yield line, record
        line = reader.line_num + 1


@contextmanager
def _wide_fields():
    """Lets the csv module read long fields: one long cell is one bad row, not a bad file."""
    previous_limit = csv.field_size_limit(MAX_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(previous_limit)


def _read_json(path: Path, column: str) -> Cells:
    values = json_values(path)
    start = list(itertools.islice(values, 2))
    if not start or start[0][1] == []:
        raise InputError(f"{path} is empty")
    only = start[0][1] if len(start) == 1 else None
    if isinstance(only, list):
        yield from _json_list(path, column, only)
        return
    if isinstance(only, dict) and not is_row(only, column):
        raise InputError(f"{path}: {_unread(only, column)}")
    present: dict[str, None] = {}
    for line, record in itertools.chain(start, values):
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {line}: {_unread(record, column)}")
        present |= dict.fromkeys(record)
        yield line, record.get(column)  # Writers omit null values.
    check_column(column, list(present), str(path))


def _json_list(path: Path, column: str, records: list) -> Cells:
    present: dict[str, None] = {}
    for number, record in enumerate(records):
        if not isinstance(record, dict):
            raise InputError(f"{path}, item {number}: {_unread(record, column)}")
        present |= dict.fromkeys(record)
    check_column(column, list(present), str(path))
    for record in records:
        yield None, record.get(column)


def _unread(value: object, column: str) -> str:
    """Describes a JSON value that is not a row, the shape of rows, and the remedy."""
    example = json.dumps({column: ["a tag", "another"]}, ensure_ascii=False)
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


def _read_parquet(path: Path, column: str) -> Cells:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as raw, pyarrow.parquet.ParquetFile(raw) as file:
            check_column(column, file.schema_arrow.names, str(path))
            batches = file.iter_batches(batch_size=ARROW_BATCH, columns=[column])
            yield from arrow_cells(batches, column)
        pyarrow.default_memory_pool().release_unused()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error)[:200]
        raise InputError(f"{path}: not a readable Parquet file: {reason}") from error


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
