"""Writes and reads a trained model as `.pth` or `.safetensors`, with a `.json` sidecar."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.data.readers.file_kinds import stand_in
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export import network_tensors
from jaxvae.export.safetensors_io import read_safetensors, write_safetensors
from jaxvae.export.torch import pth
from jaxvae.export.user_classes import (
    load_user_classes,
    sources_as_text,
    sources_from_text,
    user_references,
)
from jaxvae.models.trained import (
    TrainedModel,
    UserClasses,
    rebuild_model,
    reconstruction_logits,
)
from jaxvae.storage.atomic_files import read_json, write_json

_TOLERANCE = 1e-4
"""Largest difference, relative to the largest logit, that float32 rounding can cause."""


def write_model(
    path: Path, network: TrainedModel, *, taxonomy: Taxonomy, config: dict, probe: np.ndarray
) -> float:
    """Writes `path` (.pth), the same tensors as .safetensors, and the .json sidecar.

    The `.pth` is read back and its logits, computed by numpy from the file's own tensors, are
    compared with the model's. A `.pth` can't express an architecture of a user's own; the
    `.safetensors` is read back then.

    Args:
      path: ends in `.pth`; the other two files get the same stem with their own suffixes.
      network: the model.
      taxonomy: the meaning of the columns.
      config: the run's config, JSON-able.
      probe: `[N, V]` multi-hot rows for the comparison.

    Returns:
      The largest difference between the logits.

    Raises:
      InputError: writing failed, or the file does not hold the model.
    """
    tensors, other = network_tensors.to_state_dict(network), path.with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not network.user_architecture:
        pth.write_pth(path, tensors)
    write_safetensors(other, tensors)
    write_sidecar(
        path.with_suffix(".json"),
        taxonomy=taxonomy,
        config=config,
        user_classes=network.user_classes,
    )
    return _read_back(other if network.user_architecture else path, network, probe)


def write_as_safetensors(
    path: Path, network: TrainedModel, *, taxonomy: Taxonomy, config: dict, probe: np.ndarray
) -> float:
    """Writes a `.safetensors` and its sidecar, and reads it back: see `write_model`."""
    write_safetensors(path, network_tensors.to_state_dict(network))
    write_sidecar(
        path.with_suffix(".json"),
        taxonomy=taxonomy,
        config=config,
        user_classes=network.user_classes,
    )
    return _read_back(path, network, probe)


def _read_back(path: Path, network: TrainedModel, probe: np.ndarray) -> float:
    """Returns the largest difference between a file's logits and the model's: see `check_logits`.

    Those of a file are computed by numpy, but for an architecture of a user's own.
    """
    tensors = _read_tensors(path)
    if network.user_architecture:
        found = reconstruction_logits(rebuild_model(tensors, {}, network.user_classes), probe)
    else:
        found = network_tensors.reference_logits(tensors, probe)
    return check_logits(path, found, reconstruction_logits(network, probe))


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    return read_safetensors(path) if path.suffix == ".safetensors" else pth.read_pth(path)


def write_sidecar(
    path: Path, *, taxonomy: Taxonomy, config: dict, user_classes: UserClasses | None = None
) -> None:
    """Writes the `.json` sidecar: the columns' taxonomy, the run's config, a user's own code."""
    meaning = {
        "taxonomy": taxonomy.to_mapping(),
        "taxonomy_digest": taxonomy.digest,
        "config": config,
        **sources_as_text(user_classes),
    }
    if taxonomy.aliases:
        meaning["aliases"] = taxonomy.to_file()["aliases"]
    write_json(path, meaning)


def check_logits(path: Path, found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference between a written file's logits and the model's.

    Raises:
      InputError: the difference is larger than float32 rounding can cause.
    """
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise InputError(f"{path}: written, but its logits differ from the model's: {difference:g}")
    return difference


def read_model(
    path: Path, taxonomy_path: str | None, *, trust_code: bool = False
) -> tuple[TrainedModel, Taxonomy, dict]:
    """Reads a `.pth` or `.safetensors` of this model's architecture, whichever program saved it.

    Args:
      path: the file.
      taxonomy_path: the taxonomy of the columns; None takes the `.json` sidecar's.
      trust_code: whether code of a user's own that the sidecar carries may run.

    Returns:
      (network, taxonomy, config of the sidecar or `{}`).

    Raises:
      InputError: the file is not such a model, there is no taxonomy of its width, or it needs code
        that may not run.
    """
    if kind := stand_in(path):
        raise InputError(f"{path} is {kind}")
    tensors = _read_tensors(path)
    sidecar = path.with_suffix(".json")
    beside = _read_sidecar(sidecar) if sidecar.exists() else {}
    fields = _mapping(_mapping(beside, "config"), "model")
    network = None if user_references(fields) else network_tensors.to_network(tensors, None, path)
    if taxonomy_path is not None:
        taxonomy = Taxonomy.load(taxonomy_path)
    elif "taxonomy" in beside:
        sections = {"concepts": beside["taxonomy"], "aliases": beside.get("aliases", {})}
        taxonomy = Taxonomy.from_mapping(sections, source=str(sidecar))
    else:
        raise InputError(
            f"{path}: which tags are its columns? There is no {sidecar.name} beside it; make it a "
            f"run with python -m jaxvae import {path} --taxonomy FILE.json --output RUN"
        )
    same = beside.get("taxonomy_digest") == taxonomy.digest
    if network is None:
        user_classes = load_user_classes(
            fields,
            sources_from_text(beside),
            num_tags=taxonomy.num_tags,
            origin=path,
            trusted=trust_code,
        )
        network = network_tensors.to_network(tensors, user_classes, path)
    if network.num_tags != taxonomy.num_tags:
        raise InputError(
            f"{path} has {network.num_tags} columns, {taxonomy.source} has {taxonomy.num_tags} "
            f"tags; give the taxonomy it was trained with"
        )
    if not same and taxonomy_path is None:
        raise InputError(
            f"{sidecar}: its taxonomy is not the one it was written with (the digest differs); "
            f"give the right one by --taxonomy"
        )
    return network, taxonomy, _mapping(beside, "config") if same else {}


def _mapping(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns an object inside one of JSON; {} if there is none."""
    value = content.get(name)
    return value if isinstance(value, dict) else {}


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except InputError as error:
        raise InputError(f"{error}; or give --taxonomy") from error


def inexpressible_prior(format_name: str, network: TrainedModel) -> InputError:
    """Returns the error of a format whose writer can't express a prior of a user's own."""
    return InputError(
        f"--format {format_name}: can't express --config.model.prior={network.prior}, which is no "
        f"jaxvae.models.priors.MixturePrior; pth and safetensors hold its arrays"
    )
