"""A disk that is full, read-only, or gone: one line, exit code 2, and the step before is whole."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT, lacking
from tests.faults.conftest import (
    EPOCHS,
    arguments,
    finish,
    outcome,
    start,
    state_of,
    steps_in,
    wait_for,
    whole_steps_in,
)

ON_SMALL_DISK = """
set -e
mkdir -p disk && mount -t tmpfs -o size="$1" tmpfs disk
shift
code=0
"$@" || code=$?
cp -r disk/run kept
exit "$code"
"""


READ_ONLY = """
set -e
"$@" &
if [ "$step" != 0 ]; then
    while [ ! -e "run/checkpoints/$step" ] && kill -0 $!; do sleep 0.01; done
    # In one step, though the run has a file open for writing there.
    mkdir other
    mount --bind run other
    mount -o "remount,bind,$option" other
    mount --bind other run
fi
wait $!
"""


def in_a_namespace() -> list[str]:
    """What lets a process mount things that only it sees; empty where that is not allowed."""
    for options in (["-m"], ["-r", "-m"]):
        command = ["unshare", *options]
        try:
            subprocess.run(
                [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    return []


NAMESPACE = in_a_namespace()
needs_mounts = pytest.mark.usefixtures("_mounts")


@pytest.fixture(scope="session")
def _mounts():
    if not NAMESPACE:
        lacking("nothing can be mounted here", "mounts")


def refusal(process) -> str:
    """The one line with which a run must end on its own."""
    error = finish(process, expect=2)
    last = error.splitlines()[-1]
    assert last.startswith("jaxvae: ")
    assert error.count("jaxvae: ") == 1
    return last


def goes_on_to_the_end(clips, place, whole):
    """What was saved before the fault is whole, and the run continues from it."""
    saved = max(whole_steps_in(place / "run"))
    _, facts = state_of(place / "run")
    assert facts["epoch"] == saved
    error = finish(start(*arguments(clips), "--workdir=run", cwd=place))
    assert f"Resuming after epoch {saved}" in error
    assert outcome(place / "run") == whole


def on_disk_of(size: str, clips, cwd):
    return subprocess.run(
        [*NAMESPACE, "bash", "-c", ON_SMALL_DISK, "bash", size]
        + [sys.executable, str(ROOT / "launch.py"), *arguments(clips), "--workdir=disk/run"],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@needs_mounts
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


@needs_mounts
def test_the_same_on_a_disk_with_room(clips, whole, tmp_path):
    done = on_disk_of("64m", clips, tmp_path)
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path / "kept") == whole


def turned(option, step, clips, cwd):
    """A run whose folder gets a mount option when a step is there."""
    return subprocess.Popen(
        [*NAMESPACE, "bash", "-c", READ_ONLY, "bash", sys.executable, str(ROOT / "launch.py")]
        + [*arguments(clips), "--workdir=run"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", "option": option, "step": str(step)},
    )


@needs_mounts
@pytest.mark.parametrize("step", [5, EPOCHS])
def test_a_folder_that_becomes_read_only(step, clips, whole, tmp_path):
    last = refusal(turned("ro", step, clips, tmp_path))
    assert "Read-only file system" in last
    assert f"{tmp_path}/run" in last
    goes_on_to_the_end(clips, tmp_path, whole)


@needs_mounts
def test_a_run_does_not_mind_a_mount_that_is_writable(clips, whole, tmp_path):
    finish(turned("rw", 5, clips, tmp_path))
    assert outcome(tmp_path / "run") == whole


@needs_mounts
def test_a_folder_that_is_read_only_from_the_start(clips, tmp_path):
    (tmp_path / "disk").mkdir()
    launch = [sys.executable, str(ROOT / "launch.py"), *arguments(clips), "--workdir=disk/run"]
    mount = 'mount --bind disk disk && mount -o remount,bind,ro disk && exec "$@"'
    process = subprocess.Popen(
        [*NAMESPACE, "bash", "-c", mount, "bash", *launch],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    last = refusal(process)
    assert "disk/run: no run folder can be made here: Read-only file system" in last


def limited(clips, cwd, step: int, most_bytes: int):
    """A run whose files may not grow beyond a size once a step is saved: a quota, for each file."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("another process's limits can only be set on Linux")
    folder = cwd / "run"
    process = start(*arguments(clips), "--workdir=run", cwd=cwd)
    wait_for(lambda: step in whole_steps_in(folder), process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    return process


QUOTAS = {
    "for a checkpoint": (5, 60_000, ("checkpoints",)),
    "for the parameters": (EPOCHS, 20_000, ("final", "model.pth")),  # final/ may be there by then
}


@pytest.mark.parametrize("quota", QUOTAS)
def test_a_quota_that_is_used_up(quota, clips, whole, tmp_path):
    step, most_bytes, named = QUOTAS[quota]
    last = refusal(limited(clips, tmp_path, step, most_bytes))
    assert "File too large" in last
    assert any(f"{tmp_path}/run/{name}" in last for name in named)
    goes_on_to_the_end(clips, tmp_path, whole)


def test_a_quota_that_is_large_enough(clips, whole, tmp_path):
    finish(limited(clips, tmp_path, 5, 10_000_000))
    assert outcome(tmp_path / "run") == whole


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("full", [True, False])
def test_no_room_for_the_log(full, clips, whole, tmp_path):
    log, kept, other = (tmp_path / name for name in ("run/metrics.jsonl", "kept", "other"))
    process = start(*arguments(clips), "--workdir=run", cwd=tmp_path)
    wait_for(lambda: 5 in whole_steps_in(tmp_path / "run"), process)
    kept.hardlink_to(log)
    other.symlink_to("/dev/full" if full else kept)
    other.replace(log)
    if not full:
        finish(process)
        assert outcome(tmp_path / "run") == whole
        return
    last = refusal(process)
    # The device refuses to be flushed, too, if the run was just about to.
    assert f"{log}: No space left" in last or f"{log}: Invalid argument" in last
    kept.replace(log)
    goes_on_to_the_end(clips, tmp_path, whole)


def moved(folder):
    folder.rename(folder.with_name("elsewhere"))


def deleted(folder):
    while folder.exists():  # the run may be making a file in it
        shutil.rmtree(folder, ignore_errors=True)


def deleted_and_made_again(folder):
    deleted(folder)
    (folder / "checkpoints").mkdir(parents=True)


@pytest.mark.parametrize("fault", [moved, deleted, deleted_and_made_again])
def test_a_folder_that_vanishes(fault, clips, whole, tmp_path):
    folder = tmp_path / "run"
    process = start(
        *arguments(clips, **{"trainer.max_epochs": 100_000}), "--workdir=run", cwd=tmp_path
    )
    stop = threading.Timer(60, process.kill)
    stop.start()
    wait_for(lambda: max(steps_in(folder), default=0) >= 3, process)
    assert process.poll() is None
    fault(folder)
    last = refusal(process)
    stop.cancel()
    assert str(folder) in last
    if fault is moved:  # and nothing was begun in its place
        assert not folder.exists()
        (tmp_path / "elsewhere").rename(folder)
        _, facts = state_of(folder)
        assert facts["epoch"] == max(whole_steps_in(folder)) >= 2
    assert not (folder / "metrics.jsonl").exists() or fault is moved
