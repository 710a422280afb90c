"""Recognises, by their first bytes, files that are not tables in spite of their names.

A download may be a login page, a pointer to the file, or an archive of the file; a table may have
another separator than its name says, or begin with something else than its column names.
"""

import csv
import re
from pathlib import Path

from jaxvae.data.readers import containers
from jaxvae.data.readers.regular_file import open_regular

_START = 4096
_UNPACK = "unpack it, and name what comes out"
_PACKED = "give it a name that ends in .csv{suffix}, or in what else it holds"
_AS_CSV = "save it as CSV, and name that"
_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "compressed by gzip", _PACKED.format(suffix=".gz")),
    (b"BZh", "compressed by bzip2", _PACKED.format(suffix=".bz2")),
    (b"\xfd7zXZ\x00", "compressed by xz", _PACKED.format(suffix=".xz")),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _PACKED.format(suffix=".zst")),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"PAR1", "a Parquet file", "give it a name that ends in .parquet"),
    (b"ARROW1", "an Arrow file", "give it a name that ends in .arrow"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", _AS_CSV),
    (b"SQLite format 3\x00", "an SQLite database", _AS_CSV),
    (b"\x89HDF\r\n", "an HDF5 file", _AS_CSV),
)
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = re.compile(rb"(\.\./)*(\.git|/)?/?annex/objects/")
_PAGE = re.compile(
    rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*(?:<!doctype html|<html|<head|<body)", re.DOTALL
)
_RIGHT_NAMES: dict[bytes, tuple[str, ...]] = {
    b"\x1f\x8b": (".gz",),
    b"BZh": (".bz2",),
    b"\xfd7zXZ\x00": (".xz",),
    b"\x28\xb5\x2f\xfd": (".zst",),
    b"PAR1": (".parquet",),
    b"ARROW1": (".feather", ".arrow", ".ipc"),
}
_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_NAMES = {",": ".csv", "\t": ".tsv"}


def recognise(path: Path) -> str:
    """Describes a file that is not the table its name says, with a remedy; "" for other files.

    Args:
        path: a regular file; one that can't be opened gives "", and its reader reports the error.
    """
    start = _start_of(path)
    for magic, kind, remedy in _BINARY:
        if start.startswith(magic):
            right = path.suffix.lower() in _RIGHT_NAMES.get(magic, ())
            return "" if right else f"{kind}; {remedy}"
    if start.startswith(b"PK\x03\x04"):
        if path.suffix.lower() in (".zip", ".xlsx"):
            return ""
        if b"[Content_Types].xml" in start or b"xl/" in start:
            return "an Excel workbook; give it a name that ends in .xlsx, or save it as CSV"
        return "a zip archive; give it a name that ends in .zip"
    if kind := _stand_in(start):
        return kind
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<?xml"):
        return f"an XML file; {_AS_CSV}"
    return ""


def stand_in(path: Path) -> str:
    """Describes a pointer or page that replaces the expected file, with a remedy; or "".

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


def find_separator(first: str, usual: str) -> str:
    """Returns the separator of a table: the usual one, unless its first line has another alone.

    Args:
        first: the table's first line.
        usual: the separator that the file's name says.
    """
    line = first.strip("\r\n")
    if line.startswith("#") or re.fullmatch(r"sep=.?", line):
        return usual
    splitting = [
        mark for mark in _SEPARATORS if len(next(csv.reader([line], delimiter=mark), [])) > 1
    ]
    return splitting[0] if usual not in splitting and len(splitting) == 1 else usual


def wrong_header(path: Path, header: list[str], column: str, separator: str) -> str:
    """Describes the first line of a table without the wanted column, with a remedy; or "".

    Args:
        path: the file.
        header: its first record, split at `separator`.
        column: the wanted column.
        separator: the separator of files with this suffix.
    """
    first = separator.join(header)
    if sep := re.fullmatch(r"sep=(.)?", first.strip("\r\n"), re.S):
        mark = sep[1] or separator
        more = "" if mark == separator else f", and {_by_name(mark, separator)}"
        return f"line 1: {first!r} is for Excel and no column names; delete that line{more}"
    if first.startswith("#"):
        return _comments(path, column, separator)
    for candidate, name in _SEPARATORS.items():
        alone = len(header) == 1 and candidate in first
        if candidate != separator and (alone or column in _split(first, candidate)):
            return (
                f"separated by {name}, and a {path.suffix} file is by {_SEPARATORS[separator]} "
                f"(line 1: {first[:80]!r}); {_by_name(candidate, separator)}"
            )
    return ""


def _by_name(mark: str, separator: str) -> str:
    """Returns advice on how to make a file with this separator readable."""
    if mark in _NAMES:
        return f"give it a name that ends in {_NAMES[mark]}"
    return f"write it with {_SEPARATORS[separator]}"


def _comments(path: Path, column: str, separator: str) -> str:
    """Describes the comment lines at a file's start; the last may hold the column names."""
    last, number = "", 0
    with containers.open_plain(path) as file:
        for content in file:
            line = content.decode("utf-8-sig")
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
    span = "line 1" if number == 2 else f"lines 1 to {number - 1}"
    return (
        f"{span} {'is a comment' if number == 2 else 'are comments'}; delete them, and in line "
        f"{number} the '#' and the spaces between the column names"
    )


def _split(line: str, separator: str) -> list[str]:
    return [name.strip().strip('"') for name in line.split(separator)]
