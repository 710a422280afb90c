"""What a run's folder keeps of an evaluation, and whether that answers what is asked now."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvae import __version__
from jaxvae.errors import InputError
from jaxvae.inference.run import Run
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.atomic_files import read_json


def evaluation_path(folder: Path, split: str) -> Path:
    """Returns the file in a run's folder that keeps the evaluation on a split."""
    return folder / f"evaluation_{split}.json"


def question(run: Run, *, split: str, num_importance_samples: int, seed: int) -> dict[str, Any]:
    """Returns all that an evaluation depends on but the run's rows, which never change.

    Args:
        run: whose parameters are judged.
        split: "train", "val" or "test".
        num_importance_samples: draws a row for the likelihood.
        seed: of every draw.
    """
    return {
        "split": split,
        "num_importance_samples": num_importance_samples,
        "seed": seed,
        "checkpoint": run.facts.get("checkpoint"),
        "epoch": run.facts.get("epoch"),
        "parameters": _digest(run.network),
        "version": __version__,
    }


def saved_evaluation(
    run: Run, *, split: str, num_importance_samples: int, seed: int
) -> dict[str, Any] | None:
    """Returns the kept evaluation of these very parameters, None where there is none.

    One that is damaged, or can't be read now, is none: it can be made again.

    Args:
        run: as in `question`.
        split: as in `question`.
        num_importance_samples: as in `question`.
        seed: as in `question`.
    """
    asked = question(run, split=split, num_importance_samples=num_importance_samples, seed=seed)
    try:
        kept = read_json(evaluation_path(run.folder, split))
    except InputError:
        return None
    same = all(name in kept and kept[name] == value for name, value in asked.items())
    return kept if same else None


def _digest(network: TrainedModel) -> str:
    """Returns the SHA-256 (hexadecimal) of a model's arrays."""
    digest = hashlib.sha256()
    leaves, _ = jax.tree_util.tree_flatten_with_path((network.params, network.batch_stats))
    for path, leaf in leaves:
        array = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype.str}".encode())
        digest.update(array.data)
    return digest.hexdigest()
