"""Layers with torch's defaults where results depend on them, and the inputs of the first one."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models.layer_names import NORM_EPSILON

FULL_PRECISION = jax.lax.Precision.HIGHEST
"""Full float32 precision of matrix products. By default GPUs use TF32 (three digits) and TPUs
bfloat16 (two), so that likelihoods and exported files would depend on the device."""


def make_linear_layers(sizes: list[tuple[int, int]], dtype, rngs: nnx.Rngs) -> list[nnx.Linear]:
    """Makes linear layers of sizes `(fan_in, features)` with torch's default initialisation.

    Weights and biases are U(-1/sqrt(fan_in), 1/sqrt(fan_in)). All come from one draw: with a
    generator per array, XLA's compilation takes longer than a whole training epoch.
    """
    counts = [(fan_in + 1) * features for fan_in, features in sizes]
    uniform = jax.random.uniform(rngs.params(), (sum(counts),), minval=-1.0, maxval=1.0)
    layers, start = [], 0
    for (fan_in, features), count in zip(sizes, counts, strict=True):
        values = uniform[start : start + count] * fan_in**-0.5
        layers.append(
            nnx.Linear(
                fan_in,
                features,
                kernel_init=_constant_initializer(values[features:].reshape(fan_in, features)),
                bias_init=_constant_initializer(values[:features]),
                dtype=dtype,
                precision=FULL_PRECISION if dtype == jnp.float32 else None,
                rngs=rngs,
            )
        )
        start += count
    return layers


def _constant_initializer(values: jax.Array):
    """Returns an initialiser that yields these values."""

    def init(key, shape, dtype=jnp.float32, **_):
        del key, shape
        return values.astype(dtype)

    return init


class TiedLinear(nnx.Module):
    """A linear layer that shares the transposed kernel of another layer (tied weights).

    The kernel stays the other layer's parameter, so gradients of both uses are summed into it.

    Args:
      other: the layer with the kernel `[features, fan_in]`.
      bias: `[features]`, this layer's own bias.
    """

    def __init__(self, other: nnx.Linear, bias: nnx.Param):
        self.other = other
        self.bias = bias

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, fan_in]` to `[B, features]`, in the other layer's dtype."""
        dtype = self.other.dtype
        kernel, bias = self.other.kernel[...].astype(dtype), self.bias[...].astype(dtype)
        product = jnp.einsum("bh,vh->bv", x.astype(dtype), kernel, precision=self.other.precision)
        return product + bias[None, :]


class BatchNorm(nnx.Module):
    """Batch normalisation as in torch, over the unmasked rows of the batch.

    It normalises with the biased two-pass variance of the batch and updates running averages with
    momentum 0.1 in torch's sense, the variance unbiased (Ioffe & Szegedy 2015). A batch of one row
    has no unbiased variance and does not update the running variance; an empty batch updates
    nothing.
    """

    momentum = 0.1
    epsilon = NORM_EPSILON

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array, *, mask: jax.Array | None, train: bool) -> jax.Array:
        """Normalises `[B, features]`; with `train` by the batch, updating running statistics."""
        dtype = x.dtype
        x = x.astype(jnp.float32)
        if train:
            centred, var = self._observe(x, mask)
        else:
            centred, var = x - self.mean[...][None, :], self.var[...]
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return (centred * factor[None, :] + self.bias[...][None, :]).astype(dtype)

    def _observe(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Updates the running statistics; returns the centred rows and their variance.

        Padding rows are set to the batch mean; otherwise a constant unit (variance 0) would amplify
        them by 1/sqrt(epsilon) in every layer, until their gradients are NaN.
        """
        weight = jnp.ones(x.shape[:1], jnp.float32) if mask is None else mask.astype(jnp.float32)
        rows = jnp.sum(weight)
        divisor = jnp.maximum(rows, 1.0)
        mean = jnp.sum(x * weight[:, None], axis=0) / divisor
        centred = (x - mean[None, :]) * weight[:, None]
        var = jnp.sum(jnp.square(centred), axis=0) / divisor

        unbiased = var * rows / jnp.maximum(rows - 1.0, 1.0)
        mean_step = jnp.where(rows >= 1.0, self.momentum, 0.0)
        var_step = jnp.where(rows >= 2.0, self.momentum, 0.0)
        self.mean[...] = self.mean[...] + mean_step * (mean - self.mean[...])
        self.var[...] = self.var[...] + var_step * (unbiased - self.var[...])
        self.count[...] = self.count[...] + (rows >= 1.0).astype(jnp.int32)
        return centred, var


def multi_hot(columns: jax.Array, values: jax.Array, num_tags: int) -> jax.Array:
    """Converts sparse rows to multi-hot vectors.

    Args:
      columns: `[B, K]` column numbers of the active tags, padded with `num_tags`.
      values: `[B, K]` value of each entry: 1, or its dropout mask.
      num_tags: V, the vocabulary's size.

    Returns:
      `[B, V]` in the dtype of `values`; padding entries are dropped.
    """
    # Comparisons, one column of the rows after the other: XLA fuses them into one loop, while a
    # scatter runs element by element, and a sum over [B, K, V] materialises that array first.
    tags = jnp.arange(num_tags, dtype=jnp.int32)

    def add(hot: jax.Array, entry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        column, value = entry
        hit = column.astype(jnp.int32)[:, None] == tags[None, :]
        return hot + jnp.where(hit, value[:, None], jnp.zeros((), values.dtype)), None

    start = jnp.zeros((columns.shape[0], num_tags), values.dtype)
    return jax.lax.scan(add, start, (columns.T, values.T), unroll=min(columns.shape[1], 16))[0]


def dropout_mask(uniform: jax.Array, rate: jax.Array) -> jax.Array:
    """Makes the input dropout mask of the active entries; kept ones are scaled by 1/(1 - rate).

    Zeros stay zero under dropout, so only the K active entries of a row need a random number.

    Args:
      uniform: `[..., B, K]`, uniform on [0, 1).
      rate: in [0, 1), a scalar or `[..., B, 1]`; may be traced.

    Returns:
      `[..., B, K]` float32.
    """
    return (uniform >= rate).astype(jnp.float32) / (1.0 - rate)
