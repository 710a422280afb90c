"""Fits factors of tags, with which reweighted sets have these in proportion to shares.

Of all distributions with these frequencies, the model's reweighted by a factor for each tag of a
set is the nearest to the model's (exponential tilting: Csiszár 1975).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.errors import InputError
from jaxvae.inference.generation import conditioning
from jaxvae.inference.generation.constraints import Constraints, Tables
from jaxvae.inference.generation.draws import Draws
from jaxvae.inference.generation.order import derive_seed
from jaxvae.models.trained import TrainedModel

ROUNDS = 3
"""Fits; `derive_seed(seed, ROUNDS)` and later seeds are free."""
_LEAST_POOL, _MOST_POOL = 8192, 32_768
_SETS_OF_A_TAG = 1000
"""Sets of the rarest tag in the last pool, whose noise the pace makes good."""
_AT_ONCE = 2048
_ITERATIONS = 200
_WRONG = 0.02
_MOST_LOG_FACTOR = 10.0
_RAREST_ANY = 1e-4
_MOST_BOOST = 1e4


@dataclasses.dataclass(frozen=True)
class Tilt:
    """Factors of the odds of some tags, and what they were fitted to.

    Attributes:
      factors: by column; with them the mean number of the tags in a set is the model's, or, if a
        share is too large for that, their geometric mean, each to the power of its share, is 1.
      rates_in_model: share of the model's sets with each tag.
      log_probability: log-probability that a set of the model meets the constraints and has one
        of the tags if it must, nats.
      boost: what the factors are multiplied by while drawing, so that fewer draws have none of the
        tags; 1 if sets may have none.
    """

    factors: Mapping[int, float]
    rates_in_model: Mapping[int, float]
    log_probability: float
    boost: float


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
    again to those of the sets that they favour, several times.

    Args:
      network: the model.
      constraints: what every set must meet.
      shares: by column.
      temperature: divides the logits.
      seed: seed of the latent vectors.

    Raises:
      InputError: sets that meet the constraints can't have such rates, or hardly any has one of the
        tags that must.
    """
    columns, targets = list(shares), np.array(list(shares.values()))
    log_factors, log_boost = np.zeros(len(columns)), 0.0
    last = int(np.clip(_SETS_OF_A_TAG / targets.min(), _LEAST_POOL, _MOST_POOL))
    for number in range(ROUNDS):
        base = log_factors + log_boost
        factors = dict(zip(columns, np.exp(base).tolist(), strict=True))
        draws = Draws(
            network,
            dataclasses.replace(constraints, factors=factors),
            temperature=temperature,
            seed=derive_seed(seed, number),
        )
        z = draws.draw_latents(last if number == ROUNDS - 1 else _LEAST_POOL)
        pool = _Pool(network, constraints, z, columns, base, temperature)
        if not number:
            some, rates_in_model = pool.sums(log_factors)
            if not min(some, rates_in_model.sum()) > _RAREST_ANY:
                raise InputError(
                    f"balance: of the sets that meet the constraints fewer than one in "
                    f"{1 / _RAREST_ANY:,.0f} has any of the tags to balance"
                )
            log_probability = draws.log_probability + math.log(some)
            number_of_tags: float | None = float(rates_in_model.sum())
        log_factors = _fit(pool, log_factors, targets, number_of_tags)
        if number_of_tags and not _are_near(pool.sums(log_factors)[1], targets):
            number_of_tags = None  # as the share of a tag is so large that more sets would have it
            log_factors = _fit(pool, log_factors, targets, number_of_tags)
        _check(constraints, columns, targets, pool.sums(log_factors)[1])
        log_boost = pool.log_boost(log_factors)
    return Tilt(
        dict(zip(columns, np.exp(log_factors).tolist(), strict=True)),
        dict(zip(columns, rates_in_model.tolist(), strict=True)),
        log_probability,
        math.exp(log_boost),
    )


def needs_one(constraints: Constraints, columns: list[int]) -> bool:
    """Tells whether sets must have one of the tags at least: their concept must have a tag."""
    concept = constraints.taxonomy.concept_of(columns[0])
    return constraints.count[concept].least > 0


class _Pool:
    """Latent vectors of sets whose tags have some factors, to weigh sets with others by.

    Sets that have none of the tags count only where sets may have none.
    """

    def __init__(self, network, constraints, z, columns, log_factors, temperature):
        self._network, self._z = network, z
        self._columns, self._temperature = columns, temperature
        self._base = self._of_all(log_factors)
        without = dataclasses.replace(
            constraints, absent=tuple(sorted({*constraints.absent, *columns}))
        )
        self._tables, self._tables_without = constraints.tables(), without.tables()
        self._needs_one = needs_one(constraints, columns)

    def sums(self, log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean weight of sets, and each tag's share of it."""
        all_sets, without, slope = self._all_sums(log_factors)
        weight = all_sets - without if self._needs_one else all_sets
        return weight, slope / weight if weight > 0.0 else slope

    def log_boost(self, log_factors: np.ndarray) -> float:
        """Returns the log of a factor for all tags, with which few sets have none, or several."""
        if not self._needs_one:
            return 0.0
        all_sets, without, slope = self._all_sums(log_factors)
        # Relative to sets with one tag, sets with none weigh 1 / boost, and those with two boost.
        several = max(slope.sum() - (all_sets - without), 1e-6 * all_sets)
        return math.log(np.clip(math.sqrt(without / several), 1.0, _MOST_BOOST))

    def _all_sums(self, log_factors: np.ndarray) -> tuple[float, float, np.ndarray]:
        """Returns the mean weights of all sets, of those without the tags, and with each."""
        network, z = self._network, self._z
        program = _program(network.graphdef)
        sums = np.zeros(2 + len(self._columns))
        every = self._of_all(log_factors)
        for start in range(0, len(z), _AT_ONCE):
            (total, without), slope = program(
                network.params,
                network.batch_stats,
                self._tables,
                self._tables_without,
                z[start : start + _AT_ONCE],
                np.float32(self._temperature),
                every,
                self._base,
            )
            sums += [float(total), float(without), *np.asarray(slope, np.float64)[self._columns]]
        sums /= len(z)
        return sums[0], sums[1], sums[2:]

    def _of_all(self, log_factors: np.ndarray) -> np.ndarray:
        every = np.zeros(self._network.num_tags, np.float32)
        every[self._columns] = log_factors
        return every


def _fit(
    pool: _Pool, start: np.ndarray, targets: np.ndarray, number_of_tags: float | None
) -> np.ndarray:
    """Returns the log factors with which the pool's sets have rates in proportion to targets.

    Args:
      pool: latent vectors.
      start: log factors to start from.
      targets: each tag's share, which sum to 1.
      number_of_tags: the mean number of the tags in a set; if None, that of the nearest sets.
    """
    from scipy.optimize import minimize

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        if number_of_tags is None:  # only differences of factors count
            weight, rates = pool.sums(free - targets @ free)
            return np.log(weight), rates - targets * rates.sum()
        weight, rates = pool.sums(free)
        wanted = number_of_tags * targets
        return np.log(weight) - wanted @ free, rates - wanted

    precision = 0.1 * _WRONG * targets.min() * min(1.0, pool.sums(start)[1].sum())
    # Shares that can't be would have factors without bound.
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_MOST_LOG_FACTOR, _MOST_LOG_FACTOR)] * len(start),
        options={"maxiter": _ITERATIONS, "gtol": precision},
    )
    return result.x - targets @ result.x if number_of_tags is None else result.x


def _are_near(rates: np.ndarray, targets: np.ndarray) -> bool:
    """Tells whether rates are in proportion to targets, as nearly as a pool can say."""
    return bool((np.abs(rates - targets * rates.sum()) <= _WRONG * targets * rates.sum()).all())


def _check(
    constraints: Constraints, columns: list[int], targets: np.ndarray, rates: np.ndarray
) -> None:
    """Raises InputError unless rates are in proportion to targets."""
    if not _are_near(rates, targets):
        worst = int(np.argmax(np.abs(rates / targets - rates.sum())))
        name = constraints.taxonomy.names([columns[worst]])[0]
        raise InputError(
            f"balance, {name}: no weights of the model's sets give it a share of "
            f"{targets[worst]:.3g}; the nearest is {rates[worst] / rates.sum():.3g}; leave it out"
        )


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled sums, over latent vectors, of relative masses of sets.

    They are those of sets that meet the constraints, with factors, and of those that have none of
    the tags besides, with the gradient of the first one by the factors' logarithms.
    """

    def mass(log_factors, logits, tables: Tables):
        return conditioning.probability(logits, tables._replace(factors=jnp.exp(log_factors)))

    def totals(log_factors, base, logits, tables: Tables, tables_without: Tables):
        all_sets = mass(base, logits, tables)
        without = conditioning.probability(logits, tables_without)
        return jnp.sum(mass(log_factors, logits, tables) / all_sets), jnp.sum(without / all_sets)

    def program(params, batch_stats, tables, tables_without, z, temperature, log_factors, base):
        model = nnx.merge(graphdef, params, batch_stats)
        logits = model.decode(z) / temperature
        (total, without), slope = jax.value_and_grad(totals, has_aux=True)(
            log_factors, base, logits, tables, tables_without
        )
        return (total, without), slope

    return jax.jit(program)
