"""Reads ARFF, dense or sparse, as MULAN's and MEKA's multi-label data sets are published."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxvae.data.readers import containers
from jaxvae.data.readers.tables import Rows, Table, check_columns
from jaxvae.errors import InputError

_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+))\s+(.+)""",
    re.IGNORECASE | re.DOTALL,
)
_INDICATOR = re.compile(r"\{\s*['\"]?0['\"]?\s*,\s*['\"]?1['\"]?\s*\}")


def open_arff(path: Path, wanted: Sequence[str]) -> Table:
    """Opens an ARFF file; its attributes whose values are `{0,1}` are the tags.

    Raises:
        InputError: an attribute is malformed, or there is no `@data`.
    """
    del wanted
    names: list[str] = []
    indicators: list[str] = []
    for line, text in _lines(path):
        if text.lower() == "@data":
            break
        if text.lower().startswith("@attribute"):
            match = _ATTRIBUTE.fullmatch(text)
            if match is None:
                raise InputError(f"{path}, line {line}: not an attribute: {text[:60]!r}")
            name = next(group for group in match.groups()[:3] if group is not None)
            names.append(re.sub(r"\\(.)", r"\1", name))
            if _INDICATOR.fullmatch(match[4].strip()):
                indicators.append(names[-1])
        elif not text.lower().startswith("@relation"):
            raise InputError(f"{path}, line {line}: neither @attribute nor @data: {text[:60]!r}")
    else:
        raise InputError(f"{path}: no @data; the file is cut short, or no ARFF file")

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, str(path))
        index_of = {name: index for index, name in enumerate(names)}
        indices = [index_of[column] for column in columns]
        for line, text in _data(path):
            record = _record(path, line, text, len(names))
            yield line, [record.get(index, "0") for index in indices]

    return Table(str(path), names, rows, "ARFF", indicators=indicators)


def _data(path: Path) -> Iterator[tuple[int, str]]:
    lines = _lines(path)
    for _, text in lines:
        if text.lower() == "@data":
            break
    yield from lines


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are neither blank nor comments, stripped, with their numbers."""
    with (
        containers.open_plain(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig") as file,
    ):
        for number, line in enumerate(file, start=1):
            text = line.strip()
            if text and not text.startswith("%"):
                yield number, text


def _record(path: Path, line: int, text: str, width: int) -> dict[int, str]:
    """Returns a row's values by attribute; a sparse row leaves out what is 0."""
    where = f"{path}, line {line}"
    if not text.startswith("{"):
        fields = next(csv.reader([text], quotechar="'", skipinitialspace=True))
        if len(fields) != width:
            raise InputError(f"{where}: {len(fields)} values where there are {width} attributes")
        return {index: field.strip() for index, field in enumerate(fields)}
    if not text.endswith("}"):
        raise InputError(f"{where}: a sparse row that is not closed by a curly bracket")
    record: dict[int, str] = {}
    for pair in filter(None, (pair_text.strip() for pair_text in text[1:-1].split(","))):
        index, _, value = pair.partition(" ")
        if not index.isdigit() or int(index) >= width or not value.strip():
            raise InputError(
                f"{where}: expected an attribute's number, 0 to {width - 1}, and a value, found "
                f"{pair[:40]!r}"
            )
        if int(index) in record:
            raise InputError(f"{where}: attribute {index} appears twice")
        record[int(index)] = value.strip().strip("'\"")
    return record
