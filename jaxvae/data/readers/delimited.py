"""Reads separated text: CSV, TSV, and tables with another separator than their name says."""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jaxvae.data.readers import containers
from jaxvae.data.readers.file_kinds import find_separator, wrong_header
from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError

MAX_FIELD = 2**26
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


def open_delimited(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a table of separated text; its first line holds the column names.

    Args:
        path: a `.csv` or `.tsv` file, perhaps compressed. If its first line has none of the
            separators of its name, but another one, that is the separator.
        wanted: the columns that will be read.

    Raises:
        InputError: the file is empty or malformed, or its first line holds no column names.
    """
    usual = "\t" if containers.table_suffix(path) == ".tsv" else ","
    with _opened(path) as file, _wide_fields():
        first = file.readline()
        separator = find_separator(first, usual)
        reader = csv.reader(itertools.chain([first], file), delimiter=separator, strict=True)
        _, header = next(_records(path, reader), (0, None))
    if header is None:
        raise InputError(f"{path} is empty")
    missing = next((column for column in wanted if column not in header), "")
    if missing and (fault := wrong_header(path, header, missing, separator)):
        raise InputError(f"{path}: {fault}")

    def every_row() -> Iterator[tuple[int, list[str]]]:
        with _opened(path) as file, _wide_fields():
            records = _records(path, csv.reader(file, delimiter=separator, strict=True))
            next(records)
            yield from records

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, header, str(path))
        index_of = {name: index for index, name in enumerate(header)}
        indices = [index_of[column] for column in columns]
        width = len(header)
        for line, record in every_row():
            if len(record) != width:
                raise InputError(_other_width(path, line, len(record), header))
            yield line, [record[index] for index in indices]

    separator_note = "" if separator == usual else f" separated by {_NAMES[separator]}"
    kind = f"{'TSV' if usual == chr(9) else 'CSV'}{separator_note}"
    return Table(str(path), header, rows, kind, every_row, reader=(path, separator))


def _other_width(path: Path, line: int, width: int, header: list[str]) -> str:
    message = (
        f"{path}, line {line}: {width} fields where the header has {len(header)}; a field that "
        f"holds the separator must be in double quotes"
    )
    if width > len(header):
        message += (
            f"; if tags fill as many columns as there are, from {header[-1][:40]!r} on, say "
            f"--config.data.layout=trailing"
        )
    return message


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    with (
        containers.open_plain(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
    ):
        yield file


def _records(path: Path, reader) -> Iterator[tuple[int, list[str]]]:
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
