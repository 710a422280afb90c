"""Draws tag sets from p(set | constraints), and turns away repeats and sets that training had."""

from collections.abc import Iterable, Iterator

import numpy as np

from jaxvae.data.encoding import to_multi_hot
from jaxvae.errors import InputError
from jaxvae.inference.generation.draws import Draws
from jaxvae.inference.generation.order import SetSource, Tally, Task

_DRY_DRAWS = 65_536
_DRY_SHARE = 0.01
_ROWS_AT_ONCE = 4096


class Generation(SetSource):
    """An order under way: iterate once over its blocks of sets.

    Args:
      task: the sets to draw.

    Raises:
      InputError: the constraints are less probable than `draws.FLOOR`.

    Attributes:
      tally: counts of the draws so far.
      log_probability: log p(constraints), estimated by a pilot, nats; of all sets, the empty one
        included.
    """

    def __init__(self, task: Task):
        super().__init__(task)
        self._seen = task.seen
        self.tally = Tally()
        draws = Draws(
            task.network,
            task.constraints,
            temperature=task.order.temperature,
            seed=task.order.seed,
        )
        self.log_probability = draws.log_probability
        self._draws: Iterable[tuple[np.ndarray, np.ndarray]] = draws
        rows = task.train
        self._train = None if rows is None else to_multi_hot(rows, task.network.num_tags)
        self._known = set() if self._train is None else set(_pack(self._train))

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, `order.num` in all, in the order in which they are drawn.

        Raises:
          InputError: so few of the draws are kept that there are hardly any more sets.
        """
        tally, window = self.tally, [(0, 0)]
        for sets, origin in self._draws:
            kept = self._keep(sets, origin, self.order.num - tally.kept)
            yield sets[kept]
            if tally.kept == self.order.num:
                return
            window.append((tally.draws, tally.kept))
            while window[-1][0] - window[1][0] >= _DRY_DRAWS:
                del window[0]
            draws, new = (now - then for now, then in zip(window[-1], window[0], strict=True))
            if draws >= _DRY_DRAWS and new < _DRY_SHARE * draws:
                raise InputError(
                    f"only {tally.kept:,} such sets in {tally.draws:,} draws, {new:,} of them in "
                    f"the last {draws:,}: {tally.repeats:,} draws were repeats, "
                    f"{tally.near_training:,} too near a training row; {self._way_out()}"
                )

    def _way_out(self) -> str:
        """Says what to do where there are hardly any more sets."""
        return f"ask for at most {self.tally.kept:,} sets, or loosen the constraints"

    def _is_wanted(self, row: np.ndarray) -> bool:
        """Returns whether a set `[V]` that could be kept is to be; no other is counted."""
        del row
        return True

    def _keep(self, sets: np.ndarray, origin: np.ndarray, missing: int) -> np.ndarray:
        """Returns the positions of the sets that are kept, and counts the others."""
        order, tally, seen = self.order, self.tally, self._seen
        near = self._near_training(sets)
        kept: list[int] = []
        counted: list[int] = []
        for position, packed in enumerate(_pack(sets)):
            if near[position]:
                tally.near_training += 1
            elif order.distinct and packed in seen:
                tally.repeats += 1
            elif not self._is_wanted(sets[position]):
                continue
            else:
                if order.distinct:
                    seen.add(packed)
                kept.append(position)
            counted.append(position)
            if len(kept) == missing:
                break
        if not self.constraints.met_by(sets[kept]).all():
            raise InputError(
                "the model's numbers overflow: a set that was drawn does not meet the constraints; "
                "give a temperature nearer to 1"
            )
        tally.kept += len(kept)
        tally.draws += len(counted)
        sizes = np.unique(origin[counted], return_counts=True)[1]
        tally.latent_squares += int(np.square(sizes).sum())
        return np.array(kept, np.int64)

    def _near_training(self, sets: np.ndarray) -> np.ndarray:
        """Returns whether each set is nearer to a training row than the order allows, `[n]`."""
        least = int(self.order.unseen)
        if self._train is None or not least:
            return np.zeros(len(sets), bool)
        if least == 1:
            return np.array([packed in self._known for packed in _pack(sets)])
        nearest = np.full(len(sets), np.inf)
        floats, sizes = sets.astype(np.float32), sets.sum(axis=1)
        for start in range(0, len(self._train), _ROWS_AT_ONCE):
            rows = self._train[start : start + _ROWS_AT_ONCE]
            # |a - b| = |a| + |b| - 2ab
            differing = rows.sum(axis=1) - 2.0 * (floats @ rows.T.astype(np.float32))
            nearest = np.minimum(nearest, sizes + differing.min(axis=1))
        return nearest < least


def _pack(sets: np.ndarray) -> list[bytes]:
    """Packs each boolean set into bytes."""
    return [row.tobytes() for row in np.packbits(sets, axis=1)]
