"""Reads Excel workbooks of one sheet, by openpyxl, an optional package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError, one_line


def open_workbook(path: Path, wanted: Sequence[str]) -> Table:
    """Opens the only sheet of a workbook that holds anything; its first row has the column names.

    Args:
        path: an `.xlsx` file.
        wanted: the columns that will be read.

    Raises:
        InputError: openpyxl is missing, the file is not a workbook, or several sheets hold cells.
    """
    del wanted
    header = next(_sheet_rows(path), None)
    if header is None:
        raise InputError(f"{path} is empty")
    names = ["" if cell is None else str(cell) for cell in header[1]]
    while names and not names[-1]:
        names.pop()

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, str(path))
        indices = [names.index(column) for column in columns]
        numbered = _sheet_rows(path)
        next(numbered)
        for line, cells in numbered:
            yield line, [cells[index] if index < len(cells) else None for index in indices]

    return Table(str(path), names, rows, "an Excel sheet")


def _sheet_rows(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yields the sheet's rows that have cells, each with its number in the sheet."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{path}: a workbook needs the package openpyxl (pip install openpyxl); or save it as "
            f"CSV"
        ) from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # of zipfile, of the XML parser, and of openpyxl's own
        reason = one_line(error)[:200]
        raise InputError(f"{path}: not a readable Excel workbook: {reason}") from error
    try:
        filled = [sheet for sheet in book.worksheets if _has_cells(sheet)]
        if len(filled) > 1:
            listed = ", ".join(repr(sheet.title[:40]) for sheet in filled[:5])
            raise InputError(
                f"{path}: {len(filled)} sheets hold cells, {listed}; save the one to read as CSV"
            )
        for sheet in filled:
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                if any(cell is not None for cell in row):
                    yield number, list(row)
    except InputError:
        raise
    except Exception as error:
        reason = one_line(error)[:200]
        raise InputError(f"{path}: not a readable Excel workbook: {reason}") from error
    finally:
        book.close()


def _has_cells(sheet: Any) -> bool:
    rows = sheet.iter_rows(values_only=True)
    return any(cell is not None for row in rows for cell in row)
