"""Draws sets from p(set | constraints) without end: z from its posterior, then the tags."""

import functools
import math
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from jaxvae.errors import InputError
from jaxvae.inference.generation import conditioning, latents
from jaxvae.inference.generation.constraints import Constraints, Tables
from jaxvae.models.trained import TrainedModel

FLOOR = 1e-9
"""Constraints that are less probable are refused."""
_BATCH = 2048
_MOST_NUMBERS = 2**26
_SETS = 2
_NAMED = 5


class Draws:
    """Independent draws of sets that meet constraints; iterate over it once.

    Args:
      network: the model.
      constraints: what every set must meet.
      temperature: divides the logits, also in the posterior of z.
      seed: seed of every draw.

    Raises:
      InputError: the constraints are less probable than `FLOOR`.

    Attributes:
      log_probability: log p(constraints), estimated by a pilot, nats; of all sets, the empty one
        included.
    """

    def __init__(
        self, network: TrainedModel, constraints: Constraints, *, temperature: float, seed: int
    ):
        self._network, self._constraints = network, constraints
        self._temperature, self._seed = temperature, seed
        self._tables = constraints.tables()
        self._pilot = self._run_pilot(constraints)
        if not self._pilot.probability >= FLOOR:
            self._refuse()
        self.log_probability = math.log(self._pilot.probability)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields boolean sets `[n, V]` and the numbers `[n]` of their latent vectors, endlessly."""
        network, tables = self._network, self._tables
        size = _batch_size(tables)
        draw = _program(network.graphdef)
        key = jax.random.fold_in(jax.random.key(self._seed), _SETS)
        waiting = np.zeros((0, network.latent_dim), np.float32)
        origins = np.zeros(0, np.int64)
        next_origin, batch = 0, 0
        for z, copies in latents.draw_posterior(
            network, tables, self._pilot, temperature=self._temperature, seed=self._seed
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
                    np.float32(self._temperature),
                    jax.random.fold_in(key, batch),
                )
                batch += 1
                yield np.asarray(sets), origins[:size]
                waiting, origins = waiting[size:], origins[size:]

    def draw_latents(self, num: int) -> np.ndarray:
        """Draws `[num, L]` of p(z | constraints), which are those of the first sets."""
        blocks: list[np.ndarray] = []
        for z, copies in latents.draw_posterior(
            self._network,
            self._tables,
            self._pilot,
            temperature=self._temperature,
            seed=self._seed,
        ):
            blocks.append(np.repeat(z, copies, axis=0))
            if sum(map(len, blocks)) >= num:
                break
        return np.concatenate(blocks)[:num]

    def _run_pilot(self, constraints: Constraints) -> latents.Pilot:
        return latents.run_pilot(
            self._network,
            constraints.tables(),
            temperature=self._temperature,
            seed=self._seed,
        )

    def _refuse(self) -> None:
        """Raises InputError that names the constraint without which the others are likeliest.

        Where they are too rare without any one of them, it names them all.
        """
        without = {
            name: self._run_pilot(fewer).probability for name, fewer in self._constraints.parts()
        }
        if not without:
            raise InputError(
                f"the model draws hardly any set but the empty one: fewer than one in "
                f"{1 / FLOOR:,.0f} has a tag"
            )
        name = max(without, key=lambda name: without[name])
        if len(without) > 1 and not without[name] >= FLOOR:
            names = list(without)
            more = f" and {len(names) - _NAMED} more" if names[_NAMED:] else ""
            raise InputError(
                f"{', '.join(names[:_NAMED])}{more}: fewer than one set in {1 / FLOOR:,.0f} of the "
                f"model's is like this, and without any one of these still; loosen several"
            )
        fewer = f"; without it {one_in(without[name])} is such" if len(without) > 1 else ""
        raise InputError(
            f"{name}: fewer than one set in {1 / FLOOR:,.0f} of the model's is like this{fewer}"
        )


def one_in(probability: float) -> str:
    """Says a probability as "one set in 1,200"."""
    odds = 1.0 / probability if probability else math.inf
    return f"one set in {odds:,.0f}" if odds >= 10.0 else f"one set in {odds:.3g}"


def _batch_size(tables: Tables) -> int:
    """Returns the sets to draw at a time, fewer where their tables of counts are large."""
    num_tags, states = tables.concept_allows.shape
    return max(8, min(_BATCH, _MOST_NUMBERS // (num_tags * (states + len(tables.total_allows)))))


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled draw of a set for each latent vector."""

    def draw(params, batch_stats, tables, z, temperature, key):
        model = nnx.merge(graphdef, params, batch_stats)
        return conditioning.draw_sets(model.decode(z) / temperature, tables, key)

    return jax.jit(draw)
