"""The variational autoencoder: encoder, decoder and their building blocks.

Layers have the names of the PyTorch module whose `.pth` files are read and written (`fc1`, `bn1`,
`fc2_mu`, `fc2_logvar`, `fc3`, `bn2`, `fc4`; further hidden layers: see `layer_names`). The module
returns logits, never probabilities.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models import layers
from jaxvae.models.architecture import Architecture
from jaxvae.models.layer_names import (
    NORM_EPSILON,
    HiddenLayer,
    decoder_layers,
    encoder_layers,
    resolve_hidden_dims,
)
from jaxvae.models.priors import Prior

SPARSE_LOOKUP_MIN_TAGS = 1024
"""Vocabulary size from which rows are looked up in tables instead of multiplied as multi-hots."""


def reparameterize(mean: jax.Array, logvar: jax.Array, noise: jax.Array) -> jax.Array:
    """Draws from N(mean, exp(logvar)) with standard normal `noise`, all `[..., L]`."""
    return mean + jnp.exp(0.5 * logvar) * noise


class VAE(Architecture):
    """A VAE over multi-hot tag rows with hidden layers each way (Kingma & Welling 2014).

    Encoder: `relu(fc1)`, optional batch norm, then the heads `fc2_mu` and `fc2_logvar`. Decoder:
    `relu(fc3)`, batch norm, `fc4` to one logit per tag. Layer norm comes before the ReLUs. Several
    hidden layers repeat this; the decoder's widths are the encoder's in reverse.

    Args:
      num_tags: V, width of the input and of the logits.
      latent_dim: L, width of z.
      hidden_dim: H, width of the hidden layer each way.
      hidden_dims: widths of several, from the input inwards; replaces `hidden_dim` if not empty.
      use_batch_norm: adds `bn1` and `bn2` after the ReLUs.
      use_layer_norm: adds `ln1` and `ln2` before them (Ba et al. 2016).
      tied_weights: makes `fc4` share the transposed kernel of `fc1`; its bias is its own.
      prior: a name in `choices.PRIORS`, or a class.
      num_components: K, components of the mixture, or of the VampPrior without `pseudo_inputs`.
      pseudo_inputs: `[K, V]` initial pseudo-inputs of the VampPrior.
      decoder_bias: `[V]`, initial value of `fc4.bias`, such as the tags' log-odds.
      compute_dtype: dtype of the matrix products; parameters and results are float32.
      rngs: random stream of the initialisation.
    """

    fc1: nnx.Linear
    fc2_mu: nnx.Linear
    fc2_logvar: nnx.Linear
    fc3: nnx.Linear
    fc4: nnx.Linear | layers.TiedLinear

    def __init__(
        self,
        *,
        num_tags: int,
        latent_dim: int,
        hidden_dim: int,
        hidden_dims: Sequence[int] = (),
        use_batch_norm: bool = False,
        use_layer_norm: bool = False,
        tied_weights: bool = False,
        prior: str | type[Prior] = "normal",
        num_components: int = 1,
        pseudo_inputs: jax.typing.ArrayLike | None = None,
        decoder_bias: jax.typing.ArrayLike | None = None,
        compute_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        widths = resolve_hidden_dims(hidden_dim, hidden_dims)
        self.depth = len(widths)
        encoder, decoder = encoder_layers(self.depth), decoder_layers(self.depth)
        inwards = itertools.pairwise((num_tags, *widths))
        outwards = itertools.pairwise((latent_dim, *reversed(widths)))
        sizes = {
            **{hidden.linear: size for hidden, size in zip(encoder, inwards, strict=True)},
            "fc2_mu": (widths[-1], latent_dim),
            "fc2_logvar": (widths[-1], latent_dim),
            **{hidden.linear: size for hidden, size in zip(decoder, outwards, strict=True)},
            "fc4": (widths[0], num_tags),
        }
        linears = layers.make_linear_layers(list(sizes.values()), compute_dtype, rngs)
        for name, linear in zip(sizes, linears, strict=True):
            setattr(self, name, linear)
        if decoder_bias is not None:
            self.fc4.bias = nnx.Param(jnp.asarray(decoder_bias, jnp.float32))
        if tied_weights:
            assert self.fc4.bias is not None
            self.fc4 = layers.TiedLinear(self.fc1, self.fc4.bias)

        for hidden in (*encoder, *decoder):
            width = sizes[hidden.linear][1]
            layer_norm = (
                nnx.LayerNorm(width, epsilon=NORM_EPSILON, rngs=rngs) if use_layer_norm else None
            )
            setattr(self, hidden.layer_norm, layer_norm)
            batch_norm = layers.BatchNorm(width) if use_batch_norm else None
            setattr(self, hidden.batch_norm, batch_norm)

        super().__init__(
            num_tags=num_tags,
            latent_dim=latent_dim,
            prior=prior,
            num_components=num_components,
            pseudo_inputs=pseudo_inputs,
            rngs=rngs,
        )

    def encode(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keep: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the mean and log-variance of q(z|x), each `[B, L]`, of multi-hot rows."""
        return self._heads(self.fc1(x), mask, train, keep)

    def encode_rows(
        self,
        columns: jax.Array,
        values: jax.Array | None = None,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keep: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the approximate posterior of sparse rows, like `encode` of their multi-hots.

        For a wide vocabulary, the cost of the first layer depends on the tags in a row, not on V.
        """
        kernel, bias = self.fc1.kernel[...], self.fc1.bias
        assert bias is not None
        if len(kernel) < SPARSE_LOOKUP_MIN_TAGS:
            return super().encode_rows(columns, values, mask=mask, train=train, keep=keep)
        if values is None:
            values = jnp.ones(columns.shape, jnp.float32)
        dtype = self.fc1.dtype
        # A padding entry is out of range: it reads zeros, and its gradient is dropped.
        embeddings = (
            kernel.at[columns.astype(jnp.int32)].get(mode="fill", fill_value=0.0).astype(dtype)
        )
        precision = self.fc1.precision
        summed = jnp.einsum("bkh,bk->bh", embeddings, values.astype(dtype), precision=precision)
        return self._heads(summed + bias[...].astype(dtype)[None, :], mask, train, keep)

    def _heads(self, h: jax.Array, mask, train: bool, keep) -> tuple[jax.Array, jax.Array]:
        h = self._through(encoder_layers(self.depth), h, mask, train, keep)
        return self.fc2_mu(h).astype(jnp.float32), self.fc2_logvar(h).astype(jnp.float32)

    def decode(
        self,
        z: jax.Array,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the logits of p(x|z), `[B, V]` float32, for latent vectors `[B, L]`."""
        h = self._through(decoder_layers(self.depth), self.fc3(z), mask, train, keep)
        return self.fc4(h).astype(jnp.float32)

    def _through(
        self, hidden: list[HiddenLayer], h: jax.Array, mask, train: bool, keep
    ) -> jax.Array:
        """Applies the hidden layers to the output of the first one's linear map."""
        for number, (linear, layer_norm, batch_norm) in enumerate(hidden):
            if number:
                h = getattr(self, linear)(h)
            width = h.shape[-1]
            layer_mask, keep = (None, None) if keep is None else (keep[:, :width], keep[:, width:])
            h = _hidden_block(
                h, getattr(self, layer_norm), getattr(self, batch_norm), mask, train, layer_mask
            )
        return h


def _hidden_block(h: jax.Array, layer_norm, batch_norm, mask, train: bool, keep) -> jax.Array:
    dtype = h.dtype
    if layer_norm is not None:
        h = layer_norm(h.astype(jnp.float32)).astype(dtype)
    h = jax.nn.relu(h)
    if batch_norm is not None:
        h = batch_norm(h, mask=mask, train=train)
    return h if keep is None else h * keep.astype(dtype)
