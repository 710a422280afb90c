"""Being told to stop: SIGINT (Ctrl-C) and SIGTERM (a scheduler, a machine that goes away).

The first signal ends a run in good order, at the next point where that loses nothing; the second
ends it at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

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


class Requests:
    """What was asked for so far.

    Attributes:
      signum: the first signal, 0 before it.
      deferred: whether the first one only sets `signum`, for a loop that polls it; otherwise it
        raises Interrupted where the program is.
    """

    def __init__(self) -> None:
        self.signum = 0
        self.deferred = False

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
        again = bool(self.signum)
        self.signum = self.signum or signum
        if again:
            raise Interrupted(self.signum)
        self._interrupt(signum, frame)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        if self.deferred:
            return
        if _swallows_exceptions(frame):
            signal.signal(signal.SIGALRM, self._interrupt)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            return
        raise Interrupted(self.signum)


def _swallows_exceptions(frame: FrameType | None) -> bool:
    """Whether a frame runs for the garbage collector, which prints what is raised and goes on."""
    while frame is not None:
        if frame.f_code.co_name in ("_xla_gc_callback", "__del__"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def requests(*, ignore: tuple[int, ...] = ()) -> Iterator[Requests]:
    """Listens to the signals, in the main thread; in another thread nothing is ever requested.

    Args:
      ignore: signals that someone else in this process takes care of.
    """
    asked = Requests()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    listened = [number for number in SIGNALS if number not in ignore]
    before = {number: signal.getsignal(number) for number in (*listened, signal.SIGALRM)}
    for number in listened:
        signal.signal(number, asked._receive)
    try:
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
        seen = 0
        while byte := os.read(reader, 1):
            seen += byte[0] in SIGNALS
            if seen == 2:
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
