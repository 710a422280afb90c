"""How processes of one run are found; tests/faults/test_several_processes.py starts them."""

import importlib.util
import signal
import socket

import pytest

from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.runtime import job_launcher, multihost
from tests.conftest import ROOT
from tests.helpers.ports import free_port

INTERACTIVE = {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "vm",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
"""Of a shell of `salloc -n 4`: one task in the step, four in the job."""


def test_a_coordinator_that_nobody_is(monkeypatch):
    monkeypatch.setattr(multihost, "JOIN_SECONDS", 1)
    port = free_port()
    with pytest.raises(InputError, match=rf"--coordinator=127.0.0.1:{port}: nobody listens there"):
        multihost.join(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=1)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} can't be opened here: Address already"):
            multihost.join(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=0)


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
        job_launcher.check_flags(**dict(zip(names, flags, strict=True)))
    assert "\n" not in str(error.value)


def test_flags_that_do():
    job_launcher.check_flags(coordinator="", num_processes=-1, process_id=-1)
    job_launcher.check_flags(coordinator="", num_processes=1, process_id=-1)
    job_launcher.check_flags(coordinator="host:7777", num_processes=2, process_id=1)
    job_launcher.check_flags(coordinator="[::1]:7777", num_processes=1, process_id=0)


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
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1", "TPU_WORKER_HOSTNAMES": "localhost"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
        (INTERACTIVE, False),
        ({**INTERACTIVE, "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({**INTERACTIVE, "SLURM_STEP_NUM_TASKS": ""}, True),  # unknown: the job's
        ({**INTERACTIVE, "OMPI_COMM_WORLD_SIZE": "2"}, True),  # mpirun in that shell
        ({"SLURM_STEP_NODELIST": "a", "SLURM_STEP_NUM_TASKS": "²"}, False),
    ],
)
def test_a_scheduler_is_recognised(environment, expected):
    assert job_launcher.in_a_cluster(environment) is expected


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({**INTERACTIVE, "SLURM_STEP_NUM_TASKS": "2"}, "process 0 of 2 (SLURM says so) .* at vm,"),
        (
            {
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_RANK": "3",
                "OMPI_MCA_orte_hnp_uri": "65536.0;tcp://10.0.0.1:1",
            },
            "process 3 of 4 (Open MPI says so) .* at tcp://10.0.0.1:1,",
        ),
        (
            {"TPU_WORKER_HOSTNAMES": "a,b", "MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_ID": "1"},
            "process one of 4 (the TPU slice says so) .* at a,b,",
        ),
    ],
)
def test_who_waits_says_for_how_many_and_where(environment, line):
    first, rest = line.split(" .* ")
    text = job_launcher.waiting_line(job_launcher.scheduled(environment), seconds=120)
    assert text.startswith(first)
    assert f"{rest} at most 120 s; --num_processes=1" in text


@pytest.mark.parametrize("waits", [True, False])
def test_the_step_and_not_the_job_says_how_many(monkeypatch, capsys, waits):
    """JAX alone would take SLURM_NTASKS, and wait for processes that nobody started."""
    for name, value in {**INTERACTIVE, "SLURM_STEP_NUM_TASKS": str(1 + waits)}.items():
        monkeypatch.setenv(name, value)
    calls = []

    def initialize(**arguments):
        assert "of 2 (SLURM says so) waits for the others at vm" in capsys.readouterr().err
        calls.append(arguments)

    monkeypatch.setattr("jax.distributed.initialize", initialize)
    multihost.join()
    assert [arguments["num_processes"] for arguments in calls] == [2] * waits
    assert capsys.readouterr().err == ""


def test_flags_are_said_before_the_wait(monkeypatch, capsys):
    monkeypatch.setattr(multihost, "JOIN_SECONDS", 0)
    place = f"127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match="nobody listens there"):
        multihost.join(coordinator=place, num_processes=3, process_id=2)
    assert f"process 2 of 3 waits for the others at {place}," in capsys.readouterr().err


POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}


@pytest.mark.parametrize("installed", [True, False])
def test_kubernetes_is_recognised_as_jax_does(monkeypatch, installed):
    spec = importlib.util.find_spec("json") if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert job_launcher.in_a_cluster(POD) is installed
    assert not job_launcher.in_a_cluster({"JOB_COMPLETION_INDEX": "2"})
    assert not job_launcher.in_a_cluster(
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    )  # JAX has no number there
    if installed:
        line = job_launcher.waiting_line(job_launcher.scheduled(POD), seconds=120)
        assert line.startswith("process 2 of a job (Kubernetes says so) waits for the others,")


@pytest.mark.parametrize(("flags", "notes"), [([], 1), (["--num_processes=1"], 0)])
def test_a_pod_that_cannot_join_says_so(monkeypatch, tmp_path, capsys, flags, notes):
    for name, value in POD.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("jaxvae.train.trainer.train_and_evaluate", lambda *arguments, **options: {})
    config = f"--config={ROOT}/configs/small.py"
    assert main.main(["train", config, f"--workdir={tmp_path}/a", *flags]) == 0
    assert capsys.readouterr().err.count("trains by itself; pip install 'jax[k8s]'") == notes


def test_a_scheduler_that_refuses_is_one_line(monkeypatch):
    class Refused(Exception):
        """As a scheduler's own client raises it."""

    def refuse(**arguments):
        raise Refused("Kubernetes API Error: 403\n- Forbidden")

    for name, value in {**INTERACTIVE, "SLURM_STEP_NUM_TASKS": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(InputError, match=r"403 - Forbidden; start the same .*--num_processes=1"):
        multihost.join()


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        (
            "os.write(2, b'F1126 c.h:80] absl::Status: DEADLINE_EXCEEDED: x\\n@ 0x7f\\n')\n"
            "    os.abort()",
            2,
            "jaxvae: the processes of this job did not come together: DEADLINE_EXCEEDED: x; start",
        ),
        ("os.write(2, b'jaxvae: stopped\\nF1126\\n'); os._exit(143)", 143, "jaxvae: stopped\n"),
        ("os.write(2, b'a warning\\n')", 0, "a warning\n"),  # a control: nothing is lost
    ],
)
def test_words_of_xla_while_joining_are_held_back(tmp_path, capfd, end, code, said):
    program = tmp_path / "program.py"
    program.write_text(
        f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom jaxvae.runtime import job_launcher\n"
        f"with job_launcher.holding_errors():\n    {end}\n"
    )
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert job_launcher.supervise([str(program)]) == code
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    printed = capfd.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1


def test_one_process_asks_nobody():
    assert multihost.is_primary()
    assert not multihost.is_multiprocess()
    assert multihost.max_across_hosts(2, 3) == (2, 3)
    assert multihost.broadcast_from_primary({"a": 1}, [])[0] == {"a": 1}
    multihost.check_equal({"config": "x"})
    multihost.wait_for_primary()
    with pytest.raises(InputError, match="wrong"), multihost.raise_together():
        raise InputError("wrong")
    with pytest.raises(RuntimeError, match="gloo"), multihost.translate_peer_errors():
        raise RuntimeError("gloo: an error of one process alone stays what it is")


LOST = "jaxvae: another process of this job has ended (or did not come in time);"


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(2)", 2, ""),
        (f"os._exit({job_launcher.EXIT_REASON_PRINTED})", 1, ""),
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
        assert job_launcher.supervise([str(program)]) == code
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    printed = capfd.readouterr().err
    assert "words of XLA" in printed
    assert printed.rstrip("\n").rpartition("XLA\n\n")[2].startswith(said)
    assert bool(printed.endswith("XLA\n\n")) is not bool(said)
