"""Processes of Python that begin with their libraries imported: half of what a short command takes.

`Popen` is `subprocess.Popen`. Where it starts this Python with a script, `-m` or `-c`, the process is
a fork of one that has imported JAX and what else stands below the package, but nothing of the
package: a child like any other, with its own arguments, folder, variables, streams and signals. It
shares with its siblings what Python and libraries settle as they start, the seed of hashes among
it; those with other values of a variable that is read then have another parent. A new Python is
started where something is asked that a fork has not, and the first time that a parent is needed.
"""

import atexit
import collections
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, ClassVar

# Nothing that looks at a user's variables as it is imported, such as HOME or HF_ENDPOINT.
LIBRARIES = (
    "clu.metrics",
    "flax.nnx",
    "ml_collections.config_flags",
    "optax",
    "orbax.checkpoint",
    "rich.progress",
    "rich.table",
)
_READ_AT_START = ("JAX_", "PYTHON", "LD_", "LC_", "LANG", "OMP_", "OPENBLAS_", "TF_", "TZ")
_READ_BY_ALL = {"PYTHONPATH"}
_SET_CHILD_SUBREAPER = 36
_EXECUTE = inspect.signature(subprocess.Popen._execute_child)


class Popen(subprocess.Popen):
    """`subprocess.Popen`, by a fork where that is the same.

    Attributes:
      libraries: what the parent of the forks has imported.
    """

    libraries: ClassVar[tuple[str, ...]] = LIBRARIES

    def _execute_child(self, *arguments, **named):
        asked = _EXECUTE.bind(self, *arguments, **named).arguments
        pipes = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate(pipes)]
        process = _fork(asked, streams, self.libraries) if _can_fork(asked, streams) else 0
        if not process:
            super()._execute_child(*arguments, **named)
            return
        self.pid, self._child_created = process, True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in ends))


def run(command, *, popen=Popen, timeout=None, **options) -> subprocess.CompletedProcess:
    """`subprocess.run` with the output captured as text."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with popen(command, text=True, **{**streams, **options}) as process:
        try:
            output, error = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, output, error)


def _can_fork(asked: dict, streams: list[int]) -> bool:
    command = asked["args"]
    return (
        sys.platform == "linux"
        and not isinstance(command, str | bytes | os.PathLike)
        and len(command) > 1
        and command[0] == sys.executable
        and (command[1] in ("-m", "-c") or not command[1].startswith("-"))
        and asked["close_fds"]
        and not any(asked[name] for name in ("preexec_fn", "pass_fds", "shell", "executable"))
        and all(
            asked[name] in (None, -1) for name in ("gid", "gids", "uid", "umask", "process_group")
        )
        and not any(os.isatty(stream) for stream in streams)
    )


def _fork(asked: dict, streams: list[int], libraries: tuple[str, ...]) -> int:
    """Starts a process, of which this one is the parent; its number, or 0 if there was no fork."""
    variables = dict(os.environ if asked["env"] is None else asked["env"])
    request = {
        "command": [os.fsdecode(each) for each in asked["args"][1:]],
        "folder": os.path.abspath(os.fspath(asked["cwd"] or ".")),
        "variables": variables,
        "new_session": bool(asked["start_new_session"]),
    }
    os.stat(request["folder"])  # as a start would, where it is not there
    forks = _Forks.of(libraries, variables)
    return forks.start(request, streams) if forks else 0


class _Forks:
    """A process that has imported the libraries, and what it is told to start."""

    _asked: ClassVar[collections.Counter] = collections.Counter()
    _made: ClassVar[dict[tuple, "_Forks"]] = {}

    def __init__(self, libraries: tuple[str, ...], variables: dict[str, str]):
        self.lock = threading.Lock()
        self.connection, other = socket.socketpair()
        with other:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno()), *libraries],
                pass_fds=[other.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, env={**variables, "PYTHONPATH": ""},
            )  # fmt: skip

    @classmethod
    def of(cls, libraries: tuple[str, ...], variables: dict[str, str]) -> "_Forks | None":
        """Those of these libraries and of what is read at the start; None the first time."""
        read = sorted(
            (name, value)
            for name, value in variables.items()
            if name.startswith(_READ_AT_START) and name not in _READ_BY_ALL
        )
        kind = (libraries, *read)
        cls._asked[kind] += 1
        if kind not in cls._made and cls._asked[kind] > 1:
            cls._made[kind] = cls(libraries, variables)
            atexit.register(cls._made[kind].end)
        return cls._made.get(kind)

    def end(self) -> None:
        self.connection.close()
        self.process.wait()

    def start(self, request: dict, streams: list[int]) -> int:
        """Starts what is requested; returns its number, or 0 if that failed."""
        message = json.dumps(request).encode()
        # With some variables libraries can't be imported at all.
        with self.lock, _adopting(), contextlib.suppress(EOFError, OSError):
            socket.send_fds(self.connection, [len(message).to_bytes(4, "big")], streams)
            self.connection.sendall(message)
            return int.from_bytes(_receive(self.connection, 4), "big")
        return 0


@contextlib.contextmanager
def _adopting():
    """A process whose parent ends becomes a child of this one, and not of the first of all."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def receive_request(connection: socket.socket) -> tuple[Any, list[int]]:
    """Returns what was sent as JSON after its length, and the streams sent with that.

    None, without streams, when nobody asks any more.
    """
    length, streams, _, _ = socket.recv_fds(connection, 4, 3)
    if not length:
        return None, []
    return json.loads(_receive(connection, int.from_bytes(length, "big"))), streams


def _receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        part = connection.recv(length - len(received))
        if not part:
            raise EOFError("the process that forks has ended")
        received += part
    return received


def _serve(connection: socket.socket) -> dict | None:
    """Forks at each request. Returns the request in the fork, and None when nobody asks any more."""
    while True:
        request, streams = receive_request(connection)
        if request is None:
            return None
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            number = os.fork()
            if number == 0:
                while os.getppid() == between:
                    time.sleep(0.0005)
                for stream, pipe in enumerate(streams):
                    os.dup2(pipe, stream)
                connection.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                return request
            os.write(write, number.to_bytes(4, "big"))
            os._exit(0)
        os.waitpid(between, 0)  # from here on who asked is the parent
        connection.sendall(os.read(read, 4))
        for each in (read, write, *streams):
            os.close(each)


def _become(request: dict, interrupted) -> None:
    """Does in this process what a new Python does with such a command line.

    Args:
      request: the command line, its folder and variables.
      interrupted: what this Python set for SIGINT as it started.
    """
    signal.signal(signal.SIGINT, interrupted)
    if request["new_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = None
    kind, *rest = request["command"]
    first = {"-c": "", "-m": os.getcwd()}.get(kind, os.path.dirname(os.path.abspath(kind)))
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [first, *added]
    importlib.invalidate_caches()
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        names = sys.modules["__main__"].__dict__
        for name in [name for name in names if not name.startswith("__")]:
            del names[name]
        exec(compile(rest[0], "<string>", "exec"), names)
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def _main() -> None:
    # Of whoever asked, who ends this by its end.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    del sys.path[0]  # the folder of this file
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()
    request = _serve(connection)
    if request is not None:
        _become(request, interrupted)


if __name__ == "__main__":
    _main()
