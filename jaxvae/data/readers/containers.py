"""Opens files as the plain bytes inside them: `.gz`, `.bz2`, `.xz`, `.zst`, and `.zip` of one file.

Bytes are unpacked as they are read, so a large file needs no room on the disk; what unpacks to far
more than a table would is refused.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from jaxvae.errors import InputError, one_line

MAX_RATIO = 200
MIN_SUSPICIOUS = 2**30
"""Bytes that any file may unpack to, whatever its own size."""


def _open_zst(path: Path) -> BinaryIO:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")


def _open_zip(path: Path) -> BinaryIO:
    archive = zipfile.ZipFile(path)
    try:
        return cast(BinaryIO, archive.open(zip_member(path)))
    finally:
        archive.close()  # closes the file when the member is closed


_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
    ".zip": _open_zip,
}
SUFFIXES = tuple(_OPENERS)


def table_suffix(path: Path) -> str:
    """Returns the suffix that says what a file's bytes are: `.csv` of `clips.csv.gz`.

    Args:
        path: a file; of a `.zip` the one file inside counts.

    Raises:
        InputError: a `.zip` is damaged, or does not hold exactly one file.
    """
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return PurePosixPath(zip_member(path)).suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in SUFFIXES else suffix


def zip_member(path: Path) -> str:
    """Returns the name of the one file in a `.zip` archive.

    Raises:
        InputError: the archive is damaged, or does not hold exactly one file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: not a readable .zip file: {one_line(error)[:200]}") from error
    tables = [name for name in names if not _is_clutter(name)]
    if len(tables) == 1:
        return tables[0]
    listed = ", ".join(repr(name[:60]) for name in sorted(tables)[:5]) + ", ..." * (len(tables) > 5)
    raise InputError(
        f"{path}: an archive of {len(tables)} files where one is read"
        f"{': ' + listed if tables else ''}; unpack it, and name one of them"
    )


def _is_clutter(name: str) -> bool:
    """Tests whether a member is what systems add to archives, such as `__MACOSX/._clips.csv`."""
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".")


def open_plain(path: Path) -> BinaryIO:
    """Opens a file to read its bytes, unpacked if its suffix is one of `SUFFIXES`.

    Args:
        path: a regular file.

    Raises:
        InputError: the archive is damaged or encrypted, or unpacks to more than `MAX_RATIO` times
            its size and `MIN_SUSPICIOUS`; some of these are raised only while it is read.
        OSError: the file can't be opened.
    """
    suffix = path.suffix.lower()
    if suffix not in _OPENERS:
        return path.open("rb")
    reader = _Unpacking(path, suffix)
    return cast(BinaryIO, io.BufferedReader(reader, 2**18))


class _Unpacking(io.RawIOBase):
    """A stream of unpacked bytes, whose every fault is an InputError."""

    def __init__(self, path: Path, suffix: str):
        self._path, self._suffix = path, suffix
        self._limit = max(MIN_SUSPICIOUS, MAX_RATIO * path.stat().st_size)
        self._size = 0
        self._stream = self._guarded(lambda: _OPENERS[suffix](path))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._guarded(lambda: self._stream.read(len(buffer)))
        self._size += len(content)
        if self._size > self._limit:
            raise InputError(
                f"{self._path}: unpacks to more than {self._limit:,} bytes, {MAX_RATIO} times its "
                f"own size, as a table would not; unpack it yourself if you trust it, and name "
                f"what comes out"
            )
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed and (stream := getattr(self, "_stream", None)) is not None:
            stream.close()
        super().close()

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except InputError:
            raise
        except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
            raise self._damaged(error) from error  # RuntimeError: an encrypted member
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # of the file system
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self._path}: not a whole {self._suffix} file: {one_line(error)[:200]}; fetch it anew"
        )
