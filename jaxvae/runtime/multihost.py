"""Coordinates the processes of a run: connect, compare settings, broadcast, detect lost peers.

`jax.distributed` connects the processes. Each runs the same program on its own devices; only the
primary (process 0) writes, prints and evaluates. No shared file system is needed.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxvae.errors import InputError
from jaxvae.runtime import job_launcher
from jaxvae.runtime.job_launcher import PeerLost

JOIN_SECONDS = 120
HEARTBEAT_SECONDS = 30
"""Seconds without a heartbeat after which a process counts as lost, and the others end."""
_TAIL_SECONDS = 24 * 3600
_LAST_WORDS_SECONDS = 1.0
_COORDINATION = ("gloo", "coordination", "distributed service", "connection", "socket", "peer")


def join(*, coordinator: str = "", num_processes: int = -1, process_id: int = -1) -> None:
    """Joins the other processes; call it before JAX looks for devices.

    Args:
      coordinator: HOST:PORT of process 0; "" takes all three from the scheduler, if there is one.
      num_processes: number of processes; 1 is a run by itself, even under a scheduler.
      process_id: this process's id, from 0.

    Raises:
      InputError: the processes did not connect in time.
    """
    if num_processes == 1:
        return
    arguments: dict[str, Any] = {}
    scheduled = job_launcher.scheduled(os.environ)
    if coordinator:
        arguments = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
        _say_waiting(job_launcher.Scheduled("", num_processes, process_id, coordinator))
        if process_id:
            _reach(coordinator)
        else:
            _check_port(coordinator)
    elif scheduled is None:
        return
    else:
        _say_waiting(scheduled)
        if scheduled.scheduler == "SLURM":  # JAX would take the job's tasks, not the step's.
            arguments = {"num_processes": scheduled.num_processes}
    import jax

    try:
        with job_launcher.holding_errors():
            _while_listening(
                lambda: jax.distributed.initialize(
                    **arguments,
                    initialization_timeout=JOIN_SECONDS,
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                )
            )
    except Exception as error:  # Includes errors of a scheduler's client.
        raise InputError(job_launcher.not_together(error)) from error


def _say_waiting(scheduled: job_launcher.Scheduled) -> None:
    line = job_launcher.waiting_line(scheduled, seconds=JOIN_SECONDS)
    print(f"jaxvae: {line}", file=sys.stderr, flush=True)


def _while_listening(call: Callable[[], None]) -> None:
    """Runs a blocking native call in another thread, so that this one can handle signals.

    Raises:
      Exception: whatever the call raises.
    """
    ended: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run() -> None:
        try:
            call()
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    ended.result()


def _check_port(coordinator: str) -> None:
    """Raises InputError for a port that is in use; JAX would crash on it."""
    port = int(coordinator.rpartition(":")[2])
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise InputError(
            f"--coordinator={coordinator}: port {port} can't be opened here: {error.strerror}"
        ) from error


def _reach(coordinator: str) -> None:
    """Waits until process 0 listens; JAX's own wait would end in an abort."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise InputError(
                    f"--coordinator={coordinator}: nobody listens there after {JOIN_SECONDS} s "
                    f"({error.strerror or error}); is process 0 running, and the port open?"
                ) from error
            time.sleep(0.2)


def is_multiprocess() -> bool:
    """Tests whether this process is one of several."""
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Tests whether this process is the one that writes, prints and evaluates."""
    import jax

    return not is_multiprocess() or jax.process_index() == 0


@contextlib.contextmanager
def raise_together() -> Iterator[None]:
    """Raises InputError in all processes if one raises it, so that none hangs in a collective."""
    if not is_multiprocess():
        yield
        return
    refusal = None
    try:
        yield
    except InputError as error:
        refusal = error
    failed = np.flatnonzero(_gather_from_all(np.int32(refusal is not None)))
    if refusal:
        raise refusal
    if len(failed):
        raise InputError(f"process {_listed(failed)} refused to start; see what it says")


def check_equal(facts: Mapping[str, str]) -> None:
    """Raises InputError in every process if values differ between processes.

    Args:
      facts: the values that must be equal, by their names in the message.
    """
    if not is_multiprocess():
        return
    digests = [hashlib.sha256(value.encode()).digest() for value in facts.values()]
    gathered = _gather_from_all(np.frombuffer(b"".join(digests), np.uint8).reshape(len(facts), -1))
    for number, name in enumerate(facts):
        unequal = np.flatnonzero((gathered[:, number] != gathered[0, number]).any(axis=-1))
        if len(unequal):
            raise InputError(
                f"process {_listed(unequal)} has another {name} than process 0; give every process "
                f"the same command and files, or --num_processes=1 if each is to have a run of its "
                f"own"
            )


def max_across_hosts(*values: int) -> tuple[int, ...]:
    """Returns the maximum of each number over all processes."""
    if not is_multiprocess():
        return values
    return tuple(int(value) for value in _gather_from_all(np.asarray(values, np.int32)).max(axis=0))


def broadcast_from_primary(facts: Any, arrays: list[np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    """Broadcasts the primary process's values to all processes.

    Args:
      facts: JSON-able; other processes' values are ignored.
      arrays: arrays with the same shapes and types in every process.
    """
    if not is_multiprocess():
        return facts, arrays
    from jax.experimental import multihost_utils

    text = json.dumps(facts).encode() if is_primary() else b""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(length), np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded[:length].copy())
    arrays = [np.asarray(multihost_utils.broadcast_one_to_all(array)) for array in arrays]
    return json.loads(np.asarray(received).tobytes()), arrays


def wait_for_primary() -> None:
    """Blocks until every process arrives: the others wait while the primary evaluates the model."""
    if is_multiprocess():
        import orbax.checkpoint as ocp

        ocp.multihost.sync_global_processes("jaxvae_done", timeout=_TAIL_SECONDS)


@contextlib.contextmanager
def exit_primary_last() -> Iterator[None]:
    """Delays the primary process's exit on failure, so that it is the last.

    The primary is the coordinator: when it exits, XLA aborts the remaining processes before they
    can report their error.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, PeerLost) and is_multiprocess() and is_primary():
            time.sleep(_LAST_WORDS_SECONDS)
        raise


@contextlib.contextmanager
def translate_peer_errors() -> Iterator[None]:
    """Translates errors of the connection to other processes into PeerLost."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        if not is_multiprocess() or not any(word in text.lower() for word in _COORDINATION):
            raise
        raise PeerLost(text[:160]) from error


def _gather_from_all(value: np.ndarray | np.generic) -> np.ndarray:
    """Gathers every process's array, `[processes, ...]`."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(value)))


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers))
