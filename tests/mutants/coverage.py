"""Which tests reach a function: one run of the whole suite with a mark in each listed function.

pytest names the test that is running in PYTEST_CURRENT_TEST, which processes that tests start
inherit, so what is reached only in those counts as well.
"""

import ast
import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutants.faults import PACKAGE, Fault, Function, find, functions
from tests.mutants.process import fresh_copy, run_pytest, whole_suite

HITS = "JAXVAE_MUTANTS_HITS"
_LIMIT_SECONDS = 4 * 3600.0
_SHARE_SECONDS, _ALIKE_SECONDS = 5.0, 30.0
# Made once in a process and kept where no module's names are touched. By `posix`, since tests
# replace functions of `os`; a reader's disk that is full, or gone, loses a mark and nothing else.
_MARK = """
import os, posix, sys
def mark(names, seen=set()):
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    path = os.environ.get({variable!r})
    if not path or (names, test) in seen:
        return
    seen.add((names, test))
    try:
        file = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o644)
        try:
            lines = "".join(f"{{name}}\\t{{test}}\\n" for name in names.split())
            posix.write(file, lines.encode())
        finally:
            posix.close(file)
    except OSError:
        pass
sys.__dict__["_jaxvae_mark"] = mark
mark(names)
"""


def marked(function: Function, names: Sequence[str]) -> tuple[int, str]:
    """A line number of the function's module, from 0, and the line to put before it."""
    body = function.node.body
    first = body[1] if ast.get_docstring(function.node) and len(body) > 1 else body[0]
    line = min(node.lineno for node in (first, *getattr(first, "decorator_list", ())))
    code = _MARK.format(variable=HITS)
    make = f'lambda names: exec({code!r}, {{"names": names}})'
    call = f'__import__("sys").__dict__.get("_jaxvae_mark", {make})({" ".join(names)!r})'
    return line - 1, f"{' ' * first.col_offset}{call}\n"


def instrument(tree: Path, faults: Sequence[Fault]) -> None:
    """Puts a mark at the top of each listed function of a copy of the repository."""
    known = functions(tree / PACKAGE)
    names: dict[tuple[Path, int], list[str]] = {}
    where: dict[tuple[Path, int], Function] = {}
    for fault in faults:
        function = find(fault, known)
        where[function.path, function.first] = function
        names.setdefault((function.path, function.first), []).append(fault.name)
    # From the end of each file to its beginning: a line before another moves that one.
    for path, first in sorted(where, reverse=True):
        at, mark = marked(where[path, first], names[path, first])
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        lines.insert(at, mark)
        path.write_text("".join(lines), encoding="utf-8")


def measure(faults: Sequence[Fault]) -> dict[str, Any]:
    """Runs the whole suite once.

    Returns:
      `tests`, the seconds of each test that passed; `failed`, those that did not; `hits`, of each
      fault's name `[[test, phase], ...]`; `seconds`, what the whole took.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        tree = fresh_copy(Path(place) / "tree")
        instrument(tree, faults)
        hits_path = Path(place) / "hits"
        ended = run_pytest(
            tree, ["-q"], command=whole_suite(), limit=_LIMIT_SECONDS, **{HITS: str(hits_path)}
        )
        lines = hits_path.read_text(encoding="utf-8").splitlines() if hits_path.exists() else []
    if not ended.reports:
        raise RuntimeError(f"the suite did not run:\n{ended.output}")
    seconds: dict[str, float] = {}
    failed = {entry["test"] for entry in ended.reports if entry["outcome"] == "failed"}
    for entry in ended.reports:
        if entry["outcome"] == "passed" and entry["test"] not in failed:
            seconds[entry["test"]] = seconds.get(entry["test"], 0.0) + entry["seconds"]
    hits: dict[str, list[list[str]]] = {fault.name: [] for fault in faults}
    for line in sorted(set(lines)):
        name, _, current = line.partition("\t")
        if match := re.fullmatch(r"(.*) \((setup|call|teardown)\)", current):
            hits[name].append([match[1], match[2]])
    called = {entry["test"] for entry in ended.reports if entry["when"] == "call"}
    tests = {test: took for test, took in seconds.items() if test in called}
    return {"tests": tests, "failed": sorted(failed), "hits": hits, "seconds": ended.seconds}


def kept(path: Path, faults: Sequence[Fault], tree_digest: str) -> dict[str, Any]:
    """What `measure` says, from a file where that is of these sources and these faults."""
    wanted = [f"{fault.name} {fault.digest}" for fault in faults]
    if path.exists():
        measured = json.loads(path.read_text(encoding="utf-8"))
        if measured.get("tree") == tree_digest and {*wanted} <= {*measured["faults"]}:
            return measured
    print("running the whole suite once, to see which tests reach what", flush=True)
    measured = {"tree": tree_digest, "faults": wanted, **measure(faults)}
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, path)
    return measured


def faults_by_file(measured: dict[str, Any]) -> Counter[str]:
    """How many of the faults that were measured each file of tests reaches."""
    return Counter(
        file for hits in measured["hits"].values() for file in {_file(test) for test, _ in hits}
    )


def covering(
    fault: Fault, module: str, measured: dict[str, Any], num_faults: Mapping[str, int]
) -> list[str]:
    """The tests that reach a fault's function, those first that are most likely to notice it.

    File by file, so that what a file's tests share is made once: files whose name is like the
    module's, then the others, those first that reach the fewest faults and so are about this one.
    Of each file come as many tests as take some seconds, more of those with a like name, then of
    each the rest. The tests of a file keep its order, in which they were measured. Last come their
    other tests: a function that is called once in a process, since what it makes is kept, has its
    mark in the first of them alone.

    Args:
      fault: the fault.
      module: the name of the module that has it.
      measured: from `measure`.
      num_faults: from `faults_by_file`.
    """
    seconds, hits = measured["tests"], measured["hits"][fault.name]
    direct = {_function(test) for test, phase in hits if phase != "setup"}
    shared = {_file(test) for test, phase in hits if phase == "setup"}

    def is_alike(file: str) -> bool:
        stem = Path(file).stem.removeprefix("test_")
        return stem in module or module in stem

    def order(file: str) -> tuple[bool, int, str]:
        return not is_alike(file), num_faults[file], file

    shares, rests, others = [], [], []
    for file in sorted({_file(test) for test, _ in hits}, key=order):
        tests = [test for test in seconds if _file(test) == file]
        chosen = [test for test in tests if file in shared or _function(test) in direct]
        most = _ALIKE_SECONDS if is_alike(file) else _SHARE_SECONDS
        share = as_many_as_take(most, chosen, seconds)
        shares += share
        rests += chosen[len(share) :]
        others += [test for test in tests if test not in chosen]
    return shares + rests + others


def as_many_as_take(
    limit: float, tests: Sequence[str], seconds: Mapping[str, float]
) -> Sequence[str]:
    """The first of the tests, as many as take so many seconds, and one at least."""
    ends = itertools.accumulate(seconds[test] for test in tests)
    return [test for test, end in zip(tests, ends, strict=True) if end <= limit] or tests[:1]


def _file(test: str) -> str:
    return test.partition("::")[0]


def _function(test: str) -> str:
    return test.partition("[")[0]
