"""Draws tag sets from p(set | constraints), and turns away repeats and sets that training had."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from jaxvae.data.encoding import to_multi_hot
from jaxvae.errors import InputError
from jaxvae.inference.arguments import check_count, check_positive, check_seed
from jaxvae.inference.generation import conditioning, latents
from jaxvae.inference.generation.constraints import Constraints, Tables
from jaxvae.inference.generation.splits import SHARES, check_shares
from jaxvae.models.trained import TrainedModel

FLOOR = 1e-9
"""Constraints that are less probable are refused."""
_BATCH = 2048
_MOST_NUMBERS = 2**26
_DRY_DRAWS = 65_536
_DRY_SHARE = 0.01
_SETS = 2
_ROWS_AT_ONCE = 4096


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
        check_positive("temperature", self.temperature)
        check_seed(self.seed)
        check_shares(self.splits)
        if self.unseen != 0:
            check_count("unseen", int(self.unseen))


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


class Generation:
    """An order under way: iterate once over its blocks of sets.

    Args:
      network: the model.
      constraints: what every set must meet.
      order: how many sets, and which of them.
      train: `[N, K]` training rows padded with V, from which sets must differ; None if they need
        not.

    Raises:
      InputError: the constraints are less probable than `FLOOR`.

    Attributes:
      tally: counts of the draws so far.
      log_probability: log p(constraints), estimated by a pilot, nats; of all sets, the empty one
        included.
    """

    def __init__(
        self,
        network: TrainedModel,
        constraints: Constraints,
        order: Order,
        train: np.ndarray | None = None,
    ):
        self.network, self.constraints, self.order = network, constraints, order
        self.tally = Tally()
        self._tables = constraints.tables()
        self._pilot = self._run_pilot(constraints)
        if self._pilot.probability < FLOOR:
            self._refuse()
        self.log_probability = math.log(self._pilot.probability)
        self._train = None if train is None else to_multi_hot(train, network.num_tags)
        self._known = set(_pack(self._train)) if self._train is not None else set()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, `order.num` in all, in the order in which they are drawn.

        Raises:
          InputError: so few of the draws are kept that there are hardly any more sets.
        """
        seen: set[bytes] = set()
        tally, window = self.tally, [(0, 0)]
        for sets, origin in self._draws():
            kept = self._keep(sets, origin, seen)
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
                    f"{tally.near_training:,} too near a training row; ask for at most "
                    f"{tally.kept:,} sets, or loosen the constraints"
                )

    def describe(self) -> dict:
        """Returns nothing: what a record says of balanced sets alone."""
        return {}

    def _keep(self, sets: np.ndarray, origin: np.ndarray, seen: set[bytes]) -> np.ndarray:
        """Returns the positions of the sets that are kept, and counts the others."""
        order, tally = self.order, self.tally
        missing = order.num - tally.kept
        near = self._near_training(sets)
        kept: list[int] = []
        position = 0
        for position, packed in enumerate(_pack(sets)):
            if near[position]:
                tally.near_training += 1
            elif order.distinct and packed in seen:
                tally.repeats += 1
            else:
                if order.distinct:
                    seen.add(packed)
                kept.append(position)
                if len(kept) == missing:
                    break
        tally.kept += len(kept)
        tally.draws += position + 1
        sizes = np.unique(origin[: position + 1], return_counts=True)[1]
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

    def _draws(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields boolean sets `[n, V]` and the numbers `[n]` of their latent vectors, endlessly."""
        network, order, tables = self.network, self.order, self._tables
        size = _batch_size(tables)
        draw = _program(network.graphdef)
        key = jax.random.fold_in(jax.random.key(order.seed), _SETS)
        waiting = np.zeros((0, network.latent_dim), np.float32)
        origins = np.zeros(0, np.int64)
        next_origin, batch = 0, 0
        for z, copies in latents.draw_posterior(
            network, tables, self._pilot, temperature=order.temperature, seed=order.seed
        ):
            waiting = np.concatenate([waiting, np.repeat(z, copies, axis=0)])
            origins = np.concatenate([origins, next_origin + np.repeat(np.arange(len(z)), copies)])
            next_origin += len(z)
            while len(waiting) >= size:  # full batches, so that fewer sets are the first of more
                sets = draw(
                    network.params,
                    network.batch_stats,
                    tables,
                    waiting[:size],
                    np.float32(order.temperature),
                    jax.random.fold_in(key, batch),
                )
                batch += 1
                yield np.asarray(sets), origins[:size]
                waiting, origins = waiting[size:], origins[size:]

    def _run_pilot(self, constraints: Constraints) -> latents.Pilot:
        return latents.run_pilot(
            self.network,
            constraints.tables(),
            temperature=self.order.temperature,
            seed=self.order.seed,
        )

    def _refuse(self) -> None:
        """Raises InputError that names the constraint without which the others are likeliest."""
        without = {
            name: self._run_pilot(others).probability for name, others in self.constraints.parts()
        }
        if not without:
            raise InputError(
                f"the model draws hardly any set but the empty one: fewer than one in "
                f"{1 / FLOOR:,.0f} has a tag"
            )
        name = max(without, key=lambda name: without[name])
        others = f"; without it {one_in(without[name])} is such" if len(without) > 1 else ""
        raise InputError(
            f"{name}: fewer than one set in {1 / FLOOR:,.0f} of the model's is like this{others}"
        )


def one_in(probability: float) -> str:
    """Says a probability as "one set in 1,200"."""
    odds = 1.0 / probability if probability else math.inf
    return f"one set in {odds:,.0f}" if odds >= 10.0 else f"one set in {odds:.3g}"


def _batch_size(tables: Tables) -> int:
    """Returns the sets to draw at a time, fewer where their tables of counts are large."""
    num_tags, states = tables.concept_allows.shape
    return max(8, min(_BATCH, _MOST_NUMBERS // (num_tags * (states + len(tables.total_allows)))))


def _pack(sets: np.ndarray) -> list[bytes]:
    """Packs each boolean set into bytes."""
    return [row.tobytes() for row in np.packbits(sets, axis=1)]


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled draw of a set for each latent vector."""

    def draw(params, batch_stats, tables, z, temperature, key):
        model = nnx.merge(graphdef, params, batch_stats)
        return conditioning.draw_sets(model.decode(z) / temperature, tables, key)

    return jax.jit(draw)
