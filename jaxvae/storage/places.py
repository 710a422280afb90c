"""Checks where files are to be written, before minutes of work: a free place, and no input."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxvae.config.paths import user_path
from jaxvae.errors import InputError
from jaxvae.storage import lock, manifest, run_files

_OF_A_RUN = {
    *(*run_files.SEALED, run_files.SPLITS, run_files.REPORT, run_files.EXPLORER),
    *(run_files.BASELINES, run_files.CHECKPOINTS, run_files.FINAL, run_files.TENSORBOARD),
    *(run_files.EXTENSIONS, manifest.NAME, lock.NAME),
}


def check_outputs(outputs: Mapping[str, Path], inputs: Iterable[Path] = ()) -> None:
    """Raises InputError unless all outputs can be written without harm to any input.

    Args:
      outputs: files to write, each by what it is called in messages; all different.
      inputs: files that are read, and folders of runs or of published models.
    """
    read = [path for path in inputs if path.exists()]
    for name, path in outputs.items():
        for source in read:
            if path.exists() and path.samefile(source):
                raise InputError(f"{name} {path}: is the input file too; name another")
            if source.is_dir() and is_file_of(source, path):
                raise InputError(f"{name} {path}: is a file of {source}; name another")
        for other_name, other_path in outputs.items():
            if other_name != name and other_path.resolve() == path.resolve():
                raise InputError(f"{name} {path}: is the {other_name} too; name another")
    for path in outputs.values():
        check_place(path)


def is_file_of(folder: Path, path: Path) -> bool:
    """Returns whether a path is of a file that a run, or a published model, has or may have."""
    absolute, root = path.resolve(), folder.resolve()
    if not absolute.is_relative_to(root) or absolute == root:
        return False
    name = absolute.relative_to(root)
    return name.parts[0] in _OF_A_RUN or name.as_posix() in manifest.names(folder)


def check_place(path: Path) -> None:
    """Raises InputError if a file can't be written; by a trial, which leaves nothing."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    for candidate in (path, path.with_name(path.name + ".new")):
        if candidate.is_dir():
            raise InputError(f"{candidate}: can't be written: it is a folder")
    if not folder.is_dir():
        raise InputError(f"{path}: can't be written: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: can't be written: {folder} may not be written to")
    try:
        # Some file systems, such as /proc, tell nothing by their permissions.
        with tempfile.TemporaryDirectory(prefix=".jaxvae-", dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: can't be written: {folder}: {reason}") from error


def existing(paths: Iterable[str | os.PathLike[str] | None]) -> list[Path]:
    """Returns the files and folders among values that may be paths, as users type them."""
    places = []
    for value in paths:
        with contextlib.suppress(InputError, OSError, ValueError):
            if value and (path := user_path(value)).exists():
                places.append(path)
    return places
