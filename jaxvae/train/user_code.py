"""Code of a user's own that a config names: its objective, its prior, its architecture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvae.config.extensions import (
    Extension,
    file_name,
    find_copy,
    is_reference,
    load_extension,
)
from jaxvae.config.schema import flatten
from jaxvae.errors import InputError
from jaxvae.models.architecture import Architecture
from jaxvae.models.checks import check_architecture, check_prior
from jaxvae.models.choices import ARCHITECTURES, import_choice
from jaxvae.models.priors import Prior, prior_class
from jaxvae.models.trained import UserClasses, model_arguments
from jaxvae.train.objectives import LossTerms, as_named_tuple
from jaxvae.train.plan import hyperparams, recipe

_ANY_TAGS = 23
"""Tags that a model is tried with before the data, which may make their taxonomy, are read."""
_PRIOR_ARGUMENTS = ("latent_dim", "num_components", "pseudo_inputs", "rngs")
_ARCHITECTURE_ARGUMENTS = (
    *("num_tags", "latent_dim", "hidden_dim", "hidden_dims", "use_batch_norm", "use_layer_norm"),
    *("tied_weights", "prior", "num_components", "pseudo_inputs", "decoder_bias"),
    *("compute_dtype", "rngs"),
)


class UserCode(NamedTuple):
    """A user's own functions and classes of one config; None where it names the package's.

    Attributes:
      objective: the function of `loss.objective`.
      prior: the class of `model.prior`.
      architecture: the class of `model.architecture`.
    """

    objective: Extension | None = None
    prior: Extension | None = None
    architecture: Extension | None = None

    @property
    def files(self) -> list[Extension]:
        """Those that are a user's own."""
        return [extension for extension in self if extension]

    @property
    def copy_names(self) -> dict[str, str]:
        """The name of each file's copy, which has its digest, by the field that names it."""
        return {extension.field: extension.copy_name for extension in self.files}

    def prior_class(self, config: ConfigDict) -> type[Prior]:
        """Returns the class of a config's prior."""
        extension: Any = self.prior
        return extension.function if extension else prior_class(config.model.prior)

    def architecture_class(self, config: ConfigDict) -> type[Architecture]:
        """Returns the class of a config's architecture."""
        extension: Any = self.architecture
        return (
            extension.function
            if extension
            else import_choice(ARCHITECTURES[config.model.architecture])
        )

    def classes(self, config: ConfigDict, num_tags: int) -> UserClasses | None:
        """Returns the classes that a trained model is made of, None if all are the package's."""
        prior: Any = self.prior
        architecture: Any = self.architecture
        if not prior and not architecture:
            return None
        return UserClasses(
            fields=config.model.to_dict(),
            num_tags=num_tags,
            prior=prior and prior.function,
            architecture=architecture and architecture.function,
            sources={
                extension.copy_name: extension.source
                for extension in (prior, architecture)
                if extension
            },
        )


PACKAGES = UserCode()
"""All is the package's: nothing is a user's own."""


def load_user_code(config: ConfigDict, copies: Path | None = None) -> UserCode:
    """Loads what a config names of a user's own, and tries each on a few rows without computing.

    Args:
      config: every field of `configs/base.py`.
      copies: a run's `extensions/`; its copy is taken of a file that is no longer there.

    Raises:
      InputError: a file can't be run, or what it has is no objective, prior or architecture; or
        the objective needs another prior.
    """
    config = recipe.fill_in(config, recipe.resolve(config, lambda: recipe.SMALL))
    values = dict(flatten(config))
    for callback in config.trainer.callbacks:
        for field in ("loss.objective", "model.prior", "model.architecture"):
            if is_reference(values[field]) and file_name(callback) == file_name(values[field]):
                raise InputError(
                    f"--config.trainer.callbacks={callback}: the file of --config.{field} has the "
                    f"same name; put callbacks, which may change when a run is resumed, in a file "
                    f"of another name"
                )

    def load(field: str, **signature: Sequence[str]) -> Extension | None:
        reference = values[field]
        if not is_reference(reference):
            return None
        copy = find_copy(copies, reference) if copies else None
        return load_extension(reference, **signature, field=field, copy=copy)

    user_code = UserCode(
        objective=load("loss.objective", arguments=("terms", "weights", "num_rows")),
        prior=load("model.prior", keywords=_PRIOR_ARGUMENTS),
        architecture=load("model.architecture", keywords=_ARCHITECTURE_ARGUMENTS),
    )
    if user_code.objective:
        _try_objective(user_code.objective, config)
    if user_code.prior or user_code.architecture:
        try_model(user_code, config, num_tags=_ANY_TAGS)
    if config.loss.objective == "free_bits" and not user_code.prior_class(config).factorized:
        raise InputError(
            f"--config.loss.objective=free_bits needs a KL for each dimension, which --config."
            f"model.prior={config.model.prior} does not have; take prior=normal, or "
            f"objective=capacity"
        )
    return user_code


def _try_objective(objective: Extension, config: ConfigDict) -> None:
    """Raises InputError unless an objective returns a loss for each of some rows."""
    scalar: Any = jax.ShapeDtypeStruct((), jnp.float32)
    weights = as_named_tuple(
        "loss", dict.fromkeys(hyperparams.tunable_numbers(config)["loss"], scalar)
    )
    for rows in (5, config.data.batch_size):
        terms = _example(rows, config.model.latent_dim)

        def trace(terms: LossTerms = terms) -> Any:
            return jax.eval_shape(lambda t, w: objective.function(t, w, 100), terms, weights)

        loss = objective.call(trace, failing=f"on a batch of {rows} rows")
        if getattr(loss, "shape", None) != (rows,) or loss.dtype != jnp.float32:
            returned = f"{loss.dtype}{list(loss.shape)}" if hasattr(loss, "shape") else repr(loss)
            raise InputError(
                f"--config.{objective.field}={objective.reference}: of {rows} rows it returns "
                f"{returned}, and must return a loss for each, float32[{rows}]"
            )


def _example(rows: int, latent: int) -> LossTerms:
    """Shapes of the terms of a batch, with one draw for each row."""

    def array(*shape: int, dtype: Any = jnp.float32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype)

    return LossTerms(
        reconstruction=array(1, rows),
        rate=array(rows),
        kl=array(rows, latent),
        log_prior=array(1, rows),
        log_posterior=array(1, rows),
        z=array(1, rows, latent),
        mean=array(rows, latent),
        logvar=array(rows, latent),
        mask=array(rows, dtype=bool),
    )


def try_model(user_code: UserCode, config: ConfigDict, *, num_tags: int) -> None:
    """Raises InputError unless a prior or an architecture of a user's own returns right shapes."""
    sizes = {"latent_dim": config.model.latent_dim, "num_components": config.model.prior_components}
    if user_code.prior:
        prior = user_code.prior_class(config)
        user_code.prior.call(
            lambda: check_prior(prior, num_tags=num_tags, **sizes),
            failing=f"with {num_tags} tags and {config.model.latent_dim} latent dimensions",
        )
    if user_code.architecture:
        architecture = user_code.architecture_class(config)
        arguments = model_arguments(config.model) | {"prior": user_code.prior_class(config)}
        user_code.architecture.call(
            lambda: check_architecture(architecture, num_tags=num_tags, **arguments),
            failing=f"with {num_tags} tags and {config.model.latent_dim} latent dimensions",
        )
