"""Streams training rows to the devices, one epoch's share at a time.

Streaming serves data too large for the devices, and cuts long epochs into short ones.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from jaxvae.errors import InputError


class RowStream:
    """A stream of each epoch's `per_epoch` rows, placed on the devices.

    The stream is a sequence of passes over the split, each in its own order, cut into epochs of
    equal size: every row comes once before any comes again. It is a pure function of the seed, so a
    resumed run continues with the next rows. While an epoch trains, a thread places the next
    epoch's rows; the devices never hold more than these two shares.

    Args:
      positions: `[T]`, positions of the split's rows in the data set.
      per_epoch: R, rows of an epoch, at most T.
      shuffle: whether passes have random orders instead of that of `positions`.
      seed: seed of the orders.
      place: function that places the rows at positions `[R]` on the devices.

    Raises:
      InputError: the split has fewer than `per_epoch` rows.
    """

    def __init__(
        self,
        positions: np.ndarray,
        *,
        per_epoch: int,
        shuffle: bool,
        seed: int,
        place: Callable[[np.ndarray], jax.Array],
    ):
        if per_epoch > len(positions):
            raise InputError(
                f"--config.data.rows_per_epoch={per_epoch}: there are {len(positions):,} training "
                f"rows; take at most as many, or 0 for all of them"
            )
        self._positions = positions
        self._per_epoch, self._shuffle, self._seed = per_epoch, shuffle, seed
        self._place = place
        self._pass: tuple[int, np.ndarray] | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="rows")
        self._next: tuple[int, Future[jax.Array]] | None = None

    def __call__(self, epoch: int) -> jax.Array:
        """Returns the rows of an epoch, by its number from 0, and starts to place the next's."""
        expected, coming = self._next or (-1, None)
        if coming is None or expected != epoch:
            coming = self._worker.submit(self._load, epoch)
        rows = coming.result()
        self._next = epoch + 1, self._worker.submit(self._load, epoch + 1)
        return rows

    def positions(self, epoch: int) -> np.ndarray:
        """Returns the positions `[R]` of an epoch's rows in the data set, in streaming order."""
        chunks: list[np.ndarray] = []
        start, end = epoch * self._per_epoch, (epoch + 1) * self._per_epoch
        while start < end:
            number, offset = divmod(start, len(self._positions))
            chunks.append(self._order(number)[offset : offset + end - start])
            start += len(chunks[-1])
        return self._positions[np.concatenate(chunks)]

    def _load(self, epoch: int) -> jax.Array:
        return self._place(self.positions(epoch))

    def _order(self, number: int) -> np.ndarray:
        """Returns the order of a pass, a permutation of the split; caches the latest one."""
        if self._pass is None or self._pass[0] != number:
            order = np.arange(len(self._positions), dtype=np.uint32)
            if self._shuffle:
                np.random.Generator(np.random.Philox(key=[self._seed, number])).shuffle(order)
            self._pass = number, order
        return self._pass[1]
