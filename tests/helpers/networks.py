"""Models of every architecture with weights that no initialisation has, and rows for them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference.run import Run
from jaxvae.models import trained
from jaxvae.models.vae import VAE

ARCHITECTURES = [
    (prior, *norms)
    for prior in ("normal", "mixture", "vamp", "flow")
    for norms in ((False, False), (True, False), (False, True), (True, True))
]
VARIED = [
    ("normal", False, False),
    ("mixture", True, False),
    ("vamp", False, True),
    ("flow", True, True),
]
"""One for each prior, where all would take long."""
DEEPER = (9, 6, 5)
"""Widths of three hidden layers each way."""
TAXONOMY = Taxonomy.from_mapping(
    {"genre": ["jazz", "r&b", "drum'n'bass", 'the "new" wave'], "mood": ["calm", "naïve ♫", "a,b"]},
    source="test",
)


def make_run(
    prior: str, use_batch_norm: bool, use_layer_norm: bool, folder, components=3, hidden_dims=()
) -> Run:
    """An opened run of 7 tags, 4 latent and 9 hidden units; every array is away from its start."""
    model = VAE(
        num_tags=TAXONOMY.num_tags,
        latent_dim=4,
        hidden_dim=9,
        hidden_dims=hidden_dims,
        use_batch_norm=use_batch_norm,
        use_layer_norm=use_layer_norm,
        prior=prior,
        num_components=components,
        rngs=nnx.Rngs(0),
    )
    rng = np.random.default_rng(0)
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    params = jax.tree.map(
        lambda array: (np.asarray(array) + 0.15 * rng.normal(size=array.shape)).astype(np.float32),
        nnx.to_pure_dict(params),
    )
    stats = {
        layer: {
            "mean": rng.normal(size=arrays["mean"].shape).astype(np.float32),
            "var": rng.uniform(0.5, 2.0, arrays["var"].shape).astype(np.float32),
            "count": np.int32(7),
        }
        for layer, arrays in nnx.to_pure_dict(stats).items()
    }
    facts = {"checkpoint": "best", "epoch": 3}
    network = trained.rebuild_model(params, stats)
    return Run(folder, {"model_name": "small one"}, TAXONOMY, network, facts)


def move_flow(model: VAE) -> None:
    """Moves a flow away from the identity, which it is as initialised."""
    moved = np.random.default_rng(2).normal(0.0, 0.3, model.prior.shift_and_scale.shape)
    model.prior.shift_and_scale[...] = jnp.asarray(moved, jnp.float32)


def rows(num_tags: int, num: int = 50) -> np.ndarray:
    """Multi-hot rows `[num, num_tags]` float32, an empty and a full one among them."""
    x = (np.random.default_rng(1).random((num, num_tags)) < 0.3).astype(np.float32)
    x[0], x[1] = 0.0, 1.0
    return x
