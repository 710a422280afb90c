"""A sealed folder says which of its files is not what was written."""

import shutil
import subprocess

import pytest

from jaxvae.errors import InputError
from jaxvae.storage import manifest


@pytest.fixture
def sealed(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a b").write_bytes(b"one")
    (tmp_path / "empty").touch()
    (tmp_path / "not listed").write_text("free to change")
    manifest.seal(tmp_path, ["deep/er/a b", "empty"])
    return tmp_path


def test_what_was_written_is_whole(sealed):
    (sealed / "not listed").write_text("changed")
    assert list(manifest.damaged(sealed)) == []
    manifest.check(sealed)
    assert manifest.is_sealed(sealed)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_sha256sum_reads_it(sealed):
    command = ["sha256sum", "--check", "--strict", manifest.NAME]
    done = subprocess.run(command, cwd=sealed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "deep/er/a b: OK\nempty: OK\n")
    (sealed / "empty").write_text("no more")
    assert subprocess.run(command, cwd=sealed, capture_output=True, check=False).returncode == 1


def test_every_damaged_file_is_named(sealed):
    (sealed / "deep" / "er" / "a b").write_bytes(b"onf")
    (sealed / "empty").unlink()
    lines = list(manifest.damaged(sealed))
    assert [("a b" in line, "empty" in line) for line in lines] == [(True, False), (False, True)]
    with pytest.raises(InputError, match="a b is not what was written"):
        manifest.check(sealed)


def test_no_byte_of_the_manifest_can_change_unseen(sealed):
    path = sealed / manifest.NAME
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (0x01, 0x80):
            path.write_bytes(
                whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
            )
            (line,) = manifest.damaged(sealed)
            assert str(path) in line
        path.write_bytes(whole[:position])
        assert len(list(manifest.damaged(sealed))) == 1


def test_without_a_manifest_a_folder_is_not_whole(sealed):
    (sealed / manifest.NAME).unlink()
    assert not manifest.is_sealed(sealed)
    with pytest.raises(InputError, match="not whole"):
        manifest.check(sealed)


def test_all_files_are_listed_unless_named(sealed):
    manifest.seal(sealed)
    (sealed / "not listed").write_text("changed")
    with pytest.raises(InputError, match="not listed"):
        manifest.check(sealed)
    manifest.seal(sealed)  # the old manifest is no file of its own list
    manifest.check(sealed)
