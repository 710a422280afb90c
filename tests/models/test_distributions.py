"""Loss terms against numbers worked out by hand, and their behaviour at the edges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxvae.models import distributions
from jaxvae.train import objectives


def test_a_logit_of_zero_costs_ln_2_a_tag():
    x = jnp.asarray([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    nll = distributions.bernoulli_nll(jnp.zeros((2, 3)), x)
    np.testing.assert_allclose(nll, [3 * math.log(2)] * 2, rtol=1e-6)


def test_the_likelihood_by_hand():
    # p = 0.75 for logit ln 3: -ln 0.75 for a tag that is there, -ln 0.25 for one that is not.
    logit = math.log(3.0)
    nll = distributions.bernoulli_nll(jnp.asarray([[logit, logit]]), jnp.asarray([[1.0, 0.0]]))
    np.testing.assert_allclose(nll, [-math.log(0.75) - math.log(0.25)], rtol=1e-6)


@pytest.mark.parametrize(
    ("logit", "x", "nats"),
    [(120.0, 1.0, 0.0), (120.0, 0.0, 120.0), (-120.0, 1.0, 120.0), (-120.0, 0.0, 0.0)],
)
def test_saturated_logits_stay_finite(logit, x, nats):
    value, slope = jax.value_and_grad(
        lambda l: distributions.bernoulli_nll(l[None, None], jnp.full((1, 1), x))[0]
    )(jnp.float32(logit))
    assert value == pytest.approx(nats, abs=1e-6)
    # The slope of -log p is sigmoid(logit) - x.
    assert slope == pytest.approx(float(logit > 0) - x, abs=1e-6)


def test_nll_of_sparse_rows_is_that_of_their_multi_hot():
    """Values and gradients; 5 is padding, and the last row holds nothing."""
    columns = jnp.asarray([[0, 3, 5], [2, 5, 5], [0, 1, 4], [5, 5, 5]], jnp.uint8)
    x = jnp.asarray([[1, 0, 0, 1, 0], [0, 0, 1, 0, 0], [1, 1, 0, 0, 1], [0] * 5], jnp.float32)
    logits = jnp.asarray(np.random.default_rng(0).normal(0.0, 3.0, (4, 5)), jnp.float32)
    weights = jnp.asarray([1.0, -2.0, 0.5, 3.0])

    def value_and_slope(term, rows):
        return jax.value_and_grad(lambda l: jnp.sum(weights * term(l, rows)))(logits)

    sparse = value_and_slope(distributions.bernoulli_nll_of_rows, columns)
    dense = value_and_slope(distributions.bernoulli_nll, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), sparse, dense)


def test_squared_error_by_hand():
    error = distributions.squared_error(
        jnp.asarray([[math.log(3.0), 0.0]]), jnp.asarray([[1.0, 1.0]])
    )
    np.testing.assert_allclose(error, [0.25**2 + 0.5**2], rtol=1e-6)


def test_the_prior_is_no_distance_from_itself():
    assert not distributions.gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))).any()


def test_kl_in_closed_form():
    kl = distributions.gaussian_kl(jnp.asarray([[1.0, 0.0, 2.0]]), jnp.asarray([[0.0, 1.0, -1.0]]))
    by_hand = [0.5, 0.5 * (math.e - 2.0), 0.5 * (4.0 + math.exp(-1.0))]
    np.testing.assert_allclose(kl, [by_hand], rtol=1e-6)


def test_a_tiny_kl_keeps_its_digits():
    kl = distributions.gaussian_kl(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
    # exp(v) - 1 and v are near 1e-3, where float32 numbers are 1.2e-10 apart, and a unit or two is
    # what expm1 may be off; half their difference is 2.5e-7. With exp(v) - 1 a unit is 1.2e-7.
    np.testing.assert_allclose(kl, [[0.5 * (math.expm1(1e-3) - 1e-3)]], rtol=1e-3)


def test_gradients():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    x = jnp.asarray(rng.random((3, 4)) < 0.5, jnp.float32)
    for term in (distributions.bernoulli_nll, distributions.squared_error):
        check_grads(lambda l, term=term: term(l, x), (logits,), order=1, modes=["rev"])
    check_grads(distributions.gaussian_kl, (logits, logits), order=1, modes=["rev"])


def test_a_mask_is_a_subset():
    values, mask = jnp.asarray([1.0, 5.0, jnp.nan]), jnp.asarray([True, True, False])
    mean, slope = jax.value_and_grad(objectives.masked_mean)(values, mask, jnp.float32(2.0))
    assert mean == 3.0
    np.testing.assert_array_equal(slope, [0.5, 0.5, 0.0])


def test_a_mean_over_a_subset_is_the_subsets_mean():
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=20).astype(np.float32), rng.random(20) < 0.5
    mean = objectives.masked_mean(jnp.asarray(values), jnp.asarray(mask), jnp.float32(mask.sum()))
    assert float(mean) == pytest.approx(values[mask].mean(), rel=1e-5)


def test_no_rows_cost_nothing():
    mean = objectives.masked_mean(jnp.asarray([3.0]), jnp.asarray([False]), jnp.float32(0.0))
    assert float(mean) == 0.0


def test_compiled_terms_are_the_same():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.0, 2.0, (2, 5, 6)).astype(np.float32)
    x = (rng.random((5, 6)) < 0.5).astype(np.float32)
    for term, inputs in (
        (distributions.bernoulli_nll, (a, x)),
        (distributions.squared_error, (a, x)),
        (distributions.gaussian_kl, (a, b)),
    ):
        np.testing.assert_allclose(jax.jit(term)(*inputs), term(*inputs), rtol=1e-5, atol=1e-6)
