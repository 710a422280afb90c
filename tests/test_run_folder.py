"""One writer per folder, and nothing left of a run that wrote nothing."""

import subprocess
import sys

import pytest

from jaxvae.errors import InputError
from jaxvae.run_folder import claim
from tests.conftest import ROOT


def test_a_folder_is_held_by_one_process(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from jaxvae.run_folder import claim\n"
        "with claim(pathlib.Path(sys.argv[1])):\n"
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
            claim(tmp_path / "run"),
        ):
            pass
        holder.kill()
        holder.wait()
    with claim(tmp_path / "run"):
        pass  # the dead process holds nothing


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with pytest.raises(KeyError), claim(tmp_path / "run"):
        raise KeyError
    assert not (tmp_path / "run").exists()
    with claim(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert (tmp_path / "run" / "file").exists()


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="no run folder"), claim(tmp_path / "run"):
        pass
