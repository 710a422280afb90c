"""Files to read that someone else may have put there: a pipe in their place would never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from jaxvae.errors import Unreadable


def open_regular(path: Path) -> BufferedReader:
    """Opens a file to read its bytes.

    Raises:
      OSError: it can't be opened, or is no regular file: a pipe, a device, a folder.
    """
    # A pipe would be waited for while it is opened.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return open(descriptor, "rb")


_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EISDIR, errno.ELOOP)
"""Errors of `open_regular` that say what is there: nothing, or no regular file."""


def refuse_unreadable(path: object, error: BaseException) -> None:
    """Returns where an error in reading a file says something about the file, and else raises.

    Args:
      path: of the file.
      error: that was raised when it was read.

    Raises:
      Unreadable: the file can't be read as things are (EACCES, EIO, ESTALE …, or no memory).
    """
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno not in _MISSING
    ):
        raise Unreadable(path, error) from error


def is_special_file(path: Path) -> bool:
    """Whether reading a path might never end."""
    return path.is_fifo() or path.is_char_device() or path.is_block_device()
