"""Reads typed tables by pyarrow: Parquet files, alone or in parts, and Feather or Arrow files."""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from jaxvae.data.readers.parts import other_tables
from jaxvae.data.readers.tables import SUFFIXES, Rows, Table, check_columns
from jaxvae.errors import InputError

ARROW_BATCH = 65_536


def open_parquet(path: Path, wanted: Sequence[str]) -> Table:
    """Opens a Parquet file.

    Raises:
        InputError: the file is not readable as Parquet.
    """
    del wanted
    import pyarrow.parquet

    with _reported(path, "Parquet"), path.open("rb") as raw:
        names = pyarrow.parquet.ParquetFile(raw).schema_arrow.names

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, str(path))
        with (
            _reported(path, "Parquet"),
            path.open("rb") as raw,
            pyarrow.parquet.ParquetFile(raw) as file,
        ):
            yield from checked_batches(
                file.iter_batches(batch_size=ARROW_BATCH, columns=list(columns)), columns
            )
        pyarrow.default_memory_pool().release_unused()

    return Table(str(path), names, rows, "Parquet")


def open_parts(path: Path, parts: list[Path]) -> Table:
    """Opens several Parquet files as one table, one after the other.

    Args:
        path: the folder or pattern that names them.
        parts: the files, each with the columns that are read.
    """
    tables = [open_parquet(path_of_part, ()) for path_of_part in parts]
    first, last = parts[0].name, parts[-1].name
    kind = f"{len(parts)} Parquet files, {first} to {last}" if len(parts) > 1 else "Parquet"
    if others := other_tables(path, SUFFIXES):
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        kind += f" (not read: {', '.join(file.name[:40] for file in others[:3])}{more})"

    def rows(columns: Sequence[str]) -> Rows:
        for table in tables:
            yield from table.rows(columns)

    return Table(str(path), tables[0].names, rows, kind)


def open_feather(path: Path, wanted: Sequence[str]) -> Table:
    """Opens an Arrow file or stream, which Feather files are too since their version 2.

    Raises:
        InputError: the file is not readable as Arrow, or is of Feather's version 1.
    """
    del wanted
    import pyarrow

    def batches() -> Generator:
        with _reported(path, "Arrow"), pyarrow.memory_map(str(path)) as raw:
            start = raw.read(6)
            raw.seek(0)
            if start[:4] == b"FEA1":
                raise InputError(
                    f"{path}: a Feather file of version 1; write it again by a newer library"
                )
            if start == b"ARROW1":
                with pyarrow.ipc.open_file(raw) as file:
                    yield file.schema
                    for number in range(file.num_record_batches):
                        yield file.get_batch(number)
            else:
                with pyarrow.ipc.open_stream(raw) as stream:
                    yield stream.schema
                    yield from stream

    with contextlib.closing(batches()) as opened:
        names = next(opened).names

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, str(path))
        with contextlib.closing(batches()) as opened, _reported(path, "Arrow"):
            next(opened)
            yield from checked_batches(opened, columns)

    return Table(str(path), names, rows, "Arrow")


def checked_batches(batches: Iterator, columns: Sequence[str]) -> Iterator:
    """Yields record batches of some columns of Arrow tables or batches.

    Args:
        batches: tables or record batches that each have the columns.
        columns: the columns' names.

    Raises:
        pyarrow.ArrowInvalid: an array is malformed, for example holds text that is not UTF-8.
    """
    for batch in batches:
        for record_batch in batch.to_batches() if hasattr(batch, "to_batches") else [batch]:
            selected = record_batch.select(list(columns))
            selected.validate(full=True)
            yield selected


@contextlib.contextmanager
def _reported(path: Path, kind: str) -> Iterator[None]:
    """Turns pyarrow's errors into an InputError of one line."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable {kind} file: {reason}") from error
