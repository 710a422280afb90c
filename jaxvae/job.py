"""A job of several processes, as its command line, its scheduler and its end show it.

What is asked before anything slow is imported; `hosts` is what the processes say to each other.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

from jaxvae.errors import InputError

_SUPERVISED = "JAXVAE_SUPERVISED"
TOLD = 3
"""A supervised program's exit code where it has said itself why it ends with 1.

XLA ends a program whose peers are gone in words of its own, by an abort or with 1.
"""


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


def in_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a scheduler says that this process is one of several.

    SLURM gives a batch script's own shell the number of tasks too, but no list of a step's nodes.
    """

    def number(name: str) -> int:
        value = environment.get(name, "")
        return int(value) if value.isdigit() else 0

    return (
        ("SLURM_STEP_NODELIST" in environment and number("SLURM_NTASKS") > 1)
        or number("OMPI_COMM_WORLD_SIZE") > 1
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or number("MEGASCALE_NUM_SLICES") > 1
    )


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


def is_supervised() -> bool:
    """Whether `supervise` started this process."""
    return _SUPERVISED in os.environ


def follow_supervisor() -> None:
    """From now on this process ends when `supervise` does, however that ends.

    Else it would train on without anyone who could be told, and the others would wait for nobody.
    """
    reader = int(os.environ[_SUPERVISED])

    def watch() -> None:
        os.read(reader, 1)  # nothing is ever written: this is the end of the writer
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    sys.excepthook = _told


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an error that nobody expected, as the cause of the end that it is."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(TOLD)


def supervise(argv: Sequence[str]) -> int:
    """Runs the program in a process of its own, and returns its exit code.

    What ends a process whose peers are gone may be XLA, at any moment and with nothing in it for
    users, so that is said here, after the last that it prints.

    Args:
      argv: arguments with the program's name first.
    """
    reader, writer = os.pipe()  # closed by the system, whatever ends this process
    child = subprocess.Popen(
        [sys.executable, *argv],
        env={**os.environ, _SUPERVISED: str(reader)},
        pass_fds=[reader],
    )
    os.close(reader)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: child.send_signal(number))
    code = child.wait()
    os.close(writer)
    if code in (1, -signal.SIGABRT):
        print(f"jaxvae: {PeerLost('or did not come in time')}", file=sys.stderr)
        return 1
    if code == TOLD:
        return 1
    if code < 0:
        print(f"jaxvae: ended by {signal.Signals(-code).name}", file=sys.stderr)
        return 128 - code
    return code
