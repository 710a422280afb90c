"""The model's pieces: initialisation, sparse rows, dropout, batch norm, precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxvae.model import VAE, BatchNorm, dropout_values, multi_hot, reparameterize


def build(**changes):
    sizes = {"num_tags": 40, "latent_dim": 6, "hidden_dim": 30, "rngs": nnx.Rngs(0), **changes}
    return VAE(**sizes)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [("fc1", 40), ("fc2_mu", 30), ("fc2_logvar", 30), ("fc3", 6), ("fc4", 30)],
)
def test_layers_start_uniform_within_one_over_root_fan_in(layer, fan_in):
    linear, bound = getattr(build(), layer), fan_in**-0.5
    for values in (linear.kernel[...], linear.bias[...]):
        assert np.abs(values).max() <= bound
    kernel = np.asarray(linear.kernel[...]).ravel()
    assert np.abs(kernel).max() > 0.9 * bound
    assert kernel.std() == pytest.approx(bound / np.sqrt(3.0), rel=0.15)
    assert abs(kernel.mean()) < 4 * bound / np.sqrt(3.0 * kernel.size)


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


def test_the_widest_column_number_of_a_type_is_still_padding():
    columns = jnp.asarray([[254, 255]], jnp.uint8)
    hot = multi_hot(columns, jnp.ones((1, 2)), 255)
    assert hot.sum() == 1.0
    assert hot[0, 254] == 1.0


def test_dropout_rescales_its_survivors():
    columns = jnp.zeros((500, 40), jnp.uint8)
    values = dropout_values(columns, jnp.float32(0.3), jax.random.key(0))
    assert set(np.unique(values)) == {np.float32(0.0), np.float32(1.0) / np.float32(0.7)}
    # 20,000 draws: five standard errors of the mean.
    assert float(values.mean()) == pytest.approx(1.0, abs=5 * np.sqrt(0.3 / 0.7 / 20_000))


def test_no_dropout_is_the_identity():
    values = dropout_values(jnp.zeros((5, 7), jnp.uint8), jnp.float32(0.0), jax.random.key(0))
    np.testing.assert_array_equal(values, np.ones((5, 7)))


def test_reparameterization_by_hand():
    z = reparameterize(
        jnp.asarray([1.0]), jnp.asarray([np.log(4.0)], jnp.float32), jnp.asarray([3.0])
    )
    np.testing.assert_allclose(z, [7.0], rtol=1e-6)


def test_bfloat16_computes_near_float32_and_answers_in_it():
    x = jnp.asarray(np.random.default_rng(0).random((8, 40)) < 0.1, jnp.float32)
    full, half = build(), build(compute_dtype=jnp.bfloat16)
    for a, b in zip(full.encode(x), half.encode(x), strict=True):
        assert b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.02)  # bfloat16 keeps 8 bits
        assert not np.array_equal(a, b)
    assert half.decode(full.encode(x)[0]).dtype == jnp.float32
    assert half.fc1.kernel[...].dtype == jnp.float32


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
