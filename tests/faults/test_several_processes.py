"""Several processes of one run: what ends one ends all in good order, and the job goes on."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvae.runtime.multihost import JOIN_SECONDS
from jaxvae.storage.epoch_metrics import read_epochs
from tests.conftest import ROOT
from tests.faults.conftest import TIMINGS, arguments, steps_in, wait_for
from tests.helpers import warm_start
from tests.helpers.jobs import end, launch
from tests.helpers.optimization import NOT_OPTIMIZED
from tests.helpers.ports import free_port


@pytest.fixture(scope="module", autouse=True)
def _not_optimized():
    """JAX keeps only what the first of several processes has compiled: the others always compile."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NOT_OPTIMIZED.items():
            patch.setenv(name, value)
        yield


def losses(folder):
    lines = read_epochs(folder / "host0" / "run")
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def parameters(folder) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "host0" / "run" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(_not_optimized, clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    end(launch(clips, folder, 1))
    return folder


def program_of(process) -> int:
    """The program itself, whose parent only waits for it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(children.read_text().split()[0])


def train_as_one(num, devices, clips, alone, folder):
    end(launch(clips, folder, num, devices=devices))
    several, one = losses(folder), losses(alone)
    assert [line["epoch"] for line in several] == [1, 2, 3, 4]
    for a, b in zip(several, one, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)  # float32 sums in another order
    for name, array in parameters(alone).items():
        np.testing.assert_allclose(parameters(folder)[name], array, atol=1e-4, err_msg=name)
    # One writes; the others leave nothing.
    assert (folder / "host0" / "run" / "metrics.json").exists()
    for number in range(1, num):
        assert list((folder / f"host{number}").iterdir()) == []


@pytest.mark.parametrize(("num", "devices"), [(2, 1), (2, 2), (4, 1)])
def test_processes_train_as_one(num, devices, clips, alone, tmp_path, monkeypatch):
    if devices == 2:
        monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")  # as a user's compile
    train_as_one(num, devices, clips, alone, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_the_others_can_be_stopped(number, clips, tmp_path):
    port = free_port()
    processes = launch(clips, tmp_path, 2, port=port, start=[0])

    def waits() -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        return False

    wait_for(waits, processes[0])
    processes[0].send_signal(number)
    (error,) = end(processes, expect=128 + number, timeout=JOIN_SECONDS / 2)
    assert error.endswith(f"jaxvae: stopped by {number.name}\n")
    assert list((tmp_path / "host0").iterdir()) == []


def test_two_processes_stream_the_rows_that_one_does(clips, tmp_path):
    """Also where both are killed on the way, and up to a limit of steps within an epoch."""
    streamed = {"data.rows_per_epoch": 20, "trainer.max_epochs": 99, "trainer.max_steps": 39}
    end(launch(clips, tmp_path / "one", 1, **streamed))
    processes = launch(clips, tmp_path / "two", 2, **streamed)
    log = tmp_path / "two" / "host0" / "run" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, processes[0])
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert 2 <= len(read_epochs(log.parent)) < 20
    end(launch(clips, tmp_path / "two", 2, **streamed))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert [line["step"] for line in two] == [*range(2, 39, 2), 39]
    for a, b in zip(two, one, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("twice", [False, True])
def test_a_signal_to_one_saves_and_ends_all_and_another_number_goes_on(
    signum, twice, clips, alone, tmp_path
):
    endless = {"trainer.max_epochs": 100_000, "trainer.checkpoint_every_seconds": 1e6}
    processes = launch(clips, tmp_path, 2, **endless)
    run = tmp_path / "host0" / "run"
    log = run / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 2, processes[0])
    # To the one that is not the first; a scheduler would tell all of them.
    if twice:  # a terminal tells the program and its parent, who passes it on
        os.kill(program_of(processes[1]), signum)
        time.sleep(0.1)
    processes[1].send_signal(signum)
    errors = end(processes, expect=128 + signum)
    saved = max(steps_in(run))
    assert f"epoch {saved} of 100000 is saved" in errors[0]
    more = {"trainer.max_epochs": saved + 2}
    (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"max_epochs": 100000', f'"max_epochs": {saved}')
    )
    error = end(launch(clips, tmp_path, 1, **more))[0]
    assert f"Resuming after epoch {saved}" in error
    assert [line["epoch"] for line in losses(tmp_path)] == list(range(1, saved + 3))
    for a, b in zip(losses(tmp_path), losses(alone), strict=False):
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-5)


@pytest.mark.parametrize(("victim", "kill_parent"), [(0, False), (1, True)])
def test_a_killed_process_ends_the_others_and_the_job_goes_on(victim, kill_parent, clips, tmp_path):
    endless = {"trainer.max_epochs": 100_000}
    processes = launch(clips, tmp_path, 2, **endless)
    run = tmp_path / "host0" / "run"
    wait_for(lambda: max(steps_in(run), default=0) >= 2, processes[0])
    # A person, or a system without memory, may kill the one that only waits.
    killed = processes[victim].pid if kill_parent else program_of(processes[victim])
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    survivor = processes[1 - victim]
    error = survivor.communicate(timeout=90)[1]
    seconds = time.monotonic() - began
    processes[victim].communicate(timeout=10)
    assert survivor.returncode == 1, error
    assert "another process of this job has ended" in error.splitlines()[-1]
    assert "Traceback" not in error
    assert seconds < 60
    saved = max(step for step in steps_in(run))
    processes = launch(clips, tmp_path, 2, **endless)
    log = run / "metrics.jsonl"
    wait_for(lambda: log.read_text().count("\n") > saved + 2, processes[0])
    processes[0].send_signal(signal.SIGINT)
    assert "Resuming after epoch" in end(processes, expect=130)[0]


@pytest.mark.parametrize(
    ("own", "what"),
    [
        ({"model.latent_dim": 7}, "config"),
        ({"data.taxonomy_path": "{folder}/other.json"}, "taxonomy"),
        ({"data.dataset_name": "{folder}/other.csv"}, "data set"),
    ],
)
def test_processes_that_were_given_different_things(own, what, clips, tmp_path):
    text = (clips / "clips.csv").read_text()
    (tmp_path / "other.csv").write_text(text[: text.rstrip().rindex("\n") + 1])
    words = json.loads((clips / "words.json").read_text())
    words[next(iter(words))].append("one more")
    (tmp_path / "other.json").write_text(json.dumps(words))
    own = {name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in own.items()}  # fmt: skip
    errors = end(launch(clips, tmp_path, 2, own={1: own}), expect=2)
    for error in errors:
        assert f"process 1 has another {what} than process 0" in error.splitlines()[-1]
    assert not (tmp_path / "host0" / "run").exists()


def test_what_one_process_refuses_ends_all(clips, tmp_path):
    own = {1: {"data.dataset_name": "missing.csv"}}
    errors = end(launch(clips, tmp_path, 2, own=own), expect=2)
    assert "missing.csv" in errors[1].splitlines()[-1]
    assert "process 1 refused to start" in errors[0].splitlines()[-1]


def test_fewer_devices_than_there_are(clips, tmp_path):
    errors = end(launch(clips, tmp_path, 2, **{"trainer.devices": 1}), expect=2)
    for error in errors:
        assert "trainer.devices=1: 2 processes have 2 devices in all" in error


def test_a_wide_layer_is_shared_by_processes(clips, alone, tmp_path):
    end(launch(clips, tmp_path, 2, **{"trainer.mesh.model": 2}))
    for a, b in zip(losses(tmp_path), losses(alone), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)


def slurm(number: int) -> dict:
    return {
        "SLURM_JOB_ID": str(40_000 + os.getpid() % 20_000),  # the coordinator's port is made of it
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "SLURM_STEP_NUM_NODES": "1",
    }


def open_mpi(number: int) -> dict:
    return {
        "OMPI_MCA_orte_hnp_uri": f"{(os.getpid() % 4000) << 16}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


def test_one_by_itself_whatever_a_scheduler_says(clips, alone, tmp_path, monkeypatch):
    for name, value in slurm(1).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "host0"
    folder.mkdir()
    process = warm_start.run(
        [sys.executable, str(ROOT / "launch.py"), *arguments(clips, **{"trainer.max_epochs": 4})]
        + ["--workdir=run", "--num_processes=1"],
        cwd=folder,
        timeout=120,
    )
    assert process.returncode == 0
    assert losses(tmp_path) == losses(alone)


@pytest.mark.parametrize("scheduler", [slurm, open_mpi])
def test_a_scheduler_needs_no_flags(scheduler, clips, alone, tmp_path, monkeypatch):
    """As far as that goes without the scheduler: the variables that it sets."""
    processes = []
    for number in range(2):
        with monkeypatch.context() as patch:
            for name, value in scheduler(number).items():
                patch.setenv(name, value)
            processes += launch(clips, tmp_path, 1, start=[number])
    end(processes)
    for a, b in zip(losses(tmp_path), losses(alone), strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
