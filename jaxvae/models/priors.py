"""Prior distributions p(z).

A prior is a module of flat arrays that says by itself what others need to know of it: its log
density, its draws, the moments of each dimension, and the names and shapes of its arrays. N(0, I)
has no arrays and is None in a model.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models.choices import PRIORS, import_choice
from jaxvae.models.distributions import full_precision_product, mixture_log_prob, normal_log_prob

_MOMENT_DRAWS = 4096

Encode = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""The encoder: multi-hot rows `[K, V]` to means and log-variances `[K, L]`."""


class Prior(nnx.Module):
    """Base class of priors. A subclass defines `__init__`, `log_prob` and `draw`.

    It is made with these keyword arguments; those that it does not need are its `**unused`. Its
    parameters are `nnx.Param` arrays of its own, not of modules inside.

    Args:
      latent_dim: L.
      num_components: K, of `model.prior_components`.
      pseudo_inputs: `[K, V]`, training rows if `from_rows`.
      rngs: random stream of the initialisation.

    Attributes:
      arrays: the arrays by name, with a letter for the size of each axis: K, L, V or another.
      title: a few words for the model card.
      from_rows: whether it starts from training rows.
      factorized: whether it is a Gaussian with independent dimensions, so that the KL has a closed
        form for each of them.
    """

    arrays: ClassVar[Mapping[str, str]] = {}
    title: ClassVar[str] = "a learned prior"
    from_rows: ClassVar[bool] = False
    factorized: ClassVar[bool] = False

    def __init__(
        self,
        *,
        latent_dim: int,
        num_components: int,
        pseudo_inputs: jax.typing.ArrayLike,
        rngs: nnx.Rngs,
    ):
        raise NotImplementedError

    def log_prob(self, z: jax.Array, encode: Encode) -> jax.Array:
        """Log density `[...]` at `[..., L]`, nats."""
        raise NotImplementedError

    def draw(self, key: jax.Array, num: int, encode: Encode) -> jax.Array:
        """Draws `[num, L]`."""
        raise NotImplementedError

    def moments(self, encode: Encode) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension, `[L]`, estimated by 4,096 draws with a fixed key."""
        z = self.draw(jax.random.key(0), _MOMENT_DRAWS, encode)
        return jnp.mean(z, axis=0), jnp.var(z, axis=0)


class Normal(Prior):
    """The standard normal N(0, I), which has no parameters.

    Args:
      latent_dim: L.
    """

    title = "a standard normal prior"
    factorized = True

    def __init__(self, *, latent_dim: int, **unused: Any):
        self.latent_dim = latent_dim

    def log_prob(self, z: jax.Array, encode: Encode) -> jax.Array:
        """Log density `[...]` at `[..., L]`, nats."""
        del encode
        return normal_log_prob(z)

    def draw(self, key: jax.Array, num: int, encode: Encode) -> jax.Array:
        """Draws `[num, L]`."""
        del encode
        return jax.random.normal(key, (num, self.latent_dim))

    def moments(self, encode: Encode) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension, `[L]`."""
        del encode
        width = self.latent_dim
        return jnp.zeros((width,), jnp.float32), jnp.ones((width,), jnp.float32)


class MixturePrior(Prior):
    """Base class of mixtures of diagonal Gaussians. A subclass defines `components` alone."""

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
        # Inverts the distribution function: a categorical draw would be one number a component.
        row = jax.random.choice(which, len(log_weight), (num,), p=jnp.exp(log_weight))
        return mean[row] + jnp.exp(0.5 * logvar[row]) * jax.random.normal(noise, mean[row].shape)

    def moments(self, encode: Encode) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension, `[L]`."""
        mean, logvar, log_weight = self.components(encode)
        weight = jnp.exp(log_weight)[:, None]
        centre = jnp.sum(weight * mean, axis=0)
        spread = jnp.exp(logvar) + jnp.square(mean - centre[None, :])
        return centre, jnp.sum(weight * spread, axis=0)


class Mixture(MixturePrior):
    """A learned mixture of diagonal Gaussians.

    Args:
      latent_dim: L.
      num_components: K.
      rngs: random stream of the initial means.
    """

    arrays: ClassVar = {"means": "KL", "logvars": "KL", "logits": "K"}
    title = "a learned mixture of Gaussians as prior"

    def __init__(self, *, latent_dim: int, num_components: int, rngs: nnx.Rngs, **unused: Any):
        shape = (num_components, latent_dim)
        self.means = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.logvars = nnx.Param(jnp.full(shape, -0.5, jnp.float32))
        self.logits = nnx.Param(jnp.zeros((num_components,), jnp.float32))

    def components(self, encode: Encode) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]`."""
        return self.means[...], self.logvars[...], jax.nn.log_softmax(self.logits[...])


class Vamp(MixturePrior):
    """The VampPrior (Tomczak & Welling 2018): the weighted posteriors of learned pseudo-inputs.

    Args:
      pseudo_inputs: `[K, V]` initial values, such as training rows; they are clipped to [0, 1].
    """

    arrays: ClassVar = {"pseudo_inputs": "KV", "logits": "K"}
    title = "a VampPrior"
    from_rows = True

    def __init__(self, *, pseudo_inputs: jax.typing.ArrayLike, **unused: Any):
        start = jnp.asarray(pseudo_inputs, jnp.float32)
        self.pseudo_inputs = nnx.Param(start)
        self.logits = nnx.Param(jnp.zeros((len(start),), jnp.float32))

    def components(self, encode: Encode) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]`."""
        mean, logvar = encode(jnp.clip(self.pseudo_inputs[...], 0.0, 1.0))
        return mean, logvar, jax.nn.log_softmax(self.logits[...])


class Flow(Prior):
    """Affine coupling layers on N(0, I) (RealNVP, Dinh et al. 2017).

    Each layer rescales and shifts every other dimension by a small network of the remaining ones.
    Layers alternate between the two halves, and are initialised as the identity.

    Args:
      latent_dim: L, at least 2.
      num_layers: number of coupling layers.
      hidden_dim: width of the networks inside.
      rngs: random stream of their initialisation.
    """

    # S layers, W hidden units, D = 2 L outputs.
    arrays: ClassVar = {
        "hidden": "SLW",
        "hidden_bias": "SW",
        "shift_and_scale": "SWD",
        "shift_and_scale_bias": "SD",
    }
    title = "a learned flow as prior"

    def __init__(
        self,
        *,
        latent_dim: int,
        num_layers: int = 4,
        hidden_dim: int = 64,
        rngs: nnx.Rngs,
        **unused: Any,
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


def prior_class(name: str) -> type[Prior]:
    """Returns the class of a name in `choices.PRIORS`."""
    return import_choice(PRIORS[name])


def most_alike(arrays: Iterable[str]) -> str:
    """Returns the name of the package's prior that has most of these arrays."""
    names = set(arrays)
    return max(PRIORS, key=lambda prior: len(names & prior_class(prior).arrays.keys()))


def axis_sizes(prior: type[Prior], arrays: Mapping[str, Any]) -> dict[str, int]:
    """Returns the size of each axis of a prior's arrays, by its letter in `Prior.arrays`."""
    return {
        letter: size
        for name, letters in prior.arrays.items()
        for letter, size in zip(letters, arrays[name].shape, strict=True)
    }
