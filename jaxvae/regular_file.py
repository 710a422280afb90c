"""Files to read that someone else may have put there: a pipe in their place would never end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


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


def is_missing(error: OSError) -> bool:
    """Whether an error of `open_regular` says what is there: nothing, or no regular file.

    Any other (EACCES, EIO, ESTALE …) says that it can't be read as things are.
    """
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.EISDIR, errno.ELOOP)


def irregular(path: Path) -> bool:
    """Whether reading a path might never end."""
    return path.is_fifo() or path.is_char_device() or path.is_block_device()
