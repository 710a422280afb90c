"""A trained model: its graph, its arrays, its prior."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.models.layer_names import encoder_layers, num_hidden_layers
from jaxvae.models.vae import VAE


class TrainedModel(NamedTuple):
    """A model without its training state: static graph and arrays, computing in float32.

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
    """Rebuilds a model from nested dictionaries of arrays; their shapes give its sizes."""
    params = untie_weights(params)
    depth, num_tags = num_hidden_layers(params), len(params["fc1"]["kernel"])
    hidden_dims = tuple(params[layer.linear]["kernel"].shape[1] for layer in encoder_layers(depth))
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


def parameters_digest(network: TrainedModel) -> str:
    """Returns the SHA-256 (hexadecimal) of a model's arrays."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path((network.params, network.batch_stats))
    for path, leaf in leaves:
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype.str}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def untie_weights(params: dict) -> dict:
    """Adds the last layer's kernel to parameters trained with tied weights."""
    if "kernel" in params["fc4"]:
        return params
    return {**params, "fc4": {"kernel": params["fc1"]["kernel"].T, **params["fc4"]}}


def infer_prior(arrays: Iterable[str]) -> str:
    """Infers a model's prior from the names of the prior's parameters."""
    marks = {"means": "mixture", "pseudo_inputs": "vamp", "hidden": "flow"}
    return next((prior for name, prior in marks.items() if name in arrays), "normal")


def reconstruction_logits(network: TrainedModel, x: np.ndarray) -> np.ndarray:
    """Decodes logits `[N, V]` from the posterior means of multi-hot rows `[N, V]`."""

    def logits(params, batch_stats, x):
        model = nnx.merge(network.graphdef, params, batch_stats)
        return model.decode(model.encode(x)[0])

    return np.asarray(jax.jit(logits)(network.params, network.batch_stats, x.astype(np.float32)))


def prior_components(network: TrainedModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]` of a "mixture" or "vamp" prior.

    A trained VampPrior is an ordinary mixture.
    """
    model = nnx.merge(network.graphdef, network.params, network.batch_stats)
    mean, logvar, log_weight = map(np.asarray, model.prior.components(model.encode))
    return mean, logvar, log_weight


def component_cdf(network: TrainedModel) -> np.ndarray:
    """Cumulative probabilities of the prior's components, `[K]` float32, the last one above 1.

    The component sampled by a uniform number u is the number of cumulative probabilities <= u.
    """
    log_weight = prior_components(network)[2]
    edges = np.cumsum(np.exp(log_weight.astype(np.float64)))
    edges[-1] = 2.0  # above any u, whatever the rounding
    return edges.astype(np.float32)
