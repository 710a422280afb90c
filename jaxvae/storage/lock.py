"""The `.lock` file, which keeps a run folder to one writer: its holder, and when it is stale.

On one machine the kernel decides: it holds the lock for a process and releases it when the process
ends, however it ends. A shared file system may not support locks, or not show them to other
machines; so the holder also writes its name into the file and touches it every few seconds, and
another machine keeps away while the file is touched.
"""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from jaxvae.errors import InputError

NAME = ".lock"
TOUCH_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A lock of another machine is free after this time without a touch."""

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_SETTLE_SECONDS = 0.3


@contextlib.contextmanager
def acquire_run_lock(workdir: Path) -> Iterator[Callable[[], None]]:
    """Makes a run folder and locks it for this process.

    A folder in which nothing was written is removed again.

    Args:
      workdir: absolute path.

    Yields:
      A function to call before writing: it raises InputError if the folder at this path is no
      longer the locked one. If it was moved and made anew, another process may be using it.

    Raises:
      InputError: the folder can't be made, or another process holds it; the message names that
        process.
    """
    path = workdir / NAME
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = _open(path)
    except OSError as error:
        raise InputError(f"{workdir}: no run folder can be made here: {error.strerror}") from error
    released = threading.Event()
    try:
        _take(workdir, descriptor)
        threading.Thread(target=_keep_alive, args=(descriptor, released), daemon=True).start()

        def check() -> None:
            if not _is_ours(path, descriptor):
                raise InputError(
                    f"{workdir} was moved or replaced while this process wrote to it; what it had "
                    f"written lies where the folder is now"
                )

        try:
            yield check
        finally:
            released.set()
            with contextlib.suppress(OSError):  # gone with the disk under it, or read-only by now
                if _is_ours(path, descriptor):
                    path.unlink()
                    workdir.rmdir()  # unless something was written
    finally:
        os.close(descriptor)


def check_not_held(workdir: Path) -> None:
    """Raises InputError if another process holds a folder; takes milliseconds and no lock."""
    try:
        descriptor = os.open(workdir / NAME, os.O_RDWR)
    except OSError:
        return  # no folder, or no lock in it; `acquire_run_lock` reports other errors
    try:
        _check_free(workdir, descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_ours(path: Path, descriptor: int) -> bool:
    """Returns whether the lock file's path still leads to the locked file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _take(workdir: Path, descriptor: int) -> None:
    kernel_decides = _check_free(workdir, descriptor)
    path = workdir / NAME
    # The last holder may have removed the file between opening and locking: the locked file then
    # has no name, and the next process would make, and lock, another.
    if _is_ours(path, descriptor):
        identity = _identity()
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, identity.encode(), 0)
        if not kernel_decides:
            time.sleep(_SETTLE_SECONDS)
        if kernel_decides or _read(descriptor) == identity:
            return
    raise InputError(f"{workdir}: another process started in it at the same moment; try again")


def _check_free(workdir: Path, descriptor: int) -> bool:
    """Locks the file if it is free; returns whether the file system supports locks.

    Raises:
      InputError: another process holds the folder.
    """
    holder = _read(descriptor)
    name, _, boot = holder.partition("\n")
    name = name or "another process"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locks = True
    except OSError as error:
        if error.errno in _BUSY:
            raise InputError(f"{workdir}: in use by {name}; use another --workdir") from error
        locks = False  # a file system without locks
    if not holder:
        return locks
    if name.endswith(f" on {socket.gethostname()}"):
        if locks or boot != _boot() or not _is_alive(name):
            return locks
        raise InputError(f"{workdir}: in use by {name}; use another --workdir")
    idle = _now_there(workdir) - os.fstat(descriptor).st_mtime
    # A heartbeat far in the future is ignored: the file was restored, or a clock was wrong.
    if -STALE_SECONDS < idle < STALE_SECONDS:
        raise InputError(
            f"{workdir}: in use by {name}, which was seen {max(idle, 0):.0f} s ago; use another "
            f"--workdir, or, if it is gone, try again in {STALE_SECONDS - idle:.0f} s"
        )
    return locks


def _keep_alive(descriptor: int, done: threading.Event) -> None:
    while not done.wait(TOUCH_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _identity() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\n{_boot()}"


def _boot() -> str:
    """Returns the boot id, "" if unknown; process ids are not comparable across reboots."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_alive(name: str) -> bool:
    number = name.split()[1]
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _now_there(workdir: Path) -> float:
    """Returns the time by the file system's own clock, which may be another machine's."""
    probe = workdir / f"{NAME}.{os.getpid()}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _read(descriptor: int) -> str:
    text = os.pread(descriptor, 500, 0).decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
