"""Detects a job of several processes from its flags and scheduler, and supervises a process of it.

Nothing slow is imported here; `multihost` is the communication between the processes.
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
"""Exit code 3: the supervised program has already printed its error, and stands for exit code 1.

If a peer is gone, XLA ends a program by an abort or with 1, with a message of its own.
"""

ALONE = "--num_processes=1 instead makes this process a run by itself"
"""Advice for a user who does not want to wait for other processes."""


class PeerLost(RuntimeError):
    """Raised when another process of the job has ended, so that this one can't go on.

    Attributes:
      reason: the connection's error message.
    """

    def __init__(self, reason: str = ""):
        super().__init__(
            f"another process of this job has ended{reason and f' ({reason})'}; what was saved "
            f"stands, and the same command in every process goes on from it"
        )
        self.reason = reason


class Scheduled(NamedTuple):
    """A job of several processes, as described by this process's scheduler.

    Attributes:
      scheduler: the scheduler's name.
      num_processes: number of processes; None if only the scheduler's server knows it.
      process_id: this process's id; None if it is not in the environment.
      hosts: the processes' hosts.
    """

    scheduler: str
    num_processes: int | None
    process_id: int | None
    hosts: str


def scheduled(environment: Mapping[str, str]) -> Scheduled | None:
    """Returns this process's job, None if the process runs alone.

    The schedulers are those that JAX knows, in its order. In a batch script's own shell SLURM sets
    the number of tasks too, but not a step's list of nodes; in an interactive shell SLURM_NTASKS is
    the job's, although the step has one task. On Kubernetes, JAX needs an indexed job and the
    package `kubernetes`.

    Args:
      environment: this process's environment variables.
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
    """Tests whether this process is one of several, according to a scheduler."""
    return scheduled(environment) is not None


def is_indexed_pod(environment: Mapping[str, str]) -> bool:
    """Tests whether this process is in a pod of an indexed Kubernetes job of any size."""
    return "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment


def waiting_line(job: Scheduled, *, seconds: int) -> str:
    """Returns the message of a process that starts to wait for the others.

    Args:
      job: the job to wait for.
      seconds: the longest wait.
    """
    rank = "one" if job.process_id is None else f"{job.process_id}"
    of_all = f" of {job.num_processes}" if job.num_processes else " of a job"
    hosts = f" at {job.hosts[:200]}" if job.hosts else ""
    by = f" ({job.scheduler} says so)" if job.scheduler else ""
    return f"process {rank}{of_all}{by} waits for the others{hosts}, at most {seconds} s; {ALONE}"


def check_flags(*, coordinator: str, num_processes: int, process_id: int) -> None:
    """Raises InputError unless the three flags describe a job or a single process, or are unset."""
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
    """Returns the message about processes that failed to connect.

    Args:
      reason: JAX's error.
    """
    text = " ".join(str(reason).split())[:200]
    return (
        f"the processes of this job did not come together: {text}; start the same command in "
        f"every one of them; {ALONE}"
    )


def is_supervised() -> bool:
    """Tests whether `supervise` started this process."""
    return _SUPERVISED in os.environ


def follow_supervisor() -> None:
    """Makes this process end when its supervisor ends, for whatever reason.

    Otherwise it would go on training unattended, and the other processes would wait for it.
    """
    reader = int(os.environ[_SUPERVISED].partition(",")[0])

    def watch() -> None:
        os.read(reader, 1)  # Nothing is ever written: this returns when the writer ends.
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    sys.excepthook = _told


@contextlib.contextmanager
def holding_errors() -> Iterator[None]:
    """Holds back a supervised process's standard error until the end of the block.

    If the other processes don't connect, XLA prints a C++ stack trace and aborts: `supervise` then
    reads the held text and prints a readable message.
    """
    if not is_supervised():
        yield
        return
    descriptor = int(os.environ[_SUPERVISED].partition(",")[2])
    sys.stderr.flush()
    terminal = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)
        text = os.pread(descriptor, _MOST_HELD, 0)
        os.ftruncate(descriptor, 0)
        os.write(2, text)


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an uncaught exception and exits with the code that says so."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(EXIT_REASON_PRINTED)


def supervise(argv: Sequence[str]) -> int:
    """Runs the program in a child process and returns its exit code.

    When a peer dies, XLA may abort the program at any moment with an unhelpful message; the
    supervisor prints a readable one afterwards.

    Args:
      argv: arguments with the program's name first.
    """
    reader, writer = os.pipe()  # The system closes the writer however this process ends.
    with tempfile.TemporaryFile() as file:
        descriptor = file.fileno()
        child = subprocess.Popen(
            [sys.executable, *argv],
            env={**os.environ, _SUPERVISED: f"{reader},{descriptor}"},
            pass_fds=[reader, descriptor],
        )
        os.close(reader)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: child.send_signal(number))
        code = child.wait()
        os.close(writer)
        lines = os.pread(descriptor, _MOST_HELD, 0).decode(errors="replace").splitlines()
    for line in lines:  # written while the child joined the others
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
