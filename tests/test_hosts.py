"""Several processes of one run, on this machine: real ones, over gloo."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from jaxvae import hosts, job
from jaxvae.errors import InputError
from jaxvae.record import read_epochs
from tests.conftest import ROOT
from tests.faults.conftest import arguments
from tests.faults.test_signals import free_port
from tests.test_train import write_clips

TIMINGS = ("seconds", "seconds_eval", "examples_per_second")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"))


def launch(clips, folder, num, *, own=None, devices=1, port=None, start=None, **overrides):
    """One process each, with a working folder of its own: nothing is shared but the source."""
    port = port or free_port()
    overrides = {"trainer.max_epochs": 4, "trainer.devices": -1, **overrides}
    processes = []
    for number in range(num) if start is None else start:
        cwd = folder / f"host{number}"
        cwd.mkdir(parents=True, exist_ok=True)
        command = [*arguments(clips, **overrides | (own or {}).get(number, {})), "--workdir=run"]
        if num > 1:
            command += [
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={num}",
                f"--process_id={number}",
            ]
        processes.append(
            subprocess.Popen(
                [sys.executable, str(ROOT / "launch.py"), *command],
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={
                    **os.environ,
                    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                },
            )
        )
    return processes


def end(processes, expect=0, timeout=120) -> list[str]:
    """Their standard errors; each must end by itself with the code that is expected of it."""
    codes = [expect] * len(processes) if isinstance(expect, int) else expect
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == codes, errors
    assert not any("Traceback" in error for error in errors), errors
    return errors


def losses(folder):
    lines = read_epochs(folder / "host0" / "run")
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def parameters(folder) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "host0" / "run" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    end(launch(clips, folder, 1))
    return folder


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


def test_two_processes_train_as_one(clips, alone, tmp_path):
    train_as_one(2, 1, clips, alone, tmp_path)


def test_a_coordinator_that_nobody_is(monkeypatch):
    monkeypatch.setattr(hosts, "JOIN_SECONDS", 1)
    port = free_port()
    with pytest.raises(InputError, match=rf"--coordinator=127.0.0.1:{port}: nobody listens there"):
        hosts.join(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=1)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} can't be opened here: Address already"):
            hosts.join(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("", 2, -1), "--num_processes=2: needs --coordinator"),
        (("", -1, 0), "--process_id=0: needs --coordinator"),
        (("nowhere", 2, 0), "expected HOST:PORT"),
        (("host:99999", 2, 0), "expected HOST:PORT"),
        (("host:7777", -1, 0), "give --num_processes"),
        (("host:7777", 2, 2), "--process_id=2: must be from 0 to 1"),
        (("host:7777", 2, -1), "--process_id=-1: must be from 0 to 1"),
    ],
)
def test_flags_that_name_no_job(flags, message):
    names = ("coordinator", "num_processes", "process_id")
    with pytest.raises(InputError, match=message) as error:
        job.check_flags(**dict(zip(names, flags, strict=True)))
    assert "\n" not in str(error.value)


def test_flags_that_do():
    job.check_flags(coordinator="", num_processes=-1, process_id=-1)
    job.check_flags(coordinator="", num_processes=1, process_id=-1)
    job.check_flags(coordinator="host:7777", num_processes=2, process_id=1)
    job.check_flags(coordinator="[::1]:7777", num_processes=1, process_id=0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, False),  # a batch script's own shell
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_a_scheduler_is_recognised(environment, expected):
    assert job.in_a_cluster(environment) is expected


def test_one_process_asks_nobody():
    assert hosts.is_first()
    assert not hosts.several()
    assert hosts.most(2, 3) == (2, 3)
    assert hosts.from_the_first({"a": 1}, [])[0] == {"a": 1}
    hosts.agree({"config": "x"})
    hosts.wait_for_the_first()
    with pytest.raises(InputError, match="wrong"), hosts.together():
        raise InputError("wrong")
    with pytest.raises(RuntimeError, match="gloo"), hosts.peers():
        raise RuntimeError("gloo: an error of one process alone stays what it is")
