"""What one run of the tests compiles is there for the next, and never half of it."""

import errno
import os
import time

import pytest

from tests.helpers import programs


def write(path, content, *, seconds_ago=10.0):
    path.write_bytes(content)
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_the_next_run_has_what_this_one_compiled(tmp_path):
    kept = tmp_path / "build" / "programs"
    first = programs.borrow(kept)
    (first / "step-cache").write_bytes(b"machine code")
    assert not kept.exists()  # before the end nobody else sees it
    programs.give_back(first, kept)
    assert not first.exists()
    assert [path.name for path in kept.iterdir()] == ["step-cache"]

    second, third = programs.borrow(kept), programs.borrow(kept)
    assert (second / "step-cache").read_bytes() == b"machine code"
    (second / "step-cache").write_bytes(b"")  # its own affair
    programs.give_back(second, kept)
    assert (kept / "step-cache").read_bytes() == b"machine code"
    assert (third / "step-cache").read_bytes() == b"machine code"
    programs.give_back(third, kept)


def test_what_another_process_compiled_is_there_at_the_next_test(tmp_path):
    kept = tmp_path / "programs"
    first, second = programs.borrow(kept), programs.borrow(kept)
    of_first, of_second = programs.Exchange(first, kept), programs.Exchange(second, kept)
    of_first()
    of_second()
    write(first / "step-cache", b"machine code")
    write(second / "draw-cache", b"more of it")
    of_first()
    of_second()
    assert (second / "step-cache").read_bytes() == b"machine code"
    assert not (first / "draw-cache").exists()
    of_first()
    assert (first / "draw-cache").read_bytes() == b"more of it"
    write(second / "encode-cache", b"the last of it")
    of_second()
    of_first()
    assert (first / "encode-cache").read_bytes() == b"the last of it"
    programs.give_back(first, kept)
    programs.give_back(second, kept)
    names = ["draw-cache", "encode-cache", "step-cache"]
    assert sorted(path.name for path in kept.iterdir()) == names


def test_a_program_that_may_be_half_written_is_kept_later(tmp_path):
    kept = tmp_path / "programs"
    folder = programs.borrow(kept)
    exchange = programs.Exchange(folder, kept)
    write(folder / "step-cache", b"machine", seconds_ago=0.0)
    exchange()
    assert list(kept.iterdir()) == []
    write(folder / "step-cache", b"machine code")
    exchange()
    assert (kept / "step-cache").read_bytes() == b"machine code"
    write(folder / "draw-cache", b"more of it", seconds_ago=0.0)
    programs.give_back(folder, kept)  # nobody writes any more
    assert (kept / "draw-cache").read_bytes() == b"more of it"


def test_an_old_program_is_compiled_again(tmp_path):
    for name, days in (("old-cache", programs.DAYS + 1), ("new-cache", programs.DAYS - 1)):
        path = tmp_path / name
        path.write_bytes(b"")
        age = path.stat().st_mtime - days * 86400
        os.utime(path, (age, age))
    folder = programs.borrow(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["new-cache"]
    programs.give_back(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new-cache"]


def full(source, target):
    with open(target, "wb") as file:
        file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device", str(target))


@pytest.mark.parametrize("call", ["copyfile", "mkstemp"])
def test_what_can_not_be_kept_is_compiled_again(call, tmp_path, monkeypatch):
    """On a disk that is full, and in another user's folder."""
    kept = tmp_path / "programs"
    folder = programs.borrow(kept)
    exchange = programs.Exchange(folder, kept)
    write(folder / "step-cache", b"machine code")
    with monkeypatch.context() as patch:
        if call == "copyfile":
            patch.setattr(programs.shutil, "copyfile", full)
        else:
            patch.setattr(programs.tempfile, "mkstemp", lambda **named: full("", tmp_path / "a"))
        exchange()
        assert list(kept.iterdir()) == []
    exchange()
    assert (kept / "step-cache").read_bytes() == b"machine code"
    programs.give_back(folder, kept)
