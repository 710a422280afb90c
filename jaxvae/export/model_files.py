"""Writes and reads a trained model as `.pth` or `.safetensors`, with a `.json` sidecar."""

import json
from pathlib import Path

import numpy as np

from jaxvae.data.readers.file_kinds import stand_in
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, json_fault
from jaxvae.export.safetensors_io import read_safetensors, write_safetensors
from jaxvae.export.torch import pth
from jaxvae.export.torch.state_dict import cut_wrappers
from jaxvae.models.layer_names import HiddenLayer, decoder_layers, encoder_layers, num_hidden_layers
from jaxvae.models.trained import rebuild_model, reconstruction_logits, untie_weights
from jaxvae.storage.atomic_files import write_json

_STATISTICS = ("mean", "var", "count")
_TOLERANCE = 1e-4
"""Largest difference, relative to the largest logit, that float32 rounding can cause."""


def write_model(
    path: Path,
    params: dict,
    batch_stats: dict,
    *,
    taxonomy: Taxonomy,
    config: dict,
    probe: np.ndarray,
) -> float:
    """Writes `path` (.pth), the same tensors as .safetensors, and the .json sidecar.

    The `.pth` is read back and its logits, computed by numpy from the file's own tensors, are
    compared with the model's.

    Args:
      path: ends in `.pth`; the other two files get the same stem with their own suffixes.
      params: nested dictionary of arrays.
      batch_stats: nested dictionary of arrays, `{}` without batch norm.
      taxonomy: the meaning of the columns.
      config: the run's config, JSON-able.
      probe: `[N, V]` multi-hot rows for the comparison.

    Returns:
      The largest difference between the logits.

    Raises:
      InputError: writing failed, or the file does not hold the model.
    """
    tensors = to_state_dict(params, batch_stats)
    path.parent.mkdir(parents=True, exist_ok=True)
    pth.write_pth(path, tensors)
    write_safetensors(path.with_suffix(".safetensors"), tensors)
    write_sidecar(path.with_suffix(".json"), taxonomy=taxonomy, config=config)
    expected = reconstruction_logits(rebuild_model(params, batch_stats), probe)
    return check_logits(path, reference_logits(pth.read_pth(path), probe), expected)


def write_sidecar(path: Path, *, taxonomy: Taxonomy, config: dict) -> None:
    """Writes the `.json` sidecar: the taxonomy of the columns, and the run's config."""
    meaning = {
        "taxonomy": taxonomy.to_mapping(),
        "taxonomy_digest": taxonomy.digest,
        "config": config,
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


def read_model(path: Path, taxonomy_path: str | None) -> tuple[dict, dict, Taxonomy, dict]:
    """Reads a `.pth` or `.safetensors` of this model's architecture, whichever program saved it.

    Args:
      path: the file.
      taxonomy_path: the taxonomy of the columns; None takes the `.json` sidecar's.

    Returns:
      (params, batch_stats, taxonomy, config of the sidecar or `{}`).

    Raises:
      InputError: the file is not such a model, or there is no taxonomy of its width.
    """
    if kind := stand_in(path):
        raise InputError(f"{path} is {kind}")
    read = read_safetensors if path.suffix == ".safetensors" else pth.read_pth
    tensors = cut_wrappers(read(path))
    try:
        layers = pth.from_torch(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    sidecar = path.with_suffix(".json")
    beside = _read_sidecar(sidecar) if sidecar.exists() else {}
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
    width = layers["fc1"]["kernel"].shape[0]
    if width != taxonomy.num_tags:
        raise InputError(
            f"{path} has {width} columns, {taxonomy.source} has {taxonomy.num_tags} tags; "
            f"give the taxonomy it was trained with"
        )
    same = beside.get("taxonomy_digest") == taxonomy.digest
    if not same and taxonomy_path is None:
        raise InputError(
            f"{sidecar}: its taxonomy is not the one it was written with (the digest differs); "
            f"give the right one by --taxonomy"
        )
    config = beside.get("config") if same else {}
    config = config if isinstance(config, dict) else {}
    return *from_layers(layers), taxonomy, config


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


def _read_sidecar(path: Path) -> dict:
    try:
        beside = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable as JSON: {json_fault(error)}; or give --taxonomy"
        ) from error
    return beside if isinstance(beside, dict) else {}


def to_state_dict(params: dict, batch_stats: dict) -> dict[str, np.ndarray]:
    """Converts parameters to the names and the layout of the exported files."""
    return pth.to_torch(_layers(untie_weights(params), batch_stats))


def _layers(params: dict, batch_stats: dict) -> dict:
    return {
        layer: {
            name: np.asarray(array)
            for name, array in {**arrays, **batch_stats.get(layer, {})}.items()
        }
        for layer, arrays in params.items()
    }


def reference_logits(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Computes the logits of a state dict in numpy as PyTorch would, to check an exported file."""

    def linear(name, h):
        return h @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def layer_norm(name, h):
        if f"{name}.weight" not in tensors:
            return h
        h = h - h.mean(axis=1, keepdims=True)
        h = h / np.sqrt(np.square(h).mean(axis=1, keepdims=True) + 1e-5)
        return h * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def norm(name, h):
        if f"{name}.weight" not in tensors:
            return h
        scale = tensors[f"{name}.weight"] / np.sqrt(tensors[f"{name}.running_var"] + 1e-5)
        return (h - tensors[f"{name}.running_mean"]) * scale + tensors[f"{name}.bias"]

    def through(hidden: list[HiddenLayer], h):
        for name, layer_norm_name, norm_name in hidden:
            h = norm(norm_name, np.maximum(layer_norm(layer_norm_name, linear(name, h)), 0.0))
        return h

    depth = num_hidden_layers({name.partition(".")[0] for name in tensors})
    mean = linear("fc2_mu", through(encoder_layers(depth), x.astype(np.float32)))
    return linear("fc4", through(decoder_layers(depth), mean))
