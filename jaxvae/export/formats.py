"""Export formats of a trained model, and the atomic writing of their files."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean
from jaxvae.export import model_files, onnx_graphs, stablehlo_modules
from jaxvae.export.torch import module_source
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.atomic_files import name_file_in_errors, write_text


class Meaning(NamedTuple):
    """The texts of a file beside a model's arrays.

    Attributes:
      taxonomy: the meaning of the columns.
      config: the run's config, JSON-able.
      facts: the parameters' checkpoint and epoch.
    """

    taxonomy: Taxonomy
    config: dict[str, Any]
    facts: dict[str, Any]

    @property
    def sidecar(self) -> dict[str, Any]:
        """The arguments of a `.json` sidecar."""
        return {"taxonomy": self.taxonomy, "config": self.config}


def _write_pth(path: Path, network: TrainedModel, meaning: Meaning, probe: np.ndarray) -> float:
    return model_files.write_model(path, network, probe=probe, **meaning.sidecar)


def _write_safetensors(
    path: Path, network: TrainedModel, meaning: Meaning, probe: np.ndarray
) -> float:
    return model_files.write_as_safetensors(path, network, probe=probe, **meaning.sidecar)


def _write_onnx(path: Path, network: TrainedModel, meaning: Meaning, probe: np.ndarray) -> float:
    stated = {key: str(value) for key, value in meaning.facts.items() if value is not None}
    named = {"model_name": str(meaning.config.get("model_name", "vae")), **stated}
    return onnx_graphs.write_onnx(
        _parts(path), network, taxonomy=meaning.taxonomy, facts=named, probe=probe
    )


def _write_stablehlo(
    path: Path, network: TrainedModel, meaning: Meaning, probe: np.ndarray
) -> float:
    difference = stablehlo_modules.write_stablehlo(_parts(path), network, probe=probe)
    model_files.write_sidecar(path.with_suffix(".json"), **meaning.sidecar)
    return difference


def _write_torch_module(
    path: Path, network: TrainedModel, meaning: Meaning, probe: np.ndarray
) -> float:
    name, tags = str(meaning.config.get("model_name", "vae")), meaning.taxonomy.spellings
    text = module_source.module_source(network, name=name, tags=tags)
    difference = _write_pth(path.with_suffix(".pth"), network, meaning, probe)
    write_text(path.with_name(module_source.SOURCE), text)
    return difference


class Format(NamedTuple):
    """A file format of a trained model.

    Attributes:
      suffix: of its file; "" for a format that is a folder.
      write: writes (path, network, meaning, probe), and returns the largest difference between the
        logits of what was written and the model's.
      any_architecture: whether it can express an architecture of a user's own.
    """

    suffix: str
    write: Callable[[Path, TrainedModel, Meaning, np.ndarray], float]
    any_architecture: bool = False


FORMATS = {
    "pth": Format(".pth", _write_pth),
    "safetensors": Format(".safetensors", _write_safetensors, any_architecture=True),
    "onnx": Format(".onnx", _write_onnx),
    "stablehlo": Format(".stablehlo", _write_stablehlo, any_architecture=True),
    "torch_module": Format("", _write_torch_module),
}


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
        suffixes = {name: format.suffix for name, format in FORMATS.items() if format.suffix}
        match = next((name for name, suffix in suffixes.items() if suffix == ending), None)
        if match is None:
            endings = ", ".join(suffixes.values())
            raise InputError(
                f"--output {output}: the name must end in {endings}; or give --format torch_module "
                f"for a folder"
            )
        return match
    if name not in FORMATS:
        raise InputError(
            f"--format {name}: must be one of {', '.join(FORMATS)}{did_you_mean(name, FORMATS)}"
        )
    suffix = FORMATS[name].suffix
    if suffix and ending != suffix:
        raise InputError(f"--output {output}: the name must end in {suffix} for --format {name}")
    if not suffix and ending in {format.suffix for format in FORMATS.values()} - {""}:
        raise InputError(f"--output {output}: --format {name} is a folder; leave {ending} away")
    return name


def check_place(output: Path, format_name: str) -> None:
    """Raises InputError unless the output's parent folder exists and no file blocks the output."""
    if not output.parent.is_dir():
        what = "is no folder" if output.parent.exists() else "is not there; make it first"
        kind = "file" if FORMATS[format_name].suffix else "folder"
        raise InputError(f"--output {output}: the {kind}'s place {output.parent} {what}")
    if not FORMATS[format_name].suffix and output.is_file():
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
      InputError: different files of these names exist, a package is missing, writing failed, the
        format can't express the model, or the files do not hold it. No new file is left behind
        then.
    """
    check_place(output, format_name)
    kind = FORMATS[format_name]
    if network.user_architecture and not kind.any_architecture:
        able = " and ".join(name for name, format in FORMATS.items() if format.any_architecture)
        raise InputError(
            f"--format {format_name}: can't express --config.model.architecture="
            f"{network.user_architecture}; {able} can"
        )
    folder, stem = (output.parent, output.stem) if kind.suffix else (output, "model")
    with name_file_in_errors(output), _stage(folder) as stage:
        path = stage / (stem + kind.suffix)
        difference = kind.write(path, network, Meaning(taxonomy, config, facts), probe)
        return _move(stage, folder), difference


def _parts(path: Path) -> dict[str, Path]:
    """Returns the files of a model's parts: `model.onnx` becomes `model.encoder.onnx` and so on."""
    return {name: path.with_suffix(f".{name}{path.suffix}") for name in onnx_graphs.PARTS}


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
