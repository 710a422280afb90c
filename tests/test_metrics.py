"""Sums and counts: exact however a split is batched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import hamming_loss, jaccard_score

from jaxvae import metrics


def merged(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return jax.device_get(total)


def batches(count, sizes):
    """Slices of `range(count)` of the given sizes, repeated."""
    start, number = 0, 0
    while start < count:
        size = sizes[number % len(sizes)]
        yield slice(start, min(start + size, count))
        start, number = start + size, number + 1


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=5)


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_any_batching_gives_the_same_losses(sizes, seed):
    rng = np.random.default_rng(seed)
    loss, bce = rng.normal(14.0, 3.0, (2, 37)).astype(np.float32)
    kl = rng.gamma(1.0, 1.0, (37, 3)).astype(np.float32)
    parts = [
        metrics.Losses.from_batch(
            loss=loss[at], bce=bce[at], kl=kl[at], mask=np.ones(len(loss[at]), bool)
        )
        for at in batches(37, sizes)
    ]
    expected = {"loss": loss.mean(), "bce": bce.mean(), "kld": kl.sum(axis=1).mean()}
    assert merged(parts).compute() == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-5
    )


def test_masked_rows_count_nothing():
    loss = jnp.asarray([1.0, 2.0, jnp.nan])
    sums = metrics.Losses.from_batch(
        loss=loss, bce=loss, kl=loss[:, None], mask=jnp.asarray([True, True, False])
    )
    assert sums.compute() == {"loss": 1.5, "bce": 1.5, "kld": 1.5}


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_hamming_and_jaccard_are_scikit_learns(sizes, seed):
    rng = np.random.default_rng(seed)
    predicted, x = rng.random((2, 37, 9)) < 0.3
    parts = [
        metrics.Reconstruction.from_batch(
            predicted=predicted[at], x=x[at], mask=np.ones(len(x[at]), bool)
        )
        for at in batches(37, sizes)
    ]
    values = merged(parts).compute()
    assert values["hamming_loss"] == pytest.approx(hamming_loss(x, predicted), rel=1e-6)
    pooled = jaccard_score(x.ravel(), predicted.ravel())
    assert values["jaccard_index"] == pytest.approx(pooled, rel=1e-6)


def test_jaccard_of_nothing_and_nothing_is_one():
    empty = np.zeros((2, 3), bool)
    sums = metrics.Reconstruction.from_batch(predicted=empty, x=empty, mask=np.ones(2, bool))
    assert sums.compute() == {"hamming_loss": 0.0, "jaccard_index": 1.0}


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 30.0]))
def test_moments_are_numpys_even_far_from_zero(sizes, seed, offset):
    rng = np.random.default_rng(seed)
    mean = rng.normal(offset, 0.5, (37, 4)).astype(np.float32)
    kl = rng.gamma(1.0, 1.0, (37, 4)).astype(np.float32)
    parts = [
        metrics.Latent.from_batch(kl=kl[at], mean=mean[at], mask=np.ones(len(kl[at]), bool))
        for at in batches(37, sizes)
    ]
    total = merged(parts)
    variance = mean.astype(np.float64).var(axis=0, ddof=1)
    assert total.compute()["active_units_mean_variance"] == pytest.approx(
        variance.mean(),
        rel=1e-4,  # a mean of 30 leaves float32 four digits of a deviation of 0.5
    )
    assert total.kl_per_dimension() == pytest.approx(kl.mean(axis=0).tolist(), rel=1e-5)


def test_a_unit_is_active_by_its_kl_or_by_its_variance():
    # Unit 0 by both, unit 1 by variance alone, unit 2 by neither.
    mean = jnp.asarray([[1.0, 0.3, 0.0], [-1.0, -0.3, 0.0]])
    kl = jnp.asarray([[0.5, 0.05, 0.0], [0.5, 0.04, 0.01]])
    latent = metrics.Latent.from_batch(kl=kl, mean=mean, mask=jnp.ones(2, bool))
    values = jax.device_get(latent).compute()
    assert values["active_units_num_active_units"] == 1
    assert values["active_units_pct_active_units"] == pytest.approx(100 / 3)
    assert values["active_units_num_by_variance"] == 2
    assert values["active_units_total_units"] == 3
    assert values["active_units_max_variance"] == pytest.approx(2.0)


def test_padding_alone_changes_no_moment():
    part = metrics.Latent.from_batch(
        kl=jnp.ones((2, 1)), mean=jnp.asarray([[1.0], [3.0]]), mask=jnp.ones(2, bool)
    )
    nothing = metrics.Latent.from_batch(
        kl=jnp.ones((2, 1)), mean=jnp.full((2, 1), 9.0), mask=jnp.zeros(2, bool)
    )
    for total in (part.merge(nothing), nothing.merge(part), metrics.Latent.empty(1).merge(part)):
        assert jax.device_get(total).compute() == jax.device_get(part).compute()
