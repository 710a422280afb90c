"""A disk that is full, or gone: one line, a non-zero exit, and the step before is whole."""

import shutil
import subprocess
import sys
import threading

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import arguments, finish, outcome, start, steps_in, wait_for

ON_SMALL_DISK = """
set -e
mkdir -p disk && mount -t tmpfs -o size="$1" tmpfs disk
shift
code=0
"$@" || code=$?
cp -r disk/run kept
exit "$code"
"""


def mounts_are_allowed() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def on_disk_of(size: str, clips, cwd):
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", ON_SMALL_DISK, "bash", size]
        + [sys.executable, str(ROOT / "launch.py"), *arguments(clips), "--workdir=disk/run"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not mounts_are_allowed(), reason="no small disk can be mounted here")
@pytest.mark.parametrize("size", ["300k", "400k", "500k"])
def test_a_full_disk(size, clips, whole, tmp_path):
    done = on_disk_of(size, clips, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("jaxvae: ")
    assert "No space left" in done.stderr or "RESOURCE_EXHAUSTED" in done.stderr
    # On a disk with room, the same command goes on from what was whole.
    shutil.copytree(tmp_path / "kept", tmp_path / "run")
    finish(start(*arguments(clips), "--workdir=run", cwd=tmp_path))
    assert outcome(tmp_path / "run") == whole


@pytest.mark.skipif(not mounts_are_allowed(), reason="no small disk can be mounted here")
def test_the_same_on_a_disk_with_room(clips, whole, tmp_path):
    done = on_disk_of("64m", clips, tmp_path)
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "kept") == whole


def test_a_folder_that_vanishes(clips, tmp_path):
    process = start(
        *arguments(clips, **{"trainer.max_epochs": 100_000}), "--workdir=run", cwd=tmp_path
    )
    stop = threading.Timer(60, process.kill)
    stop.start()
    wait_for(lambda: max(steps_in(tmp_path / "run"), default=0) >= 3, process)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    error = finish(process, expect=2)
    stop.cancel()
    assert error.splitlines()[-1].startswith("jaxvae: ")
    assert "run" in error.splitlines()[-1]
