"""Likelihood and completion against numerical integration and brute force."""

import jax
import numpy as np
import pytest
from flax import nnx

from jaxvae.data import encoding
from jaxvae.inference import completion, queries
from jaxvae.inference.likelihood import log_prob_empty, make_likelihood_bound, row_likelihood
from jaxvae.inference.sampling import sample_prior
from jaxvae.train.steps.rng import bound_noise
from tests.helpers.exact_likelihood import TAGS, all_sets, exact, network

pytestmark = pytest.mark.usefixtures("optimized")

LEARNED = {
    "mixture": {"prior": "mixture", "num_components": 5},
    "vamp": {
        "prior": "vamp",
        "num_components": 3,
        "pseudo_inputs": np.eye(TAGS, dtype=np.float32)[:3],
        "use_layer_norm": True,
    },
    "flow": {"prior": "flow"},
}


def rows_of(sets):
    return encoding.pad_tag_ids([np.flatnonzero(row).tolist() for row in sets], sets.shape[1])


@pytest.mark.parametrize(("latent_dim", "points"), [(1, 20_001), (2, 301)])
def test_the_bound_agrees_with_integration(latent_dim, points):
    net = network(latent_dim)
    sets, probability = exact(net, points)
    assert probability.sum() == pytest.approx(1.0, abs=1e-6)
    found = row_likelihood(net, rows_of(sets), num_importance_samples=200_000, seed=0)
    assert abs(found.log_likelihood.mean() - np.log(probability).mean()) < 1e-3
    # and the error it states is the error it makes
    assert (np.abs(found.log_likelihood - np.log(probability)) < 5 * np.sqrt(found.variance)).all()
    assert log_prob_empty(net, seed=0) == pytest.approx(np.log(probability[0]), abs=0.01)


@pytest.mark.long
@pytest.mark.parametrize("prior", LEARNED)
def test_the_bound_agrees_with_integration_over_a_learned_prior(prior):
    net = network(2, **LEARNED[prior])
    sets, probability = exact(net, 301)
    assert probability.sum() == pytest.approx(1.0, abs=1e-6)
    found = row_likelihood(net, rows_of(sets), num_importance_samples=20_000, seed=0)
    assert (np.abs(found.log_likelihood - np.log(probability)) < 5 * np.sqrt(found.variance)).all()
    assert np.sqrt(found.variance).max() < 0.15
    assert log_prob_empty(net, seed=0) == pytest.approx(np.log(probability[0]), abs=0.02)
    # A bound of one draw is the ELBO: the rate and the distortion say the same.
    one = [
        row_likelihood(net, rows_of(sets), num_importance_samples=1, seed=s).log_likelihood.mean()
        for s in range(40)
    ]
    elbo = -(found.rate + found.distortion).mean()
    assert np.mean(one) == pytest.approx(elbo, abs=5 * np.std(one) / np.sqrt(40))


@pytest.mark.parametrize("prior", LEARNED)
def test_completion_and_samples_follow_a_learned_prior(prior):
    net = network(2, **LEARNED[prior])
    sets, probability = exact(net, 301)
    consistent = sets[:, 0] & ~sets[:, 3]
    evidence = probability[consistent].sum()
    marginal = probability[consistent] @ sets[consistent] / evidence
    found = completion.complete([net], [0], [3], num=4, seed=0)
    assert found.log_evidence == pytest.approx(np.log(evidence), abs=0.05)
    np.testing.assert_allclose(found.marginals, marginal, atol=0.03)
    drawn = sample_prior(
        net.graphdef, net.params, net.batch_stats, num_samples=20_000, seed=0
    ).multi_hot
    rates = probability @ sets / (1.0 - probability[0])
    np.testing.assert_allclose(drawn.mean(axis=0), rates, atol=0.02)
    mean, logvar = queries.posterior(net, rows_of(sets[1:]))
    there = np.eye(TAGS, dtype=bool)[:1]
    guessed = completion.predict(net, there, mean, logvar, seed=0)[0]
    given = sets[:, 0]
    expected = probability[given] @ sets[given] / probability[given].sum()
    np.testing.assert_allclose(guessed, expected, atol=0.03)


def test_few_draws_give_a_lower_bound_that_rises_to_the_likelihood():
    net = network(2)
    sets, probability = exact(net, 301)
    truth = (np.log(probability)).mean()
    bounds = [
        np.mean(
            [
                row_likelihood(net, rows_of(sets), num_importance_samples=k, seed=s).log_likelihood
                for s in range(15)
            ]
        )
        for k in (1, 4, 64)
    ]
    assert bounds[0] < bounds[1] < bounds[2] < truth + 0.01
    one = row_likelihood(net, rows_of(sets), num_importance_samples=20_000, seed=1)
    assert bounds[0] == pytest.approx(-(one.rate + one.distortion).mean(), abs=0.1)


@pytest.mark.long
@pytest.mark.parametrize("draws", [1, 7, 50, 73])
def test_every_number_of_draws_is_drawn(draws):
    net = network(1)
    found = row_likelihood(net, rows_of(all_sets()), num_importance_samples=draws, seed=0)
    assert np.isfinite(found.log_likelihood).all()
    # distortion is a mean over draws: any count gives the same up to noise
    many = row_likelihood(net, rows_of(all_sets()), num_importance_samples=5000, seed=0)
    assert np.abs(found.distortion - many.distortion).mean() < 4.0 / np.sqrt(draws)


@pytest.mark.long
def test_the_model_with_batch_norm_agrees_with_integration_too():
    net = network(1, use_batch_norm=True)
    sets, probability = exact(net, 20_001)
    found = row_likelihood(net, rows_of(sets), num_importance_samples=200_000, seed=0)
    assert abs(found.log_likelihood.mean() - np.log(probability).mean()) < 1e-3


@pytest.mark.parametrize(
    ("present", "absent"), [([0], []), ([], [2]), ([1], [3]), ([0, 1], [2]), ([3, 0, 2], [])]
)
@pytest.mark.parametrize(("latent_dim", "points"), [(1, 20_001), (2, 301)])
def test_completion_is_conditioning(present, absent, latent_dim, points):
    net = network(latent_dim)
    sets, probability = exact(net, points)
    fits = sets[:, present].all(axis=1) & ~sets[:, absent].any(axis=1)
    evidence = probability[fits].sum()
    truth = {row.tobytes(): p / evidence for row, p in zip(sets, probability, strict=True)}

    done = completion.complete([net], present, absent, num=100, seed=0)
    assert done.effective_draws > 1000
    assert done.log_evidence == pytest.approx(np.log(evidence), abs=0.03)
    marginals = (sets[fits] * probability[fits, None]).sum(axis=0) / evidence
    np.testing.assert_allclose(done.marginals, marginals, atol=0.02)
    found = {row.tobytes() for row in done.sets}
    assert len(found) == len(done.sets)
    # Everything that fits the evidence is found, the empty set aside.
    wanted = {row.tobytes() for row in sets[fits] if row.any() and truth[row.tobytes()] > 1e-3}
    assert wanted <= found <= {row.tobytes() for row in sets[fits] if row.any()}
    for row, p in zip(done.sets, done.probability, strict=True):
        assert p == pytest.approx(truth[row.tobytes()], abs=0.02)
    assert (np.diff(done.probability) <= 0).all()


def test_of_a_wide_vocabulary_fewer_draws_are_decoded_at_once(monkeypatch):
    net = network(2)
    sets, probability = exact(net, 301)
    there = sets[:, 0]
    marginals = probability[there] @ sets[there] / probability[there].sum()
    decoded = []

    def logits(network, z, decode=queries.logits):
        decoded.append(len(z))
        return decode(network, z)

    monkeypatch.setattr(queries, "logits", logits)
    completion.complete([net], [0], [], num=3, seed=0)
    assert max(decoded) == 4096
    mean, logvar = queries.posterior(net, rows_of(sets[1:]))
    shown = np.eye(TAGS, dtype=bool)[:1]
    completion.predict(net, shown, mean, logvar, seed=0)
    assert decoded.pop() == 20_000
    monkeypatch.setattr(completion, "_MOST_VALUES", TAGS * 1000)
    decoded.clear()
    done = completion.complete([net], [0], [], num=3, seed=0)
    guessed = completion.predict(net, shown, mean, logvar, seed=0)[0]
    assert set(decoded) == {1000}
    assert done.effective_draws >= 500
    np.testing.assert_allclose(done.marginals, marginals, atol=0.04)
    np.testing.assert_allclose(guessed, marginals, atol=0.06)


def test_completion_depends_on_nothing_but_its_seed():
    net = network(2)
    first, again, other = (completion.complete([net], [0], [], num=3, seed=s) for s in (0, 0, 1))
    assert (first.sets == again.sets).all()
    assert (first.probability == again.probability).all()
    assert first.log_evidence != other.log_evidence


def test_predictions_from_present_tags_are_conditional_marginals():
    net = network(2)
    sets, probability = exact(net, 301)
    present = np.eye(TAGS, dtype=bool)
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((50, 2)).astype(np.float32)
    found = completion.predict(net, present, mean, np.zeros((50, 2), np.float32), seed=0)
    for tag in range(TAGS):
        fits = sets[:, tag]
        truth = (sets[fits] * probability[fits, None]).sum(axis=0) / probability[fits].sum()
        np.testing.assert_allclose(found[tag], truth, atol=0.03)


def test_rows_are_encoded_alike_whatever_the_bucket():
    net = network(2, num_tags=9)
    rng = np.random.default_rng(0)
    sets = rng.random((700, 9)) < 0.4
    mean, logvar = queries.posterior(net, rows_of(sets))
    for at in (0, 8, 511, 512, 699):
        one_mean, one_logvar = queries.posterior(net, rows_of(sets[at : at + 1]))
        np.testing.assert_allclose(one_mean[0], mean[at], atol=1e-5)
        np.testing.assert_allclose(one_logvar[0], logvar[at], atol=1e-5)


def test_the_rows_of_each_batch_have_draws_of_their_own(monkeypatch):
    from jaxvae.inference import likelihood

    net = network(2)
    monkeypatch.setattr(likelihood, "_ROWS", 8)
    rows = rows_of(np.repeat(all_sets()[5:6], 24, axis=0))
    alike = row_likelihood(net, rows, num_importance_samples=3, seed=0).log_likelihood
    assert len(set(alike.tolist())) == 24
    again = row_likelihood(net, rows, num_importance_samples=3, seed=0).log_likelihood
    np.testing.assert_array_equal(again, alike)


@pytest.mark.long
@pytest.mark.parametrize("prior", [{}, LEARNED["mixture"]])
@pytest.mark.parametrize("logits", [2**23, 160])  # all rows at once, and in blocks of two
def test_the_bound_between_epochs_is_the_mean_over_its_own_draws(prior, logits, monkeypatch):
    monkeypatch.setattr("jaxvae.inference.likelihood._LOGITS", logits)
    make_likelihood_bound.cache_clear()
    net = network(2, **prior)
    rows = np.array([[0, 4, 4], [1, 2, 4], [0, 1, 3], [4, 4, 4], [2, 4, 4]], np.uint8)
    draws, key = 20, jax.random.key(5)
    bound = make_likelihood_bound(
        net.graphdef,
        num_rows=5,
        num_tags=TAGS,
        latent_dim=2,
        num_draws=draws,
        draw_noise=bound_noise,
    )
    found = float(bound(net.params, net.batch_stats, key, rows))
    make_likelihood_bound.cache_clear()

    # The same draws by hand, in float64: log of the mean weight, row by row.
    model = nnx.merge(net.graphdef, net.params, net.batch_stats)
    size = 5 if logits == 2**23 else 2
    expected = []
    for number, row in enumerate(rows):
        x = np.zeros((1, TAGS), np.float32)
        x[0, row[row < TAGS]] = 1.0
        mean, logvar = (np.asarray(part, np.float64)[0] for part in model.encode(x))
        noise = bound_noise(key, number // size, (draws, size, 2))[:, number % size]
        z = mean + np.exp(0.5 * logvar) * np.asarray(noise, np.float64)
        p = 1.0 / (1.0 + np.exp(-np.asarray(model.decode(z.astype(np.float32)), np.float64)))
        log_p = (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(-1)
        log_q = (-0.5 * (np.asarray(noise) ** 2 + logvar + np.log(2 * np.pi))).sum(-1)
        log_prior = np.asarray(model.log_prior(z.astype(np.float32)), np.float64)
        expected.append(-np.log(np.exp(log_p + log_prior - log_q).mean()))
    assert found == pytest.approx(np.mean(expected), rel=2e-5)
    assert np.std(expected) > 0.1  # the rows differ, so that none stands for another


def test_the_bound_between_epochs_is_the_likelihood_that_evaluation_finds():
    net = network(2)
    rows = np.array([[0, 4, 4], [1, 2, 4], [0, 1, 3], [4, 4, 4]], np.uint8)
    bound = make_likelihood_bound(
        net.graphdef,
        num_rows=4,
        num_tags=TAGS,
        latent_dim=2,
        num_draws=5000,
        draw_noise=bound_noise,
    )
    found = float(bound(net.params, net.batch_stats, jax.random.key(0), rows))
    judged = row_likelihood(net, rows, num_importance_samples=5000, seed=0)
    spread = np.sqrt(2 * judged.variance.sum()) / len(rows)
    assert abs(found + judged.log_likelihood.mean()) < 4 * spread
