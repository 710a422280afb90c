"""Trains a model on rows in memory, by the same path as on a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing
from jaxvae.config.paths import run_path
from jaxvae.config.schema import flatten
from jaxvae.data.dataset import InMemory
from jaxvae.data.readers.memory import of_memory
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import FROM_DATA
from jaxvae.errors import InputError, did_you_mean
from jaxvae.inference.load import load
from jaxvae.inference.run import Run
from jaxvae.storage.run_files import new_workdir
from jaxvae.train.trainer import train_and_evaluate

MEMORY = "memory"
"""What a run's config says of rows, and of a taxonomy, that were in memory."""


def fit(
    tags: Any,
    *,
    config: str | ConfigDict = "best",
    names: Sequence[str] | None = None,
    taxonomy: str | Path | Mapping[str, Sequence[str]] = FROM_DATA,
    workdir: str | Path | None = None,
    models_dir: str | Path = "models",
    silent: bool = False,
    **overrides: Any,
) -> Run:
    """Trains, evaluates and exports a model of rows in memory; the same call resumes.

    Args:
        tags: rows of tags, a matrix, a column or a frame; see `data.readers.memory.of_memory`.
        config: the name of a config ("best" is `configs/best.py`), a config file with its presets,
            or a config.
        names: of a matrix, its V tags.
        taxonomy: "from_data" makes one of the rows; or a taxonomy file, or `{concept: [tags]}`.
        workdir: the run's folder; None takes one by date and time below `outputs/vae_training`.
        models_dir: where the copies named after `model_name` go.
        silent: print nothing.
        **overrides: fields of the config by their dotted names: `**{"trainer.max_epochs": 20}`.

    Returns:
        The finished run, as `jaxvae.load` returns it.

    Raises:
        InputError: an argument or a row is wrong; nothing was written.
    """
    table = of_memory(tags, names)
    mapped = None
    if isinstance(taxonomy, Mapping):
        mapped = Taxonomy.from_mapping(taxonomy, source=MEMORY)
    fitted_config = make_config(config, overrides)
    with fitted_config.unlocked():
        fitted_config.data.dataset_name = MEMORY
        fitted_config.data.taxonomy_path = MEMORY if mapped else str(taxonomy)
    folder = run_path(workdir if workdir is not None else new_workdir())
    train_and_evaluate(
        fitted_config,
        folder,
        overrides=overrides,
        models_dir=models_dir,
        rows=InMemory(table, mapped),
        silent=silent,
    )
    return load(folder)


def make_config(config: str | ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """Returns a config with some fields changed, of which the given one keeps its own.

    Args:
        config: as in `fit`.
        overrides: values by dotted name.

    Raises:
        InputError: there is no such config or field, or a value is of another type.
    """
    if isinstance(config, str):
        name, colon, presets = config.partition(":")
        file = f"configs/{name}.py" if name.isidentifier() else name
        changed = parsing.load_config(file + colon + presets)
    else:
        changed = config.copy_and_resolve_references()
    fields = dict(flatten(changed))
    for name, value in overrides.items():
        if name not in fields:
            raise InputError(f"{name}: no such field{did_you_mean(name, fields)}")
        *groups, last = name.split(".")
        group = changed
        for group_name in groups:
            group = group[group_name]
        if isinstance(fields[name], float) and type(value) is int:
            value = float(value)
        try:
            group[last] = value
        except TypeError as error:
            raise InputError(
                f"{name}={value!r}: expected a value of type {type(fields[name]).__name__}, "
                f"such as {fields[name]!r}"
            ) from error
    return changed
