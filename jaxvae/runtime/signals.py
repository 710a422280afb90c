"""Handles SIGINT (Ctrl-C) and SIGTERM (a scheduler, a preempted machine).

The first signal stops a run cleanly, at the next point where nothing is lost; the second ends it at
once. Before a run has anything to lose, the first signal ends the process at once too: libraries
may swallow an exception that is raised during their import, or crash on it.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05


class Interrupted(KeyboardInterrupt):
    """Raised when a signal asks the run to stop.

    Attributes:
      signum: the signal's number.
      outcome: a message for the user about what was saved.
    """

    def __init__(self, signum: int, outcome: str = ""):
        super().__init__(f"stopped by {signal.Signals(signum).name}{outcome and ': '}{outcome}")
        self.signum = signum
        self.outcome = outcome


_as_one_seconds = 0.0


def debounce(seconds: float) -> None:
    """Treats signals within `seconds` of each other as one from now on.

    A signal can arrive twice: from the terminal or scheduler, and forwarded by the parent.
    """
    global _as_one_seconds
    _as_one_seconds = seconds


_heard_at = 0.0
_before_ours: dict[int, Any] = {}


def exit_on_signal() -> None:
    """Makes a signal end this process at once, unless `listen_for_stop` handles it.

    Call it at a program's start: it must own the process and have nothing to clean up.
    """
    for number in SIGNALS:
        _before_ours[number] = signal.signal(number, _exit_now)


def restore_handlers() -> None:
    """Undoes `exit_on_signal`, for a command that cleans up when it is interrupted."""
    while _before_ours:
        signal.signal(*_before_ours.popitem())


def _exit_now(signum: int, frame: FrameType | None) -> None:
    if _is_repeated(time.monotonic()):
        return
    with contextlib.suppress(OSError):
        os.write(2, f"jaxvae: stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)


def _is_repeated(now: float) -> bool:
    """Tests whether a signal repeats the latest one, within the time of `debounce`."""
    return bool(_heard_at) and now - _heard_at < _as_one_seconds


class StopRequest:
    """A request to stop, set by signals.

    Attributes:
      signum: the first signal's number, 0 before it.
      deferred: whether the first signal only sets `signum`, for a loop that polls it; otherwise it
        raises Interrupted at the point of execution.
      clean: if set, and signals are not deferred, a signal calls it and exits at once (only after
        `exit_on_signal`). Used before the run has written anything.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.deferred = False
        self.clean: Callable[[], None] | None = None

    @contextlib.contextmanager
    def defer(self) -> Iterator[None]:
        """Defers the first signal until the caller reads `signum` or leaves the block."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum:
            raise Interrupted(self.signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        global _heard_at
        heard_at = time.monotonic()
        repeated = bool(self.signum)
        if repeated and _is_repeated(heard_at):
            return
        if self.clean is not None and _before_ours and not self.deferred:
            self.clean()
            _exit_now(signum, frame)
        if not repeated:
            self.signum, _heard_at = signum, heard_at
        if repeated or not self.deferred:
            raise Interrupted(self.signum)

    def _raise_again(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred:
            raise Interrupted(self.signum)

    @contextlib.contextmanager
    def _never_swallowed(self) -> Iterator[None]:
        """Raises Interrupted again if Python swallowed it, at the latest at the block's end.

        Python only prints exceptions from code that the garbage collector runs: finalisers, weak
        references' callbacks (the import system has some), JAX's collector hook. Libraries may drop
        them without a word.
        """
        previous = sys.unraisablehook, signal.signal(signal.SIGALRM, self._raise_again)

        def hear(unraisable: "sys.UnraisableHookArgs") -> None:
            if isinstance(unraisable.exc_value, Interrupted):
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            else:
                previous[0](unraisable)

        sys.unraisablehook = hear
        try:
            yield
            if self.signum:
                raise Interrupted(self.signum)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = previous[0]
            signal.signal(signal.SIGALRM, previous[1])


@contextlib.contextmanager
def listen_for_stop(*, ignore: tuple[int, ...] = ()) -> Iterator[StopRequest]:
    """Handles the signals in the main thread; in any other thread, no stop is ever requested.

    Args:
      ignore: signals that other code in this process handles.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    listened = [number for number in SIGNALS if number not in ignore]
    previous = {number: signal.signal(number, request._receive) for number in listened}
    try:
        with request._never_swallowed():
            yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def exit_at_second_signal(message: str) -> Iterator[None]:
    """Ends the process at a second signal, even in the middle of a compilation.

    Python runs signal handlers between its own instructions, so during a minute of XLA a handler
    waits that minute; the byte that the interpreter writes to a pipe arrives at once.

    Args:
      message: a line for standard error.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        first = 0.0
        while byte := os.read(reader, 1):
            heard_at = time.monotonic()
            if byte[0] not in SIGNALS or (first and heard_at - first < _as_one_seconds):
                continue
            if not first:
                first = heard_at
            else:
                os.write(2, f"\n{message}\n".encode())
                os._exit(128 + byte[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        os.close(writer)
        watcher.join()
        os.close(reader)


def drop_output(stream: TextIO) -> None:
    """Discards a stream's buffered output, so that Python does not fail to flush it at exit.

    Args:
      stream: standard output or standard error.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_process(code: int) -> NoReturn:
    """Exits the process; on failure by `os._exit`, without the interpreter's shutdown.

    After a failure, threads of unfinished work (a compilation, a program on its way to the device,
    a wait for other processes) may still run; they crash or hang during the interpreter's shutdown.

    Args:
      code: exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # The reader is gone.
            drop_output(stream)
    if code:
        os._exit(code)
    sys.exit(code)
