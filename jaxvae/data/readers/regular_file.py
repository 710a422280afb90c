"""Opens untrusted paths safely: refuses pipes and devices, whose reads could block forever."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from jaxvae.errors import Unreadable


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file to read its bytes.

    Raises:
      OSError: the file can't be opened, or is a pipe, a device or a folder.
    """
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "rb")


_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EISDIR, errno.ELOOP)
"""Errors of `open_regular` for a missing file, or one that is not a regular file."""


def refuse_unreadable(path: object, error: BaseException) -> None:
    """Raises `Unreadable` if an error in reading a file tells nothing about its contents.

    Args:
      path: the file's path.
      error: the exception that was raised when the file was read.

    Raises:
      Unreadable: the file can't be read at present (EACCES, EIO, ESTALE …, or no memory).
    """
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno not in _MISSING
    ):
        raise Unreadable(path, error) from error


def is_special_file(path: Path) -> bool:
    """Tests whether reads of a path might block forever: a pipe or a device."""
    return path.is_fifo() or path.is_char_device() or path.is_block_device()
