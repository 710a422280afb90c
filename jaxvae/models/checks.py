"""Checks a user's own prior or architecture by the shapes that it returns, without computing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.errors import InputError
from jaxvae.models.architecture import Architecture
from jaxvae.models.priors import Prior

_ROWS = 5


def check_prior(prior: type[Prior], *, num_tags: int, latent_dim: int, num_components: int) -> None:
    """Raises InputError unless a prior's density, draws and moments have the right shapes.

    Args:
      prior: its class.
      num_tags: V.
      latent_dim: L.
      num_components: K.
    """
    if not (isinstance(prior, type) and issubclass(prior, Prior)):
        raise InputError("must be a subclass of jaxvae.models.priors.Prior")
    rows = _ROWS

    def encode(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = jnp.zeros((len(x), latent_dim), jnp.float32)
        return z, z

    def use(pseudo_inputs: jax.Array) -> dict[str, Any]:
        module = prior(
            latent_dim=latent_dim,
            num_components=num_components,
            pseudo_inputs=pseudo_inputs,
            rngs=nnx.Rngs(0),
        )
        _check_variables(module)
        if any(isinstance(leaf, dict) for leaf in nnx.to_pure_dict(nnx.state(module)).values()):
            raise InputError("must have its arrays by itself, not in a module or list inside")
        z = jnp.zeros((2, rows, latent_dim), jnp.float32)
        return {
            "log_prob": module.log_prob(z, encode),
            "draw": module.draw(jax.random.key(0), rows, encode),
            "moments": module.moments(encode),
        }

    shape = (num_components, num_tags)
    returned = jax.eval_shape(use, jax.ShapeDtypeStruct(shape, jnp.float32))
    moment = (latent_dim,)
    for name, shapes in (
        ("log_prob", (2, rows)),
        ("draw", (rows, latent_dim)),
        ("moments", (moment, moment)),
    ):
        _check_shapes(f"its {name}", returned[name], shapes)


def check_architecture(
    architecture: type[Architecture], *, num_tags: int, latent_dim: int, **arguments: Any
) -> None:
    """Raises InputError unless an encoder and a decoder return the right shapes.

    Args:
      architecture: its class.
      num_tags: V.
      latent_dim: L.
      **arguments: its other arguments, but `rngs`.
    """
    if not (isinstance(architecture, type) and issubclass(architecture, Architecture)):
        raise InputError("must be a subclass of jaxvae.models.architecture.Architecture")

    def use(train: bool) -> Callable[[], dict[str, Any]]:
        def call() -> dict[str, Any]:
            module = architecture(
                num_tags=num_tags, latent_dim=latent_dim, rngs=nnx.Rngs(0), **arguments
            )
            _check_variables(module)
            x, z = (jnp.zeros((_ROWS, width), jnp.float32) for width in (num_tags, latent_dim))
            mask = jnp.ones((_ROWS,), bool)
            return {
                "encode": module.encode(x, mask=mask, train=train),
                "decode": module.decode(z, mask=mask, train=train),
            }

        return call

    for train in (True, False):
        returned = jax.eval_shape(use(train))
        latent = (_ROWS, latent_dim)
        _check_shapes("its encode", returned["encode"], (latent, latent))
        _check_shapes("its decode", returned["decode"], (_ROWS, num_tags))


def _check_variables(module: nnx.Module) -> None:
    """Raises InputError for a variable that a run would not keep."""
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        name, kind = ".".join(map(str, path)), type(variable)
        if not issubclass(kind, nnx.Param | nnx.BatchStat):
            raise InputError(
                f"its {name} is a {kind.__name__}, and a run keeps nnx.Param and nnx.BatchStat; "
                f"random numbers come from outside"
            )
        if issubclass(kind, nnx.Param) and variable[...].dtype != jnp.float32:
            raise InputError(f"its {name} is {variable[...].dtype}, and parameters are float32")


def _check_shapes(what: str, returned: Any, expected: tuple) -> None:
    """Raises InputError unless an array, or each of several, is float32 of the expected shape."""
    several = isinstance(expected[0], tuple)
    arrays = tuple(returned) if several and isinstance(returned, tuple | list) else (returned,)
    shapes = expected if several else (expected,)
    actual = [(getattr(a, "shape", None), str(getattr(a, "dtype", type(a)))) for a in arrays]
    if actual != [(shape, "float32") for shape in shapes]:
        texts = [f"{dtype}{list(shape or ())}" for shape, dtype in actual]
        expected_texts = [f"float32{list(shape)}" for shape in shapes]
        raise InputError(f"{what} returns {', '.join(texts)}, not {', '.join(expected_texts)}")
