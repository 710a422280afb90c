"""Reweights sets so that tags are as frequent as their shares say, some sets having several.

Of all distributions with these frequencies, the model's reweighted by a factor for each tag of a
set is the nearest to the model's (exponential tilting: Csiszár 1975).
"""

import dataclasses
import functools
from collections.abc import Mapping

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

_POOL = 8192
_AT_ONCE = 2048
_ITERATIONS = 200
_WRONG = 0.02
_MOST_LOG_FACTOR = 10.0


@dataclasses.dataclass(frozen=True)
class Tilt:
    """Factors of the odds of some tags, and what they do.

    Attributes:
      factors: by column; their geometric mean, each to the power of its share, is 1.
      rates_in_model: share of the model's sets with each tag.
      rates: share of the reweighted sets with it.
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
        self._tilt = fit_tilt(network, constraints, plain, shares, temperature=order.temperature)
        tilted = dataclasses.replace(constraints, factors=self._tilt.factors)
        super().__init__(dataclasses.replace(task, constraints=tilted))
        self.log_probability = plain.log_probability

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
    draws: Draws,
    shares: Mapping[int, float],
    *,
    temperature: float,
) -> Tilt:
    """Finds the factors with which tags have rates in proportion to shares.

    Args:
      network: the model.
      constraints: what every set must meet.
      draws: draws under these constraints, for their latent vectors.
      shares: by column.
      temperature: divides the logits.

    Raises:
      InputError: sets that meet the constraints can't have such rates.
    """
    from scipy.optimize import minimize

    columns, targets = list(shares), np.array(list(shares.values()))
    z, tables = draws.draw_latents(_POOL), constraints.tables()
    program = _program(network.graphdef)

    def sums(log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean weight of sets, and each tag's share of it."""
        total, gradient = 0.0, np.zeros(len(columns))
        every = np.zeros(network.num_tags, np.float32)
        every[columns] = log_factors
        for start in range(0, len(z), _AT_ONCE):
            value, slope = program(
                network.params,
                network.batch_stats,
                tables,
                z[start : start + _AT_ONCE],
                np.float32(temperature),
                every,
            )
            total += float(value)
            gradient += np.asarray(slope, np.float64)[columns]
        return total / len(z), gradient / total

    def objective(free: np.ndarray) -> tuple[float, np.ndarray]:
        # Only differences count, so that the tags' number in a set is left to the model.
        weight, rates = sums(free - targets @ free)
        return np.log(weight), rates - targets * rates.sum()

    start = np.zeros(len(columns))
    rates_in_model = sums(start)[1]
    if not rates_in_model.sum() > 0.0:
        raise InputError(
            "balance: no set that meets the constraints has any of the tags to balance"
        )
    # Shares that can't be would have factors without bound.
    result = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_MOST_LOG_FACTOR, _MOST_LOG_FACTOR)] * len(columns),
        options={"maxiter": _ITERATIONS},
    )
    log_factors = result.x - targets @ result.x
    rates = sums(log_factors)[1]
    wanted = targets * rates.sum()
    worst = int(np.argmax(np.abs(rates / wanted - 1.0)))
    if not abs(rates[worst] / wanted[worst] - 1.0) <= _WRONG:
        name = constraints.taxonomy.names([columns[worst]])[0]
        raise InputError(
            f"balance, {name}: no weights of the model's sets give it a share of "
            f"{targets[worst]:.3g}; the nearest is {rates[worst] / rates.sum():.3g}"
        )
    return Tilt(
        dict(zip(columns, np.exp(log_factors).tolist(), strict=True)),
        dict(zip(columns, rates_in_model.tolist(), strict=True)),
        dict(zip(columns, rates.tolist(), strict=True)),
    )


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef):
    """Builds the compiled sum, over latent vectors, of the tilted constraints' relative mass."""

    def total(log_factors, logits, tables: Tables):
        tilted = tables._replace(factors=jnp.exp(log_factors))
        plain = jax.lax.stop_gradient(conditioning.probability(logits, tables))
        return jnp.sum(conditioning.probability(logits, tilted) / plain)

    def program(params, batch_stats, tables, z, temperature, log_factors):
        model = nnx.merge(graphdef, params, batch_stats)
        return jax.value_and_grad(total)(log_factors, model.decode(z) / temperature, tables)

    return jax.jit(program)
