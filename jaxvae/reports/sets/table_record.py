"""Reads the record beside a generated table: its types are checked, and that it is the table's."""

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvae.errors import InputError
from jaxvae.inference.arguments import Kind
from jaxvae.inference.generation.tables.record import record_path
from jaxvae.reports.summary_text import set_measures
from jaxvae.storage.atomic_files import read_json
from jaxvae.storage.manifest import file_digest
from jaxvae.storage.row_tables import check_suffix

_MOST_BYTES = 2**26


def read_record(table: Path) -> dict[str, Any]:
    """Reads the JSON file beside a table that `generate` wrote.

    Raises:
      InputError: there is none, it is not what `generate` leaves, or it is of another table.
    """
    path = record_path(table)
    if not table.is_file() or not path.is_file():
        missing = path if table.is_file() else table
        raise InputError(f"{missing}: no such file; a table by generate has a .json beside it")
    check_suffix(table)
    record = read_json(path, most_bytes=_MOST_BYTES)
    if lacking := [name for name in _KINDS if name not in record]:
        raise InputError(
            f"{path}: not the record of a table by this jaxvae: it lacks {', '.join(lacking)}; "
            f"generate the table again"
        )
    for name, kind in {**_KINDS, **_PERHAPS}.items():
        if name in record and not kind.is_such(record[name]):
            raise InputError(
                f"{path}: damaged: {name} is not {kind.words}; generate the table again"
            )
    if file_digest(table) != record["table_sha256"]:
        raise InputError(
            f"{table}: not the table that {path.name} is of (its SHA-256 differs); restore it, or "
            f"generate it again"
        )
    return to_publish(record)


def to_publish(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record whose commands name no folders of this machine."""
    commands = ("command", "resumed_by")
    return record | {name: without_folders(record[name]) for name in commands if name in record}


def without_folders(command: str | None) -> str | None:
    """Reduces absolute paths in a command, and those in home folders, to their last parts."""
    if command is None:
        return None
    words = []
    for word in shlex.split(command):
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        is_path = value.startswith(("/", "~")) and "{" not in value
        words.append(option + equals + (Path(value).name if is_path else value))
    return shlex.join(words)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_command(value: Any) -> bool:
    if not isinstance(value, str):
        return value is None
    try:
        shlex.split(value)
    except ValueError:  # a quote that is not closed
        return False
    return True


def _is_list_of(is_such: Callable[[Any], bool], size: int | None = None) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        is_list = isinstance(value, list) and all(map(is_such, value))
        return is_list and (size is None or len(value) == size)

    return test


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object_of(is_such: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_such, value.values()))


def _are_constraints(value: Any) -> bool:
    span = _is_list_of(_is_count, 2)
    parts = {
        "present": _is_list_of(_is_text),
        "absent": _is_list_of(_is_text),
        "count": _is_object_of(span),
        "tags": span,
    }
    return isinstance(value, dict) and all(test(value.get(name)) for name, test in parts.items())


def _are_figures(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None
    if "rows" not in value:
        return _is_text(value.get("none_because", ""))
    try:
        set_measures(value)
    except (KeyError, TypeError, ValueError):
        return False
    is_known = all(_is_count(value.get(name)) for name in ("rows", "compared"))
    return is_known and _is_text(value.get("split"))


_COUNT = Kind(_is_count, "a whole number")
_NUMBER = Kind(_is_number, "a finite number")
_TEXT = Kind(_is_text, "text")
_COMMAND = Kind(_is_command, "a command of a shell")
_KINDS = {
    "columns": Kind(_is_object_of(_is_text), "a kind for each column"),
    "command": _COMMAND,
    "constraints": Kind(_are_constraints, "present, absent, count and tags"),
    **dict.fromkeys(("draws", "near_training", "repeats", "seed"), _COUNT),
    **dict.fromkeys(("effective_draws", "log_probability"), _NUMBER),
    **dict.fromkeys(("probability", "tags_per_set"), _NUMBER),
    **dict.fromkeys(("parameters", "sets_are", "table_sha256", "taxonomy_digest"), _TEXT),
    "sets": _COUNT,
    "sets_in_split": Kind(_is_object_of(_is_count), "a whole number for each split"),
    "temperature": Kind(
        lambda value: _is_number(value) or _is_list_of(_is_number)(value), "a number or several"
    ),
    "trained_on": Kind(lambda value: value is None or _is_text(value), "text"),
}
_PERHAPS = {
    "resumed_by": _COMMAND,
    "figures": Kind(_are_figures, "figures of the sets"),
    "by_temperature": Kind(_is_list_of(lambda part: isinstance(part, dict)), "a list of objects"),
}
