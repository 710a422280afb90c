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
        weight, rates = pool.sums(log_factors)
        if number_of_tags and not _are_near(rates, targets):
            number_of_tags = None  # as the share of a tag is so large that more sets would have it
            log_factors = _fit(pool, log_factors, targets, number_of_tags)
            weight, rates = pool.sums(log_factors)
        _check(constraints, columns, targets, rates)
        log_boost = pool.log_boost(weight, rates)
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
        self._network, self._columns = network, columns
        self._temperature = np.float32(temperature)
        self._tables = constraints.tables()
        without = dataclasses.replace(
            constraints, absent=tuple(sorted({*constraints.absent, *columns}))
        )
        mass, self._total = _programs(network.graphdef)
        model = (network.params, network.batch_stats)
        pooled = self._tables._replace(factors=np.exp(self._of_all(log_factors)))
        self._batches: list[tuple[np.ndarray, jax.Array]] = []
        self._num, with_none = len(z), 0.0
        for start in range(0, len(z), _AT_ONCE):
            batch = z[start : start + _AT_ONCE]
            base = mass(*model, pooled, batch, self._temperature)
            self._batches.append((batch, base))
            if needs_one(constraints, columns):
                none = mass(*model, without.tables(), batch, self._temperature)
                with_none += float((none / base).sum())
        self._without = with_none / self._num

    def sums(self, log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean weight of sets, and each tag's share of it."""
        network = self._network
        every = self._of_all(log_factors)
        weight, slope = 0.0, np.zeros(len(self._columns))
        for batch, base in self._batches:
            total, gradient = self._total(
                network.params,
                network.batch_stats,
                self._tables,
                batch,
                self._temperature,
                every,
                base,
            )
            weight += float(total)
            slope += np.asarray(gradient, np.float64)[self._columns]
        weight = weight / self._num - self._without
        slope /= self._num
        return weight, slope / weight if weight > 0.0 else slope

    def log_boost(self, weight: float, rates: np.ndarray) -> float:
        """Returns the log of a factor for all tags, with which few sets have none, or several.

        Args:
          weight: the mean weight of sets.
          rates: each tag's share of it.
        """
        if not self._without:
            return 0.0
        # Relative to sets with one tag, sets with none weigh 1 / boost, and those with two boost.
        several = max(weight * (rates.sum() - 1.0), 1e-6 * (weight + self._without))
        return math.log(np.clip(math.sqrt(self._without / several), 1.0, _MOST_BOOST))

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
def _programs(graphdef: nnx.GraphDef):
    """Builds two compiled programs.

    Returns:
      (the mass of the sets that meet the constraints at each latent vector, `[B]`; the sum of these
      relative to others, with its gradient by the logarithms of the factors).
    """

    def logits(params, batch_stats, z, temperature):
        return nnx.merge(graphdef, params, batch_stats).decode(z) / temperature

    def mass(params, batch_stats, tables: Tables, z, temperature):
        return conditioning.probability(logits(params, batch_stats, z, temperature), tables)

    def total(params, batch_stats, tables: Tables, z, temperature, log_factors, base):
        given = logits(params, batch_stats, z, temperature)

        def relative(log_factors):
            tilted = tables._replace(factors=jnp.exp(log_factors))
            return jnp.sum(conditioning.probability(given, tilted) / base)

        return jax.value_and_grad(relative)(log_factors)

    return jax.jit(mass), jax.jit(total)
