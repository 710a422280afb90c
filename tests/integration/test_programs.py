"""What one run of the tests compiles is there for the next, and never half of it."""

import os

from tests.helpers import programs


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


def test_what_another_process_compiled_is_there_after_a_file_of_tests(tmp_path):
    kept = tmp_path / "programs"
    first, second = programs.borrow(kept), programs.borrow(kept)
    (first / "step-cache").write_bytes(b"machine code")
    (second / "draw-cache").write_bytes(b"more of it")
    programs.exchange(first, kept)
    programs.exchange(second, kept)
    assert (second / "step-cache").read_bytes() == b"machine code"
    assert not (first / "draw-cache").exists()
    programs.exchange(first, kept)
    assert (first / "draw-cache").read_bytes() == b"more of it"
    programs.give_back(first, kept)
    programs.give_back(second, kept)
    assert sorted(path.name for path in kept.iterdir()) == ["draw-cache", "step-cache"]


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
