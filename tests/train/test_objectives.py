"""Objectives against numbers by hand and independent computations in numpy and PyTorch."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from jaxvae.models import distributions
from jaxvae.train import objectives

D, B, L = 1, 4, 3


def weights(**changes):
    values = {"bce_weight": 1.0, "kld_weight": 1.0, "free_bits": 0.0, "capacity": 0.0} | changes
    return objectives.as_named_tuple(
        "loss", {name: jnp.float32(value) for name, value in values.items()}
    )


def terms(draws=D, seed=0, mask=None, **changes):
    rng = np.random.default_rng(seed)
    mean, logvar = rng.normal(size=(2, B, L)).astype(np.float32)
    z = (mean + np.exp(0.5 * logvar) * rng.normal(size=(draws, B, L))).astype(np.float32)
    kl = np.asarray(distributions.gaussian_kl(mean, logvar))
    values = {
        "reconstruction": rng.gamma(5.0, 2.0, (draws, B)).astype(np.float32),
        "rate": kl.sum(axis=1),
        "kl": kl,
        "log_prior": stats.norm.logpdf(z).sum(axis=2).astype(np.float32),
        "log_posterior": stats.norm.logpdf(z, mean, np.exp(0.5 * logvar))
        .sum(axis=2)
        .astype(np.float32),
        "z": z,
        "mean": mean,
        "logvar": logvar,
        "mask": np.ones(B, bool) if mask is None else np.asarray(mask),
    } | changes
    return objectives.LossTerms(**values)


def test_the_elbo_weighs_its_terms():
    given = terms(reconstruction=np.asarray([[10.0, 6.0]]), rate=np.asarray([3.0, 1.0]))
    loss = objectives.elbo(given, weights(bce_weight=0.5, kld_weight=4.0), 10)
    np.testing.assert_allclose(loss, [17.0, 7.0])


def test_free_bits_by_hand():
    """Dimension 0 has a mean KL of 0.2, under the floor of 0.5; dimension 1 one of 1.5."""
    given = terms(
        reconstruction=np.asarray([[10.0, 6.0]]),
        kl=np.asarray([[0.1, 1.0], [0.3, 2.0]]),
        mask=[True, True],
    )
    loss = objectives.free_bits(given, weights(kld_weight=4.0, free_bits=0.5), 10)
    np.testing.assert_allclose(loss, [10.0 + 4.0 * 2.0, 6.0 + 4.0 * 2.0], rtol=1e-6)
    padded = given._replace(mask=np.asarray([True, False]))
    alone = objectives.free_bits(padded, weights(free_bits=0.5), 10)
    assert float(alone[0]) == pytest.approx(10.0 + 0.5 + 1.0, rel=1e-6)


def test_nothing_pulls_a_dimension_under_its_floor():
    def total(kl, floor):
        loss = objectives.free_bits(terms(kl=kl), weights(free_bits=floor), 10)
        return jnp.mean(loss)

    kl = jnp.asarray(np.full((B, L), [0.1, 0.4, 2.0], np.float32))
    slope = jax.grad(total)(kl, 0.5)
    assert np.array_equal(slope != 0, np.full((B, L), [False, False, True]))
    assert (jax.grad(total)(kl, 0.0) != 0).all()


@pytest.mark.parametrize(("rate", "cost"), [(3.0, 5.0), (8.0, 0.0), (10.5, 2.5)])
def test_capacity_by_hand(rate, cost):
    given = terms(reconstruction=np.full((1, B), 7.0), rate=np.full(B, rate, np.float32))
    loss = objectives.capacity(given, weights(kld_weight=20.0, capacity=8.0), 10)
    np.testing.assert_allclose(loss, np.full(B, 7.0 + 20.0 * cost), rtol=1e-6)


def test_the_total_correlation_of_a_whole_data_set_is_exact():
    """With all N rows in the batch q(z) is no estimate: scipy's densities give the same."""
    given = terms(seed=3)
    density = stats.norm.logpdf(
        given.z[0][:, None], given.mean[None], np.exp(0.5 * given.logvar)[None]
    )
    joint = logsumexp(density.sum(axis=2), axis=1) - math.log(B)
    margins = (logsumexp(density, axis=1) - math.log(B)).sum(axis=1)
    found = objectives.total_correlation(given.z[0], given.mean, given.logvar, given.mask, B)
    np.testing.assert_allclose(found, joint - margins, rtol=1e-4, atol=1e-5)


def test_the_estimate_of_the_aggregate_posterior_is_unbiased():
    """Over all batches of 3 that hold a row, the mean of its estimated q(z) is q(z)."""
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(2, 6, 1)).astype(np.float32)
    z = np.asarray([0.3], np.float32)
    density = stats.norm.pdf(z, mean, np.exp(0.5 * logvar))[:, 0]
    estimates = []
    for others in itertools.combinations(range(1, 6), 2):
        own, rest = density[0], density[list(others)]
        estimates.append(own / 6 + 5 / 6 * rest.mean())
        # In one dimension joint and margin are one: the difference must vanish exactly.
        batch = [0, *others]
        found = objectives.total_correlation(
            np.tile(z, (3, 1)), mean[batch], logvar[batch], np.ones(3, bool), 6
        )
        np.testing.assert_allclose(found, 0.0, atol=1e-5)
    assert np.mean(estimates) == pytest.approx(density.mean(), rel=1e-6)


def test_padding_rows_are_in_no_estimate():
    given = terms(seed=5)
    whole = objectives.total_correlation(
        given.z[0][:3], *(a[:3] for a in given[6:8]), np.ones(3), 9
    )
    masked = objectives.total_correlation(
        given.z[0], given.mean, given.logvar, np.asarray([True, True, True, False]), 9
    )
    np.testing.assert_allclose(masked[:3], whole, rtol=1e-5)
    assert masked[3] == 0.0


def test_many_rows_are_paired_in_parts(monkeypatch):
    given = terms(seed=7)
    arguments = given.z[0], given.mean, given.logvar, given.mask, 9
    whole = objectives.total_correlation(*arguments)
    monkeypatch.setattr(objectives, "_PAIRED", 3)
    np.testing.assert_allclose(objectives.total_correlation(*arguments), whole, rtol=1e-6)


def test_tcvae_with_a_weight_of_one_is_the_elbo():
    given = terms()
    np.testing.assert_allclose(
        objectives.tcvae(given, weights(), 9), objectives.elbo(given, weights(), 9), rtol=1e-6
    )
    correlation = objectives.total_correlation(given.z[0], given.mean, given.logvar, given.mask, 9)
    np.testing.assert_allclose(
        objectives.tcvae(given, weights(kld_weight=4.0), 9) - objectives.elbo(given, weights(), 9),
        3.0 * correlation,
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_importance_weighted_bound_is_numpys_and_between_elbo_and_likelihood():
    given = terms(draws=5)
    log_weight = -given.reconstruction + given.log_prior - given.log_posterior
    found = objectives.importance_weighted(given, weights(), 9)
    np.testing.assert_allclose(found, math.log(5) - logsumexp(log_weight, axis=0), rtol=1e-5)
    assert (found <= -log_weight.mean(axis=0)).all()


def test_the_doubly_reparameterised_gradient_is_torchs(torch):
    """Tucker et al. (2019), eq. 8, written out with torch's autograd: squared weights on z alone."""
    rng = np.random.default_rng(0)
    draws = 6
    mean, logvar, scale = rng.normal(size=(3, B, L)).astype(np.float32)
    noise = rng.normal(size=(draws, B, L)).astype(np.float32)

    def ours(mean, logvar, scale):
        z = mean[None] + jnp.exp(0.5 * logvar)[None] * noise
        z, log_weight_tap = objectives.doubly_reparameterized(z, jnp.zeros((draws, B)))
        still_mean, still_logvar = jax.lax.stop_gradient((mean, logvar))
        log_q = -0.5 * jnp.sum(
            jnp.square(z - still_mean[None]) * jnp.exp(-still_logvar)[None] + still_logvar[None],
            axis=-1,
        )
        given = terms(
            draws=draws,
            reconstruction=jnp.sum(jnp.square(jnp.tanh(z * scale[None]) - 0.5), axis=-1),
            log_prior=-0.5 * jnp.sum(jnp.square(z), axis=-1),
            log_posterior=log_q,
            log_weight_tap=log_weight_tap,
        )
        return jnp.mean(objectives.importance_weighted(given, weights(), 9))

    value, slopes = jax.value_and_grad(ours, argnums=(0, 1, 2))(mean, logvar, scale)

    m, v, s = (torch.tensor(a, requires_grad=True) for a in (mean, logvar, scale))
    z = m + torch.exp(0.5 * v) * torch.tensor(noise)

    def log_weight(z, scale):
        log_q = -0.5 * ((z - m.detach()) ** 2 * torch.exp(-v.detach()) + v.detach()).sum(-1)
        return -((torch.tanh(z * scale) - 0.5) ** 2).sum(-1) - 0.5 * (z**2).sum(-1) - log_q

    for_encoder = log_weight(z, s.detach())
    share = torch.softmax(for_encoder.detach(), dim=0)
    slopes_encoder = torch.autograd.grad(-(share**2 * for_encoder).sum(0).mean(), (m, v))
    for_decoder = log_weight(z.detach(), s)
    bound = math.log(draws) - torch.logsumexp(for_decoder, dim=0)
    slope_decoder = torch.autograd.grad(bound.mean(), s)
    assert float(value) == pytest.approx(bound.mean().item(), rel=1e-5)
    for mine, theirs in zip(slopes, (*slopes_encoder, *slope_decoder), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-3, atol=1e-5)
    plain = torch.autograd.grad(-torch.logsumexp(log_weight(z, s), dim=0).mean(), m)[0]
    assert np.abs(plain.numpy() - np.asarray(slopes[0])).max() > 1e-3  # it is another estimator


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]),
        ("cosine", [0.0, 0.5 - 0.5 * math.sqrt(0.5), 0.5, 0.5 + 0.5 * math.sqrt(0.5), 1.0, 1.0]),
        ("cyclical", [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedules_by_hand(name, shares):
    found = [
        objectives.kl_annealing(name, jnp.int32(step), jnp.float32(8.0), jnp.float32(2.0))
        for step in (0, 2, 4, 6, 8, 100)
    ]
    np.testing.assert_allclose(found, shares, atol=1e-6)


def test_it_is_the_capacity_that_rises_where_there_is_one():
    half = objectives.anneal_weights(
        weights(kld_weight=4.0, capacity=8.0), jnp.float32(0.5), "capacity"
    )
    assert (float(half.kld_weight), float(half.capacity)) == (4.0, 4.0)
    half = objectives.anneal_weights(
        weights(kld_weight=4.0, capacity=8.0), jnp.float32(0.5), "elbo"
    )
    assert (float(half.kld_weight), float(half.capacity)) == (2.0, 8.0)


def test_a_batch_of_padding_alone_has_a_gradient():
    """With accumulated gradients an epoch's last batches may hold no row."""
    slope = jax.grad(
        lambda mean, mask: objectives.masked_mean(
            objectives.tcvae(
                objectives.LossTerms(**terms(mean=mean, mask=mask)._asdict()),
                weights(kld_weight=4.0),
                100,
            ),
            mask,
            jnp.float32(4.0),
        )
    )
    mean = jnp.asarray(terms().mean)
    assert (np.asarray(slope(mean, jnp.zeros(B, bool))) == 0.0).all()
    assert np.isfinite(slope(mean, jnp.ones(B, bool))).all()
    assert np.abs(np.asarray(slope(mean, jnp.ones(B, bool)))).max() > 0.01
