"""A job of several processes, as its command line, its scheduler and its end show it.

What is asked before anything slow is imported; `hosts` is what the processes say to each other.
"""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from jaxvae.errors import InputError

_SUPERVISED = "JAXVAE_SUPERVISED"
_MOST_HELD = 2**20
EXIT_REASON_PRINTED = 3
"""A supervised program's exit code where it has said itself why it ends with 1.

XLA ends a program whose peers are gone in words of its own, by an abort or with 1.
"""

ALONE = "--num_processes=1 instead makes this process a run by itself"
"""How not to wait."""


class PeerLost(RuntimeError):
    """Another process of the job ended, so this one can't go on.

    Attributes:
      reason: what the connection to it said.
    """

    def __init__(self, reason: str = ""):
        super().__init__(
            f"another process of this job has ended{reason and f' ({reason})'}; what was saved "
            f"stands, and the same command in every process goes on from it"
        )
        self.reason = reason


class Scheduled(NamedTuple):
    """A job of several processes, as the scheduler of this one describes it.

    Attributes:
      scheduler: its name.
      num_processes: in all; None where only its server knows.
      process_id: of this one; None where it is not in the environment.
      hosts: where they are.
    """

    scheduler: str
    num_processes: int | None
    process_id: int | None
    hosts: str


def scheduled(environment: Mapping[str, str]) -> Scheduled | None:
    """The job that this process is one of, None where it is by itself.

    Schedulers are those that JAX knows, in its order. SLURM gives a batch script's own shell the
    number of tasks too, but no list of a step's nodes; and in an interactive shell SLURM_NTASKS is
    the job's, while one task is in the step. On Kubernetes, JAX needs an indexed job and the
    package `kubernetes`.

    Args:
      environment: variables of this process.
    """

    def number(name: str) -> int | None:
        value = environment.get(name, "")
        return int(value) if value.isdecimal() else None

    jobs = []
    if "OMPI_COMM_WORLD_SIZE" in environment:
        hosts = environment.get("OMPI_MCA_orte_hnp_uri", "").partition(";")[2]
        rank = number("OMPI_COMM_WORLD_RANK")
        jobs.append(Scheduled("Open MPI", number("OMPI_COMM_WORLD_SIZE"), rank, hosts))
    if "SLURM_STEP_NODELIST" in environment:
        tasks = number("SLURM_STEP_NUM_TASKS") or number("SLURM_NTASKS")
        nodes = environment["SLURM_STEP_NODELIST"]
        jobs.append(Scheduled("SLURM", tasks, number("SLURM_PROCID"), nodes))
    workers = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    slices = number("MEGASCALE_NUM_SLICES") or 1
    num_workers = slices * len(workers.split(","))
    worker = None if slices > 1 else number("TPU_WORKER_ID")
    jobs.append(Scheduled("the TPU slice", num_workers, worker, workers))
    for job in jobs:
        if (job.num_processes or 0) > 1:
            return job
    if is_indexed_pod(environment) and importlib.util.find_spec("kubernetes") is not None:
        return Scheduled("Kubernetes", None, number("JOB_COMPLETION_INDEX"), "")
    return None


def in_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler says that this process is one of several."""
    return scheduled(environment) is not None


def is_indexed_pod(environment: Mapping[str, str]) -> bool:
    """Whether this process is in a pod of an indexed Kubernetes job, one process or several."""
    return "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment


def waiting_line(job: Scheduled, *, seconds: int) -> str:
    """What a process says before it waits for the others.

    Args:
      job: whom it waits for.
      seconds: how long at most.
    """
    this = "one" if job.process_id is None else f"{job.process_id}"
    of_all = f" of {job.num_processes}" if job.num_processes else " of a job"
    hosts = f" at {job.hosts[:200]}" if job.hosts else ""
    by = f" ({job.scheduler} says so)" if job.scheduler else ""
    return f"process {this}{of_all}{by} waits for the others{hosts}, at most {seconds} s; {ALONE}"


def check_flags(*, coordinator: str, num_processes: int, process_id: int) -> None:
    """Raises InputError unless the three flags name a job, or none, or one process by itself."""
    if not coordinator and (num_processes, process_id) != (1, -1):
        for name, value in (("num_processes", num_processes), ("process_id", process_id)):
            if value != -1:
                raise InputError(f"--{name}={value}: needs --coordinator=HOST:PORT of process 0")
    if not coordinator:
        return
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"--coordinator={coordinator}: expected HOST:PORT, such as 10.0.0.1:7777")
    if num_processes < 1:
        raise InputError("--coordinator: give --num_processes, how many there are in all")
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"--process_id={process_id}: must be from 0 to {num_processes - 1} "
            f"(--num_processes={num_processes}); each process has its own"
        )


def not_together(reason: object) -> str:
    """The line about processes that did not come together.

    Args:
      reason: what JAX says.
    """
    text = " ".join(str(reason).split())[:200]
    return (
        f"the processes of this job did not come together: {text}; start the same command in "
        f"every one of them; {ALONE}"
    )


def is_supervised() -> bool:
    """Whether `supervise` started this process."""
    return _SUPERVISED in os.environ


def follow_supervisor() -> None:
    """From now on this process ends when `supervise` does, however that ends.

    Else it would train on without anyone who could be told, and the others would wait for nobody.
    """
    reader = int(os.environ[_SUPERVISED].partition(",")[0])

    def watch() -> None:
        os.read(reader, 1)  # nothing is ever written: this is the end of the writer
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    sys.excepthook = _told


@contextlib.contextmanager
def holding_errors() -> Iterator[None]:
    """Inside, what a supervised process writes to standard error waits for the end.

    Where the others don't come, XLA writes a stack of C++ and aborts: `supervise` has the text then
    and says what it means.
    """
    if not is_supervised():
        yield
        return
    held = int(os.environ[_SUPERVISED].partition(",")[2])
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(held, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        text = os.pread(held, _MOST_HELD, 0)
        os.ftruncate(held, 0)
        os.write(2, text)


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nobody expected, as the cause of the end that it is."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(EXIT_REASON_PRINTED)


def supervise(argv: Sequence[str]) -> int:
    """Runs the program in a process of its own, and returns its exit code.

    What ends a process whose peers are gone may be XLA, at any moment and with nothing in it for
    users, so that is said here, after the last that it prints.

    Args:
      argv: arguments with the program's name first.
    """
    reader, writer = os.pipe()  # closed by the system, whatever ends this process
    with tempfile.TemporaryFile() as file:
        held = file.fileno()
        child = subprocess.Popen(
            [sys.executable, *argv],
            env={**os.environ, _SUPERVISED: f"{reader},{held}"},
            pass_fds=[reader, held],
        )
        os.close(reader)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: child.send_signal(number))
        code = child.wait()
        os.close(writer)
        lines = os.pread(held, _MOST_HELD, 0).decode(errors="replace").splitlines()
    for line in lines:  # written while it joined the others
        if line.startswith("jaxvae: "):
            print(line, file=sys.stderr)
    if code == -signal.SIGABRT and lines:
        reason = next(
            (line.partition("absl::Status: ")[2] for line in lines if "Status: " in line), ""
        )
        print(f"jaxvae: {not_together(reason or 'XLA aborted')}", file=sys.stderr)
        return 2
    if code in (1, -signal.SIGABRT):
        print(f"jaxvae: {PeerLost('or did not come in time')}", file=sys.stderr)
        return 1
    if code == EXIT_REASON_PRINTED:
        return 1
    if code < 0:
        print(f"jaxvae: ended by {signal.Signals(-code).name}", file=sys.stderr)
        return 128 - code
    return code
