"""The variational autoencoder: encoder, decoder and the pieces they are made of.

Layers carry the names of the PyTorch module whose `.pth` files are read and written (`fc1`, `bn1`,
`fc2_mu`, `fc2_logvar`, `fc3`, `bn2`, `fc4`). Logits, never probabilities, leave this room.
"""

import jax
import jax.numpy as jnp
from flax import nnx

WIDE = 1024
"""Vocabulary from which rows are looked up in tables instead of multiplied as multi-hot vectors."""


def multi_hot(columns: jax.Array, values: jax.Array, num_tags: int) -> jax.Array:
    """Spreads sparse rows over the vocabulary.

    Args:
      columns: `[B, K]` column numbers of the active tags, padded with `num_tags`.
      values: `[B, K]` value of each entry (1, or what dropout made of it).
      num_tags: V, the vocabulary's size.

    Returns:
      `[B, V]` in the dtype of `values`; entries that hold the padding number vanish.
    """
    # Comparisons, one column of the rows after the other: XLA makes one loop of them, where a
    # scatter runs element after element, and a sum over [B, K, V] is written out before it is made.
    tags = jnp.arange(num_tags, dtype=jnp.int32)

    def add(hot: jax.Array, entry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        column, value = entry
        hit = column.astype(jnp.int32)[:, None] == tags[None, :]
        return hot + jnp.where(hit, value[:, None], jnp.zeros((), values.dtype)), None

    start = jnp.zeros((columns.shape[0], num_tags), values.dtype)
    return jax.lax.scan(add, start, (columns.T, values.T), unroll=min(columns.shape[1], 16))[0]


def dropout_values(uniform: jax.Array, rate: jax.Array) -> jax.Array:
    """Input dropout on the active entries alone; survivors are rescaled by 1/(1 - rate).

    Zeros stay zero under dropout, so only the K active entries of a row need a random number.

    Args:
      uniform: `[..., B, K]`, uniform on [0, 1).
      rate: scalar in [0, 1); may be traced.

    Returns:
      `[..., B, K]` float32.
    """
    return (uniform >= rate).astype(jnp.float32) / (1.0 - rate)


def reparameterize(mean: jax.Array, logvar: jax.Array, noise: jax.Array) -> jax.Array:
    """A draw from N(mean, exp(logvar)) made of standard normal `noise`, all `[..., L]`."""
    return mean + jnp.exp(0.5 * logvar) * noise


def _linears(sizes: list[tuple[int, int]], dtype, rngs: nnx.Rngs) -> list[nnx.Linear]:
    """Linear layers of `(fan_in, features)` with torch's default initialisation.

    Weights and biases alike are U(-1/sqrt(fan_in), 1/sqrt(fan_in)). All come from one draw: a
    generator per array takes XLA longer to compile than a whole training epoch.
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
                kernel_init=_given(values[features:].reshape(fan_in, features)),
                bias_init=_given(values[:features]),
                dtype=dtype,
                rngs=rngs,
            )
        )
        start += count
    return layers


def _given(values: jax.Array):
    """An initialiser that yields these values."""

    def init(key, shape, dtype=jnp.float32, **_):
        del key, shape
        return values.astype(dtype)

    return init


class BatchNorm(nnx.Module):
    """Batch normalisation as torch does it, over the rows that a mask lets through.

    Normalises with the biased two-pass variance of the batch and keeps running averages with
    momentum 0.1 in torch's sense, the variance unbiased (Ioffe & Szegedy 2015). A batch of one row
    has no unbiased variance and leaves the running one alone; an empty batch leaves all alone.
    """

    momentum = 0.1
    epsilon = 1e-5

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones((features,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((features,), jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))

    def __call__(self, x: jax.Array, *, mask: jax.Array | None, train: bool) -> jax.Array:
        """Normalises `[B, features]`; with `train`, by this batch, whose statistics are kept."""
        dtype = x.dtype
        x = x.astype(jnp.float32)
        if train:
            mean, var = self._observe(x, mask)
        else:
            mean, var = self.mean[...], self.var[...]
        factor = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return ((x - mean[None, :]) * factor[None, :] + self.bias[...][None, :]).astype(dtype)

    def _observe(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
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
        return mean, var


class VAE(nnx.Module):
    """A VAE over multi-hot tag rows with one hidden layer each way (Kingma & Welling 2014).

    Encoder: `relu(fc1)`, batch norm if asked for, then the heads `fc2_mu` and `fc2_logvar`.
    Decoder: `relu(fc3)`, batch norm, `fc4` to one logit per tag.

    Args:
      num_tags: V, width of the input and of the logits.
      latent_dim: L, width of z.
      hidden_dim: H, width of both hidden layers.
      use_batch_norm: adds `bn1` and `bn2` after the ReLUs.
      compute_dtype: dtype of the matrix products; parameters and results are float32.
      rngs: the initialisation's random stream.
    """

    def __init__(
        self,
        *,
        num_tags: int,
        latent_dim: int,
        hidden_dim: int,
        use_batch_norm: bool = False,
        compute_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        sizes = [
            (num_tags, hidden_dim),
            (hidden_dim, latent_dim),
            (hidden_dim, latent_dim),
            (latent_dim, hidden_dim),
            (hidden_dim, num_tags),
        ]
        fc1, fc2_mu, fc2_logvar, fc3, fc4 = _linears(sizes, compute_dtype, rngs)
        self.fc1 = fc1
        self.bn1 = BatchNorm(hidden_dim) if use_batch_norm else None
        self.fc2_mu = fc2_mu
        self.fc2_logvar = fc2_logvar
        self.fc3 = fc3
        self.bn2 = BatchNorm(hidden_dim) if use_batch_norm else None
        self.fc4 = fc4

    def encode(
        self, x: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """The approximate posterior q(z|x) of multi-hot rows.

        Args:
          x: `[B, V]` multi-hot rows (dropout, if any, already applied).
          mask: `[B]`, rows that batch statistics may see; None means all.
          train: whether batch norm uses, and updates by, this batch's statistics.

        Returns:
          (mean, logvar), each `[B, L]` float32.
        """
        return self._heads(self.fc1(x), mask, train)

    def encode_rows(
        self,
        columns: jax.Array,
        values: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """The approximate posterior of sparse rows, as `encode` of their multi-hot vectors.

        The cost of a wide vocabulary's first layer follows the tags in a row.

        Args:
          columns: `[B, K]` column numbers, padded with V.
          values: `[B, K]` float32 value of each entry; None means 1.
          mask: as for `encode`.
          train: as for `encode`.
        """
        if values is None:
            values = jnp.ones(columns.shape, jnp.float32)
        kernel, bias = self.fc1.kernel[...], self.fc1.bias
        assert bias is not None
        if len(kernel) < WIDE:
            return self.encode(multi_hot(columns, values, len(kernel)), mask=mask, train=train)
        dtype = self.fc1.dtype
        # A padding entry is out of range: it reads zeros, and its gradient goes nowhere.
        found = kernel.at[columns.astype(jnp.int32)].get(mode="fill", fill_value=0.0).astype(dtype)
        summed = jnp.einsum("bkh,bk->bh", found, values.astype(dtype))
        return self._heads(summed + bias[...].astype(dtype)[None, :], mask, train)

    def _heads(self, h: jax.Array, mask, train: bool) -> tuple[jax.Array, jax.Array]:
        h = jax.nn.relu(h)
        if self.bn1 is not None:
            h = self.bn1(h, mask=mask, train=train)
        return self.fc2_mu(h).astype(jnp.float32), self.fc2_logvar(h).astype(jnp.float32)

    def decode(
        self, z: jax.Array, *, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """The logits of p(x|z), `[B, V]` float32, for latent vectors `[B, L]`."""
        h = jax.nn.relu(self.fc3(z))
        if self.bn2 is not None:
            h = self.bn2(h, mask=mask, train=train)
        return self.fc4(h).astype(jnp.float32)
