"""Keeps draws by coins that favour tags that lag, so that counts stay in proportion to shares."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

_LEAST_PULL, _MOST_PULL, _PULL_TIMES_DUE = 0.2, 1.0, 100.0
"""By how much a tag's odds fall, in logs, for each set that it is ahead of its share.

Of a pull p a tag's count has the variance 1 / 2p about its share. Few sets that are due get the
strongest, with which half of the counts are exact.
"""
_MOST_LOG_ODDS = 3.0
_USUAL, _RAREST = 0.25, 0.03125
"""The share of draws to keep while no tag lags, and where one lags far."""
_DEVIATIONS = 4.0


class Lag(NamedTuple):
    """A tag that falls behind.

    Attributes:
      column: its column.
      split: the split in which it does.
      found: the sets with it there.
      due: the sets with it that there should be by now.
    """

    column: int
    split: str
    found: int
    due: float


class Pace:
    """Counts of the sets that were kept, by split, and the coins for those to come.

    Independent draws with exact rates would have counts with noise of their square root. A coin
    that depends on how far each tag of a set is ahead holds them within a few sets of their shares,
    and corrects rates that are a little wrong. How many of the tags a set has is nearly left as it
    is: sets of two are some hundredths too rare, since no probability exceeds 1.

    Args:
      shares: by column, each tag's share of the tags; they sum to 1.
      seed: seed of the coins.
    """

    def __init__(self, shares: Mapping[int, float], seed: int):
        self._columns = list(shares)
        self._shares = np.array(list(shares.values()))
        self._counts: dict[str, np.ndarray] = {}
        self._weights: dict[str, tuple[float, np.ndarray]] = {}
        self._rng = np.random.default_rng(seed)

    @property
    def counts(self) -> np.ndarray:
        """The number of sets with each tag."""
        return sum(self._counts.values(), start=np.zeros(len(self._columns), int))

    def keeps(self, has: np.ndarray, split: str, probability: float) -> bool:
        """Returns whether a set is kept, and counts it if it is.

        Args:
          has: boolean, which of the tags it has.
          split: its split.
          probability: of keeping it while no tag is ahead or behind, relative to other sets; 1 at
            most.
        """
        if split not in self._counts:
            self._counts[split] = np.zeros(len(self._columns), int)
            self._weigh(split)
        usual, odds = self._weights[split]
        keep = self._rng.random() < usual * probability * float(odds[has].prod())
        if keep:
            self._counts[split] += has
            self._weigh(split)
        return keep

    def _weigh(self, split: str) -> None:
        """Computes the odds of the split's tags by how far they are ahead."""
        counts = self._counts[split]
        due = self._shares * counts.sum()
        odds = np.exp(np.clip(_pull(due) * (due - counts), -_MOST_LOG_ODDS, _MOST_LOG_ODDS))
        odds /= self._shares @ odds  # so that sets with several tags are no more frequent
        self._weights[split] = (max(_RAREST, min(_USUAL, 1.0 / odds.max())), odds)

    def lagging(self) -> Lag | None:
        """Returns the tag that is farthest behind, if one is farther than those that keep up."""
        for split, counts in self._counts.items():
            due = self._shares * counts.sum()
            pull = _pull(due)
            # Those that keep up have odds within the bounds, and noise about them.
            farthest = _MOST_LOG_ODDS / pull + _DEVIATIONS * np.sqrt(0.5 / pull)
            worst = int(np.argmax(due - counts - farthest))
            if due[worst] - counts[worst] > farthest[worst]:
                return Lag(self._columns[worst], split, int(counts[worst]), float(due[worst]))
        return None


def _pull(due: np.ndarray) -> np.ndarray:
    """Returns each tag's pull, by the sets with it that are due."""
    return np.clip(_PULL_TIMES_DUE / np.maximum(due, 1.0), _LEAST_PULL, _MOST_PULL)
