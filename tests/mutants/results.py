"""What became of each fault: a file of JSON lines that a later start goes on with, and a table."""

import json
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.helpers import clone
from tests.mutants.faults import Fault

Result = dict[str, Any]
_WRITING = threading.Lock()


class Results:
    """A file of results, a line for each fault that was tried.

    Args:
      path: the file; made with the first line.
      sources: digest of the sources that the results are of.
    """

    def __init__(self, path: Path, sources: str):
        self._path, self._sources = path, sources
        self._commit = _commit()

    def kept(self, name: str, content: str, *, whole: bool) -> Result | None:
        """The last result of a fault as it is now, on these sources.

        Args:
          name: of the fault.
          content: digest of what it changes.
          whole: whether one that survived must have survived the whole suite.
        """
        wanted = {"name": name, "sources": self._sources, "fault": content}
        last = None
        for entry in self._read():
            enough = entry.get("result") != "survived" or entry.get("stage") == "whole" or not whole
            if enough and {key: entry.get(key) for key in wanted} == wanted:
                last = entry
        return last

    def keep(self, name: str, content: str, result: Result) -> Result:
        """Adds a result, and says it."""
        entry = {"name": name, "sources": self._sources, "fault": content}
        entry |= {"commit": self._commit, **result}
        with _WRITING:
            with self._path.open("ab+") as file:
                file.seek(max(0, file.seek(0, 2) - 1))
                ended = file.read(1) in (b"", b"\n")  # a killed process leaves half a line
                file.write((("" if ended else "\n") + json.dumps(entry) + "\n").encode())
            line = f"{entry['result']:<9}{entry['seconds']:>7.0f} s  {name}  {entry['first']}"
            print(line.rstrip(), flush=True)
        return entry

    def _read(self) -> list[Result]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:  # half a line
                continue
        return entries


def is_caught(result: Result) -> bool:
    """Whether the suite noticed: a test failed, or it came to no end."""
    return result["result"] in ("caught", "timeout")


def table(chosen: Sequence[Fault], results: Mapping[str, Result]) -> str:
    """Caught of all by topic, and each survivor by name."""
    topics = list(dict.fromkeys(fault.topic for fault in chosen))
    lines = []
    for title, of in [*((topic, [topic]) for topic in topics), ("all", topics)]:
        part = [results[fault.name] for fault in chosen if fault.topic in of]
        lines.append(f"{title:<12}{sum(map(is_caught, part)):>4} of {len(part)}")
    for fault in chosen:
        result = results[fault.name]
        if not is_caught(result):
            tried = "the whole suite" if result["stage"] == "whole" else "the covering tests"
            lines.append(f"survived {tried}: {fault.name} ({fault.function})")
    return "\n".join(lines)


def _commit() -> str:
    """The repository's commit, for whoever reads the results."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=clone.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()
