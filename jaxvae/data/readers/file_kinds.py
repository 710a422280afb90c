"""Files that are no table in spite of their names, recognised by how they begin.

A download may be a page that asks to log in, a pointer to the file, or the file in an archive; a
table may be separated otherwise than its name says, or begin with something else than its columns.
"""

import re
from pathlib import Path

from jaxvae.data.readers.regular_file import open_regular

_START = 4096
_UNPACK = "unpack it, and name what comes out"
_AS_CSV = "save it as CSV, and name that"
_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "compressed by gzip", f"{_UNPACK} (gunzip -c FILE > NEW)"),
    (b"BZh", "compressed by bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed by xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PAR1", "a Parquet file", "give it a name that ends in .parquet"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", _AS_CSV),
    (b"SQLite format 3\x00", "an SQLite database", _AS_CSV),
    (b"\x89HDF\r\n", "an HDF5 file", _AS_CSV),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = re.compile(rb"(\.\./)*(\.git|/)?/?annex/objects/")
_PAGE = re.compile(
    rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!doctype html|<html|<head|<body)", re.DOTALL
)
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_NAMES = {",": ".csv", "\t": ".tsv"}


def recognise(path: Path) -> str:
    """Returns what a file is that is no table by that name, and what to do; "" of other files.

    Args:
        path: a regular file; one that can't be opened is left to its reader.
    """
    start = _start_of(path)
    for magic, kind, remedy in _BINARY:
        if start.startswith(magic):
            right = magic == b"PAR1" and path.suffix.lower() == ".parquet"
            return "" if right else f"{kind}; {remedy}"
    if start.startswith(b"PK\x03\x04"):
        if b"[Content_Types].xml" in start or b"xl/" in start:
            return f"an Excel workbook; {_AS_CSV}"
        return f"a zip archive; {_UNPACK}"
    if kind := _stand_in(start):
        return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<?xml"):
        return f"an XML file; {_AS_CSV}"
    return ""


def stand_in(path: Path) -> str:
    """Returns what a file is that stands where another should be, and what to do; or "".

    Args:
        path: a file of any kind, which may be missing.
    """
    return _stand_in(_start_of(path))


def _start_of(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_START)
    except (OSError, ValueError):
        return b""


def _stand_in(start: bytes) -> str:
    if start.startswith(_LFS):
        return "a Git LFS pointer, not the file itself; fetch that by git lfs pull"
    if _ANNEX.match(start):
        return "a git-annex pointer, not the file itself; fetch that by git annex get"
    if _PAGE.match(start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()):
        return "an HTML page, perhaps one to log in or of an error; download the file itself"
    return ""


def wrong_header(path: Path, header: list[str], column: str, separator: str) -> str:
    """Returns what the first line of a table is that has not the column, and what to do; or "".

    Args:
        path: the file.
        header: its first record, as split.
        column: the wanted column.
        separator: what it was split at.
    """
    first = separator.join(header)
    if sep := re.fullmatch(r"sep=(.)?", first.strip("\r\n"), re.S):
        mark = sep[1] or separator
        more = "" if mark == separator else f", and {_by_name(mark, separator)}"
        return f"line 1: {first!r} is for Excel and no column names; delete that line{more}"
    if first.startswith("#"):
        return _comments(path, column, separator)
    for other, name in _SEPARATORS.items():
        alone = len(header) == 1 and other in first
        if other != separator and (alone or column in _split(first, other)):
            return (
                f"separated by {name}, and a {path.suffix} file is by {_SEPARATORS[separator]} "
                f"(line 1: {first[:80]!r}); {_by_name(other, separator)}"
            )
    return ""


def _by_name(mark: str, separator: str) -> str:
    """Says how to make a file of one separator one that is read."""
    if mark in _NAMES:
        return f"give it a name that ends in {_NAMES[mark]}"
    return f"write it with {_SEPARATORS[separator]}"


def _comments(path: Path, column: str, separator: str) -> str:
    """Says which first lines are comments, and whether the last one has the column names."""
    last, number = "", 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.startswith("#"):
                break
            last, number = line, number + 1
    names = _split(last.lstrip("#"), separator)
    if column not in names:
        if number == 1:
            return "line 1 is a comment and no column names; delete it, and put column names first"
        return (
            f"lines 1 to {number} are comments and no column names; delete them, and put column "
            f"names first"
        )
    if number == 1:
        return "line 1: a '#' before the column names; delete it and the spaces between names"
    rest = "line 1" if number == 2 else f"lines 1 to {number - 1}"
    return (
        f"{rest} {'is a comment' if number == 2 else 'are comments'}; delete them, and in line "
        f"{number} the '#' and the spaces between the column names"
    )


def _split(line: str, separator: str) -> list[str]:
    return [name.strip().strip('"') for name in line.split(separator)]
