"""Batch order, dropout and noise are pure functions, and as random as they claim to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from jaxvae.train.steps import rng
from jaxvae.train.steps.batches import epoch_permutation

KEY = jax.random.key(0)


def order_of(key, epoch, num_rows=40, length=40, shuffle=True):
    return epoch_permutation(
        key, jnp.int32(epoch), num_rows=num_rows, length=length, shuffle=shuffle
    )


def test_every_row_once_an_epoch_and_padding_last():
    order = np.asarray(order_of(KEY, 3, length=48))
    assert sorted(order[:40]) == list(range(40))
    assert (order[40:] == 40).all()


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return np.asarray(order_of(jax.random.key(seed), epoch))

    assert np.array_equal(order(0, 1), order(0, 1))
    assert not np.array_equal(order(0, 1), order(0, 2))
    assert not np.array_equal(order(0, 1), order(1, 1))
    assert np.array_equal(order_of(KEY, 1, shuffle=False), np.arange(40))


@pytest.mark.parametrize("num_rows", [4, 2600])
def test_every_order_is_as_likely_as_any_other(num_rows):
    """Each row's mean place over 400 epochs, and how often it comes before its neighbour."""
    epochs = jnp.arange(400)
    orders = jax.vmap(lambda epoch: order_of(KEY, epoch, num_rows, num_rows))(epochs)
    places = np.argsort(np.asarray(orders), axis=1)
    middle = (places.mean(axis=0) - (num_rows - 1) / 2) / (num_rows / np.sqrt(12 * 400))
    before = ((places[:, 1:] > places[:, :-1]).mean(axis=0) - 0.5) / np.sqrt(0.25 / 400)
    for scores in (middle, before):
        assert np.abs(scores).max() < 5.0
    if num_rows > 4:
        assert middle.std() == pytest.approx(1.0, abs=0.1)
        assert before.std() == pytest.approx(1.0, abs=0.1)


def test_a_steps_numbers_are_its_own():
    some = rng.step_uniforms(KEY, jnp.arange(3, 7), (1, 8, 5))
    assert some.shape == (4, 1, 8, 5)
    assert len(np.unique(some)) == some.size
    alone = rng.step_uniforms(KEY, jnp.arange(5, 6), (1, 8, 5))
    assert np.array_equal(alone[0], some[2])


def test_a_rows_numbers_do_not_depend_on_the_rows_after_it():
    long = rng.step_uniforms(KEY, jnp.arange(2), (1, 8, 5))
    short = rng.step_uniforms(KEY, jnp.arange(2), (1, 3, 5))
    assert np.array_equal(long[:, :, :3], short)


def use(uniforms, layout, rate, hidden_rate=0.0):
    return rng.split_uniforms(
        uniforms, layout, rate=jnp.float32(rate), hidden_rate=jnp.float32(hidden_rate)
    )


def test_dropout_is_bernoulli_and_noise_is_normal():
    uniforms = rng.step_uniforms(KEY, jnp.arange(4), (2, 500, 8))
    values, noise, _ = use(uniforms, rng.RandomLayout(entries=3, noise=5), 0.3)
    assert values.shape == (4, 2, 500, 3)
    # 12,000 draws: five standard errors.
    assert float((values > 0).mean()) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 12_000))
    assert kstest(np.asarray(noise).ravel(), "norm").pvalue > 1e-3  # the draw is fixed by its seed
    both = np.corrcoef(np.concatenate([values, noise], axis=-1).reshape(-1, 8).T)
    assert np.abs(both - np.eye(8)).max() < 5 / np.sqrt(4000)


def test_the_ends_of_the_uniforms_are_finite_and_kept_without_dropout():
    ends = jnp.asarray([[np.nextafter(np.float32(-1), 0), np.nextafter(np.float32(1), 0)] * 2])
    values, noise, _ = use(ends, rng.RandomLayout(entries=2, noise=2), 0.0)
    assert np.array_equal(values, [[1.0, 1.0]])
    assert np.isfinite(noise).all()


def test_a_row_may_have_a_rate_of_its_own():
    """Uniform from 0 to twice the rate: as many entries are dropped, but rows differ in how many."""
    layout = rng.RandomLayout(entries=200, noise=1, rates=1)
    uniforms = rng.step_uniforms(KEY, jnp.arange(1), (1000, sum(layout)))[0]
    values = np.asarray(use(uniforms, layout, 0.3).values)
    dropped = (values == 0).mean(axis=1)
    assert dropped.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.03 / 1000))
    assert kstest(dropped, "uniform", args=(0.0, 0.6)).pvalue > 1e-3
    # Survivors make up for what a row lost.
    assert values.mean() == pytest.approx(1.0, abs=0.02)
    one = np.asarray(use(uniforms, layout._replace(rates=0, noise=2), 0.3).values)
    assert (one == 0).mean(axis=1).std() < 0.05


def test_hidden_units_have_a_dropout_of_their_own():
    layout = rng.RandomLayout(entries=2, noise=1, hidden=300)
    uniforms = rng.step_uniforms(KEY, jnp.arange(1), (100, sum(layout)))[0]
    drawn = use(uniforms, layout, 0.0, hidden_rate=0.4)
    assert np.array_equal(drawn.values, np.ones((100, 2)))
    assert set(np.unique(drawn.keep)) == {np.float32(0.0), np.float32(1.0 / np.float32(0.6))}
    assert (np.asarray(drawn.keep) == 0).mean() == pytest.approx(
        0.4, abs=5 * np.sqrt(0.24 / 30_000)
    )
    assert use(uniforms, rng.RandomLayout(entries=2, noise=301), 0.0, 0.4).keep is None
