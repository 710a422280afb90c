"""The model's pieces: initialisation, sparse rows, dropout, batch norm, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, uniform

from jaxvae.models.layers import BatchNorm, dropout_mask, multi_hot
from jaxvae.models.vae import VAE, reparameterize


def build(**changes):
    sizes = {"num_tags": 40, "latent_dim": 6, "hidden_dim": 30, "rngs": nnx.Rngs(0), **changes}
    return VAE(**sizes)


def uniforms(shape):
    return jax.random.uniform(jax.random.key(0), shape)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [("fc1", 40), ("fc2_mu", 30), ("fc2_logvar", 30), ("fc3", 6), ("fc4", 30)],
)
def test_layers_start_uniform_within_one_over_root_fan_in(layer, fan_in):
    linear, bound = getattr(build(), layer), fan_in**-0.5
    for values in (linear.kernel[...], linear.bias[...]):
        assert np.abs(values).max() <= bound
    kernel = np.asarray(linear.kernel[...]).ravel()
    for values in (kernel, np.asarray(linear.bias[...])):
        fit = kstest(values, uniform(-bound, 2 * bound).cdf)
        assert fit.pvalue > 1e-3  # the draw is fixed by its seed


def test_layers_do_not_share_their_draws():
    model = build(hidden_dim=6, num_tags=6)
    kernels = [np.asarray(layer.kernel[...]) for layer in (model.fc1, model.fc3, model.fc4)]
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[2])


def test_another_seed_is_another_model():
    same, other = build(rngs=nnx.Rngs(0)), build(rngs=nnx.Rngs(1))
    assert np.array_equal(same.fc1.kernel[...], build().fc1.kernel[...])
    assert not np.array_equal(other.fc1.kernel[...], same.fc1.kernel[...])


def test_sparse_rows_become_multi_hot():
    columns = jnp.asarray([[0, 3, 5], [2, 5, 5], [5, 5, 5]], jnp.uint8)  # 5 is padding
    values = jnp.asarray([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    expected = [[1, 0, 0, 2, 0], [0, 0, 3, 0, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(multi_hot(columns, values, 5), expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(0, 29), max_size=6), min_size=4, max_size=4))
def test_any_rows_become_multi_hot(sets):
    columns, expected = np.full((4, 6), 30, np.uint8), np.zeros((4, 30), np.float32)
    for number, tags in enumerate(sets):
        columns[number, : len(tags)] = sorted(tags)
        expected[number, list(tags)] = 1.0
    np.testing.assert_array_equal(multi_hot(columns, jnp.ones((4, 6)), 30), expected)


@pytest.mark.parametrize("longest", [1, 15, 16, 17, 40])
def test_rows_of_any_length_become_multi_hot(longest):
    columns = np.tile(np.arange(longest, dtype=np.uint8), (2, 1))
    columns[1, longest // 2 :] = 50
    hot = np.asarray(multi_hot(jnp.asarray(columns), jnp.ones(columns.shape), 50))
    assert (hot == (np.arange(50) < [[longest], [longest // 2]])).all()


@pytest.mark.parametrize("use_batch_norm", [False, True])
def test_looking_rows_up_is_multiplying_their_multi_hot(monkeypatch, use_batch_norm):
    """Values and gradients, with padding, an empty row, and values that dropout has changed."""
    graphdef, *parts = nnx.split(build(use_batch_norm=use_batch_norm), nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, parts)
    columns = jnp.asarray([[0, 7, 39], [12, 40, 40], [40, 40, 40], [1, 2, 3]], jnp.uint8)
    values = jnp.asarray([[1.5, 0.0, 1.5], [1.5, 9.0, 9.0], [9.0] * 3, [1.5, 1.5, 0.0]])
    mask = jnp.asarray([True, True, True, False])

    def total(params):
        model = nnx.merge(graphdef, params, stats)
        mean, logvar = model.encode_rows(columns, values, mask=mask, train=True)
        return jnp.sum(jnp.sin(mean) * jnp.cos(logvar)), (mean, logvar)

    found = []
    for wide in (41, 40):
        monkeypatch.setattr("jaxvae.models.vae.SPARSE_LOOKUP_MIN_TAGS", wide)
        found.append(jax.value_and_grad(total, has_aux=True)(params))

    def close(a, b):
        # Of the largest: batch norm over three rows divides roundings, too, by a small deviation.
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-5 * np.abs(b).max())

    jax.tree.map(close, *found)


@pytest.mark.parametrize("wide", [41, 40])
@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp", "flow"])
def test_every_product_keeps_the_digits_of_float32(monkeypatch, prior, wide):
    """Values and gradients; what a device would make of products by itself does not matter."""
    monkeypatch.setattr("jaxvae.models.vae.SPARSE_LOOKUP_MIN_TAGS", wide)
    graphdef, params = nnx.split(build(prior=prior, num_components=3), nnx.Param)
    columns = jnp.asarray([[0, 7, 39], [12, 40, 40]], jnp.uint8)

    def loss(params):
        model = nnx.merge(graphdef, params)
        mean, _ = model.encode_rows(columns)
        return jnp.sum(model.decode(mean)) + jnp.sum(model.log_prior(mean))

    program = jax.jit(jax.grad(loss)).lower(params).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) >= 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_rows_without_values_are_ones():
    columns = jnp.asarray([[0, 7, 40]], jnp.uint8)
    hot = multi_hot(columns, jnp.ones((1, 3)), 40)
    for a, b in zip(build().encode_rows(columns), build().encode(hot), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_touches_active_tags_alone():
    columns = jnp.asarray(np.tile(np.array([[1, 4, 9, 9]], np.uint8), (2000, 1)))  # 9 is padding
    values = dropout_mask(uniforms(columns.shape), jnp.float32(0.3))
    x = np.asarray(multi_hot(columns, values, 9))
    assert not np.delete(x, [1, 4], axis=1).any()
    # Each active tag survives 70 % of 2,000 rows, each by itself: five standard errors.
    survived = x[:, [1, 4]] > 0.0
    assert survived.mean(axis=0) == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 2000))
    assert survived.all(axis=1).mean() == pytest.approx(0.49, abs=5 * np.sqrt(0.25 / 2000))


def test_the_widest_column_number_of_a_type_is_still_padding():
    columns = jnp.asarray([[254, 255]], jnp.uint8)
    hot = multi_hot(columns, jnp.ones((1, 2)), 255)
    assert hot.sum() == 1.0
    assert hot[0, 254] == 1.0


def test_dropout_rescales_its_survivors():
    columns = jnp.zeros((500, 40), jnp.uint8)
    values = dropout_mask(uniforms(columns.shape), jnp.float32(0.3))
    assert set(np.unique(values)) == {np.float32(0.0), np.float32(1.0) / np.float32(0.7)}
    # 20,000 draws: five standard errors of the mean.
    assert float(values.mean()) == pytest.approx(1.0, abs=5 * np.sqrt(0.3 / 0.7 / 20_000))


def test_no_dropout_is_the_identity():
    values = dropout_mask(uniforms((5, 7)), jnp.float32(0.0))
    np.testing.assert_array_equal(values, np.ones((5, 7)))


def test_reparameterization_by_hand():
    z = reparameterize(
        jnp.asarray([1.0]), jnp.asarray([np.log(4.0)], jnp.float32), jnp.asarray([3.0])
    )
    np.testing.assert_allclose(z, [7.0], rtol=1e-6)


@pytest.mark.parametrize("use_batch_norm", [False, True])
def test_shapes(use_batch_norm):
    model = build(use_batch_norm=use_batch_norm)
    mean, logvar = model.encode(jnp.zeros((3, 40)), train=True)
    assert mean.shape == logvar.shape == (3, 6)
    assert model.decode(mean, train=True).shape == (3, 40)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    norms = {"bn1", "bn2"} if use_batch_norm else set()
    assert set(params) == {"fc1", "fc2_mu", "fc2_logvar", "fc3", "fc4"} | norms


def test_bfloat16_computes_near_float32_and_answers_in_it():
    x = jnp.asarray(np.random.default_rng(0).random((8, 40)) < 0.1, jnp.float32)
    full, half = build(), build(compute_dtype=jnp.bfloat16)
    for a, b in zip(full.encode(x), half.encode(x), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.02)  # bfloat16 keeps 8 bits
        assert not np.array_equal(a, b)
    assert half.decode(full.encode(x)[0]).dtype == jnp.float32
    assert half.fc1.kernel[...].dtype == jnp.float32


def test_batch_norm_leaves_rows_that_pad_a_batch_at_its_mean():
    """A unit that is constant in the batch is divided by nearly nothing; what pads it is not."""
    norm = BatchNorm(2)
    x = jnp.asarray([[1.0, 2.0], [1.0, 4.0], [50.0, -50.0]])
    for mask, last in (([True, True, False], 0.0), ([False] * 3, 0.0), ([True] * 3, None)):
        mask = jnp.asarray(mask)

        def total(x, mask=mask):
            return jnp.sum(jnp.exp(100.0 * BatchNorm(2)(x, mask=mask, train=True)[2]))

        out = np.asarray(norm(x, mask=mask, train=True))
        if last is not None:
            assert (out[2] == last).all()
            assert (np.asarray(jax.grad(total)(x))[2] == 0.0).all()
        else:
            assert (np.abs(out[2]) > 1.0).all()


def test_one_row_leaves_the_running_variance_alone():
    norm = BatchNorm(2)
    norm(jnp.asarray([[4.0, 8.0]]), mask=None, train=True)
    np.testing.assert_array_equal(norm.var[...], [1.0, 1.0])
    np.testing.assert_allclose(norm.mean[...], [0.4, 0.8], rtol=1e-6)
    assert int(norm.count[...]) == 1


def test_no_row_leaves_everything_alone():
    norm = BatchNorm(2)
    norm(jnp.ones((3, 2)), mask=jnp.zeros(3, bool), train=True)
    np.testing.assert_array_equal(norm.mean[...], [0.0, 0.0])
    np.testing.assert_array_equal(norm.var[...], [1.0, 1.0])
    assert int(norm.count[...]) == 0


def test_an_empty_batch_has_finite_gradients():
    def total(x):
        return BatchNorm(2)(x, mask=jnp.zeros(3, bool), train=True).sum()

    assert np.isfinite(jax.grad(total)(jnp.ones((3, 2)))).all()


def test_evaluation_by_running_statistics_changes_none():
    norm = BatchNorm(1)
    norm.mean[...], norm.var[...] = jnp.asarray([3.0]), jnp.asarray([4.0])
    norm.scale[...], norm.bias[...] = jnp.asarray([5.0]), jnp.asarray([1.0])
    out = norm(jnp.asarray([[3.0], [5.0]]), mask=None, train=False)
    np.testing.assert_allclose(out, [[1.0], [1.0 + 5.0 * 2.0 / np.sqrt(4.00001)]], rtol=1e-6)
    np.testing.assert_array_equal(norm.mean[...], [3.0])
    np.testing.assert_array_equal(norm.var[...], [4.0])
    assert int(norm.count[...]) == 0
