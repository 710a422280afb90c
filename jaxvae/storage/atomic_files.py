"""JSON and text files, written atomically, with errors that name the file."""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.errors import InputError, json_fault
from jaxvae.runtime.escapes import ERRORS


def write_json(path: Path, value: Any) -> None:
    """Writes JSON in one step: a reader sees the old file or the new one, never half of one.

    Numbers that are not finite become null, which every JSON reader accepts.
    """
    write_text(path, to_json(value) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text in one step, as `write_json` does."""
    with atomic_write(path) as file:
        file.write(text.encode(errors=ERRORS))


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes its name, and replaces an older one, once it is completely written.

    Raises:
      InputError: writing failed; an older file is unchanged.
    """
    with name_file_in_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".new")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # without it, a power failure could leave an empty file
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def name_file_in_errors(path: Path) -> Iterator[None]:
    """Converts an `OSError` into an `InputError` that names the file.

    The OS error of a failed write, as on a full disk, omits the name.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def to_json(value: Any) -> str:
    """Returns a value as JSON text; numbers that are not finite become null."""
    return json.dumps(finite_json(value), indent=2, ensure_ascii=False, allow_nan=False)


def read_json(path: Path, *, most_bytes: int | None = None) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: the file.
      most_bytes: the largest size to read; None is any.

    Raises:
      InputError: the file is missing, broken or larger; the message names it.
    """
    try:
        with open_regular(path) as file:
            text = file.read() if most_bytes is None else file.read(most_bytes + 1)
            if most_bytes is not None and len(text) > most_bytes:
                raise InputError(f"{path}: larger than {most_bytes >> 20} MiB")
            value = json.loads(text.decode())
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        refuse_unreadable(path, error)
        raise InputError(f"{path}: missing or not JSON: {json_fault(error)}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object")
    return value


def finite_json(value):
    """Returns a JSON value with null for each number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(inner) for inner in value]
    return value
