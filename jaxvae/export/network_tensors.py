"""A model's arrays in the names and the layout of exported files, and a model made of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxvae.errors import InputError
from jaxvae.export.torch import pth
from jaxvae.export.torch.state_dict import cut_wrappers
from jaxvae.export.user_classes import rebuild, user_references
from jaxvae.models.layer_names import (
    NORM_EPSILON,
    HiddenLayer,
    decoder_layers,
    encoder_layers,
    num_hidden_layers,
)
from jaxvae.models.trained import TrainedModel, UserClasses, flatten_arrays, untie_weights

_STATISTICS = ("mean", "var", "count")


def to_state_dict(network: TrainedModel) -> dict[str, np.ndarray]:
    """Returns a model's arrays in the names and the layout of the exported files."""
    return to_tensors(
        network.params,
        network.batch_stats,
        model=network.user_classes and network.user_classes.fields,
    )


def to_tensors(
    params: dict, batch_stats: dict, *, model: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Converts parameters to the names and the layout of the exported files.

    An architecture of a user's own keeps its names and layout.

    Args:
      params: nested dictionary of arrays.
      batch_stats: nested dictionary of arrays, `{}` without batch norm.
      model: the config's `model`; None if all of it is the package's.
    """
    user_classes = user_references(model or {})
    if "architecture" in user_classes:
        flat = flatten_arrays(params) | flatten_arrays(batch_stats)
        return {name: np.ascontiguousarray(array) for name, array in flat.items()}
    return pth.to_torch(
        _layers(untie_weights(params), batch_stats), user_prior="prior" in user_classes
    )


def _layers(params: dict, batch_stats: dict) -> dict:
    return {
        layer: {
            name: np.asarray(array)
            for name, array in {**arrays, **batch_stats.get(layer, {})}.items()
        }
        for layer, arrays in params.items()
    }


def to_network(
    tensors: dict[str, np.ndarray], user_classes: UserClasses | None, path: object
) -> TrainedModel:
    """Rebuilds a model from the tensors of an exported file.

    Args:
      tensors: arrays by name.
      user_classes: the classes of a user's own in it.
      path: the file, for messages.

    Raises:
      InputError: they are not those of the model's classes.
    """
    if user_classes and user_classes.architecture:
        return rebuild(tensors, {}, user_classes, origin=path)
    try:
        layers = pth.from_torch(cut_wrappers(tensors), user_prior=bool(user_classes))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return rebuild(*from_layers(layers), user_classes, origin=path)


def from_layers(layers: dict) -> tuple[dict, dict]:
    """Splits layers, as `from_torch` returns them, into parameters and running statistics."""
    params: dict = {}
    batch_stats: dict = {}
    for layer, arrays in layers.items():
        for name, array in arrays.items():
            group = batch_stats if name in _STATISTICS else params
            array = array.astype(np.int32) if name == "count" else array
            group.setdefault(layer, {})[name] = array
    return params, batch_stats


def reference_logits(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Computes the logits of a state dict in numpy as PyTorch would, to check an exported file."""

    def linear(name, h):
        return h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def layer_norm(name, h):
        if f"{name}.weight" not in tensors:
            return h
        h = h - h.mean(axis=1, keepdims=True)
        h = h / np.sqrt(np.square(h).mean(axis=1, keepdims=True) + NORM_EPSILON)
        return h * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def norm(name, h):
        if f"{name}.weight" not in tensors:
            return h
        scale = tensors[f"{name}.weight"] / np.sqrt(tensors[f"{name}.running_var"] + NORM_EPSILON)
        return (h - tensors[f"{name}.running_mean"]) * scale + tensors[f"{name}.bias"]

    def through(hidden: list[HiddenLayer], h):
        for name, layer_norm_name, norm_name in hidden:
            h = norm(norm_name, np.maximum(layer_norm(layer_norm_name, linear(name, h)), 0.0))
        return h

    depth = num_hidden_layers({name.partition(".")[0] for name in tensors})
    mean = linear("fc2_mu", through(encoder_layers(depth), x.astype(np.float32)))
    return linear("fc4", through(decoder_layers(depth), mean))
