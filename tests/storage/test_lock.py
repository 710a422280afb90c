"""One writer per folder, and nothing left of a run that wrote nothing."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time

import pytest

from jaxvae.errors import InputError
from jaxvae.storage import lock
from jaxvae.storage.lock import acquire_run_lock, check_not_held
from tests.conftest import ROOT


def test_a_folder_is_held_by_one_process(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from jaxvae.storage.lock import acquire_run_lock\n"
        "with acquire_run_lock(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=f"in use by process {holder.pid}"),
            acquire_run_lock(tmp_path / "run"),
        ):
            pass
        holder.kill()
        holder.wait()
    with acquire_run_lock(tmp_path / "run"):
        pass  # the dead process holds nothing


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(KeyError), acquire_run_lock(tmp_path / "run"):
        raise KeyError
    assert not (tmp_path / "run").exists()
    with acquire_run_lock(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert (tmp_path / "run" / "file").exists()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="no run folder"), acquire_run_lock(tmp_path / "run"):
        pass


def leave(folder, holder, *, seconds_ago=0.0, boot=None):
    """A lock file as a holder that can't be asked has left it."""
    folder.mkdir(exist_ok=True)
    path = folder / ".lock"
    path.write_text(f"{holder}\n{lock._boot() if boot is None else boot}")
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def test_another_machine_that_shares_the_folder_is_believed_while_it_is_seen(tmp_path):
    leave(tmp_path / "run", "process 5 on elsewhere", seconds_ago=20)
    for refuse in (check_not_held, lambda folder: acquire_run_lock(folder).__enter__()):
        with pytest.raises(InputError, match=r"process 5 on elsewhere, which was seen 2\d s ago"):
            refuse(tmp_path / "run")
    leave(tmp_path / "run", "process 5 on elsewhere", seconds_ago=lock.STALE_SECONDS + 5)
    with acquire_run_lock(tmp_path / "run"):
        assert f"process {os.getpid()}" in (tmp_path / "run" / ".lock").read_text()


def test_a_holder_is_seen_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "TOUCH_SECONDS", 0.05)
    with acquire_run_lock(tmp_path / "run"):
        path = tmp_path / "run" / ".lock"
        os.utime(path, (0, 0))
        until = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert path.stat().st_mtime > 0


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has none, as some network drives."""

    def flock(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", flock)


def dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_without_locks_a_living_process_holds_and_a_dead_one_does_not(tmp_path, no_locks):
    host = socket.gethostname()
    leave(tmp_path / "run", f"process {os.getppid()} on {host}")
    with pytest.raises(InputError, match="in use by process"), acquire_run_lock(tmp_path / "run"):
        pass
    leave(tmp_path / "run", f"process {dead_process()} on {host}")
    with acquire_run_lock(tmp_path / "run"):
        pass
    # The machine was started again since: the number is another process's now.
    leave(tmp_path / "run", f"process {os.getppid()} on {host}", boot="another")
    with acquire_run_lock(tmp_path / "run"):
        pass


def test_without_locks_one_of_two_that_start_together_gets_it(tmp_path, no_locks, monkeypatch):
    def other_writes_too(_):
        (tmp_path / "run" / ".lock").write_text("process 5 on elsewhere\n")

    monkeypatch.setattr(lock.time, "sleep", other_writes_too)
    with pytest.raises(InputError, match="same moment"), acquire_run_lock(tmp_path / "run"):
        pass


def test_a_lock_whose_name_was_taken_away_is_no_lock(tmp_path):
    (tmp_path / "run").mkdir()
    descriptor = lock._open(tmp_path / "run" / ".lock")
    (tmp_path / "run" / ".lock").unlink()
    with pytest.raises(InputError, match="same moment"):
        lock._take(tmp_path / "run", descriptor)
    os.close(descriptor)


def test_asking_takes_nothing(tmp_path):
    check_not_held(tmp_path / "none")
    (tmp_path / "run").mkdir()
    check_not_held(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    with (
        acquire_run_lock(tmp_path / "run"),
        pytest.raises(InputError, match=f"process {os.getpid()}"),
    ):
        check_not_held(tmp_path / "run")


def test_a_lock_of_a_time_to_come_is_nobodys(tmp_path):
    path = tmp_path / lock.NAME
    path.write_text("process 1 on another-machine\n")
    with pytest.raises(InputError, match="in use by process 1"), acquire_run_lock(tmp_path):
        pass
    os.utime(path, (time.time() + 1e6,) * 2)
    with acquire_run_lock(tmp_path):
        pass


def test_who_holds_a_lock_is_said_in_letters(tmp_path):
    (tmp_path / lock.NAME).write_bytes(bytes(range(32)) + b" on elsewhere")
    with pytest.raises(InputError) as refused, acquire_run_lock(tmp_path):
        pass
    assert str(refused.value).isprintable()


def test_a_folder_that_was_replaced_is_no_longer_held(tmp_path):
    with acquire_run_lock(tmp_path / "run") as check:
        check()
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(InputError, match="was moved or replaced"):
            check()
        with acquire_run_lock(tmp_path / "run") as other:
            other()
            with pytest.raises(InputError, match="was moved or replaced"):
                check()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / lock.NAME).write_text("another's")
    assert (tmp_path / "run" / lock.NAME).read_text() == "another's"
