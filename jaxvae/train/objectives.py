"""The objectives and their terms: the one place where terms are weighted and reduced.

Terms are sums over tags or per latent dimension, unweighted. The module knows no model class.
"""

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvae.models.choices import import_choice
from jaxvae.train.choices import KL_SCHEDULES, OBJECTIVES

LossWeights = Any
"""The numbers of a config's `loss` by their fields' names, such as `weights.kld_weight`.

A named tuple of float32 scalars, traced, so that none is a constant of a program. A config file of
a user's own may add some.
"""


@functools.lru_cache(maxsize=64)
def _named_tuple(section: str, names: tuple[str, ...]) -> type:
    return collections.namedtuple(section, names)


def as_named_tuple(section: str, numbers: Mapping[str, Any]) -> Any:
    """Collects the numbers of a section of a config, by their fields' names."""
    return _named_tuple(section, tuple(sorted(numbers)))(**numbers)


class Objective(NamedTuple):
    """Static options of the loss: changing one recompiles.

    Attributes:
      name: a key of `choices.OBJECTIVES`, or `file.py:name`.
      num_draws: D, draws of z for each row.
      schedule: one of `choices.KL_SCHEDULES`.
      use_binary_cross_entropy: Bernoulli likelihood, else squared error.
      own: the function of an objective that is a user's own; None takes the one of `name`.
    """

    name: str = "elbo"
    num_draws: int = 1
    schedule: str = "constant"
    use_binary_cross_entropy: bool = True
    own: "LossFunction | None" = None

    @property
    def loss(self) -> "LossFunction":
        """The function of (terms, weights, N) that gives the loss of each row."""
        return self.own or import_choice(OBJECTIVES[self.name])


ELBO = Objective()


class LossTerms(NamedTuple):
    """Terms of an objective, with D draws of z for each of B rows.

    Attributes:
      reconstruction: `[D, B]`, nats (or squared error).
      rate: `[B]`, KL(q(z|x) || p(z)), in closed form if there is one, else estimated by the draws.
      kl: `[B, L]`, the KL of each dimension.
      log_prior: `[D, B]`, log p(z).
      log_posterior: `[D, B]`, log q(z|x).
      z: `[D, B, L]`.
      mean: `[B, L]`, of q(z|x).
      logvar: `[B, L]`.
      mask: `[B]`, which rows are real.
      log_weight_tap: `[D, B]` of zeros, from `doubly_reparameterized` where that is in use.
    """

    reconstruction: jax.Array
    rate: jax.Array
    kl: jax.Array
    log_prior: jax.Array
    log_posterior: jax.Array
    z: jax.Array
    mean: jax.Array
    logvar: jax.Array
    mask: jax.Array
    log_weight_tap: jax.Array | None = None


def elbo(terms: LossTerms, weights: LossWeights, num_rows: int) -> jax.Array:
    """The negative beta-ELBO of each example, `[B]` (Higgins et al. 2017)."""
    del num_rows
    return _reconstruction(terms, weights) + weights.kld_weight * terms.rate


def free_bits(terms: LossTerms, weights: LossWeights, num_rows: int) -> jax.Array:
    """The ELBO with `free_bits` nats of KL per dimension not penalised (Kingma et al. 2016).

    A dimension whose KL, averaged over the batch, is under the floor costs the floor, and no
    gradient pulls it further towards the prior.
    """
    del num_rows
    batch = jnp.sum(jnp.where(terms.mask[:, None], terms.kl, 0.0), axis=0) / _rows(terms.mask)
    cost = jnp.sum(jnp.maximum(batch, weights.free_bits))
    return _reconstruction(terms, weights) + weights.kld_weight * cost


def capacity(terms: LossTerms, weights: LossWeights, num_rows: int) -> jax.Array:
    """The rate held at `weights.capacity` nats by the weight beta (Burgess et al. 2018)."""
    del num_rows
    batch = jnp.sum(jnp.where(terms.mask, terms.rate, 0.0)) / _rows(terms.mask)
    cost = jnp.abs(batch - weights.capacity)
    return _reconstruction(terms, weights) + weights.kld_weight * cost


def tcvae(terms: LossTerms, weights: LossWeights, num_rows: int) -> jax.Array:
    """The ELBO with beta on the total correlation of q(z) alone (Chen et al. 2018).

    The rate is the sum of I(x; z), the total correlation and the dimensions' KL; q(z) and its
    margins are estimated from the batch.
    """
    correlation = total_correlation(terms.z[0], terms.mean, terms.logvar, terms.mask, num_rows)
    return _reconstruction(terms, weights) + terms.rate + (weights.kld_weight - 1.0) * correlation


def importance_weighted(terms: LossTerms, weights: LossWeights, num_rows: int) -> jax.Array:
    """The negative importance-weighted bound of D draws, `[B]` (Burda et al. 2016).

    With `doubly_reparameterized` draws its gradient is that of Tucker et al. (2019): the encoder's
    has no score-function term, whose noise grows with D.
    """
    del num_rows
    log_weight = -weights.bce_weight * terms.reconstruction
    log_weight = log_weight + weights.kld_weight * (terms.log_prior - terms.log_posterior)
    if terms.log_weight_tap is not None:
        log_weight = log_weight + terms.log_weight_tap
    return jnp.log(float(len(log_weight))) - jax.nn.logsumexp(log_weight, axis=0)


_PAIRED = 128
"""Rows that are paired with all rows of a batch at a time."""

LossFunction = Callable[[LossTerms, LossWeights, int], jax.Array]
"""Functions of (terms, weights, N rows of the training split) to the loss of each example `[B]`."""


def _reconstruction(terms: LossTerms, weights: LossWeights) -> jax.Array:
    return weights.bce_weight * jnp.mean(terms.reconstruction, axis=0)


def _rows(mask: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def total_correlation(
    z: jax.Array, mean: jax.Array, logvar: jax.Array, mask: jax.Array, num_rows: int
) -> jax.Array:
    """Log q(z) - sum_d log q(z_d) of one draw per row, `[B]`, estimated from the batch.

    q(z) is the mean of q(z|x) over N rows: a row's own posterior has the weight 1/N, the rest of
    the batch stands for all other rows (stratified, Chen et al. 2018, appendix C; here with equal
    weights).

    Args:
      z: `[B, L]`, z_b drawn from q(z|x_b).
      mean: `[B, L]`.
      logvar: `[B, L]`.
      mask: `[B]`, which rows are real.
      num_rows: N.
    """
    size = len(z)
    num_others = jnp.maximum(_rows(mask) - 1.0, 1.0)
    is_own = jnp.eye(size, dtype=bool)
    share = jnp.where(
        is_own, -jnp.log(float(num_rows)), jnp.log1p(-1.0 / num_rows) - jnp.log(num_others)
    )
    # Not -inf: the gradient of a batch without any real row would be NaN.
    share = jnp.where(mask[None, :], share, -1e30)

    def one(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        z, share = inputs
        # [B, L]: z under every row's posterior, up to a constant that cancels between the joint
        # and its margins.
        density = jnp.square(z[None, :] - mean) * jnp.exp(-logvar)
        density = -0.5 * (density + logvar)
        joint = jax.nn.logsumexp(jnp.sum(density, axis=-1) + share)
        return joint - jnp.sum(jax.nn.logsumexp(density + share[:, None], axis=0))

    # Some rows at a time: [B, B, L] of an evaluation's batch would not fit.
    correlation = jax.lax.map(one, (z, share), batch_size=min(size, _PAIRED))
    return jnp.where(mask, correlation, 0.0)


@jax.custom_vjp
def doubly_reparameterized(z: jax.Array, log_weight_tap: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns its arguments unchanged, but weights the gradient of z once more (DReG).

    The gradient of the importance-weighted bound has a draw's normalised weight as a factor, but
    the encoder needs the square of that weight. `importance_weighted` adds the tap of zeros to the
    log weights, so the gradient of the tap is the normalised weight.

    Args:
      z: `[D, B, L]`.
      log_weight_tap: `[D, B]`, zeros.
    """
    return z, log_weight_tap


def _doubly_forward(z, log_weight_tap):
    return (z, log_weight_tap), None


def _doubly_backward(_, gradients):
    slope, weight = gradients
    total = jnp.sum(weight, axis=0)[None, :]
    share = jnp.where(total == 0.0, 0.0, weight / jnp.where(total == 0.0, 1.0, total))
    return slope * share[:, :, None], jnp.zeros_like(weight)


doubly_reparameterized.defvjp(_doubly_forward, _doubly_backward)


def constant(progress: jax.Array, cycles: jax.Array) -> jax.Array:
    """No warm-up: 1 throughout."""
    del cycles
    return jnp.ones_like(progress)


def linear(progress: jax.Array, cycles: jax.Array) -> jax.Array:
    """A straight line from 0 to 1."""
    del cycles
    return progress


def cosine(progress: jax.Array, cycles: jax.Array) -> jax.Array:
    """Half a cosine from 0 to 1."""
    del cycles
    return 0.5 * (1.0 - jnp.cos(jnp.pi * progress))


def cyclical(progress: jax.Array, cycles: jax.Array) -> jax.Array:
    """A rise from 0 to 1 in the first half of each cycle, level in the second (Fu et al. 2019)."""
    return jnp.minimum(1.0, 2.0 * jnp.mod(progress * cycles, 1.0))


def kl_annealing(
    name: str, step: jax.Array, warmup_steps: jax.Array, cycles: jax.Array
) -> jax.Array:
    """Share in [0, 1] of a weight's final value at a step; 1 from `warmup_steps` on.

    Args:
      name: a key of `choices.KL_SCHEDULES`.
      step: scalar.
      warmup_steps: float scalar.
      cycles: float scalar.
    """
    progress = step.astype(jnp.float32) / jnp.maximum(warmup_steps, 1e-9)
    rising = import_choice(KL_SCHEDULES[name])(jnp.minimum(progress, 1.0), cycles)
    return jnp.where(progress < 1.0, rising, 1.0)


def anneal_weights(weights: LossWeights, share: jax.Array, objective: str) -> LossWeights:
    """Scales `kld_weight`, or `capacity` if the objective is "capacity", by `share`."""
    if objective == "capacity":
        return weights._replace(capacity=weights.capacity * share)
    return weights._replace(kld_weight=weights.kld_weight * share)


def masked_mean(values: jax.Array, mask: jax.Array, count: jax.Array) -> jax.Array:
    """Mean of `[B]` values over real rows: the masked sum over `count`, the rows of the step.

    `count` is its own argument because with gradient accumulation a step has more rows than a
    batch; the gradients of its batches then sum to the gradient of the step.
    """
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(count, 1.0)
