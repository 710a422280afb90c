"""Gives the suite one fault after the other, and says which of them it does not notice.

Each fault gets a fresh copy of the repository and a fresh process: first the tests that reach the
function, as many as take a minute, until one fails; then, if none does, the whole suite,
which has the others.
"""

import argparse
import hashlib
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.helpers import clone
from tests.mutants import coverage, faults, process
from tests.mutants.faults import Fault
from tests.mutants.process import Ended
from tests.mutants.results import Result, Results, is_caught, table

CONTROL = "none"
"""What the run without a fault is called."""
ENOUGH = 0.95
_NAMES = {"passed": "survived", "failed": "caught", "timeout": "timeout"}


def sources_digest() -> str:
    """Changes with any file of the repository but those of the workshop itself."""
    digest = hashlib.sha256()
    for name in clone.tracked():
        if not name.startswith("tests/mutants/") and not name.endswith("test_mutants.py"):
            content = hashlib.sha256((clone.ROOT / name).read_bytes()).hexdigest()
            digest.update(f"{content}  {name}\n".encode())
    return digest.hexdigest()[:16]


def attempt(tests: Sequence[str], *, limit: float, fault: Fault | None = None) -> Ended:
    """Runs tests, until one fails, on a fresh copy of the repository with a fault or none.

    Args:
      tests: their names; none is the whole suite, long ones too.
      limit: seconds.
      fault: what is wrong with the copy.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as place:
        tree = process.fresh_copy(Path(place) / "tree")
        if fault is not None:
            faults.apply(fault, tree)
        if not tests:
            command = process.whole_suite()
            return process.run_pytest(tree, ["-x", "-q"], command=command, limit=limit)
        listed = Path(place) / "tests.txt"  # an argument a line, since there may be very many
        listed.write_text("".join(f"{test}\n" for test in tests), encoding="utf-8")
        return process.run_pytest(tree, ["-x", "-q", f"@{listed}"], limit=limit)


def judge(fault: Fault, tests: Sequence[str], measured: dict[str, Any], *, whole: bool) -> Result:
    """What becomes of a fault: "caught", "timeout" (caught as well) or "survived".

    Args:
      fault: the fault.
      tests: those that reach it, in the order to try.
      measured: from `coverage.measure`.
      whole: whether the whole suite has the last word.
    """
    stage, first, seconds, result = "covering", "", 0.0, "survived"
    if tests:
        limit = 120.0 + 5.0 * sum(measured["tests"][test] for test in tests)
        ended = attempt(tests, limit=limit, fault=fault)
        first, seconds, result = ended.first, ended.seconds, _NAMES[ended.result]
    if result == "survived" and whole:
        ended = attempt((), limit=300.0 + 4.0 * measured["seconds"], fault=fault)
        stage, first, result = "whole", ended.first, _NAMES[ended.result]
        seconds += ended.seconds
    outcome = {"result": result, "stage": stage, "first": first, "seconds": round(seconds, 1)}
    return {"topic": fault.topic, "function": fault.function, "tests": len(tests), **outcome}


def check_control(tests: Sequence[str], measured: dict[str, Any], results: Results) -> None:
    """Runs all the covering tests without a fault; SystemExit if one fails."""
    content = hashlib.sha256("\n".join(tests).encode()).hexdigest()[:12]
    if not tests or results.kept(CONTROL, content, whole=False):
        return
    print(f"running the {len(tests):,} tests that reach them, without a fault", flush=True)
    ended = attempt(tests, limit=300.0 + 5.0 * sum(measured["tests"][test] for test in tests))
    if ended.result != "passed":
        sys.exit(f"without a fault: {ended.result}, {ended.first}\n{ended.output}")
    facts = {"stage": "covering", "first": "", "seconds": round(ended.seconds, 1)}
    results.keep(CONTROL, content, {"result": "passed", "tests": len(tests), **facts})


def choose(listed: Sequence[Fault], options: argparse.Namespace) -> list[Fault]:
    """The faults that the options ask for; SystemExit for a name or topic that none has."""
    for kind, wanted in (("name", options.only), ("topic", options.topic)):
        unknown = {*(wanted or ())} - {getattr(fault, kind) for fault in listed}
        if unknown:
            sys.exit(f"no fault has the {kind} {', '.join(sorted(unknown))}")
    return [
        fault
        for fault in listed
        if (not options.only or fault.name in options.only)
        and (not options.topic or fault.topic in options.topic)
    ]


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/run_mutants.sh", description=__doc__)
    add = parser.add_argument
    add("--only", action="append", metavar="NAME", help="this fault; may be repeated")
    add("--topic", action="append", help="the faults of this topic; may be repeated")
    add("--jobs", type=int, default=1, metavar="N", help="faults at a time (1)")
    results = clone.ROOT / "build" / "mutants.jsonl"
    add("--results", type=Path, default=results, help="file (build/mutants.jsonl)")
    add("--seconds", type=float, default=60.0, help="for the tests that reach a fault (60)")
    whole = argparse.BooleanOptionalAction
    add("--whole", action=whole, default=True, help="whether survivors get the whole suite (yes)")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Tries the chosen faults; 0 where the suite catches enough of them, else 1."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    listed = faults.load()
    chosen = choose(listed, options)
    known = faults.functions(clone.ROOT / faults.PACKAGE)
    modules = {fault.name: faults.find(fault, known).path.stem for fault in listed}
    sources = sources_digest()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    measured = coverage.kept(options.results.with_suffix(".coverage.json"), listed, sources)
    for test in measured["failed"]:
        print(f"left out, since it fails with marks in the sources: {test}")
    tests, num_faults = {}, coverage.faults_by_file(measured)
    for fault in chosen:
        reaching = coverage.covering(fault, modules[fault.name], measured, num_faults)
        tests[fault.name] = coverage.as_many_as_take(options.seconds, reaching, measured["tests"])
    results = Results(options.results, sources)
    reached = {test for names in tests.values() for test in names}
    measured_order = (test for test in measured["tests"] if test in reached)
    check_control(
        sorted(measured_order, key=lambda test: test.partition("::")[0]), measured, results
    )

    def one(fault: Fault) -> Result:
        done = results.kept(fault.name, fault.digest, whole=options.whole)
        if done is None:
            judged = judge(fault, tests[fault.name], measured, whole=options.whole)
            done = results.keep(fault.name, fault.digest, judged)
        return done

    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            outcomes = list(pool.map(one, chosen))
        except BaseException:
            process.stop()  # a thread hears of no signal, and would wait for the tests' end
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(table(chosen, {entry["name"]: entry for entry in outcomes}))
    return 0 if sum(map(is_caught, outcomes)) >= ENOUGH * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
