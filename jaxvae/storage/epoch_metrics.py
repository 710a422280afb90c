"""The epochs of a run, read from `metrics.jsonl`."""

import json
from pathlib import Path
from typing import Any

from jaxvae.data.readers.regular_file import open_regular
from jaxvae.errors import InputError
from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import name_file_in_errors


def read_epochs(folder: Path) -> list[dict[str, Any]]:
    """Reads the lines of a run's `metrics.jsonl`; InputError names a damaged line."""
    path = folder / run_files.EPOCHS
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
    """Returns whether a run's log has any line."""
    path = folder / run_files.EPOCHS
    return path.exists() and path.stat().st_size > 0
