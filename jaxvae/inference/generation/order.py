"""The order for tag sets, counts of what was drawn for it, and the form in which sets come."""

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from jaxvae.inference.arguments import check_count, check_seed, check_temperature
from jaxvae.inference.generation.constraints import Constraints
from jaxvae.inference.generation.splits import SHARES, check_shares
from jaxvae.models.trained import TrainedModel


@dataclasses.dataclass(frozen=True)
class Order:
    """Sets to draw.

    Attributes:
      num: number of sets.
      temperature: divides the logits, also in the posterior of z.
      distinct: whether repeats are turned away.
      unseen: least number of tags by which a set differs from every training row.
      seed: seed of every draw.
      splits: shares of train, val and test, in each of which sets are balanced that are to be.

    Raises:
      InputError: a number is out of range.
    """

    num: int
    temperature: float = 1.0
    distinct: bool = False
    unseen: int = 0
    seed: int = 0
    splits: tuple[float, ...] = SHARES

    def __post_init__(self):
        check_count("num", self.num)
        check_temperature(self.temperature)
        check_seed(self.seed)
        check_shares(self.splits)
        if self.unseen != 0:
            check_count("unseen", int(self.unseen))


def derive_seed(seed: int, *numbers: int) -> int:
    """Returns the seed of a part of an order, which numbers tell from its other parts."""
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])


@dataclasses.dataclass
class Tally:
    """Counts of the draws so far.

    Attributes:
      draws: number of sets that were drawn.
      repeats: number of draws turned away because an earlier one was equal.
      near_training: number of draws turned away for their distance from a training row.
      kept: number of sets that remain.
      latent_squares: sum of squares of the numbers of draws from the same latent vector.
    """

    draws: int = 0
    repeats: int = 0
    near_training: int = 0
    kept: int = 0
    latent_squares: int = 0

    @property
    def effective_draws(self) -> float:
        """Effective number of latent vectors behind the draws (Kish 1965)."""
        return self.draws**2 / max(1, self.latent_squares)

    def __add__(self, other: "Tally") -> "Tally":
        """Returns the counts of both."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Tally(*(first + second for first, second in pairs))


class LabelledSets(NamedTuple):
    """Sets with a table's values for each of them.

    Attributes:
      sets: boolean `[n, V]`.
      split_as: boolean `[n, V]`, the sets whose digests say the split of each.
      labels: by a column's name, `[n]` values.
    """

    sets: np.ndarray
    split_as: np.ndarray
    labels: dict[str, np.ndarray]

    def part(self, rows: slice) -> "LabelledSets":
        """Returns some of the rows."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        return LabelledSets(self.sets[rows], self.split_as[rows], labels)

    def then(self, others: "LabelledSets") -> "LabelledSets":
        """Returns these rows and then others with the same labels."""
        labels = {
            name: np.concatenate([values, others.labels[name]])
            for name, values in self.labels.items()
        }
        return LabelledSets(
            np.concatenate([self.sets, others.sets]),
            np.concatenate([self.split_as, others.split_as]),
            labels,
        )


@dataclasses.dataclass(frozen=True)
class Task:
    """What sets to draw, and from what.

    Attributes:
      network: the model.
      constraints: what every set must meet.
      order: how many sets, and which of them.
      train: `[N, K]` training rows padded with V, from which sets must differ; None if they need
        not.
      seen: packed sets that count as repeats if the order is for distinct ones; those kept are
        added.
    """

    network: TrainedModel
    constraints: Constraints
    order: Order
    train: np.ndarray | None = None
    seen: set[bytes] = dataclasses.field(default_factory=set)


class SetSource:
    """Tag sets on their way; iterate once, over `blocks` or over `labelled`.

    Args:
      task: the sets to draw.

    Attributes:
      network: the model.
      constraints: what every set meets.
      order: how many sets, and which of them.
      tally: counts of the draws so far.
      log_probability: log-probability that a set of the model meets the constraints, nats.
      fields: kinds of the columns that the sets' labels fill, beside `temperature`.
    """

    tally: Tally
    log_probability: float
    fields: Mapping[str, str] = MappingProxyType({})

    def __init__(self, task: Task):
        self.network, self.constraints, self.order = task.network, task.constraints, task.order

    @property
    def temperature(self) -> float | list[float]:
        """The temperature of all sets, or each of several."""
        return self.order.temperature

    @property
    def sets_are(self) -> str:
        """Says in a record how the sets were drawn."""
        if self.order.distinct:
            return "first occurrences among independent draws, in their order"
        return "independent draws"

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]` in their order."""
        raise NotImplementedError

    def labelled(self) -> Iterator[LabelledSets]:
        """Yields the sets of `blocks` with their labels."""
        for sets in self.blocks():
            yield LabelledSets(
                sets, sets, {"temperature": np.full(len(sets), float(self.order.temperature))}
            )

    def describe(self) -> dict:
        """Returns what a record says of this kind of sets alone, JSON-able, by kind."""
        return {}
