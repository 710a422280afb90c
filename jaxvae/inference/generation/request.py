"""From what one asks of `generate` to a generation under way, and what it returns."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference.generation.balance import BalancedGeneration
from jaxvae.inference.generation.constraints import RangeLike, make_constraints
from jaxvae.inference.generation.drawing import Generation, Order
from jaxvae.models.trained import TrainedModel


@dataclasses.dataclass(frozen=True)
class Generated:
    """Tag sets drawn under constraints.

    Attributes:
      sets: the sets, in the order in which they were drawn.
      log_probability: log-probability that a set of the model meets the constraints, nats.
      effective_draws: effective number of latent vectors behind all draws.
      draws: number of sets that were drawn, of which the others are repeats or too near training.
      repeats: number of draws turned away as repeats of earlier ones.
      near_training: number of draws turned away as training rows, or too near one.
    """

    sets: list[list[str]]
    log_probability: float
    effective_draws: float
    draws: int
    repeats: int
    near_training: int


def start_generation(
    network: TrainedModel,
    taxonomy: Taxonomy,
    num: int,
    *,
    train_rows: Callable[[], np.ndarray],
    present: Iterable[str] = (),
    absent: Iterable[str] = (),
    count: Mapping[str, RangeLike] | None = None,
    tags: RangeLike | None = None,
    balance: str | Sequence[str] | None = None,
    **options: Any,
) -> Generation | BalancedGeneration:
    """Prepares a generation, whose sets then come in blocks.

    Args:
      network: the model.
      taxonomy: the tags of its columns.
      num: number of sets.
      train_rows: returns the training rows `[N, K]`; asked only for sets that differ from them.
      present: as in `Run.generate`.
      absent: as in `Run.generate`.
      count: as in `Run.generate`.
      tags: as in `Run.generate`.
      balance: as in `Run.generate`.
      **options: those of `drawing.Order`.

    Raises:
      InputError: as in `Run.generate`.
    """
    order = Order(num, **options)
    constraints = make_constraints(taxonomy, present=present, absent=absent, count=count, tags=tags)
    train = train_rows() if order.unseen else None
    if balance is None:
        return Generation(network, constraints, order, train)
    columns = constraints.to_balance(balance)
    return BalancedGeneration(network, constraints, order, train, columns)
