"""Exports a model as serialised StableHLO, which JAX compiles anywhere without this package.

Encoder, decoder and prior are separate functions that contain their parameters, for any batch size
and for CPU, CUDA and TPU.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.errors import InputError
from jaxvae.export import model_files
from jaxvae.models import trained
from jaxvae.models.priors import Flow, MixturePrior
from jaxvae.models.trained import TrainedModel

PARTS = ("encoder", "decoder", "prior")
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(paths: dict[str, Path], network: TrainedModel, *, probe: np.ndarray) -> float:
    """Writes the functions, reads them back and compares their logits with the model's.

    Encoder: float32 `[batch, V]`, multi-hot, to (mean, logvar), `[batch, L]`. Decoder: `[batch, L]`
    to logits `[batch, V]`. Prior: standard normal noise `[batch, L]`, with a mixture or VampPrior
    also uniform numbers `[batch]` on [0, 1), to draws from p(z).

    Args:
      paths: a file for each of `PARTS`.
      network: the model.
      probe: `[N, V]` multi-hot rows for the comparison.

    Returns:
      The largest difference between the files' logits and the model's.

    Raises:
      InputError: flatbuffers is not installed, or a file does not hold the model.
    """
    from jax import export as jax_export

    _check_installed()
    scope = jax_export.SymbolicScope()
    for name, (function, widths) in _functions(network).items():
        batch = jax_export.symbolic_shape("batch", scope=scope)
        shapes = [jax.ShapeDtypeStruct((*batch, *width), jnp.float32) for width in widths]
        exported = jax_export.export(jax.jit(function), platforms=PLATFORMS)(*shapes)
        paths[name].write_bytes(exported.serialize())
    encode, decode = (
        jax_export.deserialize(bytearray(paths[name].read_bytes())) for name in PARTS[:2]
    )
    mean, _ = encode.call(jnp.asarray(probe, jnp.float32))
    expected = trained.reconstruction_logits(network, probe)
    return model_files.check_logits(paths["decoder"], np.asarray(decode.call(mean)), expected)


def _check_installed() -> None:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--format stablehlo needs the package flatbuffers (pip install flatbuffers)"
        ) from error


def _functions(network: TrainedModel) -> dict[str, tuple[Callable, list[tuple[int, ...]]]]:
    """Returns each part's function and its inputs' shapes without the batch axis."""
    latent = (network.latent_dim,)

    def model():
        return network.model

    functions: dict[str, tuple[Callable, list[tuple[int, ...]]]] = {
        "encoder": (lambda x: model().encode(x), [(network.num_tags,)]),
        "decoder": (lambda z: model().decode(z), [latent]),
    }
    prior = network.model.prior
    if prior is None:
        functions["prior"] = (lambda noise: noise, [latent])
    elif isinstance(prior, MixturePrior):
        functions["prior"] = (_mixture(network), [latent, ()])
    elif isinstance(prior, Flow):
        functions["prior"] = (lambda noise: model().prior.transform(noise), [latent])
    else:
        raise model_files.inexpressible_prior("stablehlo", network)
    return functions


def _mixture(network: TrainedModel) -> Callable:
    mean, logvar, _ = trained.prior_components(network)
    deviation, edges = np.exp(0.5 * logvar), trained.component_cdf(network)

    def draw(noise, uniform):
        component = jnp.sum(uniform[:, None] >= edges[None, :], axis=1)
        return jnp.asarray(mean)[component] + jnp.asarray(deviation)[component] * noise

    return draw
