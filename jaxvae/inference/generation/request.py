"""From what one asks of `generate` to a generation under way, and what it returns."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference.generation.balancing.exclusive import BalancedGeneration
from jaxvae.inference.generation.balancing.shares import Balance, may_have_several, shares_of
from jaxvae.inference.generation.balancing.tilting import TiltedGeneration
from jaxvae.inference.generation.constraints import make_constraints
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.order import Order, SetSource, Task
from jaxvae.inference.generation.pairs import PairedGeneration
from jaxvae.inference.generation.tables.prompts import Prompts
from jaxvae.inference.generation.temperatures import Temperatures
from jaxvae.inference.generation.variants import Around, Variants
from jaxvae.models.trained import TrainedModel

_CONSTRAINTS = ("present", "absent", "count", "tags")


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
      labels: by a column's name, a value for each set: the temperature at least; with a template
        the `text`.
    """

    sets: list[list[str]]
    log_probability: float
    effective_draws: float
    draws: int
    repeats: int
    near_training: int
    labels: dict[str, list]


def draw_all(source: SetSource, prompts: Prompts | None = None) -> Generated:
    """Draws the sets of a source, in memory, with their texts if there are prompts."""
    blocks = list(source.labelled())
    names, tally = source.constraints.taxonomy.names, source.tally
    columns = [np.flatnonzero(row) for block in blocks for row in block.sets]
    return Generated(
        [names(present) for present in columns],
        source.log_probability,
        tally.effective_draws,
        tally.draws,
        tally.repeats,
        tally.near_training,
        {
            name: [v for block in blocks for v in block.labels[name].tolist()]
            for name in blocks[0].labels
        }
        | ({"text": [prompts.text_of(present) for present in columns]} if prompts else {}),
    )


def start_generation(
    network: TrainedModel,
    taxonomy: Taxonomy,
    num: int,
    *,
    train_rows: Callable[[], np.ndarray],
    temperature: float | Sequence[float] = 1.0,
    balance: Balance | None = None,
    pairs: str | None = None,
    around: Around | None = None,
    **options: Any,
) -> SetSource:
    """Prepares a generation, whose sets then come in blocks.

    Args:
      network: the model.
      taxonomy: the tags of its columns.
      num: number of sets, or of pairs, at each temperature.
      train_rows: returns the training rows `[N, K]`; asked only for sets that differ from them.
      temperature: as in `Run.generate`.
      balance: as in `Run.generate`.
      pairs: as in `Run.generate`.
      around: Gaussians of z, near which there are `num` sets each.
      **options: those of `constraints.make_constraints` and of `order.Order`.

    Raises:
      InputError: as in `Run.generate`.
    """
    of_constraints = {name: options.pop(name) for name in _CONSTRAINTS if name in options}
    several = isinstance(temperature, Sequence | np.ndarray)
    temperatures = [float(value) for value in np.atleast_1d(temperature)]
    order = Order(num, temperature=temperatures[0] if temperatures else 1.0, **options)
    constraints = make_constraints(taxonomy, **of_constraints)
    kinds = {"balance": balance, "pairs": pairs, "like or between": around}
    chosen = [name for name, value in kinds.items() if value is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)}: give one of them")
    task = Task(network, constraints, order, train_rows() if order.unseen else None)

    def make(task: Task) -> SetSource:
        if around is not None:
            every = dataclasses.replace(task.order, num=task.order.num * len(around.centre))
            return Variants(dataclasses.replace(task, order=every), around)
        if pairs is not None:
            (tag,) = taxonomy.columns([pairs])
            return PairedGeneration(task, tag)
        if balance is None:
            return Generation(task)
        shares = shares_of(constraints, balance)
        several_of_them = may_have_several(constraints, shares)
        return (TiltedGeneration if several_of_them else BalancedGeneration)(task, shares)

    return Temperatures(make, task, temperatures) if several else make(task)
