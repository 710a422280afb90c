"""Checks the options of `generate` as they are given in Python: their names and kinds."""

import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.errors import InputError, did_you_mean, type_name
from jaxvae.inference.arguments import Kind


def check_options(options: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """Returns the options that are given; None is not given, where nothing is the default.

    Args:
      options: values by name, as in `Run.generate` and `Run.generate_file`.
      others: names of options that are checked elsewhere, for the message about an unknown one.

    Raises:
      InputError: a name is unknown, a value is of another kind, or an option goes with another.
    """
    known = [*_KINDS, *others]
    for name, value in options.items():
        if name not in _KINDS:
            raise InputError(
                f"{name[:80]}: generate has no such option{did_you_mean(name, known)}; it has "
                f"{', '.join(known)}"
            )
        kind = _KINDS[name]
        is_absent = value is None and name not in _NEVER_NONE
        if not is_absent and not kind.is_such(value):
            raise InputError(f"{name}: expected {kind.words}, found {type_name(value)}")
    for name, needed in GOES_WITH.items():
        if options.get(name) is not None and options.get(needed) is None:
            raise InputError(f"{name} goes with {needed}, which is not given")
    return {
        name: _kept(value)
        for name, value in options.items()
        if value is not None or name in _NEVER_NONE
    }


def _kept(value: Any) -> Any:
    """Returns a value that can be gone through twice."""
    can_be = isinstance(value, list | tuple | np.ndarray) or not _is_listing(value)
    return value if can_be else list(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)


def _are_numbers(value: Any) -> bool:
    return _is_listing(value) and all(_is_number(inner) for inner in value)


def _is_listing(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _is_balance(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_number(share) for share in value.values())
    return isinstance(value, str) or _is_listing(value)


def _is_anything(value: Any) -> bool:
    """Accepts what is checked where it is used, with its range."""
    del value
    return True


_TAGS = Kind(_is_listing, "a list of tags")
_TEXT = Kind(lambda value: isinstance(value, str), "text")
_ANYTHING = Kind(_is_anything, "")
_KINDS: dict[str, Kind] = {
    "present": _TAGS,
    "absent": _TAGS,
    "count": Kind(lambda value: isinstance(value, Mapping), "counts by concept, {'genre': 1}"),
    "tags": _ANYTHING,
    "balance": Kind(_is_balance, "a concept, a list of tags, or a number for each tag"),
    "pairs": Kind(lambda value: isinstance(value, str), "a tag"),
    "like": Kind(
        lambda value: isinstance(value, str | Path) or _is_listing(value), "a file or tag sets"
    ),
    "column": _TEXT,
    "distance": Kind(_is_number, "a number"),
    "between": Kind(_is_listing, "two tag sets"),
    "steps": _ANYTHING,
    "temperature": Kind(
        lambda value: _is_number(value) or _are_numbers(value), "a number, or a list of them"
    ),
    "distinct": Kind(lambda value: isinstance(value, bool | np.bool_), "a truth value"),
    "unseen": Kind(
        lambda value: isinstance(value, bool | np.bool_ | int | np.integer),
        "a truth value or a whole number",
    ),
    "seed": _ANYTHING,
    "splits": Kind(_are_numbers, "three shares"),
    "template": Kind(lambda value: isinstance(value, str | Path), "a template or its file"),
}
_NEVER_NONE = {"temperature", "distinct", "unseen", "seed", "splits"}
GOES_WITH = {"column": "like", "distance": "like", "steps": "between"}
"""Options that mean something only beside another."""
