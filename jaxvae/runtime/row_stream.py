"""Training rows that are brought to the devices an epoch's share at a time.

For data that no device could hold, and for long epochs to be cut into short ones.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np

from jaxvae.errors import InputError


class RowStream:
    """The rows of each epoch, `per_epoch` of them, on the devices.

    The stream is one pass over the split after the other, each in an order of its own, cut into
    epochs wherever they end: every row comes once before any comes again. It is a pure function of
    the seed, so a resumed run goes on with the rows that are next. While an epoch trains, a thread
    places the next one's rows; the devices never hold more than these two shares.

    Args:
      positions: `[T]`, which rows of the data set are in the split.
      per_epoch: R, rows of an epoch, at most T.
      shuffle: whether a pass has a random order, else that of `positions`.
      seed: of the orders.
      place: lays the rows at positions `[R]` out on the devices.

    Raises:
      InputError: the split has fewer rows than an epoch is to have.
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
        """The rows of an epoch, by its number from 0; the next one's are on their way then."""
        expected, coming = self._next or (-1, None)
        if coming is None or expected != epoch:
            coming = self._worker.submit(self._load, epoch)
        rows = coming.result()
        self._next = epoch + 1, self._worker.submit(self._load, epoch + 1)
        return rows

    def positions(self, epoch: int) -> np.ndarray:
        """Positions `[R]` of an epoch's rows in the data set, in the order they come in."""
        taken: list[np.ndarray] = []
        start, end = epoch * self._per_epoch, (epoch + 1) * self._per_epoch
        while start < end:
            number, at = divmod(start, len(self._positions))
            taken.append(self._order(number)[at : at + end - start])
            start += len(taken[-1])
        return self._positions[np.concatenate(taken)]

    def _load(self, epoch: int) -> jax.Array:
        return self._place(self.positions(epoch))

    def _order(self, number: int) -> np.ndarray:
        """The order of a pass: a permutation of the split, kept until another is asked for."""
        if self._pass is None or self._pass[0] != number:
            order = np.arange(len(self._positions), dtype=np.uint32)
            if self._shuffle:
                np.random.Generator(np.random.Philox(key=[self._seed, number])).shuffle(order)
            self._pass = number, order
        return self._pass[1]
