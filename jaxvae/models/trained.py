"""A trained model apart from any training: its graph, its arrays, its prior."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.models.layer_names import encoder_layers, num_hidden_layers
from jaxvae.models.vae import VAE


class TrainedModel(NamedTuple):
    """A model apart from any training: its static graph and its arrays, computing in float32.

    Weights that were tied in training are two arrays here, as in every exported file.
    """

    graphdef: nnx.GraphDef
    params: dict
    batch_stats: dict
    num_tags: int
    latent_dim: int
    hidden_dims: tuple[int, ...]
    use_batch_norm: bool
    use_layer_norm: bool
    prior: str


def rebuild_model(params: dict, batch_stats: dict) -> TrainedModel:
    """Rebuilds the model around nested dictionaries of arrays; the sizes are the arrays' own."""
    params = untie_weights(params)
    depth, num_tags = num_hidden_layers(params), len(params["fc1"]["kernel"])
    hidden_dims = tuple(params[each.linear]["kernel"].shape[1] for each in encoder_layers(depth))
    latent_dim = params["fc3"]["kernel"].shape[0]
    use_batch_norm, use_layer_norm = "bn1" in params, "ln1" in params
    prior = infer_prior(params.get("prior", {}))
    model = nnx.eval_shape(
        lambda: VAE(
            num_tags=num_tags,
            latent_dim=latent_dim,
            hidden_dim=hidden_dims[0],
            hidden_dims=hidden_dims,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            prior=prior,
            num_components=len(params["prior"]["logits"]) if prior in ("mixture", "vamp") else 1,
            rngs=nnx.Rngs(0),
        )
    )
    graphdef = nnx.graphdef(model)
    params, batch_stats = jax.tree.map(jnp.asarray, (params, batch_stats))
    sizes = (num_tags, latent_dim, hidden_dims)
    return TrainedModel(
        graphdef, params, batch_stats, *sizes, use_batch_norm, use_layer_norm, prior
    )


def untie_weights(params: dict) -> dict:
    """Parameters with the last layer's kernel, where in training it was the first one's."""
    if "kernel" in params["fc4"]:
        return params
    return {**params, "fc4": {"kernel": params["fc1"]["kernel"].T, **params["fc4"]}}


def infer_prior(arrays: Iterable[str]) -> str:
    """Which prior has parameters of these names."""
    marks = {"means": "mixture", "pseudo_inputs": "vamp", "hidden": "flow"}
    return next((prior for name, prior in marks.items() if name in arrays), "normal")


def reconstruction_logits(network: TrainedModel, x: np.ndarray) -> np.ndarray:
    """Logits `[N, V]` decoded from the posterior mean of multi-hot rows `[N, V]`."""

    def logits(params, batch_stats, x):
        model = nnx.merge(network.graphdef, params, batch_stats)
        return model.decode(model.encode(x)[0])

    return np.asarray(jax.jit(logits)(network.params, network.batch_stats, x.astype(np.float32)))


def prior_components(network: TrainedModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]` of a "mixture" or "vamp" prior.

    A VampPrior is, once trained, a mixture like any other.
    """
    model = nnx.merge(network.graphdef, network.params, network.batch_stats)
    mean, logvar, log_weight = map(np.asarray, model.prior.components(model.encode))
    return mean, logvar, log_weight


def component_cdf(network: TrainedModel) -> np.ndarray:
    """Where each component's share of [0, 1) ends, `[K]` float32; the last takes all that is left.

    The component of a uniform number is how many edges it has passed.
    """
    log_weight = prior_components(network)[2]
    edges = np.cumsum(np.exp(log_weight.astype(np.float64)))
    edges[-1] = 2.0  # beyond what rounding can reach
    return edges.astype(np.float32)
