"""Being told to stop: SIGINT (Ctrl-C) and SIGTERM (a scheduler, a machine that goes away).

The first signal ends a run in good order, at the next point where that loses nothing; the second
ends it at once. Before a run has anything to lose the first one ends the process, too: an exception
that is raised while libraries are imported may be swallowed by them, or crash them.
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
    """A signal asked the run to stop.

    Attributes:
      signum: which one.
      outcome: what was kept, for the user.
    """

    def __init__(self, signum: int, outcome: str = ""):
        super().__init__(f"stopped by {signal.Signals(signum).name}{outcome and ': '}{outcome}")
        self.signum = signum
        self.outcome = outcome


_as_one_seconds = 0.0


def debounce(seconds: float) -> None:
    """From now on signals that come so close together are one.

    A terminal and a scheduler tell every process of a group, and so does a parent who is told.
    """
    global _as_one_seconds
    _as_one_seconds = seconds


_heard_at = 0.0
_before_ours: dict[int, Any] = {}


def exit_on_signal() -> None:
    """From now on a signal ends this process at once, unless `requests` listens to it.

    For a program's first line: the process must be its own, and have nothing to clean up.
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
    """Whether a signal is the one that was heard last, told once more."""
    return bool(_heard_at) and now - _heard_at < _as_one_seconds


class StopRequest:
    """What was asked for so far.

    Attributes:
      signum: the first signal, 0 before it.
      deferred: whether the first one only sets `signum`, for a loop that polls it; otherwise it
        raises Interrupted where the program is.
      clean: where the process is the program's own (`exit_on_signal`), a signal calls this and ends
        it, while this is set and nothing deferred: for what happens before anything can be lost.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.deferred = False
        self.clean: Callable[[], None] | None = None

    @contextlib.contextmanager
    def defer(self) -> Iterator[None]:
        """Inside, the first signal waits until the caller looks at `signum`, or leaves."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.signum:
            raise Interrupted(self.signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        global _heard_at
        now = time.monotonic()
        again = bool(self.signum)
        if again and _is_repeated(now):
            return
        if self.clean is not None and _before_ours and not self.deferred:
            self.clean()
            _exit_now(signum, frame)
        if not again:
            self.signum, _heard_at = signum, now
        if again or not self.deferred:
            raise Interrupted(self.signum)

    def _raise_again(self, signum: int, frame: FrameType | None) -> None:
        if not self.deferred:
            raise Interrupted(self.signum)

    @contextlib.contextmanager
    def _never_swallowed(self) -> Iterator[None]:
        """Raises Interrupted once more where Python could only print it, and went on.

        That is so in what runs for the garbage collector: finalisers, weak references' callbacks
        (the import system has some), JAX's collector hook.
        """
        before = sys.unraisablehook, signal.signal(signal.SIGALRM, self._raise_again)

        def hear(unraisable: "sys.UnraisableHookArgs") -> None:
            if isinstance(unraisable.exc_value, Interrupted):
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            else:
                before[0](unraisable)

        sys.unraisablehook = hear
        try:
            yield
            if signal.getitimer(signal.ITIMER_REAL)[0]:
                raise Interrupted(self.signum)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = before[0]
            signal.signal(signal.SIGALRM, before[1])


@contextlib.contextmanager
def listen_for_stop(*, ignore: tuple[int, ...] = ()) -> Iterator[StopRequest]:
    """Listens to the signals, in the main thread; in another thread nothing is ever requested.

    Args:
      ignore: signals that someone else in this process takes care of.
    """
    asked = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    listened = [number for number in SIGNALS if number not in ignore]
    before = {number: signal.signal(number, asked._receive) for number in listened}
    try:
        with asked._never_swallowed():
            yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def exit_at_second_signal(message: str) -> Iterator[None]:
    """Ends the process at a second signal, even in the middle of a compilation.

    Python runs signal handlers between two of its own instructions, so one that comes during a
    minute of XLA waits that minute; the byte that the interpreter writes to a pipe does not.

    Args:
      message: a line for standard error.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        first = 0.0
        while byte := os.read(reader, 1):
            now = time.monotonic()
            if byte[0] not in SIGNALS or (first and now - first < _as_one_seconds):
                continue
            if not first:
                first = now
            else:
                os.write(2, f"\n{message}\n".encode())
                os._exit(128 + byte[0])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watcher.join()
        os.close(reader)


def drop_output(stream: TextIO) -> None:
    """Sends what a stream still holds nowhere, or Python would try once more at exit, and complain.

    Args:
      stream: standard output or standard error.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def exit_process(code: int) -> NoReturn:
    """Ends the process; if not well, without taking the interpreter apart.

    What was broken off then (a compilation, a program on its way to the device, other processes
    that are waited for) still has threads at work, and those crash, or hang, when the interpreter
    goes away under them.

    Args:
      code: exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # nobody reads it: nor will Python's own end
            drop_output(stream)
    if code:
        os._exit(code)
    sys.exit(code)
