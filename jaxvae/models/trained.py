"""A trained model: its graph, its arrays, its prior."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxvae.errors import InputError
from jaxvae.models.architecture import Architecture
from jaxvae.models.layer_names import encoder_layers, num_hidden_layers
from jaxvae.models.priors import MixturePrior, Prior, axis_sizes, most_alike, prior_class
from jaxvae.models.vae import VAE


class UserClasses(NamedTuple):
    """Classes of a user's own that a model is made of.

    Attributes:
      fields: the config's `model`.
      num_tags: V.
      prior: the prior's class; None if it is the package's.
      architecture: the architecture's class; None if it is the package's.
      sources: the files that define them, by the name of a run's copy.
    """

    fields: Mapping[str, Any]
    num_tags: int
    prior: type[Prior] | None
    architecture: type[Architecture] | None
    sources: Mapping[str, bytes]


class TrainedModel(NamedTuple):
    """A model without its training state: static graph and arrays, computing in float32.

    Weights that were tied in training are two arrays here, as in every exported file.

    Attributes:
      graphdef: the static graph.
      params: its parameters.
      batch_stats: its running statistics.
      num_tags: V.
      latent_dim: L.
      hidden_dims: widths of the hidden layers, from the input inwards.
      use_batch_norm: whether it has batch norm.
      use_layer_norm: whether it has layer norm.
      prior: the prior's name in a config.
      user_classes: the classes of a user's own in it.
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
    user_classes: UserClasses | None = None

    @property
    def model(self) -> Architecture:
        """The module, with its arrays."""
        return nnx.merge(self.graphdef, self.params, self.batch_stats)

    @property
    def user_architecture(self) -> str:
        """The architecture's name in a config if it is a user's own, else ""."""
        return (
            self.user_classes.fields["architecture"]
            if self.user_classes and self.user_classes.architecture
            else ""
        )


def rebuild_model(
    params: dict, batch_stats: dict, user_classes: UserClasses | None = None
) -> TrainedModel:
    """Rebuilds a model from nested dictionaries of arrays.

    Args:
      params: its parameters; their shapes give the sizes of the package's architecture.
      batch_stats: its running statistics.
      user_classes: the classes of a user's own in it.

    Raises:
      InputError: the arrays are not those of the user's own classes.
    """
    if user_classes and user_classes.architecture:
        return _rebuild_user_model(params, batch_stats, user_classes)
    params = untie_weights(params)
    depth, num_tags = num_hidden_layers(params), len(params["fc1"]["kernel"])
    hidden_dims = tuple(params[layer.linear]["kernel"].shape[1] for layer in encoder_layers(depth))
    latent_dim = params["fc3"]["kernel"].shape[0]
    use_batch_norm, use_layer_norm = "bn1" in params, "ln1" in params
    arrays = params.get("prior", {})
    if user_classes and user_classes.prior:
        name, prior = user_classes.fields["prior"], user_classes.prior
        num_components = user_classes.fields.get("prior_components", 1)
    else:
        name = most_alike(arrays)
        prior = prior_class(name)
        num_components = axis_sizes(prior, arrays).get("K", 1)
    model = nnx.eval_shape(
        lambda: VAE(
            num_tags=num_tags,
            latent_dim=latent_dim,
            hidden_dim=hidden_dims[0],
            hidden_dims=hidden_dims,
            use_batch_norm=use_batch_norm,
            use_layer_norm=use_layer_norm,
            prior=prior,
            num_components=num_components,
            rngs=nnx.Rngs(0),
        )
    )
    if user_classes:
        _check_arrays(model, params, batch_stats)
    params, batch_stats = jax.tree.map(jnp.asarray, (params, batch_stats))
    return TrainedModel(
        nnx.graphdef(model),
        params,
        batch_stats,
        num_tags,
        latent_dim,
        hidden_dims,
        use_batch_norm,
        use_layer_norm,
        name,
        user_classes,
    )


def model_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of an architecture that a config's `model` gives, but its prior."""
    names = ("latent_dim", "hidden_dim", "use_batch_norm", "use_layer_norm", "tied_weights")
    return {
        **{name: fields[name] for name in names},
        "hidden_dims": tuple(fields["hidden_dims"]),
        "num_components": fields["prior_components"],
    }


def _rebuild_user_model(params: dict, batch_stats: dict, user_classes: UserClasses) -> TrainedModel:
    """Rebuilds a model whose architecture is a user's own."""
    assert user_classes.architecture is not None
    make, fields = user_classes.architecture, user_classes.fields
    prior = user_classes.prior or prior_class(fields["prior"])
    arguments = model_arguments(fields)
    model = nnx.eval_shape(
        lambda: make(**arguments, num_tags=user_classes.num_tags, prior=prior, rngs=nnx.Rngs(0))
    )
    params, batch_stats = _check_arrays(model, params, batch_stats)
    return TrainedModel(
        nnx.graphdef(model),
        params,
        batch_stats,
        user_classes.num_tags,
        fields["latent_dim"],
        arguments["hidden_dims"] or (fields["hidden_dim"],),
        fields["use_batch_norm"],
        fields["use_layer_norm"],
        fields["prior"],
        user_classes,
    )


def _check_arrays(model: nnx.Module, params: dict, batch_stats: dict) -> tuple[dict, dict]:
    """Returns arrays in the structure of a model's variables.

    Raises:
      InputError: one is missing, unknown, or of another shape.
    """
    arrays = flatten_arrays(params) | flatten_arrays(batch_stats)
    expected = [nnx.to_pure_dict(nnx.state(model, kind)) for kind in (nnx.Param, nnx.BatchStat)]
    shapes = {name: leaf.shape for tree in expected for name, leaf in flatten_arrays(tree).items()}
    actual = {name: array.shape for name, array in arrays.items()}
    for name in sorted({*shapes, *actual}):
        if shapes.get(name) != actual.get(name):
            raise InputError(
                f"array {name} has shape {actual.get(name, 'none')}, and {type(model).__name__} of "
                f"this config makes {shapes.get(name, 'none')}"
            )

    def of(path: Any, leaf: Any) -> jax.Array:
        return jnp.asarray(arrays[_dotted(path)])

    first, second = (jax.tree_util.tree_map_with_path(of, tree) for tree in expected)
    return first, second


def flatten_arrays(tree: Any) -> dict[str, Any]:
    """Flattens nested dictionaries of arrays to {dotted path: array}."""
    return {_dotted(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _dotted(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def parameters_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 (hexadecimal) of a model's arrays, as its exported files have them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {array.shape} {array.dtype.str}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def untie_weights(params: dict) -> dict:
    """Adds the last layer's kernel to parameters trained with tied weights."""
    if "kernel" in params["fc4"]:
        return params
    return {**params, "fc4": {"kernel": params["fc1"]["kernel"].T, **params["fc4"]}}


def reconstruction_logits(network: TrainedModel, x: np.ndarray) -> np.ndarray:
    """Decodes logits `[N, V]` from the posterior means of multi-hot rows `[N, V]`."""
    logits = _logits_program(network.graphdef)
    return np.asarray(logits(network.params, network.batch_stats, x.astype(np.float32)))


@functools.lru_cache(maxsize=8)
def _logits_program(graphdef: nnx.GraphDef):
    def logits(params, batch_stats, x):
        model = nnx.merge(graphdef, params, batch_stats)
        return model.decode(model.encode(x)[0])

    return jax.jit(logits)


def prior_components(network: TrainedModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means `[K, L]`, log-variances `[K, L]` and log weights `[K]` of a `MixturePrior`.

    A trained VampPrior is an ordinary mixture.
    """
    model = network.model
    assert isinstance(model.prior, MixturePrior)
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
