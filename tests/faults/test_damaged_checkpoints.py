"""Every file of a checkpoint damaged in turn: named, and the step before is used."""

import shutil

import pytest

from tests.helpers.states import equal, flip_a_bit, make_state, reopened

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FAULTS = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "a bit flipped in the middle": lambda path: flip_a_bit(path, path.stat().st_size // 2),
    "a bit flipped near the end": lambda path: flip_a_bit(path, path.stat().st_size * 9 // 10),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_to_any_file_is_named(checkpoints, fault, record_property):
    old, new = make_state(seed=1), make_state(seed=2)
    checkpoints.save(1, old, {"epoch": 1})
    checkpoints.save(2, new, {"epoch": 2})
    pristine = checkpoints.folder.with_name("pristine")
    shutil.copytree(checkpoints.folder, pristine)
    files = [path for path in (pristine / "2").rglob("*") if path.is_file()]
    files = [path for path in files if path.stat().st_size > 1]
    assert len(files) > 8

    def restored():
        return reopened(checkpoints, make_state())

    assert equal(restored()[0].tree, new)
    for file in files:
        shutil.rmtree(checkpoints.folder)
        shutil.copytree(pristine, checkpoints.folder)
        path = checkpoints.folder / file.relative_to(pristine)
        FAULTS[fault](path)
        found, passed_over = restored()
        assert equal(found.tree, old), path
        assert path.name in passed_over[0]
    record_property("damaged checkpoint files named", len(files))
