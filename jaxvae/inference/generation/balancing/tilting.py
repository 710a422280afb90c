"""Reweights sets so that tags are as frequent as their shares say, some sets having several.

Of all distributions with these frequencies, the model's reweighted by a factor for each tag of a
set is the nearest to the model's (exponential tilting: Csiszár 1975).
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.errors import InputError
from jaxvae.inference.generation import conditioning
from jaxvae.inference.generation.constraints import Constraints, Tables
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.draws import Draws
from jaxvae.inference.generation.order import Task
from jaxvae.models.trained import TrainedModel

_ROUNDS = 3
_LEAST_POOL, _MOST_POOL = 8192, 131_072
_SETS_OF_A_TAG = 5000
"""Sets of the rarest tag in the last pool: its rate is known to a seventieth."""
_AT_ONCE = 2048
_ITERATIONS = 200
_WRONG = 0.02
_FAR = 0.25
_MOST_LOG_FACTOR = 10.0


@dataclasses.dataclass(frozen=True)
class Tilt:
    """Factors of the odds of some tags, and what they do.

    Attributes:
      factors: by column; their geometric mean, each to the power of its share, is 1.
      rates_in_model: share of the model's sets with each tag.
      rates: share of the reweighted sets with it, by latent vectors that no factor was fitted to.
    """

    factors: Mapping[int, float]
    rates_in_model: Mapping[int, float]
    rates: Mapping[int, float]


class TiltedGeneration(Generation):
    """Sets with one or several of some tags, whose rates are in proportion to their shares.

    Args:
      task: the sets to draw.
      shares: by column.

    Raises:
      InputError: as in `Generation`, or sets that meet the constraints can't have such rates.
    """

    def __init__(self, task: Task, shares: Mapping[int, float]):
        network, constraints, order = task.network, task.constraints, task.order
        plain = Draws(network, constraints, temperature=order.temperature, seed=order.seed)
        self._shares = shares
        self._tilt = fit_tilt(
            network, constraints, shares, temperature=order.temperature, seed=order.seed
        )
        tilted = dataclasses.replace(constraints, factors=self._tilt.factors)
        super().__init__(dataclasses.replace(task, constraints=tilted))
        self.log_probability = plain.log_probability

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields boolean sets `[n, V]`, as `Generation.blocks` does.

        Raises:
          InputError: as there, or so many sets with one of the tags were turned away that hardly
            half of its share is left.
        """
        columns, counts = list(self._shares), np.zeros(len(self._shares), int)
        for sets in super().blocks():
            counts += sets[:, columns].sum(axis=0)
            yield sets
        expected = self.order.num * np.array(list(self._tilt.rates.values()))
        lacking = counts < np.minimum(0.5 * expected, expected - 5.0 * np.sqrt(expected))
        if lacking.any():
            worst = int(np.argmin(counts / expected))
            name, tally = self.constraints.taxonomy.names([columns[worst]])[0], self.tally
            raise InputError(
                f"balance, {name}: only {counts[worst]:,} of about {expected[worst]:,.0f} sets, as "
                f"{tally.repeats:,} repeats and {tally.near_training:,} sets near training rows "
                f"were turned away; {self._way_out()}"
            )

    def describe(self) -> dict:
        """Returns the tags' shares, the factors, and the tags' rates with and without them."""
        tags = self.constraints.taxonomy.names(self._shares)
        by_name = {"shares": self._shares, **vars(self._tilt)}
        return {
            "balance": {
                name: dict(zip(tags, values.values(), strict=True))
                for name, values in by_name.items()
            }
        }


def fit_tilt(
    network: TrainedModel,
    constraints: Constraints,
    shares: Mapping[int, float],
    *,
    temperature: float,
    seed: int,
) -> Tilt:
    """Finds the factors with which tags have rates in proportion to shares.

    The latent vectors of the model's own sets say little of rare tags, so the factors are fitted
    again to those of the sets that they favour, several times, and judged by others.

    Args:
      network: the model.
      constraints: what every set must meet.
      shares: by column.
      temperature: divides the logits.
      seed: seed of the latent vectors.

    Raises:
      InputError: sets that meet the constraints can't have such rates.
    """
    columns, targets = list(shares), np.array(list(shares.values()))

    def draw(log_factors: np.ndarray, number: int, size: int) -> _Pool:
        factors = dict(zip(columns, np.exp(log_factors).tolist(), strict=True))
        draws = Draws(
            network,
            dataclasses.replace(constraints, factors=factors),
            temperature=temperature,
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        )
        z = draws.draw_latents(size)
        return _Pool(network, constraints.tables(), z, columns, log_factors, temperature)

    log_factors = np.zeros(len(columns))
    rates_in_model = np.zeros(0)
    last = int(np.clip(_SETS_OF_A_TAG / targets.min(), _LEAST_POOL, _MOST_POOL))
    for number in range(_ROUNDS):
        pool = draw(log_factors, number, last if number == _ROUNDS - 1 else _LEAST_POOL)
        if not number:
            rates_in_model = pool.sums(log_factors)[1]
            if not rates_in_model.sum() > 0.0:
                raise InputError(
                    "balance: no set that meets the constraints has any of the tags to balance"
                )
        log_factors = _fit(pool, log_factors, targets)
        _check(constraints, columns, targets, pool.sums(log_factors)[1], _WRONG)
    rates = draw(log_factors, _ROUNDS, last).sums(log_factors)[1]
    _check(constraints, columns, targets, rates, _FAR)
    return Tilt(
        dict(zip(columns, np.exp(log_factors).tolist(), strict=True)),
        dict(zip(columns, rates_in_model.tolist(), strict=True)),
        dict(zip(columns, rates.tolist(), strict=True)),
    )


class _Pool:
    """Latent vectors of sets whose tags have some factors, by which to weigh those of others."""

    def __init__(self, network, tables, z, columns, log_factors, temperature):
        self._network, self._tables, self._z = network, tables, z
        self._columns, self._temperature = columns, temperature
        self._base = self._of_all(log_factors)

    def sums(self, log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean weight of sets, and each tag's share of it."""
        network, z = self._network, self._z
        program = _program(network.graphdef)
        total, gradient = 0.0, np.zeros(len(self._columns))
        every = self._of_all(log_factors)
        for start in range(0, len(z), _AT_ONCE):
            value, slope = program(
                network.params,
                network.batch_stats,
                self._tables,
                z[start : start + _AT_ONCE],
                np.float32(self._temperature),
                every,
                self._base,
            )
            total += float(value)
            gradient += np.asarray(slope, np.float64)[self._columns]
        return total / len(z), gradient / total

    def _of_all(self, log_factors: np.ndarray) -> np.ndarray:
        every = np.zeros(self._network.num_tags, np.float32)
        every[self._columns] = log_factors
        return every


def _fit(pool: _Pool, start: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the log factors with which the pool's sets have rates in proportion to targets."""
    from scipy.optimize import minimize

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        # Only differences count, so that the tags' number in a set is left to the model.
        weight, rates = pool.sums(free - targets @ free)
        return np.log(weight), rates - targets * rates.sum()

    # Shares that can't be would have factors without bound.
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_MOST_LOG_FACTOR, _MOST_LOG_FACTOR)] * len(start),
        options={"maxiter": _ITERATIONS},
    )
    return result.x - targets @ result.x


def _check(
    constraints: Constraints,
    columns: list[int],
    targets: np.ndarray,
    rates: np.ndarray,
    tolerance: float,
) -> None:
    """Raises InputError unless rates are in proportion to targets, within a relative tolerance."""
    wrong = np.abs(rates / (targets * rates.sum()) - 1.0)
    worst = int(np.argmax(wrong))
    if not wrong[worst] <= tolerance:
        name = constraints.taxonomy.names([columns[worst]])[0]
        raise InputError(
            f"balance, {name}: no weights of the model's sets give it a share of "
            f"{targets[worst]:.3g}; the nearest is {rates[worst] / rates.sum():.3g}"
        )


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled sum, over latent vectors, of the tilted constraints' relative mass."""

    def mass(log_factors, logits, tables: Tables):
        return conditioning.probability(logits, tables._replace(factors=jnp.exp(log_factors)))

    def total(log_factors, base, logits, tables: Tables):
        return jnp.sum(mass(log_factors, logits, tables) / mass(base, logits, tables))

    def program(params, batch_stats, tables, z, temperature, log_factors, base):
        model = nnx.merge(graphdef, params, batch_stats)
        logits = model.decode(z) / temperature
        return jax.value_and_grad(total)(log_factors, base, logits, tables)

    return jax.jit(program)
