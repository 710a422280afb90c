"""Verifies that a run's folder is as it was written: digests, exports, rows, epochs."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxvae.config.extensions import is_copy_of
from jaxvae.data.readers.regular_file import is_special_file, refuse_unreadable
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, Unreadable
from jaxvae.export import network_tensors
from jaxvae.export.safetensors_io import read_safetensors
from jaxvae.export.torch.pth import read_pth
from jaxvae.export.user_classes import sources_of_run, user_references
from jaxvae.runtime import devices
from jaxvae.storage import manifest, run_dir, run_files
from jaxvae.storage.atomic_files import read_json
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.storage.final_params import load_params
from jaxvae.storage.saved_rows import load_saved_rows


def verify(folder: Path) -> tuple[list[str], list[str]]:
    """Checks a run's folder; reads everything, changes nothing.

    Args:
      folder: the run's folder.

    Returns:
      (one line per passed check, one line per fault).

    Raises:
      InputError: the folder is not a run's.
      Unreadable: a file can't be read at present, which is not damage.
    """
    run_dir.check_is_run(folder)
    devices.check_backend()
    folder = folder.resolve()
    # Checked before any file is opened, because libraries would block on a pipe.
    if odd := sorted(path for path in folder.rglob("*") if is_special_file(path)):
        return [], [f"{path} is no regular file" for path in odd]
    passed: list[str] = []
    wrong: list[str] = []
    for title, check in _checks(folder):
        try:
            lines = list(check(folder))
        except Unreadable:
            raise
        except InputError as error:
            lines = [str(error)]
        except OSError as error:
            refuse_unreadable(error.filename, error)
            lines = [f"{error.filename}: {error.strerror}"]
        if lines:
            wrong += lines
        else:
            passed.append(title)
    return passed, wrong


def _checks(folder: Path) -> Iterator[tuple[str, Callable[[Path], Iterator[str]]]]:
    finished = manifest.is_sealed(folder) or (folder / run_files.SUMMARY).exists()
    if finished:
        yield "files: each is what was written", manifest.damaged
    else:
        yield "finished", _unfinished
    # Other folders there are checkpoints set aside as damaged, or left unfinished by a kill.
    steps = [step for step in (folder / run_files.CHECKPOINTS).glob("*") if step.name.isdigit()]
    for step in sorted(steps, key=lambda step: int(step.name)):
        yield f"checkpoint {step.name}", functools.partial(_checkpoint, step)
    if not finished:
        return
    if steps:
        yield "final: the best parameters of the newest checkpoint", _best
    elif read_json(folder / run_files.SUMMARY).get("imported_from") is None:
        yield "checkpoints: as the run left them", _no_checkpoints
    yield "parameters: as they were saved, and in the exports bit for bit", _parameters
    if (folder / run_files.EXTENSIONS).exists():
        yield "extensions: the code that was run", _extensions
    if (folder / run_files.ROWS).exists():
        yield "rows: those the model was trained on", _rows
        yield "metrics: every epoch once", _epochs


def _unfinished(folder: Path) -> Iterator[str]:
    yield (
        f"{folder} holds a run that has not finished: it is in training, was stopped, or failed; "
        f"launch.py with --workdir={folder} goes on with it"
    )


def _no_checkpoints(folder: Path) -> Iterator[str]:
    yield f"{folder / run_files.CHECKPOINTS} has no checkpoint, though the run was trained"


def _checkpoint(step: Path, _: Path) -> Iterator[str]:
    return manifest.damaged(step)


def _best(folder: Path) -> Iterator[str]:
    steps = folder / run_files.CHECKPOINTS
    epoch = max(int(step.name) for step in steps.glob("*") if step.name.isdigit())
    if next(manifest.damaged(steps / str(epoch)), None):
        return  # The damage has been reported already.
    with Checkpoints(steps, taxonomy_digest="") as checkpoints:
        best = checkpoints.best_leaves(epoch)
    if read_json(folder / run_files.FINAL / "record.json").get("leaves") != best:
        final = folder / run_files.FINAL
        yield f"{final} does not hold the best parameters of {steps / str(epoch)}"


def _parameters(folder: Path) -> Iterator[str]:
    params, batch_stats, facts = load_params(folder / run_files.FINAL)
    if facts.get("taxonomy_digest") != Taxonomy.load(folder / run_files.TAXONOMY).digest:
        yield f"{folder / run_files.TAXONOMY} is not the one the model was trained with"
    model = run_dir.read_config(folder)["model"]
    expected = network_tensors.to_tensors(params, batch_stats, model=model)
    for path, read in (
        (folder / run_files.MODEL, read_pth),
        (folder / run_files.SAFETENSORS, read_safetensors),
    ):
        if path.name == run_files.MODEL and "architecture" in user_references(model):
            continue  # it can't express one
        try:
            if not _same(read(path), expected):
                yield f"{path} does not hold the parameters of {folder / run_files.FINAL}"
        except InputError as error:
            yield str(error)


def _extensions(folder: Path) -> Iterator[str]:
    for name, source in sources_of_run(folder / run_files.EXTENSIONS).items():
        if not is_copy_of(name, source):
            yield f"{folder / run_files.EXTENSIONS / name} is not what was run"


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        and a[name].tobytes() == b[name].tobytes()
        for name in a
    )


def _rows(folder: Path) -> Iterator[str]:
    load_saved_rows(folder, Taxonomy.load(folder / run_files.TAXONOMY))  # raises if they differ
    return iter(())


def _epochs(folder: Path) -> Iterator[str]:
    epochs = [line.get("epoch") for line in read_epochs(folder)]
    expected = read_json(folder / run_files.SUMMARY).get("epochs")
    if epochs != list(range(1, len(epochs) + 1)) or len(epochs) != expected:
        yield f"{folder / run_files.EPOCHS} does not hold each of {expected} epochs once, in order"
