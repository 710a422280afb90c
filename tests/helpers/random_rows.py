"""Small models and random rows."""

import jax.numpy as jnp
import numpy as np

from jaxvae.models.vae import VAE
from jaxvae.train.train_state import create_train_state

TAGS, LATENT, HIDDEN, ROWS, LONGEST = 30, 4, 16, 40, 6


def random_rows(count=ROWS, seed=0):
    """`[N, K]` padded rows and their multi-hot twins `[N, V]`."""
    rng = np.random.default_rng(seed)
    rows = np.full((count, LONGEST), TAGS, np.uint8)
    hot = np.zeros((count, TAGS), np.float32)
    for number in range(count):
        tags = np.sort(rng.choice(TAGS, rng.integers(1, LONGEST + 1), replace=False))
        rows[number, : len(tags)] = tags
        hot[number, tags] = 1.0
    return rows, hot


def with_empty_row(rows):
    return np.concatenate([rows, np.full((1, LONGEST), TAGS, rows.dtype)])


def build(use_batch_norm, seed=0):
    graphdef, state = create_train_state(
        lambda rngs: VAE(
            num_tags=TAGS,
            latent_dim=LATENT,
            hidden_dim=HIDDEN,
            use_batch_norm=use_batch_norm,
            rngs=rngs,
        ),
        seed=seed,
    )
    # Fresh batch norm is all but the identity: statistics and scales of a trained one say more.
    rng = np.random.default_rng(seed)
    for layer, stats in state.batch_stats.items():
        for arrays, name in (
            (stats, "mean"),
            (stats, "var"),
            (state.params[layer], "scale"),
            (state.params[layer], "bias"),
        ):
            low = -0.5 if name in ("mean", "bias") else 0.5
            arrays[name] = jnp.asarray(rng.uniform(low, low + 1.0, HIDDEN), jnp.float32)
    return graphdef, state
