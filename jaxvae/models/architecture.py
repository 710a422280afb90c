"""The base of architectures: a prior, and the encoder and decoder that a subclass defines."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models.layers import multi_hot
from jaxvae.models.priors import Normal, Prior, prior_class


class Architecture(nnx.Module):
    """Base class of architectures. A subclass defines `__init__`, `encode` and `decode`.

    A subclass is made with the keyword arguments of `vae.VAE`. It makes its layers, then calls
    this `__init__` with those that it does not use itself. Its variables are `nnx.Param` and
    `nnx.BatchStat` alone, float32 (statistics may be whole numbers): random numbers come from
    outside, so that a resumed run has the same ones.

    Args:
      num_tags: V, width of the input and of the logits.
      latent_dim: L, width of z.
      prior: a name in `choices.PRIORS`, or a class.
      num_components: K, for a prior of so many components.
      pseudo_inputs: `[K, V]` rows that a prior starts from; None is zeros.
      rngs: random stream of the initialisation.
      **unused: arguments of other architectures.
    """

    def __init__(
        self,
        *,
        num_tags: int,
        latent_dim: int,
        prior: str | type[Prior] = "normal",
        num_components: int = 1,
        pseudo_inputs: jax.typing.ArrayLike | None = None,
        rngs: nnx.Rngs,
        **unused: Any,
    ):
        self.num_tags, self.latent_dim = num_tags, latent_dim
        if pseudo_inputs is None:
            pseudo_inputs = jnp.zeros((num_components, num_tags), jnp.float32)
        make_prior = prior_class(prior) if isinstance(prior, str) else prior
        self.prior: Prior | None = nnx.data(None)  # N(0, I) has no arrays
        if make_prior is not Normal:
            self.prior = make_prior(
                latent_dim=latent_dim,
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
        """Returns the approximate posterior q(z|x) of multi-hot rows.

        Args:
          x: `[B, V]` multi-hot rows (dropout, if any, already applied).
          mask: `[B]`, rows included in batch statistics; None means all.
          train: whether batch norm uses this batch's statistics and updates the running ones.
          keep: `[B, H]` dropout masks of all hidden layers, concatenated along the last axis; None
            disables dropout.

        Returns:
          (mean, logvar), each `[B, L]` float32.
        """
        raise NotImplementedError

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

        Args:
          columns: `[B, K]` column numbers, padded with V.
          values: `[B, K]` float32 value of each entry; None means 1.
          mask: as in `encode`.
          train: as in `encode`.
          keep: as in `encode`.
        """
        if values is None:
            values = jnp.ones(columns.shape, jnp.float32)
        x = multi_hot(columns, values, self.num_tags)
        return self.encode(x, mask=mask, train=train, keep=keep)

    def decode(
        self,
        z: jax.Array,
        *,
        mask: jax.Array | None = None,
        train: bool = False,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        """Returns the logits of p(x|z), `[B, V]` float32, for latent vectors `[B, L]`."""
        raise NotImplementedError

    @property
    def has_exact_rate(self) -> bool:
        """True if the KL to the prior has a closed form, the sum of the dimensions' KL."""
        return self._prior.factorized

    @property
    def prior_title(self) -> str:
        """The prior in a few words."""
        return self._prior.title

    @property
    def _prior(self) -> Prior:
        return self.prior or Normal(latent_dim=self.latent_dim)

    def log_prior(self, z: jax.Array) -> jax.Array:
        """Log p(z) `[...]` of latent vectors `[..., L]`, nats."""
        return self._prior.log_prob(z, self.encode)

    def draw_prior(self, key: jax.Array, num: int) -> jax.Array:
        """Draws `[num, L]` from p(z)."""
        return self._prior.draw(key, num, self.encode)

    def prior_moments(self) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of each dimension under p(z), `[L]`."""
        return self._prior.moments(self.encode)
