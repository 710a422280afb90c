"""Finds a saved evaluation in a run's folder, if it is of the same parameters and settings."""

import hashlib
from pathlib import Path
from typing import Any

from jaxvae import __version__
from jaxvae.errors import InputError
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.inference.run import Run
from jaxvae.models.trained import parameters_digest
from jaxvae.storage.atomic_files import read_json, to_json, write_json


def evaluation_path(folder: Path, split: str) -> Path:
    """Returns the path of a run's saved evaluation on a split."""
    return folder / f"evaluation_{split}.json"


def question(run: Run, *, split: str, num_importance_samples: int, seed: int) -> dict[str, Any]:
    """Returns everything an evaluation depends on, except the run's rows, which never change.

    Args:
        run: the run to evaluate.
        split: "train", "val" or "test".
        num_importance_samples: importance samples per row for the likelihood.
        seed: seed of every draw.
    """
    return {
        "split": split,
        "num_importance_samples": num_importance_samples,
        "seed": seed,
        "checkpoint": run.facts.get("checkpoint"),
        "epoch": run.facts.get("epoch"),
        "parameters": parameters_digest(to_state_dict(run.network)),
        "version": __version__,
    }


def saved_evaluation(
    run: Run, *, split: str, num_importance_samples: int | None, seed: int
) -> dict[str, Any] | None:
    """Returns the saved evaluation of these parameters and settings, None if there is none.

    Args:
        run: as in `question`.
        split: as in `question`.
        num_importance_samples: as in `question`; None takes any.
        seed: as in `question`.
    """
    asked = num_importance_samples or 0
    current = question(run, split=split, num_importance_samples=asked, seed=seed)
    if num_importance_samples is None:
        del current["num_importance_samples"]
    saved = read_evaluation(run.folder, split, parameters=current["parameters"])
    same = saved is not None and all(saved.get(name) == value for name, value in current.items())
    return saved if same else None


def read_evaluation(folder: Path, split: str, *, parameters: str) -> dict[str, Any] | None:
    """Returns the saved evaluation of some parameters, None if there is none.

    A damaged or unreadable one counts as missing, since it can be computed again.

    Args:
        folder: the run's folder.
        split: "train", "val" or "test".
        parameters: their digest.
    """
    try:
        saved = read_json(evaluation_path(folder, split))
    except InputError:
        return None
    is_whole = saved.pop("checksum", None) == _checksum(saved)
    return saved if is_whole and saved.get("parameters") == parameters else None


def save_evaluation(folder: Path, split: str, evaluation: dict[str, Any]) -> None:
    """Saves an evaluation in a run's folder, with a checksum.

    Raises:
      InputError: the folder takes no file.
    """
    path = evaluation_path(folder, split)
    write_json(path, {**evaluation, "checksum": _checksum(evaluation)})


def _checksum(evaluation: dict[str, Any]) -> str:
    """Returns the SHA-256 (hexadecimal) of an evaluation as its file has it."""
    return hashlib.sha256(to_json(evaluation).encode()).hexdigest()
