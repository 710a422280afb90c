"""Export formats of a trained model, and the atomic writing of their files."""

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
"""The suffix of each format's file; "" for a format that is a folder."""


def format_of(output: str | Path, name: str | None) -> str:
    """Returns the format to write, checked against the output's suffix.

    Args:
      output: the file or folder to write.
      name: one of `FORMATS`; None infers it from the suffix.

    Raises:
      InputError: the format is unknown, or the suffix is not the format's.
    """
    ending = Path(output).suffix
    if name is None:
        match = next(
            (kind for kind, suffix in FORMATS.items() if suffix and suffix == ending), None
        )
        if match is None:
            endings = ", ".join(suffix for suffix in FORMATS.values() if suffix)
            raise InputError(
                f"--output {output}: the name must end in {endings}; or give --format torch_module "
                f"for a folder"
            )
        return match
    if name not in FORMATS:
        raise InputError(
            f"--format {name}: must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        )
    suffix = FORMATS[name]
    if suffix and ending != suffix:
        raise InputError(f"--output {output}: the name must end in {suffix} for --format {name}")
    if not suffix and ending in FORMATS.values() and ending:
        raise InputError(f"--output {output}: --format {name} is a folder; leave {ending} away")
    return name


def check_place(output: Path, format_name: str) -> None:
    """Raises InputError unless the output's parent folder exists and no file blocks the output."""
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
    """Writes a model in one format and compares the files' logits with the model's.

    Args:
      output: a file name with the format's suffix, or a folder: see `format_of`.
      format_name: one of `FORMATS`.
      network: the model.
      taxonomy: the meaning of the columns.
      config: the run's config, JSON-able.
      facts: the parameters' checkpoint and epoch.
      probe: `[N, V]` multi-hot rows for the comparison.

    Returns:
      (the files, the largest difference between their logits and the model's).

    Raises:
      InputError: different files of these names exist, a package is missing, writing failed, or the
        files do not hold the model. No new file is left behind then.
    """
    check_place(output, format_name)
    folder, stem = (output.parent, output.stem) if FORMATS[format_name] else (output, "model")
    with name_file_in_errors(output), _stage(folder) as stage:
        path = stage / (stem + (FORMATS[format_name] or ".pth"))
        meaning: dict[str, Any] = {"taxonomy": taxonomy, "config": config}
        if format_name == "safetensors":
            difference = _write_safetensors(path, network, probe=probe, **meaning)
        elif format_name == "onnx":
            stated = {key: str(value) for key, value in facts.items() if value is not None}
            named = {"model_name": str(config.get("model_name", "vae")), **stated}
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
    """Returns the files of a model's parts: `model.onnx` becomes `model.encoder.onnx` and so on."""
    return {name: path.with_suffix(f".{name}{path.suffix}") for name in onnx_graphs.PARTS}


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
    """Yields a temporary folder in `folder`, removed at the end with a new, empty `folder`."""
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".export-", dir=folder.resolve()))
        try:
            yield stage
        except InputError as error:  # The message should name the final path.
            raise InputError(str(error).replace(str(stage), str(folder))) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    finally:
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _move(stage: Path, folder: Path) -> list[Path]:
    """Moves the staged files to their names; raises if a different file exists under one."""
    pairs = [(file, folder / file.name) for file in sorted(stage.iterdir())]
    for staged, path in pairs:
        if path.exists() and (path.is_dir() or path.read_bytes() != staged.read_bytes()):
            raise InputError(f"{path}: exists already and is another; remove it or name another")
    for staged, path in pairs:
        os.replace(staged, path)
    return [path for _, path in pairs]
