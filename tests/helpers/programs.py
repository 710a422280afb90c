"""Compiled programs that outlive a run of the tests: `build/programs` keeps them for the next one.

JAX writes and reads its cache without a lock, so that one process may read half of what another is
writing. Each process of the tests therefore has a folder of its own: it begins as a copy of what is
kept. After each test it keeps what it compiled besides, file by file and whole, and takes what others
have kept since. JAXVAE_KEPT_PROGRAMS names another folder than `build/programs`, for runs in copies
of the repository.
"""

import atexit
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
SETTLED = 0.5  # seconds
DAYS = 3.0  # then a program is compiled again: most are of code that has changed since


def borrow(kept: Path = KEPT) -> Path:
    """Makes a folder for JAX's cache, with all the programs that are kept and not too old."""
    folder = Path(tempfile.mkdtemp(prefix="jaxvae-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    oldest = time.time() - DAYS * 86400
    for name in _programs(kept):
        with contextlib.suppress(
            OSError
        ):  # another process has just removed it, or it is another's
            if os.stat(kept / name).st_mtime < oldest:
                os.unlink(kept / name)
            else:
                shutil.copyfile(kept / name, folder / name)
    return folder


class Exchange:
    """Keeps what is new in such a folder, and copies what others have kept into it.

    A call costs next to nothing where neither folder has changed since the last one.
    """

    def __init__(self, folder: Path, kept: Path = KEPT):
        self._folder, self._kept, self._seen = folder, kept, (0, 0)

    def __call__(self) -> None:
        if self._changes() == self._seen:
            return
        is_all = keep(self._folder, self._kept, settled=SETTLED)
        _, others = self._changes()  # before the look: what comes during it is seen next time
        for name in _programs(self._kept) - _programs(self._folder):
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                shutil.copyfile(self._kept / name, self._folder / name)
        self._seen = (self._changes()[0] if is_all else 0, others)

    def _changes(self) -> tuple[int, int]:
        kept = self._kept.stat().st_mtime_ns if self._kept.is_dir() else 0
        return self._folder.stat().st_mtime_ns, kept


def keep(folder: Path, kept: Path = KEPT, *, settled: float = 0.0) -> bool:
    """Keeps what is new in such a folder.

    Args:
      folder: the folder.
      kept: where to.
      settled: seconds without a change after which a program is whole, where one may be writing.

    Returns:
      Whether all of it is kept. Where a program can't be, it is compiled again in the next run.
    """
    with contextlib.suppress(OSError):
        kept.mkdir(parents=True, exist_ok=True)
    is_all, latest = True, time.time() - settled
    for name in _programs(folder) - _programs(kept):
        if settled and os.stat(folder / name).st_mtime > latest:
            is_all = False
            continue
        try:
            handle, aside = tempfile.mkstemp(dir=kept, prefix=".")
            os.close(handle)
            try:
                shutil.copyfile(folder / name, aside)
                os.replace(aside, kept / name)
            except OSError:
                os.unlink(aside)
                raise
        except OSError:  # a disk that is full, another user's folder
            return False
    return is_all


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
