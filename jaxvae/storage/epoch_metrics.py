"""The epochs of a run as `metrics.jsonl` has them."""

import json
from pathlib import Path
from typing import Any

from jaxvae.data.readers.regular_file import open_regular
from jaxvae.errors import InputError
from jaxvae.storage.atomic_files import name_file_in_errors


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; InputError names one that is damaged."""
    path = folder / "metrics.jsonl"
    lines = []
    with name_file_in_errors(path), open_regular(path) as file:
        read = file.read().splitlines()
    for number, line in enumerate(read, start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: damaged; delete that line")
        lines.append(value)
    return lines


def has_epochs(folder: Path) -> bool:
    """Whether a run's log has a line."""
    path = folder / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0
