"""Append-only arrays that spill to a memory-mapped temporary file when large.

The system caches as much of a mapped file as fits in memory, so data larger than memory are slow
rather than refused.
"""

import mmap
import tempfile
from typing import IO

import numpy as np

from jaxvae.errors import InputError

IN_MEMORY = 2**28
"""The largest array, in bytes, that is kept in memory."""


class SpillArray:
    """An append-only array of one type.

    Large arrays live in an unnamed temporary file, deleted with the last view of it.

    Args:
      dtype: the numbers' type.
    """

    def __init__(self, dtype):
        self._dtype = np.dtype(dtype)
        # Grows in place; joining a list of arrays would hold the data twice.
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def extend(self, numbers: np.ndarray) -> None:
        """Appends an array of any shape.

        Raises:
          InputError: the folder of temporary files is full.
        """
        content = np.ascontiguousarray(numbers, self._dtype).reshape(-1).view(np.uint8).data
        if self._file is None and len(self._memory) + len(content) <= IN_MEMORY:
            self._memory += content
            return
        try:
            if self._file is None:
                # Unbuffered: a full disk fails here, and not a second time when closed.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives with this
                _write(self._file, memoryview(self._memory))
                self._memory = bytearray()
            _write(self._file, content)
        except OSError as error:
            raise InputError(_no_room(error)) from error

    def array(self) -> np.ndarray:
        """Returns all numbers as a read-only `[N]` array; nothing can be appended after that."""
        if self._file is None:
            return np.frombuffer(self._memory, self._dtype)
        with self._file as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), self._dtype)


def _write(file: IO[bytes], content: memoryview) -> None:
    """Writes all of `content`; one system call may write only a part of it."""
    while content:
        content = content[file.write(content) :]


def _no_room(error: OSError) -> str:
    return (
        f"{tempfile.gettempdir()}: {error.strerror or error}; arrays of more than "
        f"{IN_MEMORY >> 20} MiB lie in a temporary file there: set TMPDIR to a folder with more "
        f"room"
    )
