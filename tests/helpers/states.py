"""Train states, and whether two are equal."""

import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.vae import VAE
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.train.plan.hyperparams import Hyperparams, Lengths, make_hyperparams
from jaxvae.train.train_state import create_train_state


@functools.cache
def make_state(*, hidden_dim=6, seed=0):
    def build(rngs):
        return VAE(
            num_tags=8,
            latent_dim=3,
            hidden_dim=hidden_dim,
            use_batch_norm=True,
            rngs=rngs,
        )

    return create_train_state(build, seed=seed)[1]


def hyperparams(lengths: Lengths | None = None, **numbers) -> Hyperparams:
    """Numbers by their fields' names alone, whatever their sections."""
    sections = {}
    for field, value in numbers.items():
        (section,) = (
            name
            for name, of_it in make_hyperparams()._asdict().items()
            if name != "lengths" and field in of_it._fields
        )
        sections.setdefault(section, {})[field] = value
    return make_hyperparams(lengths, **sections)


def raw(tree):
    """Leaves as arrays, typed keys as their data."""
    return [
        np.asarray(jax.random.key_data(leaf))
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else np.asarray(leaf)
        for leaf in jax.tree.leaves(tree)
    ]


def equal(a, b) -> bool:
    a, b = raw(a), raw(b)
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


def reopened(checkpoints, like, *, taxonomy_digest="tags"):
    try:
        with Checkpoints(checkpoints.folder, taxonomy_digest=taxonomy_digest) as fresh:
            return fresh.restore(like)
    finally:
        gc.collect()


def flip_a_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1
    path.write_bytes(bytes(data))
