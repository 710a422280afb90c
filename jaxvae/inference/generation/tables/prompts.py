"""Texts of tag sets by a Jinja2 template: prompts for captioners, a text for each set."""

import os
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import GeneratorType
from typing import Any, NoReturn

from jaxvae.config.paths import user_path
from jaxvae.data.readers.regular_file import open_regular
from jaxvae.data.spelling import cut
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean, one_line

_MOST_CHARACTERS = 100_000
_ALL = "tags"
_MAX_BYTES = 2**20
_NAME = "<template>"
_MARKS = ("{{", "{%")
_MARKED = "{{ tags }}"
_RANDOM = ("lipsum", "random")
_CLASS = re.compile(r"'?(?:[\w.]+\.)?_(?:All)?Tags'? object'?")


class Prompts:
    """A template of texts, in a sandbox; names that it does not have are errors.

    Each concept is a list of a set's tags under the concept's name, and printed between commas.
    `tags` has all tags of the set, and those of a concept as `tags["mood/theme"]`.

    Args:
      template: the template, or the path of its file.
      taxonomy: the concepts and their tags.

    Raises:
      InputError: there is no such file, the template is wrong or has a name that is not known, or
        Jinja2 is not installed.

    Attributes:
      path: the template's file, if it is in one.
      source: the template's text.
    """

    def __init__(self, template: str | Path, taxonomy: Taxonomy):
        self.path = file_of(template)
        self.source = os.fspath(template) if self.path is None else _read(self.path)
        self._taxonomy = taxonomy
        self._jinja = _import_jinja()
        self._template = self._compile()
        self.text_of(range(taxonomy.num_tags))

    def text_of(self, columns: Iterable[int]) -> str:
        """Returns the text of a set.

        Args:
          columns: columns of the set's tags.

        Raises:
          InputError: the template has no text for this set.
        """
        concepts: dict[str, list[str]] = {
            name: _Tags(tags) for name, tags in by_concept(self._taxonomy, columns).items()
        }
        every = _AllTags(concepts)
        try:
            # A concept that is called tags gives way; `tags["tags"]` has it.
            text = self._template.render({**concepts, _ALL: every})
        except RecursionError as error:
            raise InputError("template: nested too deeply") from error
        except Exception as error:  # of the user's own expressions, a division by zero as well
            self._refuse(error, _line_of(error), f", of the set {cut(str(every))}")
        if len(text) > _MOST_CHARACTERS:
            raise InputError(
                f"template: {len(text):,} characters, of the set {cut(str(every))}; a text has at "
                f"most {_MOST_CHARACTERS:,}"
            )
        return text

    def _compile(self) -> Any:
        jinja = self._jinja
        environment = jinja.sandbox.ImmutableSandboxedEnvironment(
            undefined=jinja.StrictUndefined, finalize=_print, loader=jinja.DictLoader({})
        )
        for chance in _RANDOM:  # equal seeds give equal files
            environment.globals.pop(chance, None)
            environment.filters.pop(chance, None)
        try:
            tree = environment.parse(self.source)
            self._check_names(tree, environment.globals)
            return environment.from_string(tree)
        except jinja.TemplateSyntaxError as error:
            self._refuse(error, error.lineno)
        except RecursionError as error:
            raise InputError("template: nested too deeply") from error

    def _check_names(self, tree: Any, known_to_jinja: Iterable[str]) -> None:
        nodes = self._jinja.nodes
        others = (nodes.Include, nodes.Extends, nodes.Import, nodes.FromImport)
        for node in tree.find_all(others):
            raise InputError(f"template, line {node.lineno}: other templates can't be loaded")
        known = [*dict(self._taxonomy.concepts), _ALL]
        unknown = self._jinja.meta.find_undeclared_variables(tree) - {*known, *known_to_jinja}
        for node in sorted(tree.find_all(nodes.Name), key=lambda node: node.lineno):
            if node.name in unknown:
                raise InputError(
                    f"template, line {node.lineno}: unknown name {node.name[:80]!r}"
                    f"{self._hint(node.name) or did_you_mean(node.name, known)}; the names are "
                    f"{_listed(known)}"
                )

    def _hint(self, name: str) -> str:
        """Says how a concept is written whose name is no word, if one begins with this."""
        for concept, _ in self._taxonomy.concepts:
            if not concept.isidentifier() and re.split(r"\W", concept)[0] == name:
                return f" (for the concept {concept} write {_ALL}[{concept!r}])"
        return ""

    def _refuse(self, error: Exception, line: int | None, of: str = "") -> NoReturn:
        if isinstance(error, InputError):
            raise InputError(f"template{_at(line)}: {error}") from error
        is_jinjas = isinstance(error, self._jinja.TemplateError)
        # Jinja's own text of an error ends with a file and a line.
        reason = one_line(getattr(error, "message", error), kind=not is_jinjas)
        reason = _CLASS.sub("a list of tags", reason)
        raise InputError(f"template{_at(line)}{of}: {reason}") from error


class _Tags(list):
    """Tags that are printed between commas."""

    def __str__(self) -> str:
        return ", ".join(map(str, self))


class _AllTags(_Tags):
    """All tags of a set; those of a concept by its name."""

    def __init__(self, concepts: dict[str, list[str]]):
        super().__init__(tag for tags in concepts.values() for tag in tags)
        self._concepts = concepts

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        if key not in self._concepts:
            raise InputError(
                f"unknown concept {key[:80]!r}{did_you_mean(key, self._concepts)}; the concepts "
                f"are {_listed(self._concepts)}"
            )
        return self._concepts[key]


def by_concept(taxonomy: Taxonomy, columns: Iterable[int]) -> dict[str, list[str]]:
    """Returns a set's tags of each concept, as the taxonomy spells them."""
    present = list(columns)
    return {
        name: [taxonomy.spellings[v] for v in present if v in of_it]
        for name, of_it in taxonomy.concepts
    }


def file_of(template: str | Path) -> Path | None:
    """Returns the path of a template's file, or None for one that is typed.

    Raises:
      InputError: it is neither.
    """
    text = os.fspath(template)
    is_text = any(mark in text for mark in _MARKS)
    path = Path(text) if is_text else user_path(text)
    if isinstance(template, Path) or os.path.isfile(path):
        return path
    if is_text:
        return None
    raise InputError(
        f"template {text[:80]!r}: no such file, and no template, which has names in braces, as "
        f"{_MARKED}"
    )


def _read(path: Path) -> str:
    """Returns the text of a template's file."""
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise InputError(f"template {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"template {path}: not UTF-8 text") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"template {path}: larger than {_MAX_BYTES >> 20} MiB")
    if not any(mark in text for mark in _MARKS):
        raise InputError(f"template {path}: has no names in braces, as {_MARKED}")
    return text


def _print(value: Any) -> Any:
    """Prints any list between commas, also one that a filter makes."""
    return ", ".join(map(str, value)) if isinstance(value, list | GeneratorType) else value


def _line_of(error: Exception) -> int | None:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == _NAME
    ]
    return lines[-1] if lines else None


def _at(line: int | None) -> str:
    return "" if line is None else f", line {line}"


def _listed(names: Iterable[str], most: int = 20) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if every[most:] else "")


def _import_jinja() -> Any:
    try:
        import jinja2
        from jinja2 import meta, nodes, sandbox
    except ImportError as error:
        raise InputError("a template needs the package jinja2 (pip install jinja2)") from error
    del meta, nodes, sandbox  # submodules, which are loaded when they are asked for
    return jinja2
