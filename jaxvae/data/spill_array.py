"""Arrays that grow at their end, and lie in a file once they are large.

The system keeps as much of a mapped file in memory as there is room for, so data larger than memory
are slower and not refused.
"""

import mmap
import tempfile
from typing import IO

import numpy as np

from jaxvae.errors import InputError

IN_MEMORY = 2**28
"""The most bytes of an array that lies in memory."""


class SpillArray:
    """Numbers of one type, added to at the end.

    Many lie in a temporary file, which has no name and goes with the last array that shows it.

    Args:
      dtype: of the numbers.
    """

    def __init__(self, dtype):
        self._dtype = np.dtype(dtype)
        # Grows in place, where a list of arrays would be there twice when it is joined.
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def extend(self, numbers: np.ndarray) -> None:
        """Adds an array of any shape.

        Raises:
          InputError: the folder of temporary files takes no more.
        """
        content = np.ascontiguousarray(numbers, self._dtype).reshape(-1).view(np.uint8).data
        if self._file is None and len(self._memory) + len(content) <= IN_MEMORY:
            self._memory += content
            return
        try:
            if self._file is None:
                # Without a buffer: what does not fit fails here, and not once more when closed.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - lives with this
                _write(self._file, memoryview(self._memory))
                self._memory = bytearray()
            _write(self._file, content)
        except OSError as error:
            raise InputError(_no_room(error)) from error

    def array(self) -> np.ndarray:
        """All of them, `[N]`, not to be written to; adding ends here."""
        if self._file is None:
            return np.frombuffer(self._memory, self._dtype)
        with self._file as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), self._dtype)


def _write(file: IO[bytes], content: memoryview) -> None:
    """Writes all of it, of which the system may take a part at a time."""
    while content:
        content = content[file.write(content) :]


def _no_room(error: OSError) -> str:
    return (
        f"{tempfile.gettempdir()}: {error.strerror or error}; arrays of more than "
        f"{IN_MEMORY >> 20} MiB lie in a temporary file there: set TMPDIR to a folder with more "
        f"room"
    )
