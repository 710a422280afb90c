"""Signals: the first is orderly, the second is final."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from jaxvae.runtime import signals
from tests.conftest import ROOT


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_signal_raises_where_nothing_can_be_lost(signum):
    with pytest.raises(signals.Interrupted) as caught, signals.listen_for_stop():
        signal.raise_signal(signum)
    assert caught.value.signum == signum
    assert isinstance(caught.value, KeyboardInterrupt)


@pytest.mark.parametrize("signum", signals.SIGNALS)
def test_a_loop_hears_of_it_when_it_asks(signum):
    def loop():
        with signals.listen_for_stop() as asked, asked.defer():
            assert asked.signum == 0
            signal.raise_signal(signum)
            assert asked.signum == signum
            with pytest.raises(signals.Interrupted):
                signal.raise_signal(signum)  # the second one does not wait
            raise KeyError  # what the loop itself raises goes first

    with pytest.raises(KeyError):
        loop()


def test_signals_that_come_together_are_one_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(signals, "_as_one_seconds", 0.0)
    signals.debounce(0.2)
    reached = []

    def loop():
        with signals.listen_for_stop() as asked, asked.defer():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            reached.append("one")
            time.sleep(0.25)
            signal.raise_signal(signal.SIGTERM)
            reached.append("two")

    with pytest.raises(signals.Interrupted):
        loop()
    assert reached == ["one"]


def test_a_loop_that_does_not_ask_any_more_is_interrupted_at_its_end():
    reached = []

    def loop():
        with signals.listen_for_stop() as asked:
            with asked.defer():
                signal.raise_signal(signal.SIGTERM)
                reached.append("end")
            reached.append("after")

    with pytest.raises(signals.Interrupted):
        loop()
    assert reached == ["end"]


class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def finalise():
    Finalised()


def call_back():
    class Referred:
        pass

    kept = Referred()
    reference = weakref.ref(kept, lambda _: signal.raise_signal(signal.SIGTERM))
    del kept, reference


def collect():
    def callback(phase, facts):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGTERM)

    gc.callbacks.append(callback)
    gc.collect()


def drop():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("raised_in", [finalise, call_back, collect])
@pytest.mark.parametrize("seconds", [0, 20])
def test_a_signal_that_a_collector_swallows_is_raised_after_it(raised_in, seconds, capfd):
    reached = []

    def program():
        with signals.listen_for_stop():
            raised_in()
            reached.append("collected")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(0.01)
        reached.append("end")

    with pytest.raises(signals.Interrupted) as caught:
        program()
    assert caught.value.signum == signal.SIGTERM
    assert "end" not in reached  # nor "collected" where collecting takes longer than a reminder
    assert capfd.readouterr().err == ""


def test_a_signal_that_code_drops_without_a_word_is_raised_at_the_blocks_end():
    reached = []

    def program():
        with signals.listen_for_stop():
            drop()
            reached.append("dropped")
        reached.append("end")

    with pytest.raises(signals.Interrupted):
        program()
    assert reached == ["dropped"]


def test_what_else_a_collector_swallows_is_told_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise KeyError("told")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with signals.listen_for_stop():
        Broken()
    assert [type(each.exc_value) for each in told] == [KeyError]


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with signals.listen_for_stop():
        assert [signal.getsignal(number) for number in signals.SIGNALS] != before
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_a_signal_that_someone_else_takes_care_of_is_left_to_them():
    before = signal.getsignal(signal.SIGTERM)
    with signals.listen_for_stop(ignore=(signal.SIGTERM,)):
        assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_nothing_is_installed():
    seen = []

    def work():
        with signals.listen_for_stop() as asked:
            seen.append((asked.signum, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


# One long call into C that never looks at Python's signals, as a compilation is.
BUSY = """
import hashlib
from jaxvae.runtime import signals
signals.debounce({as_one})
try:
    with signals.exit_at_second_signal("at once"), signals.listen_for_stop() as asked, asked.defer():
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
        print("heard", asked.signum, flush=True)
except signals.Interrupted:
    pass
"""


@contextlib.contextmanager
def busy(rounds, as_one=0.0):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(rounds=rounds, as_one=as_one)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_first_signal_waits_for_a_call_that_does_not_look():
    with busy(3_000_000) as process:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, f"heard {signal.SIGTERM:d}\n", "")


def test_the_second_signal_does_not():
    with busy(2_000_000_000) as process:  # many minutes
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "\nat once\n")


def test_nor_does_one_that_is_told_twice_and_then_again():
    with busy(2_000_000_000, as_one=1.0) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        assert process.poll() is None
        time.sleep(0.6)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "\nat once\n")


# Foreign code may swallow what a handler raises, as the import of an extension module may.
SWALLOWED = """
import signal
from jaxvae.runtime import signals
{start}
try:
    signal.raise_signal({signum})
except BaseException:
    pass
print("went on", flush=True)
"""


@pytest.mark.parametrize("signum", signals.SIGNALS)
@pytest.mark.parametrize(
    "start",
    [
        "signals.exit_on_signal()",
        "signals.exit_on_signal()\nwith signals.listen_for_stop(): pass",
        "signals.exit_on_signal()\nheld = signals.listen_for_stop()\n"
        "held.__enter__().clean = lambda: print('cleaned', flush=True)",
    ],
    ids=["from the first line", "after the run", "before it writes"],
)
def test_a_program_of_its_own_ends_at_once_where_nothing_can_be_lost(start, signum):
    done = in_a_process(SWALLOWED.format(start=start, signum=int(signum)))
    assert done.returncode == 128 + signum
    assert done.stdout == ("cleaned\n" if "clean" in start else "")
    assert done.stderr == f"jaxvae: stopped by {signum.name}\n"


@pytest.mark.parametrize(
    "start",
    [
        "held = signals.listen_for_stop()\nheld.__enter__().clean = lambda: print('cleaned')",
        "signals.exit_on_signal()\nheld = signals.listen_for_stop()\nheld.__enter__()",
    ],
    ids=["someone else's process", "a run that writes"],
)
def test_otherwise_it_raises(start):
    done = in_a_process(SWALLOWED.format(start=start, signum=int(signal.SIGTERM)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_the_handlers_from_before_come_back():
    start = "signals.exit_on_signal()\nsignals.restore_handlers()"
    done = in_a_process(SWALLOWED.format(start=start, signum=int(signal.SIGTERM)))
    assert done.returncode == -signal.SIGTERM
    done = in_a_process(SWALLOWED.format(start=start, signum=int(signal.SIGINT)))
    assert done.stdout == "went on\n"  # Python's own handler, which raises


def in_a_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
