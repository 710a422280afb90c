"""Priors against scipy and PyTorch: densities, draws, moments, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp

from jaxvae.models import distributions
from jaxvae.models.priors import MixturePrior
from jaxvae.models.vae import VAE
from tests.helpers.networks import move_flow

LATENT, TAGS = 3, 7


def build(name, **options):
    model = VAE(
        num_tags=TAGS,
        latent_dim=LATENT,
        hidden_dim=6,
        prior=name,
        num_components=4,
        pseudo_inputs=np.random.default_rng(1).random((4, TAGS)) < 0.4,
        rngs=nnx.Rngs(0),
        **options,
    )
    if name == "flow":
        move_flow(model)
    if name == "mixture":
        model.prior.logits[...] = jnp.asarray([0.0, 1.0, -1.0, 0.5])
    return model


def points(num=20):
    return np.random.default_rng(0).normal(0.0, 1.5, (num, LATENT)).astype(np.float32)


def test_the_standard_normal_is_scipys():
    expected = stats.norm.logpdf(points()).sum(axis=1)
    np.testing.assert_allclose(build("normal").log_prior(points()), expected, rtol=1e-5)


def test_a_gaussian_is_scipys():
    rng = np.random.default_rng(3)
    mean, logvar = rng.normal(size=(2, 20, LATENT)).astype(np.float32)
    expected = stats.norm.logpdf(points(), mean, np.exp(0.5 * logvar)).sum(axis=1)
    found = distributions.gaussian_log_prob(points(), mean, logvar)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mixture", "vamp"])
def test_a_mixture_is_scipys(name):
    model = build(name)
    mean, logvar, log_weight = map(np.asarray, model.prior.components(model.encode))
    assert np.exp(log_weight).sum() == pytest.approx(1.0, rel=1e-5)
    each = [
        stats.norm.logpdf(points(), m, np.exp(0.5 * v)).sum(axis=1)
        for m, v in zip(mean, logvar, strict=True)
    ]
    expected = logsumexp(np.stack(each, axis=1) + log_weight, axis=1)
    np.testing.assert_allclose(model.log_prior(points()), expected, rtol=1e-4, atol=1e-4)
    # [D, B, L] is as many points.
    stacked = model.log_prior(points().reshape(4, 5, LATENT))
    np.testing.assert_allclose(stacked.reshape(-1), expected, rtol=1e-4, atol=1e-4)


def test_the_vampprior_is_the_mean_posterior_of_its_rows():
    """At its start its weights are equal and its components the posteriors of the rows given."""
    model = build("vamp", use_layer_norm=True)
    rows = np.random.default_rng(1).random((4, TAGS)) < 0.4
    mean, logvar = model.encode(jnp.asarray(rows, jnp.float32))
    each = jnp.stack(
        [
            distributions.gaussian_log_prob(points(), mean[k, None], logvar[k, None])
            for k in range(4)
        ]
    )
    expected = logsumexp(np.asarray(each), axis=0) - np.log(4)
    np.testing.assert_allclose(model.log_prior(points()), expected, rtol=1e-4, atol=1e-4)


def test_pseudo_inputs_that_training_has_moved_are_rows_between_0_and_1():
    moved, clipped = build("vamp"), build("vamp")
    values = np.random.default_rng(4).normal(0.5, 2.0, (4, TAGS)).astype(np.float32)
    moved.prior.pseudo_inputs[...] = jnp.asarray(values)
    clipped.prior.pseudo_inputs[...] = jnp.asarray(np.clip(values, 0.0, 1.0))
    np.testing.assert_array_equal(moved.log_prior(points()), clipped.log_prior(points()))
    assert np.abs(moved.log_prior(points()) - build("vamp").log_prior(points())).max() > 0.01


def test_a_flow_that_has_not_learned_is_the_standard_normal():
    model = VAE(num_tags=TAGS, latent_dim=LATENT, hidden_dim=6, prior="flow", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(
        model.log_prior(points()), distributions.normal_log_prob(points()), rtol=1e-6
    )


def test_a_flows_density_is_that_of_its_draws():
    """By the change of variables with the Jacobian that JAX differentiates out of `draw` itself."""
    flow = build("flow").prior
    u = jax.random.normal(jax.random.key(5), (8, LATENT))

    def forward(u):
        for layer in range(4):
            shift, log_scale = flow._coupling(layer, u[None])
            u = u * jnp.exp(log_scale[0]) + shift[0]
        return u

    z = flow.draw(jax.random.key(5), 8, lambda x: x)
    np.testing.assert_allclose(z, jax.vmap(forward)(u), rtol=1e-5)
    jacobian = np.asarray(jax.vmap(jax.jacobian(forward))(u), np.float64)
    expected = stats.norm.logpdf(u).sum(axis=1) - np.log(np.abs(np.linalg.det(jacobian)))
    assert np.abs(jacobian - np.eye(LATENT)).max() > 0.1  # it is not the identity
    np.testing.assert_allclose(flow.log_prob(z, lambda x: x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["normal", "mixture", "vamp", "flow"])
def test_draws_have_the_priors_moments_and_entropy(name):
    model = build(name)
    z = np.asarray(model.draw_prior(jax.random.key(1), 40_000))
    centre, variance = map(np.asarray, model.prior_moments())
    # A flow's moments are themselves of 4,096 draws.
    count = 4096 if name == "flow" else 40_000
    np.testing.assert_allclose(z.mean(axis=0), centre, atol=6 * z.std() / np.sqrt(count))
    np.testing.assert_allclose(z.var(axis=0), variance, rtol=0.15 if name == "flow" else 0.05)
    # E_p[q/p] = 1 for any density q: log_prob and draw are of one distribution.
    wide = stats.norm.logpdf(z, centre, np.sqrt(variance)).sum(axis=1)
    ratio = np.exp(wide - np.asarray(model.log_prior(z)))
    narrow = ratio[np.isfinite(ratio)]
    grid = np.random.default_rng(0).normal(centre, 2.5 * np.sqrt(variance), (40_000, LATENT))
    proposal = stats.norm.logpdf(grid, centre, 2.5 * np.sqrt(variance)).sum(axis=1)
    mass = np.exp(np.asarray(model.log_prior(grid.astype(np.float32))) - proposal)
    assert len(narrow) == len(ratio)
    assert mass.mean() == pytest.approx(1.0, abs=6 * mass.std() / np.sqrt(len(mass)))


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_gradients_are_numerical_ones(name):
    graphdef, state = nnx.split(build(name), nnx.Param)

    def total(z, params):
        return nnx.merge(graphdef, params).log_prior(z).sum()

    z = jnp.asarray(points(3)) * 0.5
    check_grads(lambda z: total(z, state), (z,), order=1, modes=["rev"], rtol=2e-2, atol=2e-2)
    slopes = jax.grad(total, argnums=1)(z, state)
    assert all(np.abs(slope).max() > 0 for slope in jax.tree.leaves(slopes.prior))


def test_which_component_says_nothing_about_the_place_in_it():
    """In one dimension, where choice and noise take as many random bits."""

    class TwoPeaks(MixturePrior):
        def __init__(self):
            pass

        def components(self, encode):
            return jnp.asarray([[-9.0], [9.0]]), jnp.zeros((2, 1)), jnp.log(jnp.asarray([0.5, 0.5]))

    z = np.asarray(TwoPeaks().draw(jax.random.key(0), 4000, lambda x: x))[:, 0]
    for peak in (-9.0, 9.0):
        around = z[np.sign(z) == np.sign(peak)] - peak
        assert abs(around.mean()) < 5.0 / np.sqrt(len(around))
