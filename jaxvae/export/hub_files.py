"""Writes the files of a published model, and reads them as untrusted input.

Parameters are safetensors, config and taxonomy JSON: the files hold no code and no rows.
"""

import collections
import itertools
import math
import unicodedata
from pathlib import Path
from typing import Any

from jaxvae.config.extensions import is_reference
from jaxvae.data.readers.tables import SUFFIXES
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export import network_tensors
from jaxvae.export.safetensors_io import MAX_READ, read_safetensors, write_safetensors
from jaxvae.export.user_classes import (
    load_user_classes,
    sources_as_text,
    sources_from_text,
    user_references,
)
from jaxvae.models import priors, trained
from jaxvae.models.choices import PRIORS
from jaxvae.models.layer_names import is_valid_hidden_dims, resolve_hidden_dims
from jaxvae.storage.atomic_files import read_json, write_json
from jaxvae.storage.manifest import file_digest

CONFIG, TAXONOMY, WEIGHTS = "config.json", "taxonomy.json", "model.safetensors"
LIMITS = {CONFIG: 2**20, TAXONOMY: 2**26, WEIGHTS: MAX_READ}
"""The model's files, in the order they are read, and the size limit of each in bytes."""
_FORMAT = 1
_TEXTS = (("model_name",), ("data", "dataset_name"), ("data", "aspect_column"))


def write_model_files(
    folder: Path,
    network: trained.TrainedModel,
    *,
    taxonomy: Taxonomy,
    config: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Writes the files that `read_model_files` reads.

    Args:
      folder: an existing folder.
      network: the model.
      taxonomy: the meaning of its columns.
      config: the run's config; local paths are reduced to file names.
      facts: the parameters' checkpoint and epoch.

    Raises:
      InputError: writing failed.
    """
    write_safetensors(folder / WEIGHTS, network_tensors.to_state_dict(network))
    write_json(folder / TAXONOMY, taxonomy.to_file())
    content = {
        "library_name": "jaxvae",
        "format": _FORMAT,
        "checkpoint": facts.get("checkpoint"),
        "epoch": facts.get("epoch"),
        "taxonomy_digest": taxonomy.digest,
        "weights_sha256": file_digest(folder / WEIGHTS),
        "config": without_paths({**config, "model": {**config.get("model", {}), **sizes(network)}}),
        **sources_as_text(network.user_classes),
    }
    write_json(folder / CONFIG, content)


def sizes(network: trained.TrainedModel) -> dict[str, Any]:
    """Returns the fields of a config's `model` that follow from the network's parameters."""
    fields = {
        "latent_dim": network.latent_dim,
        "hidden_dim": network.hidden_dims[0],
        "hidden_dims": list(network.hidden_dims) if len(network.hidden_dims) > 1 else [],
        "use_batch_norm": network.use_batch_norm,
        "use_layer_norm": network.use_layer_norm,
        "prior": network.prior,
    }
    if not (network.user_classes and network.user_classes.prior):
        axes = priors.axis_sizes(priors.prior_class(network.prior), network.params.get("prior", {}))
        fields |= {"prior_components": axes["K"]} if "K" in axes else {}
    return fields


def without_paths(config: dict[str, Any]) -> dict[str, Any]:
    """Replaces local paths in a config by file names, to avoid leaking directories."""
    data = dict(config.get("data", {}))
    for field in ("dataset_name", "val_from", "test_from"):
        source = data.get(field)
        if isinstance(source, str) and is_reference(source):
            data[field] = _without_folder(source)
        elif isinstance(source, str) and is_local(source):
            data[field] = Path(source).name
    if data.get("taxonomy_path"):
        data["taxonomy_path"] = Path(str(data["taxonomy_path"])).name
    without = {**config, "data": data} if data else dict(config)
    if init_from := str(config.get("init_from", "")):
        without["init_from"] = init_from if "://" in init_from else Path(init_from).name
    for group, field in (
        ("loss", "objective"),
        ("model", "prior"),
        ("model", "architecture"),
        ("trainer", "callbacks"),
    ):
        if value := without.get(group, {}).get(field):
            without[group] = {**without[group], field: _without_folder(value)}
    return without


def _without_folder(value: Any) -> Any:
    """Reduces `folder/file.py:name`, or each of a list, to `file.py:name`; keeps other values."""
    if isinstance(value, list):
        return [_without_folder(item) for item in value]
    return value.rpartition("/")[2] if is_reference(value) else value


def is_local(dataset_name: str) -> bool:
    """Tests whether a data set is a file, rather than the embedded corpus or one on the Hub."""
    path = Path(dataset_name)
    if dataset_name.startswith("~"):
        return True
    return path.suffix.lower() in SUFFIXES or path.is_absolute() or len(path.parts) > 2


def is_published(folder: Path) -> bool:
    """Tests whether a folder holds a published model, rather than a run."""
    try:
        return read_json(folder / CONFIG, most_bytes=LIMITS[CONFIG]).get("library_name") == "jaxvae"
    except InputError:
        return False


def read_model_files(
    folder: Path, name: str, *, trust_code: bool = False
) -> tuple[trained.TrainedModel, Taxonomy, dict[str, Any], dict[str, Any]]:
    """Reads a published model; everything in the files is checked before it is used.

    Args:
      folder: the files' folder.
      name: the model's name in messages.
      trust_code: whether code of a user's own that it carries may run.

    Returns:
      (network, taxonomy, the run's config, facts: its checkpoint and epoch).

    Raises:
      InputError: a file is missing, damaged, too large, or does not fit the others; or the
        model needs code that may not run.
    """
    content, config = read_config(folder, name)
    taxonomy = read_taxonomy(folder, content, name)
    path = folder / WEIGHTS
    user_classes = load_user_classes(
        config["model"],
        sources_from_text(content),
        num_tags=taxonomy.num_tags,
        origin=folder / CONFIG,
        trusted=trust_code,
    )
    shapes = {
        "fc1.weight": (_widths(config)[0], taxonomy.num_tags),
        "fc2_mu.weight": (config["model"]["latent_dim"], None),
    }
    try:
        if path.is_file() and file_digest(path) != content.get("weights_sha256"):
            raise InputError(f"{path}: damaged: not what {CONFIG} was written with; remove it")
        tensors = read_safetensors(
            path, shapes={} if user_classes and user_classes.architecture else shapes
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    network = network_tensors.to_network(tensors, user_classes, name)
    wrong = [key for key, size in sizes(network).items() if config["model"].get(key, size) != size]
    if wrong:
        raise InputError(f"{name}: {CONFIG} says another {', '.join(wrong)} than {WEIGHTS} has")
    return network, taxonomy, config, {key: content.get(key) for key in ("checkpoint", "epoch")}


def read_config(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the contents of `config.json` and the run's config in it, with used fields checked.

    Raises:
      InputError: the file is missing, damaged, or not a published model's.
    """
    content = read_json(folder / CONFIG, most_bytes=LIMITS[CONFIG])
    if content.get("library_name") != "jaxvae":
        raise InputError(f"{name}: not a jaxvae model (its {CONFIG} is another library's)")
    if content.get("format") != _FORMAT:
        raise InputError(f"{name}: its {CONFIG} is of a format that this jaxvae does not know")
    config = content.get("config")
    groups = ("model", "data", "loss", "trainer", "inference")
    wrong = [
        group
        for group in groups
        if not isinstance(config, dict) or not isinstance(config.get(group, {}), dict)
    ]
    if not wrong:
        assert isinstance(config, dict)
        model = config.get("model", {})
        sized = [model.get(key) for key in ("latent_dim", "hidden_dim")]
        has_sizes = all(type(size) is int and size > 0 for size in sized)
        wrong += (
            [] if has_sizes and is_valid_hidden_dims(model.get("hidden_dims", [])) else ["model"]
        )
        for keys in _TEXTS:
            value: Any = config
            for key in keys:
                value = value.get(key, "") if isinstance(value, dict) else ""
            wrong += [] if isinstance(value, str) and _is_plain(value) else [".".join(keys)]
        wrong += [] if content.get("checkpoint") in _CHECKPOINTS else ["checkpoint"]
        wrong += [] if type(content.get("epoch")) in (int, type(None)) else ["epoch"]
    if wrong:
        raise InputError(f"{name}: {CONFIG} is damaged: {', '.join(wrong)} is not a config's")
    assert isinstance(config, dict)
    return content, config


_CHECKPOINTS = ("best", "last", "exported", "imported")


def read_taxonomy(folder: Path, content: dict[str, Any], name: str) -> Taxonomy:
    """Reads the taxonomy, which must be the one that `config.json` was written with.

    Raises:
      InputError: the taxonomy is missing, damaged or another, or holds control characters.
    """
    taxonomy = Taxonomy.load(folder / TAXONOMY)
    if taxonomy.digest != content.get("taxonomy_digest"):
        raise InputError(f"{name}: {TAXONOMY} is not the one the model was trained with")
    names = (name for pairs in (taxonomy.concepts, taxonomy.aliases) for name, _ in pairs)
    for text in (*taxonomy.spellings, *names):
        if not _is_plain(text):
            raise InputError(f"{name}: {TAXONOMY}: {text[:80]!r} holds control characters")
    return taxonomy


def largest_weights(config: dict[str, Any], num_tags: int) -> int:
    """Returns an upper bound, in bytes, of the size of `model.safetensors` for such a config."""
    model, widths = config["model"], _widths(config)
    if user_references(model):
        return MAX_READ
    latent = model["latent_dim"]
    products = num_tags * widths[0] + 2 * latent * widths[-1]
    products += sum(a * b for a, b in itertools.pairwise(widths))
    numbers = 2 * (products + num_tags + latent + 8 * sum(widths) + 8)
    components = model.get("prior_components")
    components = components if type(components) is int and components > 0 else 1
    # Other axes of a prior's arrays are of this size at most.
    axes = collections.defaultdict(lambda: 256, K=components, V=num_tags, L=latent, D=2 * latent)
    if model.get("prior") in PRIORS:
        arrays = priors.prior_class(model["prior"]).arrays.values()
        numbers += sum(math.prod(axes[letter] for letter in letters) for letters in arrays)
    return min(MAX_READ, 8 * numbers + 2**20)  # 8 bytes: the numbers may be float64.


def _widths(config: dict[str, Any]) -> tuple[int, ...]:
    model = config["model"]
    return resolve_hidden_dims(model["hidden_dim"], model.get("hidden_dims", ()))


def _is_plain(text: str) -> bool:
    return not any(unicodedata.category(character) == "Cc" for character in text)
