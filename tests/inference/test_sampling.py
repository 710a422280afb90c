"""Sampling from the prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae.inference import queries, sampling
from jaxvae.inference.sampling import Samples, describe_samples, sample_prior
from jaxvae.models.vae import VAE
from jaxvae.train.train_state import create_train_state

TAGS = 12


def network(bias=-1.0, spread=1.0):
    """A model whose tags have about the probability sigmoid(bias)."""
    graphdef, state = create_train_state(
        lambda rngs: VAE(num_tags=TAGS, latent_dim=2, hidden_dim=8, rngs=rngs), seed=0
    )
    params = jax.tree.map(lambda leaf: leaf, state.params)
    params["fc4"] = {
        "kernel": params["fc4"]["kernel"] * spread,
        "bias": jnp.full((TAGS,), bias, jnp.float32),
    }
    return graphdef, params, {}


def draw(model, num_samples=2000, **options):
    return sample_prior(*model, num_samples=num_samples, **options)


def test_tags_are_drawn_with_their_probabilities():
    samples = draw(network(bias=1.0))  # so likely that hardly any set is empty
    assert samples.empty_fraction < 1e-3
    expected = samples.probabilities.mean(axis=0)
    error = np.sqrt(expected * (1 - expected) / 2000)
    assert (np.abs(samples.multi_hot.mean(axis=0) - expected) < 5 * error).all()


def test_no_set_is_empty_though_most_draws_are():
    samples = draw(network(bias=-4.0, spread=0.0))
    # Every tag has probability sigmoid(-4) = 0.018, so 80.4 % of all draws are empty.
    assert samples.empty_fraction == pytest.approx((1 - 1 / (1 + np.exp(4.0))) ** TAGS, abs=0.02)
    assert samples.multi_hot.any(axis=1).all()
    assert samples.multi_hot.shape == (2000, TAGS)


def test_a_model_that_yields_nothing_ends_all_the_same():
    samples = draw(network(bias=-40.0, spread=0.0), num_samples=10)
    assert samples.multi_hot.shape == (10, TAGS)
    assert not samples.multi_hot.any()
    assert samples.empty_fraction == 1.0


def test_the_seed_fixes_the_samples():
    model = network()
    assert np.array_equal(draw(model, seed=1).multi_hot, draw(model, seed=1).multi_hot)
    assert not np.array_equal(draw(model, seed=1).multi_hot, draw(model, seed=2).multi_hot)


def test_fewer_samples_are_the_first_of_more():
    model = network()
    few, many = draw(model, num_samples=10), draw(model, num_samples=9000)
    assert np.array_equal(few.multi_hot, many.multi_hot[:10])


def test_temperature_divides_the_logits():
    cold, warm = (draw(network(spread=0.0), temperature=t) for t in (0.5, 2.0))
    sigmoid = lambda logit: 1 / (1 + np.exp(-logit))  # noqa: E731
    np.testing.assert_allclose(cold.probabilities, sigmoid(-2.0), rtol=1e-5)
    np.testing.assert_allclose(warm.probabilities, sigmoid(-0.5), rtol=1e-5)


def test_threshold_cuts_the_probabilities():
    samples = draw(network(bias=0.0), decode="threshold", threshold=0.55)
    assert np.array_equal(samples.multi_hot, samples.probabilities > 0.55)
    assert samples.multi_hot.any()


def test_threshold_keeps_what_is_empty():
    samples = draw(network(bias=-4.0, spread=0.0), decode="threshold", num_samples=30)
    assert samples.multi_hot.shape == (30, TAGS)
    assert not samples.multi_hot.any()
    assert samples.empty_fraction == 1.0


def test_more_samples_than_one_chunk_are_not_a_chunk_repeated():
    samples = draw(network(), num_samples=9000)
    assert samples.probabilities.shape == (9000, TAGS)
    # Where one hidden unit alone is active, two z may by chance decode alike.
    assert len(np.unique(samples.probabilities, axis=0)) > 8990


def test_of_a_wide_vocabulary_fewer_are_drawn_at_a_time(monkeypatch):
    assert [sampling.sample_batch_size(tags) for tags in (12, 4096, 100_000, 10**6)] == [
        *(4096, 4096, 167, 64),
    ]
    monkeypatch.setattr(sampling, "_MOST_NUMBERS", 100 * TAGS)
    samples = draw(network(bias=1.0), num_samples=950)
    assert len(np.unique(samples.probabilities, axis=0)) > 940
    expected = samples.probabilities.mean(axis=0)
    error = np.sqrt(expected * (1 - expected) / 950)
    assert (np.abs(samples.multi_hot.mean(axis=0) - expected) < 5 * error).all()
    # Described part by part as a whole.
    p, values = samples.probabilities.astype(np.float64), describe_samples(samples)
    assert values["mean_probability"] == pytest.approx(p.mean())
    assert values["std_probability"] == pytest.approx(p.std())
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(axis=1)
    assert values["avg_entropy"] == pytest.approx(entropy.mean())


def test_statistics_by_hand():
    hot = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    values = describe_samples(Samples(hot, np.full((4, 3), 0.5, np.float32), 0.25))
    assert values["num_samples"] == 4
    assert values["avg_tags_per_sample"] == 1.25
    assert values["std_tags_per_sample"] == pytest.approx(np.sqrt(0.6875))
    assert (values["min_tags_per_sample"], values["max_tags_per_sample"]) == (0, 2)
    assert values["empty_sets"] == 1
    assert values["empty_fraction_before_redraw"] == 0.25
    assert values["unique_combinations"] == 3
    assert values["diversity_ratio"] == 0.75
    assert values["avg_entropy"] == pytest.approx(3 * np.log(2))


def test_more_draws_from_the_prior_than_a_call_makes_are_others(run):
    most = queries.BUCKETS[-1]
    z = queries.draw_prior(run.network, most + 8, seed=0)
    assert z.shape[0] == most + 8
    assert not np.isclose(z[most:], z[:8]).any()
