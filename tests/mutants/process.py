"""Pytest in a process of its own, on a copy of the repository: started, limited, watched.

The module is also the plugin by which that process tells what became of each test.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.helpers import clone, programs

REPORTS = "JAXVAE_MUTANTS_REPORTS"
_PLUGIN = ("-p", "tests.mutants.process")
_OWN = "test_mutants.py"
"""In a copy with a fault the list no longer applies; that says nothing about the suite."""
_NO_TESTS = 5
_stopped = threading.Event()
_running: set[int] = set()


class Ended(NamedTuple):
    """What became of a run of pytest.

    Attributes:
      result: "passed", "failed" or "timeout".
      first: the first test, or file, that failed; "" where none did.
      seconds: how long it took.
      reports: what the plugin wrote, one dictionary for each phase of each test.
      output: the end of what pytest printed.
    """

    result: str
    first: str
    seconds: float
    reports: list[dict]
    output: str


def pytest_runtest_logreport(report) -> None:
    """Writes down a phase of a test; where several processes share the tests, once."""
    _note({"when": report.when, "seconds": report.duration}, report)


def pytest_collectreport(report) -> None:
    """Writes down a file that could not be collected."""
    if report.outcome == "failed":
        _note({"when": "collect", "seconds": 0.0}, report)


def _note(entry: dict, report) -> None:
    path = os.environ.get(REPORTS)
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        entry = {"test": report.nodeid, "outcome": report.outcome, **entry}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def whole_suite() -> list[str]:
    """What `scripts/run_tests.sh tests` starts once its environment is ready, by this interpreter."""
    script = (clone.ROOT / "scripts" / "run_tests.sh").read_text(encoding="utf-8")
    (line,) = (line for line in script.splitlines() if line.startswith("exec "))
    words = [word for word in shlex.split(line)[1:] if word != "$@"]
    return [sys.executable, *words[1:], "tests"]


def fresh_copy(place: Path) -> Path:
    """Copies the repository's files to a new folder, and returns it."""
    place.mkdir(parents=True)
    place.parent.chmod(0o755)  # a test writes beside it as a user without rights
    clone.copy(place)
    for path in place.glob(f"tests/**/{_OWN}"):
        path.unlink()
    # Some tests ask git which files there are.
    subprocess.run(["git", "init", "--quiet"], cwd=place, check=True)
    return place


def stop() -> None:
    """Ends every run of pytest; `run_pytest` raises from now on."""
    _stopped.set()
    for group in list(_running):
        _kill(group)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def run_pytest(
    tree: Path,
    arguments: Sequence[str],
    *,
    command: Sequence[str] = (sys.executable, "-m", "pytest"),
    limit: float,
    **environment: str,
) -> Ended:
    """Runs pytest in a copy of the repository.

    Args:
      tree: the copy; what pytest leaves lies beside it.
      arguments: options, files and tests.
      command: what they are given to.
      limit: seconds after which it and what it started are killed.
      **environment: variables besides this process's own.

    Raises:
      RuntimeError: there was no such test, or `stop` was called.
    """
    reports, printed = tree.with_name("reports.jsonl"), tree.with_name("output.txt")
    scratch = tree.with_name("tmp")
    scratch.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    if "JAXVAE_SHARED" in inherited:
        inherited["JAXVAE_SHARED"] = os.path.abspath(inherited["JAXVAE_SHARED"])
    # Most of what a copy compiles is what the last one did.
    inherited[programs.ENVIRONMENT] = str(programs.KEPT)
    variables = {**inherited, "TMPDIR": str(scratch), REPORTS: str(reports), **environment}
    started = time.monotonic()
    with printed.open("wb") as output:
        child = subprocess.Popen(
            [*command, *_PLUGIN, "-p", "no:cacheprovider", *arguments],
            cwd=tree, env=variables, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        _running.add(child.pid)
        try:
            code: int | None = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(child.pid)  # whatever it left, at an end or not
            child.wait()
            _running.discard(child.pid)
    if _stopped.is_set():
        raise RuntimeError("stopped")
    entries = []
    if reports.exists():
        entries = [json.loads(line) for line in reports.read_text(encoding="utf-8").splitlines()]
    tail = printed.read_text(encoding="utf-8", errors="replace")[-3000:]
    if code == _NO_TESTS:
        raise RuntimeError(f"pytest has found none of the tests it was given:\n{tail}")
    failed = [entry["test"] for entry in entries if entry["outcome"] == "failed"]
    result = "timeout" if code is None else "failed" if code else "passed"
    first = failed[0] if failed else "" if result == "passed" else "(before any test)"
    return Ended(result, first, time.monotonic() - started, entries, tail)
