"""Prior distributions p(z).

The standard normal has no parameters and is None in `VAE`. The others are modules of flat arrays
with three methods: the log density, draws, and the moments of each dimension.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models.distributions import full_precision_product, mixture_log_prob, normal_log_prob

PRIORS = ("normal", "mixture", "vamp", "flow")
_MOMENT_DRAWS = 4096

Encode = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""The encoder: multi-hot rows `[K, V]` to means and log-variances `[K, L]`."""


class _Components(nnx.Module):
    """Base class of priors that are mixtures of diagonal Gaussians."""

    def components(self, encode: Encode) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]`."""
        raise NotImplementedError

    def log_prob(self, z: jax.Array, encode: Encode) -> jax.Array:
        """Log density `[...]` at `[..., L]`, nats."""
        return mixture_log_prob(z, *self.components(encode))

    def draw(self, key: jax.Array, num: int, encode: Encode) -> jax.Array:
        """Draws `[num, L]`."""
        mean, logvar, log_weight = self.components(encode)
        which, noise = jax.random.split(key)
        row = jax.random.categorical(which, log_weight, shape=(num,))
        return mean[row] + jnp.exp(0.5 * logvar[row]) * jax.random.normal(noise, mean[row].shape)

    def moments(self, encode: Encode) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension, `[L]`."""
        mean, logvar, log_weight = self.components(encode)
        weight = jnp.exp(log_weight)[:, None]
        centre = jnp.sum(weight * mean, axis=0)
        spread = jnp.exp(logvar) + jnp.square(mean - centre[None, :])
        return centre, jnp.sum(weight * spread, axis=0)


class Mixture(_Components):
    """A learned mixture of diagonal Gaussians.

    Args:
      latent_dim: L.
      num_components: K.
      rngs: random stream of the initial means.
    """

    def __init__(self, *, latent_dim: int, num_components: int, rngs: nnx.Rngs):
        shape = (num_components, latent_dim)
        self.means = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.logvars = nnx.Param(jnp.full(shape, -0.5, jnp.float32))
        self.logits = nnx.Param(jnp.zeros((num_components,), jnp.float32))

    def components(self, encode: Encode) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]`."""
        return self.means[...], self.logvars[...], jax.nn.log_softmax(self.logits[...])


class Vamp(_Components):
    """The VampPrior (Tomczak & Welling 2018): the weighted posteriors of learned pseudo-inputs.

    Args:
      pseudo_inputs: `[K, V]` initial values, such as training rows; they are clipped to [0, 1].
    """

    def __init__(self, *, pseudo_inputs: jax.typing.ArrayLike):
        start = jnp.asarray(pseudo_inputs, jnp.float32)
        self.pseudo_inputs = nnx.Param(start)
        self.logits = nnx.Param(jnp.zeros((len(start),), jnp.float32))

    def components(self, encode: Encode) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]`."""
        mean, logvar = encode(jnp.clip(self.pseudo_inputs[...], 0.0, 1.0))
        return mean, logvar, jax.nn.log_softmax(self.logits[...])


class Flow(nnx.Module):
    """Affine coupling layers on N(0, I) (RealNVP, Dinh et al. 2017).

    Each layer rescales and shifts every other dimension by a small network of the remaining ones.
    Layers alternate between the two halves, and are initialised as the identity.

    Args:
      latent_dim: L, at least 2.
      num_layers: number of coupling layers.
      hidden_dim: width of the networks inside.
      rngs: random stream of their initialisation.
    """

    def __init__(
        self, *, latent_dim: int, num_layers: int = 4, hidden_dim: int = 64, rngs: nnx.Rngs
    ):
        first = jax.random.uniform(
            rngs.params(), (num_layers, latent_dim, hidden_dim), minval=-1.0, maxval=1.0
        )
        self.hidden = nnx.Param(first * latent_dim**-0.5)
        self.hidden_bias = nnx.Param(jnp.zeros((num_layers, hidden_dim), jnp.float32))
        self.shift_and_scale = nnx.Param(
            jnp.zeros((num_layers, hidden_dim, 2 * latent_dim), jnp.float32)
        )
        self.shift_and_scale_bias = nnx.Param(jnp.zeros((num_layers, 2 * latent_dim), jnp.float32))

    def _coupling(self, layer: int, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shift and log scale `[N, L]` of a layer, zero for dimensions that it does not change."""
        moved = (jnp.arange(z.shape[-1]) % 2 == layer % 2)[None, :]
        h = full_precision_product(jnp.where(moved, 0.0, z), self.hidden[...][layer])
        h = jax.nn.relu(h + self.hidden_bias[...][layer][None, :])
        outputs = full_precision_product(h, self.shift_and_scale[...][layer])
        outputs = outputs + self.shift_and_scale_bias[...][layer][None, :]
        shift, scale = jnp.split(outputs, 2, axis=-1)
        # The log scale is bounded, so that no optimizer step can make the density overflow.
        return jnp.where(moved, shift, 0.0), jnp.where(moved, 2.0 * jnp.tanh(0.5 * scale), 0.0)

    def log_prob(self, z: jax.Array, encode: Encode) -> jax.Array:
        """Log density `[...]` at `[..., L]`, nats, by the change of variables."""
        del encode
        u = z.reshape(-1, z.shape[-1])
        log_det = jnp.zeros((len(u),), jnp.float32)
        for layer in reversed(range(len(self.hidden[...]))):
            shift, log_scale = self._coupling(layer, u)
            u = (u - shift) * jnp.exp(-log_scale)
            log_det = log_det - jnp.sum(log_scale, axis=-1)
        return (normal_log_prob(u) + log_det).reshape(z.shape[:-1])

    def draw(self, key: jax.Array, num: int, encode: Encode) -> jax.Array:
        """Draws `[num, L]`."""
        del encode
        return self.transform(jax.random.normal(key, (num, self.hidden.shape[1])))

    def transform(self, noise: jax.Array) -> jax.Array:
        """Transforms standard normal noise `[N, L]` into draws from the prior."""
        z = noise
        for layer in range(len(self.hidden[...])):
            shift, log_scale = self._coupling(layer, z)
            z = z * jnp.exp(log_scale) + shift
        return z

    def moments(self, encode: Encode) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension, `[L]`, estimated by 4,096 draws with a fixed key."""
        z = self.draw(jax.random.key(0), _MOMENT_DRAWS, encode)
        return jnp.mean(z, axis=0), jnp.var(z, axis=0)


def make_prior(
    name: str,
    *,
    latent_dim: int,
    num_components: int,
    pseudo_inputs: jax.typing.ArrayLike,
    rngs: nnx.Rngs,
) -> Mixture | Vamp | Flow | None:
    """Makes the prior of a name in `PRIORS`; None is the standard normal."""
    if name == "mixture":
        return Mixture(latent_dim=latent_dim, num_components=num_components, rngs=rngs)
    if name == "vamp":
        return Vamp(pseudo_inputs=pseudo_inputs)
    return Flow(latent_dim=latent_dim, rngs=rngs) if name == "flow" else None
