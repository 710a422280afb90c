"""Compiled programs that outlive a run of the tests: `build/programs` keeps them for the next one.

JAX writes and reads its cache without a lock, so that one process may read half of what another is
writing. Each process of the tests therefore has a folder of its own: it begins as a copy of what is
kept. After each file of tests it keeps what it compiled besides, file by file and whole, and takes
what others have kept since. JAXVAE_KEPT_PROGRAMS names another folder than `build/programs`, for
runs in copies of the repository.
"""

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

ENVIRONMENT = "JAXVAE_KEPT_PROGRAMS"
KEPT = Path(
    os.environ.get(ENVIRONMENT) or Path(__file__).resolve().parents[2] / "build" / "programs"
)
DAYS = 3.0  # then a program is compiled again: most are of code that has changed since


def borrow(kept: Path = KEPT) -> Path:
    """Makes a folder for JAX's cache, with all the programs that are kept and not too old."""
    folder = Path(tempfile.mkdtemp(prefix="jaxvae-tests-"))
    oldest = time.time() - DAYS * 86400
    for name in _programs(kept):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            if os.stat(kept / name).st_mtime < oldest:
                os.unlink(kept / name)
            else:
                shutil.copyfile(kept / name, folder / name)
    return folder


def exchange(folder: Path, kept: Path = KEPT) -> None:
    """Keeps what is new in such a folder, and copies what others have kept into it."""
    keep(folder, kept)
    for name in _programs(kept) - _programs(folder):
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            shutil.copyfile(kept / name, folder / name)


def keep(folder: Path, kept: Path = KEPT) -> None:
    """Keeps what is new in such a folder."""
    kept.mkdir(parents=True, exist_ok=True)
    for name in _programs(folder) - _programs(kept):
        aside = kept / f".{os.getpid()}"
        shutil.copyfile(folder / name, aside)
        aside.replace(kept / name)


def give_back(folder: Path, kept: Path = KEPT) -> None:
    """Keeps what is new in such a folder, and removes the folder."""
    try:
        keep(folder, kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path) -> set[str]:
    """The names of a folder's programs, without a `Path` for each: there are tens of thousands."""
    try:
        return {name for name in os.listdir(folder) if name.endswith("-cache")}
    except FileNotFoundError:
        return set()
