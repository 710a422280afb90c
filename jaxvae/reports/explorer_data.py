"""A model as JSON for a page: its weights in half precision, its prior, and a bank of draws.

Batch norm is folded into the layer after it, so the page needs layers, layer norm and ReLU alone.
"""

import base64
import itertools

import numpy as np

from jaxvae.errors import InputError
from jaxvae.inference import queries
from jaxvae.models import trained
from jaxvae.models.layer_names import NORM_EPSILON, decoder_layers, encoder_layers
from jaxvae.models.priors import Flow, MixturePrior
from jaxvae.models.trained import TrainedModel

_BANK = 8192
_BANK_BYTES = 2**20
_BANK_LOGITS = 2**22
_LARGEST_HALF = 2.0**14


def encode_float16(array: np.ndarray) -> tuple[dict, np.ndarray]:
    """Rounds an array to float16 as text.

    Args:
      array: finite numbers of any shape; a common factor keeps them all within float16.

    Returns:
      (the packed array, the rounded numbers as the page unpacks them, `array.shape` float32).
    """
    largest = float(np.abs(array).max(initial=0.0))
    # A power of two, by which multiplying is exact.
    scale = 2.0 ** np.floor(np.log2(_LARGEST_HALF / largest)) if largest > 0.0 else 1.0
    half = (np.asarray(array, np.float64) * scale).astype("<f2")
    return {"half": _text(half), "scale": 1.0 / scale}, (half / scale).astype(np.float32)


def encode_float32(array: np.ndarray) -> dict:
    """Packs an array as float32 text, for small or exact numbers."""
    return {"single": _text(np.asarray(array, "<f4"))}


def network_data(network: TrainedModel) -> dict:
    """Returns the layers by name, the names of the hidden layers in order, and the sizes.

    Raises:
      InputError: the page can't compute the architecture, which is a user's own.
    """
    if network.user_architecture:
        raise InputError(
            f"the page can't compute --config.model.architecture={network.user_architecture}"
        )
    params = _numpy(network.params)
    stats = _numpy(network.batch_stats)
    depth = len(network.hidden_dims)
    encoder, decoder = encoder_layers(depth), decoder_layers(depth)
    # The batch norm before each linear map, which is folded into it, if there is one.
    norms = {"fc2_mu": encoder[-1].batch_norm, "fc2_logvar": encoder[-1].batch_norm}
    norms["fc4"] = decoder[-1].batch_norm
    for hidden in (encoder, decoder):
        norms |= {then.linear: first.batch_norm for first, then in itertools.pairwise(hidden)}
    linears = [hidden_layer.linear for hidden_layer in (*encoder, *decoder)]
    layers: dict[str, dict] = {}
    for name in (*linears, "fc2_mu", "fc2_logvar", "fc4"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        norm = norms.get(name)
        if norm in params:
            factor = params[norm]["scale"] / np.sqrt(stats[norm]["var"] + NORM_EPSILON)
            bias = bias + (params[norm]["bias"] - stats[norm]["mean"] * factor) @ kernel
            kernel = factor[:, None] * kernel
        layers[name] = {"kernel": encode_float16(kernel)[0], "bias": encode_float32(bias)}
    for name in (hidden_layer.layer_norm for hidden_layer in (*encoder, *decoder)):
        if name in params:
            layers[name] = {
                array_name: encode_float32(params[name][array_name])
                for array_name in ("scale", "bias")
            }
    return {
        "layers": layers,
        "encoder": [[hidden_layer.linear, hidden_layer.layer_norm] for hidden_layer in encoder],
        "decoder": [[hidden_layer.linear, hidden_layer.layer_norm] for hidden_layer in decoder],
        "num_tags": network.num_tags,
        "latent_dim": network.latent_dim,
    }


def prior_data(network: TrainedModel) -> dict:
    """Returns the prior's parameters, from which the page computes log p(z).

    Raises:
      InputError: the page can't compute the prior, which is a user's own.
    """
    prior = network.model.prior
    if prior is None:
        return {"kind": "normal"}
    if type(prior) is Flow:
        arrays = _numpy(network.params["prior"])
        return {
            "kind": "flow",
            "layers": len(arrays["hidden"]),
            "width": arrays["hidden"].shape[2],
            **{name: encode_float16(array)[0] for name, array in arrays.items()},
        }
    if not isinstance(prior, MixturePrior):
        raise InputError(
            f"the page can't compute --config.model.prior={network.prior}, which is no "
            f"jaxvae.models.priors.MixturePrior"
        )
    mean, logvar, log_weight = trained.prior_components(network)  # not a VampPrior's rows
    return {
        "kind": "mixture",
        "mean": encode_float16(mean)[0],
        "logvar": encode_float16(logvar)[0],
        "log_weight": encode_float32(log_weight),
    }


def prior_sample_bank(network: TrainedModel) -> tuple[dict, np.ndarray, np.ndarray]:
    """Draws samples of the prior, which the page re-weights to condition on tags.

    Their number is limited to a MiB, and to a weighting within one frame.

    Returns:
      (the packed draws, the draws `[K, L]` as the page unpacks them, their log p(z) `[K]`, nats).
    """
    limit = min(_BANK, _BANK_BYTES // (2 * network.latent_dim), _BANK_LOGITS // network.num_tags)
    size = max(256, limit // 256 * 256)
    packed, z = encode_float16(queries.draw_prior(network, size, seed=0))
    log_prior = queries.log_prior(network, z)
    return {"size": size, "z": packed, "log_prior": encode_float32(log_prior)}, z, log_prior


def _numpy(tree: dict) -> dict:
    return {
        name: _numpy(value) if isinstance(value, dict) else np.asarray(value, np.float64)
        for name, value in tree.items()
    }


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
