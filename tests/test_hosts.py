"""How processes of one run are found; tests/faults/test_several_processes.py starts them."""

import signal
import socket

import pytest

from jaxvae import hosts, job
from jaxvae.errors import InputError
from tests.faults.test_signals import free_port


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


LOST = "jaxvae: another process of this job has ended (or did not come in time);"


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(2)", 2, ""),
        (f"os._exit({job.TOLD})", 1, ""),
        ("os._exit(1)", 1, LOST),
        ("os.abort()", 1, LOST),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "jaxvae: ended by SIGKILL"),
    ],
)
def test_how_a_supervised_program_ended_is_said_last(end, code, said, tmp_path, capfd):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys\n"
        "os.write(2, b'F1126 client.h:75] words of XLA\\n\\n')\n"
        f"assert os.environ['JAXVAE_SUPERVISED']\n{end}\n"
    )
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert job.supervise([str(program)]) == code
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    printed = capfd.readouterr().err
    assert "words of XLA" in printed
    assert printed.rstrip("\n").rpartition("XLA\n\n")[2].startswith(said)
    assert bool(printed.endswith("XLA\n\n")) is not bool(said)
