"""The formats a trained model is exported in: which files each is, written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean
from jaxvae.export import model_files, onnx_graphs, stablehlo_modules
from jaxvae.export.safetensors_io import read_safetensors, write_safetensors
from jaxvae.export.torch import module_source
from jaxvae.models import trained
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.atomic_files import name_file_in_errors, write_text

FORMATS = {
    "pth": ".pth",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "stablehlo": ".stablehlo",
    "torch_module": "",
}
"""Each format and the ending of what it is written to; without one it is a folder."""


def format_of(output: str | Path, name: str | None) -> str:
    """The format to write, checked against the output's ending.

    Args:
      output: what is to be written.
      name: one of `FORMATS`; None goes by the ending.

    Raises:
      InputError: no such format, or an ending that is not the format's.
    """
    ending = Path(output).suffix
    if name is None:
        found = next((each for each, own in FORMATS.items() if own and own == ending), None)
        if found is None:
            known = ", ".join(own for own in FORMATS.values() if own)
            raise InputError(
                f"--output {output}: the name must end in {known}; or give --format torch_module "
                f"for a folder"
            )
        return found
    if name not in FORMATS:
        raise InputError(
            f"--format {name}: must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        )
    own = FORMATS[name]
    if own and ending != own:
        raise InputError(f"--output {output}: the name must end in {own} for --format {name}")
    if not own and ending in FORMATS.values() and ending:
        raise InputError(f"--output {output}: --format {name} is a folder; leave {ending} away")
    return name


def check_place(output: Path, format_name: str) -> None:
    """Raises InputError unless an output's folder is there, or an output that is one can be."""
    if not output.parent.is_dir():
        what = "is no folder" if output.parent.exists() else "is not there; make it first"
        kind = "file" if FORMATS[format_name] else "folder"
        raise InputError(f"--output {output}: the {kind}'s place {output.parent} {what}")
    if not FORMATS[format_name] and output.is_file():
        raise InputError(f"--output {output}: is a file, and --format {format_name} is a folder")


def write(
    output: Path,
    format_name: str,
    network: TrainedModel,
    *,
    taxonomy: Taxonomy,
    config: dict[str, Any],
    facts: dict[str, Any],
    probe: np.ndarray,
) -> tuple[list[Path], float]:
    """Writes a model and computes with what was written.

    Args:
      output: a name with the format's ending, or a folder: see `format_of`.
      format_name: one of `FORMATS`.
      network: the model.
      taxonomy: what the columns mean.
      config: the run's config, JSON-able.
      facts: which checkpoint the parameters are, and of which epoch.
      probe: `[N, V]` multi-hot rows to compare on.

    Returns:
      (the files, the largest difference between their logits and the model's).

    Raises:
      InputError: other files are there under these names, a package is missing, the disk refused,
        or the files do not hold the model. Nothing is left of it then.
    """
    check_place(output, format_name)
    folder, stem = (output.parent, output.stem) if FORMATS[format_name] else (output, "model")
    with name_file_in_errors(output), _stage(folder) as stage:
        path = stage / (stem + (FORMATS[format_name] or ".pth"))
        meaning: dict[str, Any] = {"taxonomy": taxonomy, "config": config}
        if format_name == "safetensors":
            difference = _write_safetensors(path, network, probe=probe, **meaning)
        elif format_name == "onnx":
            known = {key: str(value) for key, value in facts.items() if value is not None}
            named = {"model_name": str(config.get("model_name", "vae")), **known}
            difference = onnx_graphs.write_onnx(
                _parts(path), network, taxonomy=taxonomy, facts=named, probe=probe
            )
        elif format_name == "stablehlo":
            difference = stablehlo_modules.write_stablehlo(_parts(path), network, probe=probe)
            model_files.write_sidecar(path.with_suffix(".json"), **meaning)
        else:
            arrays = (network.params, network.batch_stats)
            difference = model_files.write_model(path, *arrays, probe=probe, **meaning)
        if format_name == "torch_module":
            name = str(config.get("model_name", "vae"))
            text = module_source.module_source(network, name=name, tags=taxonomy.spellings)
            write_text(stage / module_source.SOURCE, text)
        return _move(stage, folder), difference


def _parts(path: Path) -> dict[str, Path]:
    """`model.onnx` is `model.encoder.onnx` and its like."""
    return {part: path.with_suffix(f".{part}{path.suffix}") for part in onnx_graphs.PARTS}


def _write_safetensors(
    path: Path, network: TrainedModel, *, taxonomy: Taxonomy, config: dict, probe: np.ndarray
) -> float:
    tensors = model_files.to_state_dict(network.params, network.batch_stats)
    write_safetensors(path, tensors)
    model_files.write_sidecar(path.with_suffix(".json"), taxonomy=taxonomy, config=config)
    expected = trained.reconstruction_logits(network, probe)
    return model_files.check_logits(
        path, model_files.reference_logits(read_safetensors(path), probe), expected
    )


@contextmanager
def _stage(folder: Path) -> Iterator[Path]:
    """A folder beside the files to be, on their disk; in the end gone, and what was made for it."""
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".export-", dir=folder.resolve()))
        try:
            yield stage
        except InputError as error:  # names a file by where it was to be
            raise InputError(str(error).replace(str(stage), str(folder))) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move(stage: Path, folder: Path) -> list[Path]:
    """Gives the files their names, unless one is taken by something else."""
    pairs = [(each, folder / each.name) for each in sorted(stage.iterdir())]
    for fresh, path in pairs:
        if path.exists() and (path.is_dir() or path.read_bytes() != fresh.read_bytes()):
            raise InputError(f"{path}: exists already and is another; remove it or name another")
    for fresh, path in pairs:
        os.replace(fresh, path)
    return [path for _, path in pairs]
