"""Models so small that their likelihood is a sum."""

import itertools

import numpy as np

from jaxvae.inference import queries
from jaxvae.models.trained import rebuild_model
from jaxvae.models.vae import VAE
from jaxvae.train.train_state import create_train_state

TAGS = 4


def network(latent_dim, *, num_tags=TAGS, scale=4.0, seed=3, use_batch_norm=False, **options):
    """A small model whose tags depend strongly on z."""
    _, state = create_train_state(
        lambda rngs: VAE(
            num_tags=num_tags,
            latent_dim=latent_dim,
            hidden_dim=16,
            use_batch_norm=use_batch_norm,
            **options,
            rngs=rngs,
        ),
        seed=seed,
    )
    params = {
        layer: {name: np.asarray(leaf) for name, leaf in leaves.items()}
        for layer, leaves in state.params.items()
    }
    params["fc4"] = {"kernel": params["fc4"]["kernel"] * scale, "bias": params["fc4"]["bias"] - 0.5}
    if "shift_and_scale" in params.get("prior", {}):  # as initialised a flow is the identity
        shape = params["prior"]["shift_and_scale"].shape
        moved = np.random.default_rng(0).normal(0.0, 0.05, shape).astype(np.float32)
        params["prior"]["shift_and_scale"] = moved
    return rebuild_model(params, state.batch_stats)


def grid(net, points):
    """Probability mass `[G]` of a fine grid over z, and p(tag | z) `[G, V]`."""
    axis = np.linspace(-7.0, 7.0, points)
    z = np.stack(np.meshgrid(*[axis] * net.latent_dim, indexing="ij"), -1)
    z = z.reshape(-1, net.latent_dim)
    mass = np.exp(-0.5 * np.square(z).sum(axis=1))
    if net.prior != "normal":  # these densities have tests of their own
        mass = np.exp(queries.log_prior(net, z))
    p = 1.0 / (1.0 + np.exp(-queries.logits(net, z).astype(np.float64)))
    return mass / mass.sum(), p


def all_sets(num_tags=TAGS):
    return np.array(list(itertools.product([False, True], repeat=num_tags)))


def exact(net, points):
    """p(x) of every set, by integration over z."""
    mass, p = grid(net, points)
    sets = all_sets(net.num_tags)
    given = np.stack([np.where(row, p, 1.0 - p).prod(axis=1) for row in sets])
    return sets, given @ mass
