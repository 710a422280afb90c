"""Sums and counts: exact however a split is batched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import hamming_loss, jaccard_score

from jaxvae.evaluation import streaming_metrics

ROWS, WIDTH = 37, 16


def collect(metric, sizes, **arrays):
    """Batches of the given sizes, repeated, each padded to WIDTH rows that no sum may see."""
    total, start, number = None, 0, 0
    from_batch, merge = compiled(metric)
    while start < ROWS:
        stop = min(start + sizes[number % len(sizes)], ROWS)
        batch = {}
        for name, values in arrays.items():
            garbage = True if values.dtype == bool else np.nan
            batch[name] = np.full((WIDTH, *values.shape[1:]), garbage, values.dtype)
            batch[name][: stop - start] = values[start:stop]
        part = from_batch(**batch, mask=np.arange(WIDTH) < stop - start)
        total = part if total is None else merge(total, part)
        start, number = stop, number + 1
    return jax.device_get(total)


@functools.cache
def compiled(metric):
    return jax.jit(metric.from_batch), jax.jit(metric.merge)


SIZES = st.lists(st.integers(1, WIDTH), min_size=1, max_size=5)


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_any_batching_gives_the_same_losses(sizes, seed):
    rng = np.random.default_rng(seed)
    loss, bce = rng.normal(14.0, 3.0, (2, ROWS)).astype(np.float32)
    kl = rng.gamma(1.0, 1.0, (ROWS, 3)).astype(np.float32)
    expected = {"loss": loss.mean(), "bce": bce.mean(), "kld": kl.sum(axis=1).mean()}
    assert collect(
        streaming_metrics.Losses, sizes, loss=loss, bce=bce, kld=kl.sum(axis=1)
    ).compute() == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-5)


def test_masked_rows_count_nothing():
    loss = jnp.asarray([1.0, 2.0, jnp.nan])
    sums = streaming_metrics.Losses.from_batch(
        loss=loss, bce=loss, kld=loss, mask=jnp.asarray([True, True, False])
    )
    assert sums.compute() == {"loss": 1.5, "bce": 1.5, "kld": 1.5}


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_hamming_and_jaccard_are_scikit_learns(sizes, seed):
    rng = np.random.default_rng(seed)
    predicted, x = rng.random((2, ROWS, 9)) < 0.3
    total = collect(streaming_metrics.Reconstruction, sizes, predicted=predicted, x=x)
    values = total.compute()
    assert values["hamming_loss"] == pytest.approx(hamming_loss(x, predicted), rel=1e-6)
    pooled = jaccard_score(x.ravel(), predicted.ravel())
    assert values["jaccard_index"] == pytest.approx(pooled, rel=1e-6)
    pairs = [(bool(a), bool(b)) for a, b in zip(predicted.ravel(), x.ravel(), strict=True)]
    assert float(total.mismatches) == sum(a != b for a, b in pairs)
    assert float(total.intersection) == sum(a and b for a, b in pairs)
    assert float(total.union) == sum(a or b for a, b in pairs)
    assert float(total.cells) == len(pairs)


def test_jaccard_of_nothing_and_nothing_is_one():
    empty = np.zeros((2, 3), bool)
    sums = streaming_metrics.Reconstruction.from_batch(
        predicted=empty, x=empty, mask=np.ones(2, bool)
    )
    assert sums.compute() == {"hamming_loss": 0.0, "jaccard_index": 1.0}


@settings(max_examples=20, deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 30.0, 1000.0]))
def test_moments_are_numpys_even_far_from_zero(sizes, seed, offset):
    rng = np.random.default_rng(seed)
    mean = rng.normal(offset, 0.5, (ROWS, 4)).astype(np.float32)
    kl = rng.gamma(1.0, 1.0, (ROWS, 4)).astype(np.float32)
    total = collect(streaming_metrics.Latent, sizes, kl=kl, mean=mean)
    variance = mean.astype(np.float64).var(axis=0, ddof=1)
    # A mean of m is known to m * 6e-8, the square of which is negligible beside 0.25; with sums of
    # squares the error would be m^2 * 6e-8. At 1000 a batch's mean is off by up to 1e-4, and its
    # distance from the others', about 0.5, by a share of 2e-4.
    near = {"rel": 1e-5 if offset == 0.0 else 5e-4}
    values = total.compute()
    assert values["active_units_mean_variance"] == pytest.approx(variance.mean(), **near)
    assert values["active_units_min_variance"] == pytest.approx(variance.min(), **near)
    assert values["active_units_max_variance"] == pytest.approx(variance.max(), **near)
    assert total.kl_per_dimension() == pytest.approx(kl.mean(axis=0).tolist(), rel=1e-5)


def test_a_unit_is_active_by_its_kl_or_by_its_variance():
    # Unit 0 by both, unit 1 by variance alone, unit 2 by neither.
    mean = jnp.asarray([[1.0, 0.3, 0.0], [-1.0, -0.3, 0.0]])
    kl = jnp.asarray([[0.5, 0.05, 0.0], [0.5, 0.04, 0.01]])
    latent = streaming_metrics.Latent.from_batch(kl=kl, mean=mean, mask=jnp.ones(2, bool))
    values = jax.device_get(latent).compute()
    assert values["active_units_num_active_units"] == 1
    assert values["active_units_pct_active_units"] == pytest.approx(100 / 3)
    assert values["active_units_num_by_variance"] == 2
    assert values["active_units_total_units"] == 3
    assert values["active_units_max_variance"] == pytest.approx(2.0)


def test_padding_alone_changes_no_moment():
    part = streaming_metrics.Latent.from_batch(
        kl=jnp.ones((2, 1)), mean=jnp.asarray([[1.0], [3.0]]), mask=jnp.ones(2, bool)
    )
    nothing = streaming_metrics.Latent.from_batch(
        kl=jnp.ones((2, 1)), mean=jnp.full((2, 1), 9.0), mask=jnp.zeros(2, bool)
    )
    for total in (
        part.merge(nothing),
        nothing.merge(part),
        streaming_metrics.Latent.empty(1).merge(part),
    ):
        assert jax.device_get(total).compute() == jax.device_get(part).compute()


def test_nothing_is_the_neutral_element():
    ones = jnp.ones((2, 1))
    mask = jnp.ones(2, bool)
    some = streaming_metrics.SplitMetrics(
        streaming_metrics.Losses.from_batch(
            loss=ones[:, 0], bce=ones[:, 0], kld=ones.sum(axis=1), mask=mask
        ),
        streaming_metrics.Reconstruction.from_batch(predicted=ones > 0, x=ones > 0, mask=mask),
        streaming_metrics.Latent.from_batch(kl=ones, mean=ones, mask=mask),
    )
    nothing = streaming_metrics.SplitMetrics.empty(1)
    for total in (some.merge(nothing), nothing.merge(some)):
        jax.tree.map(np.testing.assert_array_equal, total, some)
    for leaf in jax.tree.leaves(nothing.merge(nothing)):
        np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


def test_a_single_row_has_no_variance():
    latent = streaming_metrics.Latent.from_batch(
        kl=jnp.ones((1, 2)), mean=jnp.asarray([[3.0, 4.0]]), mask=jnp.ones(1, bool)
    )
    assert jax.device_get(latent).compute()["active_units_max_variance"] == 0.0
