"""The documents' code, found and run as it stands.

A fenced block is run (`bash`, `python`, and `diff`, a patch to the clone), or is what the block
before it printed (`<!-- output -->` above it), or says why it is neither (`<!-- not run: ... -->`).
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT
from tests.helpers import clone, warm_shell, warm_start

RUN = ("bash", "python", "diff")
SECONDS = 900.0
_FENCE = re.compile(
    r"(?:^<!-- (?P<note>output|not run: [^>]*) -->\n\n?)?^```(?P<language>.*)\n(?P<code>[\s\S]*?)^```$",
    re.M,
)
_SESSION = """
import json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    failed = 0
    try:
        exec(compile(json.loads(line), "<document>", "exec"), names)
    except BaseException:
        failed = 1
        traceback.print_exc(file=sys.stdout)
    print(f"\\n\\0{failed}", flush=True)
"""


class Block(NamedTuple):
    """A fenced block: its language, its text, its line, and the comment above it."""

    language: str
    code: str
    line: int
    note: str

    @property
    def is_output(self) -> bool:
        return self.note == "output"

    @property
    def excuse(self) -> str:
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""


def pages() -> list[str]:
    """Every document whose blocks are checked, from the root."""
    docs = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", "configs/README.md", *docs]


def blocks(text: str) -> list[Block]:
    """A document's fenced blocks, in order."""
    found = [
        Block(each["language"], each["code"], text.count("\n", 0, each.start("code")), each["note"])
        for each in _FENCE.finditer(text)
    ]
    return [block._replace(note=block.note or "") for block in found]


def python_block(document: str, heading: str | None = None) -> str:
    """The first block of Python in a document, or below one of its headings."""
    text = (ROOT / "docs" / document).read_text()
    if heading is not None:
        _, found, text = text.partition(f"\n## {heading}\n")
        assert found, f"{document} has no heading {heading!r}"
    return next(block.code for block in blocks(text) if block.language == "python")


def wrong_with(block: Block) -> str:
    """What is wrong with a block before anything is run; "" if nothing is."""
    if block.is_output or block.excuse:
        return ""
    return (
        "" if block.language in RUN else f"a block of {block.language!r} is neither run nor marked"
    )


def is_like(shown: str, printed: str) -> bool:
    """Whether an output is what a document shows.

    Spaces count as one, `…` stands for anything, and numbers with a fraction for others: they
    differ between machines.
    """

    def plain(text: str) -> str:
        return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())

    pattern = re.escape(plain(shown)).replace(re.escape("…"), "[^\0]*?")
    pattern = re.sub(
        r"\d[\d,]*\\\.\d+(e(\\[-+])?\d+)?", r"\\d[\\d,]*(\\.\\d+)?(e[-+]?\\d+)?", pattern
    )
    return re.fullmatch(pattern, plain(printed)) is not None


class Reader:
    """Someone who reads a document in a folder of their own and does what it says, in order.

    Variables of the shell last from block to block, and those of Python.
    """

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        self.environment = environment
        self.state = folder.parent / "variables.sh"
        self.session: subprocess.Popen | None = None
        self.printed = ""

    def do(self, block: Block) -> None:
        """Runs a block; AssertionError says what went wrong."""
        if block.is_output:
            assert is_like(block.code, self.printed), f"shown:\n{block.code}\nwas:\n{self.printed}"
        elif not block.excuse:
            failed = getattr(self, f"_{block.language}")(block.code)
            assert not failed, f"{block.code}\n{self.printed}"

    def _bash(self, code: str) -> int:
        state = shlex.quote(str(self.state))
        keep = f"keep() {{ export -p >{state}; }}; trap keep EXIT"
        script = f"set -aeuo pipefail\n. {state}\n{keep}\n{code}"
        self.state.touch()
        return self._finished(["bash", "-c", script])

    def _diff(self, code: str) -> int:
        return self._finished(["git", "apply", "-"], code)

    def _finished(self, command: list[str], given: str = "") -> int:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, input=given,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS,
        )  # fmt: skip
        self.printed = done.stdout
        return done.returncode

    def _python(self, code: str) -> int:
        if self.session is None:
            self.session = warm_start.Popen(
                [sys.executable, "-c", _SESSION], cwd=self.folder, env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.session.stdin.write(json.dumps(code) + "\n")
        self.session.stdin.flush()
        late = threading.Timer(SECONDS, self.session.kill)
        late.start()
        lines, ended = [], "1"
        for line in iter(self.session.stdout.readline, ""):
            if line.startswith("\0"):
                ended = line[1:].strip()
                break
            lines.append(line)
        late.cancel()
        self.printed = "".join(lines)
        return int(ended)

    def close(self) -> None:
        if self.session is not None:
            self.session.kill()
            self.session.wait()
            self.session.stdin.close()
            self.session.stdout.close()


@contextlib.contextmanager
def reader(place: Path, *, installed: bool = False, **environment: str):
    """A `Reader` below `place`, for whom `python` and `jaxvae` resolve.

    They read in a clone of their own, or, with the package installed, in an empty folder.
    """
    if installed:
        folder, package = place / "empty", clone.unpack(place / "wheel")
        folder.mkdir()
    else:
        folder = package = clone.copy(place / "clone")
    programs, home = place / "bin", place / "home"
    programs.mkdir()
    home.mkdir()
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    # What pytest was told is not what a reader has.
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(package)}
    someone = Reader(folder, {**keep, **own, **environment})
    with warm_shell.programs(programs):
        try:
            yield someone
        finally:
            someone.close()
