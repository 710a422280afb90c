"""One writer per run folder: the `.lock` file, who holds it, and when it is stale.

On one machine the kernel decides: it holds the lock for a process and lets go when that ends,
however it ends. A shared file system may not know of locks, or not tell other machines of them; so
the holder also writes its name into the file and touches it every few seconds, and another machine
keeps away while that goes on.
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
"""A lock of another machine that was not touched for so long belongs to nobody."""

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_SETTLE_SECONDS = 0.3


@contextlib.contextmanager
def acquire_run_lock(workdir: Path) -> Iterator[Callable[[], None]]:
    """Makes a run folder and holds it for this process.

    A folder in which nothing was written is removed again.

    Args:
      workdir: absolute path.

    Yields:
      A function to call before writing: it raises InputError when the folder at this path is no
      longer the one that is held. Moved away and made anew it may be another process's by now.

    Raises:
      InputError: it can't be made, or another process holds it, naming that process.
    """
    path = workdir / NAME
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        descriptor = _open(path)
    except OSError as error:
        raise InputError(f"{workdir}: no run folder can be made here: {error.strerror}") from error
    done = threading.Event()
    try:
        _take(workdir, descriptor)
        threading.Thread(target=_keep_alive, args=(descriptor, done), daemon=True).start()

        def check() -> None:
            if not _is_ours(path, descriptor):
                raise InputError(
                    f"{workdir} was moved or replaced while this process wrote to it; what it had "
                    f"written lies where the folder is now"
                )

        try:
            yield check
        finally:
            done.set()
            with contextlib.suppress(OSError):  # gone with the disk under it, or read-only by now
                if _is_ours(path, descriptor):
                    path.unlink()
                    workdir.rmdir()  # unless something was written
    finally:
        os.close(descriptor)


def check_not_held(workdir: Path) -> None:
    """Raises InputError when another process holds a folder; takes milliseconds and no lock."""
    try:
        descriptor = os.open(workdir / NAME, os.O_RDWR)
    except OSError:
        return  # no folder, or no lock in it; `claim` will say what is wrong
    try:
        _check_free(workdir, descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _is_ours(path: Path, descriptor: int) -> bool:
    """Whether a lock's name still means the file that is held."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False


def _take(workdir: Path, descriptor: int) -> None:
    kernel_decides = _check_free(workdir, descriptor)
    path = workdir / NAME
    # Between opening and locking, its last holder may have removed the file: what is locked then
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
    """Locks what can be locked; whether the kernel's word is enough on this file system."""
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
    # A time to come is of no heartbeat: the file was restored, or a clock was wrong.
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
    """Of this start of the machine: after a reboot, a process number means another process."""
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
    """The time by the file system's own clock, which may be another machine's."""
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
