"""Checks of arguments that users pass to a run, in Python or in a shell."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxvae.errors import InputError

MAX_COUNT = 10_000_000


class Kind(NamedTuple):
    """Describes the values that something may have: by a test, and in words for a message."""

    is_such: Callable[[Any], bool]
    words: str


def check_count(name: str, value: int) -> None:
    """Raises InputError unless `value` is a whole number from 1 to ten million."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | np.integer)
        or not 1 <= value <= MAX_COUNT
    ):
        raise InputError(f"{name} {value}: must be a whole number between 1 and {MAX_COUNT:,}")


def check_seed(value: int) -> None:
    """Raises InputError unless `value` is a whole number that fits 32 bits."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 0 <= value < 2**32:
        raise InputError(f"seed {value}: must be a whole number between 0 and {2**32 - 1}")


def check_positive(name: str, value: float) -> None:
    """Raises InputError unless `value` is finite and above 0."""
    if not (math.isfinite(value) and value > 0.0):
        raise InputError(f"{name} {value}: must be a finite number above 0")


def check_temperature(value: float) -> None:
    """Raises InputError unless `value` is above 0, and a number of single precision."""
    check_positive("temperature", value)
    least, limit = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))
    if not least <= value <= limit:
        raise InputError(f"temperature {value:g}: must be from {least:.3g} to {limit:.3g}")


def check_share(name: str, value: float) -> None:
    """Raises InputError unless `value` is above 0 and below 1."""
    if not 0.0 < value < 1.0:
        raise InputError(f"{name} {value}: must be above 0 and below 1")
