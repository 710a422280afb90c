"""The step's terms: who is given which gradient, and what padding rows change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from jaxvae.models.layers import multi_hot
from jaxvae.models.vae import VAE
from jaxvae.train import objectives
from jaxvae.train.objectives import Objective
from jaxvae.train.steps.forward import forward
from tests.helpers.networks import move_flow

TAGS, LATENT, ROWS, DRAWS = 5, 2, 3, 4
# Tag numbers padded with TAGS.
COLUMNS = jnp.asarray([[0, 2, TAGS], [1, 3, 4], [2, TAGS, TAGS]], jnp.uint8)
WEIGHTS = objectives.as_named_tuple(
    "loss", {"bce_weight": jnp.float32(1.0), "kld_weight": jnp.float32(1.0)}
)


def build(**options):
    model = VAE(num_tags=TAGS, latent_dim=LATENT, hidden_dim=4, rngs=nnx.Rngs(0), **options)
    return nnx.split(model, nnx.Param, nnx.BatchStat)


def noise(rows, draws=1):
    drawn = np.random.default_rng(1).normal(size=(rows, draws * LATENT))
    return jnp.asarray(drawn, jnp.float32)


def test_the_encoder_is_given_the_doubly_reparameterised_gradient():
    """Tucker et al. (2019): squared weights, and no gradient through the posterior's density."""
    graphdef, params, stats_ = build()
    mask, drawn = jnp.ones(ROWS, bool), noise(ROWS, DRAWS)

    def loss(params):
        terms = forward(
            nnx.merge(graphdef, params, stats_),
            COLUMNS,
            objective=Objective(name="iw", num_draws=DRAWS),
            noise=drawn,
            mask=mask,
        )
        return jnp.mean(objectives.importance_weighted(terms, WEIGHTS, ROWS))

    def reference(params):
        model = nnx.merge(graphdef, params, stats_)
        mean, logvar = model.encode_rows(COLUMNS, None, mask=mask)
        x = multi_hot(COLUMNS, jnp.ones(COLUMNS.shape, jnp.float32), TAGS)
        steps = jnp.moveaxis(drawn.reshape(ROWS, DRAWS, LATENT), 1, 0)
        z = mean[None] + jnp.exp(0.5 * logvar)[None] * steps
        logits = model.decode(z.reshape(-1, LATENT)).reshape(DRAWS, ROWS, TAGS)
        signed = jnp.where(x[None] > 0.5, logits, -logits)
        log_likelihood = jnp.sum(jax.nn.log_sigmoid(signed), axis=-1)
        center, spread = jax.lax.stop_gradient((mean[None], jnp.exp(0.5 * logvar)[None]))
        normal = jax.scipy.stats.norm.logpdf
        log_weight = log_likelihood + jnp.sum(normal(z) - normal(z, center, spread), axis=-1)
        share = jax.lax.stop_gradient(jax.nn.softmax(log_weight, axis=0))
        return -jnp.mean(jnp.sum(share**2 * log_weight, axis=0))

    ours, theirs = (nnx.to_pure_dict(jax.grad(of)(params)) for of in (loss, reference))
    for layer in ("fc1", "fc2_mu", "fc2_logvar"):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(ours[layer][name], theirs[layer][name], atol=1e-5)
            assert np.abs(theirs[layer][name]).max() > 1e-3
    plain = jnp.abs(ours["fc3"]["kernel"] - theirs["fc3"]["kernel"]).max()
    assert plain > 1e-3  # the decoder's is another


def test_padding_rows_change_nothing_of_the_others():
    """Also where both norms take a batch's statistics, of the encoder and of the decoder."""
    padded = jnp.concatenate([COLUMNS, jnp.full((4, 3), TAGS, jnp.uint8)])
    extra = 100.0 * jnp.ones((4, LATENT), jnp.float32)

    def of(columns, drawn, mask):
        model = nnx.merge(*build(use_batch_norm=True))  # a pass changes its statistics
        terms = forward(
            model, columns, objective=objectives.ELBO, noise=drawn, mask=mask, train=True
        )
        return terms, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    terms, after = of(COLUMNS, noise(ROWS), jnp.ones(ROWS, bool))
    with_padding, after_padding = of(
        padded, jnp.concatenate([noise(ROWS), extra]), jnp.arange(7) < ROWS
    )
    for name in ("reconstruction", "kl", "z"):
        ours, theirs = getattr(with_padding, name), getattr(terms, name)
        rows = ours[:, :ROWS] if ours.ndim == theirs.ndim and name != "kl" else ours[:ROWS]
        np.testing.assert_allclose(rows, theirs, atol=1e-5, err_msg=name)
    for layer in ("bn1", "bn2"):
        for name in ("mean", "var"):
            np.testing.assert_allclose(after_padding[layer][name], after[layer][name], atol=1e-5)
            start = {"mean": 0.0, "var": 1.0}[name]
            assert np.abs(after[layer][name] - start).max() > 1e-3


@pytest.mark.parametrize("prior", ["mixture", "vamp", "flow"])
def test_the_rate_under_a_learned_prior_is_of_the_draws(prior):
    graphdef, params, stats_ = build(
        prior=prior, num_components=2, pseudo_inputs=np.eye(2, TAGS, dtype=np.float32)
    )
    model = nnx.merge(graphdef, params, stats_)
    if prior == "flow":
        move_flow(model)
    drawn = noise(ROWS, DRAWS)
    terms = forward(
        model,
        COLUMNS,
        objective=Objective(num_draws=DRAWS),
        noise=drawn,
        mask=jnp.ones(ROWS, bool),
    )
    steps = np.moveaxis(np.asarray(drawn).reshape(ROWS, DRAWS, LATENT), 1, 0)
    mean, deviation = np.asarray(terms.mean), np.exp(0.5 * np.asarray(terms.logvar))
    z = mean + deviation * steps
    log_posterior = stats.norm.logpdf(z, mean, deviation).sum(axis=-1)
    rate = (log_posterior - np.asarray(model.log_prior(z))).mean(axis=0)
    np.testing.assert_allclose(terms.rate, rate, rtol=1e-4, atol=1e-4)
    # Not a sum over dimensions, as under one Gaussian.
    assert np.abs(np.asarray(terms.kl).sum(axis=-1) - rate).max() > 0.01


def test_a_mixture_draws_its_component_and_its_noise_apart():
    model = VAE(
        num_tags=TAGS, latent_dim=2, hidden_dim=4, prior="mixture", num_components=2,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    model.prior.means[...] = jnp.asarray([[-50.0, -50.0], [50.0, 50.0]])
    model.prior.logvars[...] = jnp.zeros((2, 2))
    z = np.asarray(model.draw_prior(jax.random.key(3), 4000))
    for at in (-50.0, 50.0):
        drawn = z[np.abs(z[:, 0] - at) < 25.0] - at
        assert 1800 < len(drawn) < 2200
        assert stats.kstest(drawn[:, 0], "norm").pvalue > 1e-3
        assert stats.kstest(drawn[:, 1], "norm").pvalue > 1e-3
        apart = (drawn[:, 0] - drawn[:, 1]) / np.sqrt(2.0)
        assert stats.kstest(apart, "norm").pvalue > 1e-3
