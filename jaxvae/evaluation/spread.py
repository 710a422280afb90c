"""Mean and standard deviation of a number over several runs."""

import math
import statistics
from collections.abc import Sequence
from typing import Any


def is_number(value: Any) -> bool:
    """Returns whether a value is a finite number, and no bool."""
    is_real = isinstance(value, int | float) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns the mean, None of no value, and the standard deviation, None of fewer than two."""
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }
