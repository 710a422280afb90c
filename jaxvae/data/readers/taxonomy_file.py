"""Reads the JSON of a taxonomy file."""

import json
from pathlib import Path
from typing import Any

from jaxvae.data.readers.file_kinds import stand_in
from jaxvae.data.spelling import quote
from jaxvae.errors import InputError, json_fault

MAX_FILE_BYTES = 64 * 2**20


def read_taxonomy_file(path: Path) -> Any:
    """Parses a JSON file strictly: repeated keys and NaN are errors, each message is one line."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read taxonomy {path}: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; not a taxonomy")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        keys: dict[str, object] = {}
        for key, value in pairs:
            if key in keys:
                raise InputError(f"{path}: key {quote(key)} appears twice in one object")
            keys[key] = value
        return keys

    def refuse(constant: str) -> object:
        raise InputError(f"{path}: {constant} is not JSON")

    try:
        text = content.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        if kind := stand_in(path):
            raise InputError(f"taxonomy {path} is {kind}") from error
        raise InputError(f"{path}: not a taxonomy in UTF-8 JSON: {json_fault(error)}") from error
