"""Tables that are written a few rows at a time: CSV, JSON lines, Parquet."""

import contextlib
import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxvae.errors import InputError
from jaxvae.storage.atomic_files import atomic_write
from jaxvae.storage.manifest import file_digest

Fields = dict[str, str]
"""Names of a table's columns, each with its kind: "count", "number", "text", "texts", "numbers"."""
WriteRows = Callable[[Iterable[list]], None]


def check_suffix(output: Path) -> None:
    """Raises InputError unless `output` has the suffix of a table."""
    if output.suffix not in _FORMATS:
        raise InputError(f"output {output}: the name must end in {', '.join(_FORMATS)}")


@contextlib.contextmanager
def open_table(path: Path, fields: Fields, *, header: bool = True) -> Iterator[WriteRows]:
    """Opens a table, which takes its name once it is completely written.

    Text has numbers to six digits. A missing value is None: nothing in a CSV, null elsewhere.

    Args:
      path: ends in `.csv`, whose lists are JSON, `.jsonl` or `.parquet`.
      fields: the columns.
      header: whether a CSV begins with the columns' names.

    Yields:
      A function that writes some rows, each a list of values.
    """
    with atomic_write(path) as file, _FORMATS[path.suffix](file, fields, header) as write:
        yield write


def join_tables(
    parts: Iterable[Path], output: Path, fields: Fields, before: Callable[[str], object]
) -> None:
    """Writes the rows of tables one after the other as one table, which appears once complete.

    Args:
      parts: tables of the same format, of which the first alone has a header.
      output: the table.
      fields: the columns of them all.
      before: takes the table's SHA-256 once it is complete, and before it appears.
    """
    with atomic_write(output) as file:
        if output.suffix == ".parquet":
            _join_parquet(parts, file, fields)
        else:
            for table in parts:
                with table.open("rb") as rows:
                    shutil.copyfileobj(rows, file)
        file.flush()
        before(file_digest(Path(file.name)))


def _join_parquet(parts: Iterable[Path], file: BinaryIO, fields: Fields) -> None:
    from pyarrow import parquet

    schema = _schema(fields)
    with parquet.ParquetWriter(file, schema) as writer:
        for part in parts:
            with parquet.ParquetFile(part) as table:
                for group in range(table.num_row_groups):
                    writer.write_table(table.read_row_group(group).cast(schema))


@contextlib.contextmanager
def _csv_table(file: BinaryIO, fields: Fields, header: bool) -> Iterator[WriteRows]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(fields)

    def cell(value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value

    try:
        yield lambda rows: writer.writerows(map(cell, _rounded(row)) for row in rows)
    finally:
        text.detach()  # flushes; the file is closed by whoever opened it


@contextlib.contextmanager
def _json_lines(file: BinaryIO, fields: Fields, header: bool) -> Iterator[WriteRows]:
    del header  # each row has the names

    def write(rows: Iterable[list]) -> None:
        for row in rows:
            values = dict(zip(fields, _rounded(row), strict=True))
            file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")

    yield write


@contextlib.contextmanager
def _parquet_table(file: BinaryIO, fields: Fields, header: bool) -> Iterator[WriteRows]:
    import pyarrow as pa
    from pyarrow import parquet

    del header  # the schema has the names
    schema = _schema(fields)
    with parquet.ParquetWriter(file, schema) as writer:

        def write(rows: Iterable[list]) -> None:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(*column) for column in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

        yield write


def _schema(fields: Fields) -> Any:
    """Returns the columns as a schema of Arrow's."""
    import pyarrow as pa

    kinds = {
        "count": pa.int64(),
        "number": pa.float64(),
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float64()),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in fields.items()])


def _rounded(value: Any) -> Any:
    """Rounds numbers to six digits; those that are not finite become None."""
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


_FORMATS = {".csv": _csv_table, ".jsonl": _json_lines, ".parquet": _parquet_table}
