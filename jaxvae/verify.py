"""Whether a run's folder is what was written: digests, exports, rows, epochs, from end to end."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxvae import export, manifest, run_folder
from jaxvae.checkpoints import load_params
from jaxvae.errors import InputError
from jaxvae.kept_rows import load_kept_rows
from jaxvae.record import read_epochs, read_json
from jaxvae.taxonomy import Taxonomy


def verify(folder: Path) -> tuple[list[str], list[str]]:
    """Checks a run's folder; reads everything, changes nothing.

    Args:
      folder: the run's folder.

    Returns:
      (one line per check that held, one line per thing that is wrong).

    Raises:
      InputError: it is no run's folder.
    """
    run_folder.check_is_run(folder)
    folder = folder.resolve()
    held: list[str] = []
    wrong: list[str] = []
    for title, check in _checks(folder):
        try:
            lines = list(check(folder))
        except InputError as error:
            lines = [str(error)]
        if lines:
            wrong += lines
        else:
            held.append(title)
    return held, wrong


def _checks(folder: Path) -> Iterator[tuple[str, Callable[[Path], Iterator[str]]]]:
    yield "files: each is what was written", manifest.damaged
    for step in sorted((folder / "checkpoints").glob("*")):
        if step.is_dir():
            yield f"checkpoint {step.name}", functools.partial(_checkpoint, step)
    yield "final: parameters as they were saved", _final
    yield "exports: the same parameters, bit for bit", _exports
    if (folder / "rows.npz").exists():
        yield "rows: those the model was trained on", _rows
        yield "metrics: every epoch once", _epochs


def _checkpoint(step: Path, _: Path) -> Iterator[str]:
    return manifest.damaged(step)


def _final(folder: Path) -> Iterator[str]:
    _, _, facts = load_params(folder / "final")
    if facts.get("taxonomy_digest") != Taxonomy.load(folder / "taxonomy.json").digest:
        yield f"{folder / 'taxonomy.json'} is not the one the model was trained with"


def _exports(folder: Path) -> Iterator[str]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    params, batch_stats, _ = load_params(folder / "final")
    expected = export.to_tensors(params, batch_stats)
    path = folder / "model.pth"
    exported, statistics, _, _ = export.read_model(path, str(folder / "taxonomy.json"))
    if not _same(export.to_tensors(exported, statistics), expected):
        yield f"{path} does not hold the parameters of {folder / 'final'}"
    path = path.with_suffix(".safetensors")
    try:
        if not _same(load_file(path), expected):
            yield f"{path} does not hold the parameters of {folder / 'final'}"
    except (OSError, SafetensorError) as error:
        yield f"{path}: damaged: {error}"


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape and a[name].tobytes() == b[name].tobytes() for name in a
    )


def _rows(folder: Path) -> Iterator[str]:
    kept = load_kept_rows(folder, Taxonomy.load(folder / "taxonomy.json"))
    positions = sorted(at for split in kept.splits.values() for at in split)
    if positions != list(range(len(kept.rows))):
        yield f"{folder / 'splits.json'} does not put each of {len(kept.rows):,} rows in one split"


def _epochs(folder: Path) -> Iterator[str]:
    epochs = [line.get("epoch") for line in read_epochs(folder)]
    expected = read_json(folder / "summary.json").get("epochs")
    if epochs != list(range(1, len(epochs) + 1)) or len(epochs) != expected:
        yield f"{folder / 'metrics.jsonl'} does not hold each of {expected} epochs once, in order"
