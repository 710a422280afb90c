"""The list of faults; where each of them is, and a copy of the sources that has one.

A fault is found by a function's name and by text inside it, never by a file: modules may move.
"""

import ast
import dataclasses
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

LIST = Path(__file__).with_name("faults.toml")
PACKAGE = "jaxvae"


class FaultError(ValueError):
    """A fault can't be found where the list says it is, or not there alone."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """An entry of the list.

    Attributes:
      name: what it is called; unique.
      topic: what it is about, such as "loss" or "mask".
      function: the function's name inside its module, `Class.method` or `function`.
      old: text that the function has exactly once.
      new: what takes its place.
    """

    name: str
    topic: str
    function: str
    old: str
    new: str

    @property
    def digest(self) -> str:
        """Changes when the fault does, and not when only its name or topic does."""
        content = "\0".join((self.function, self.old, self.new))
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Function:
    """A function as it stands in a module.

    Attributes:
      path: the module's file.
      module: its whole text.
      first: number of its first line, decorators included, from 0.
      last: number of the line behind its last.
      node: its syntax tree.
    """

    path: Path
    module: str
    first: int
    last: int
    node: ast.FunctionDef

    @property
    def text(self) -> str:
        """The function's own lines."""
        return "".join(self.module.splitlines(keepends=True)[self.first : self.last])

    def with_text(self, text: str) -> str:
        """The module with other lines in place of the function's."""
        lines = self.module.splitlines(keepends=True)
        return "".join([*lines[: self.first], text, *lines[self.last :]])


Functions = Mapping[str, list[Function]]


def load(path: Path = LIST) -> list[Fault]:
    """Reads the list."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    return [Fault(**entry) for entry in entries]


def functions(package: Path) -> Functions:
    """Every function and method of a package's modules, by its name inside its module.

    A function inside another is a part of it and has no name of its own here.
    """
    known: dict[str, list[Function]] = {}
    for path in sorted(package.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for name, node in _named(ast.parse(text).body):
            first = min(line.lineno for line in (node, *node.decorator_list)) - 1
            end = node.end_lineno or first
            known.setdefault(name, []).append(Function(path, text, first, end, node))
    return known


def _named(body: Iterable[ast.stmt], prefix: str = "") -> Iterable[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _named(node.body, f"{prefix}{node.name}.")


def find(fault: Fault, known: Functions) -> Function:
    """The one function of a fault's name that has its old text exactly once.

    Raises:
      FaultError: there is no function of that name, none of them has the text once, or several do.
    """
    if fault.function not in known:
        raise FaultError(f"{fault.name}: there is no function {fault.function}")
    candidates = known[fault.function]
    counts = [candidate.text.count(fault.old) for candidate in candidates]
    matching = [
        candidate for candidate, count in zip(candidates, counts, strict=True) if count == 1
    ]
    if len(matching) > 1:
        places = ", ".join(function.path.name for function in matching)
        raise FaultError(f"{fault.name}: {fault.function} has the old text in each of {places}")
    if not matching:
        raise FaultError(
            f"{fault.name}: {fault.function} has the old text {max(counts)} times; it must be once"
        )
    return matching[0]


def mutated(fault: Fault, function: Function) -> str:
    """The text of the function's module with the fault in it."""
    return function.with_text(function.text.replace(fault.old, fault.new))


def apply(fault: Fault, tree: Path) -> Path:
    """Puts a fault into a copy of the repository; returns the file that has it."""
    function = find(fault, functions(tree / PACKAGE))
    function.path.write_text(mutated(fault, function), encoding="utf-8")
    return function.path
