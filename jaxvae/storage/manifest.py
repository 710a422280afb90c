"""A folder's manifest: the SHA-256 of each of its files, written last.

A folder with a manifest was written to its end, and each of its files can be checked: a file that
was cut short, changed or lost on the way is named. A folder without a manifest is not whole,
whatever else it holds. The format is that of `sha256sum -c`; a comment at the end has the digest of
the lines before it.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from jaxvae.data.readers.regular_file import open_regular, refuse_unreadable
from jaxvae.errors import InputError

NAME = "SHA256SUMS"


def seal(folder: Path, names: Iterable[str] | None = None) -> None:
    """Writes a folder's manifest, after its files have reached the disk.

    Args:
      folder: the folder to seal.
      names: files to list, relative to the folder; None lists all of them, at any depth.
    """
    listed = sorted(_files(folder) if names is None else names)
    lines = "".join(f"{file_digest(folder / name, durable=True)}  {name}\n" for name in listed)
    for path in {(folder / name).parent for name in listed}:
        _sync(path)
    temporary = folder / (NAME + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f"{lines}# {_digest_of(lines)}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    _sync(folder)


def is_sealed(folder: Path) -> bool:
    """Returns whether a folder was written to its end."""
    return os.path.lexists(folder / NAME)  # of any kind: `check` reports what is wrong with it


def names(folder: Path) -> set[str]:
    """Returns the names of the files that a folder's manifest lists; none without a manifest."""
    try:
        with open_regular(folder / NAME) as file:
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return set()
    return {line.partition("  ")[2] for line in lines if not line.startswith("#")}


def check(folder: Path, names: Sequence[str] | None = None) -> None:
    """Compares files with the manifest.

    Args:
      folder: the sealed folder.
      names: files to compare; None compares all.

    Raises:
      InputError: the manifest is missing or damaged, or a file differs; the message names it.
      Unreadable: a file can't be read now, which is no damage.
    """
    damage = next(damaged(folder, names), None)
    if damage is not None:
        raise InputError(damage)


def damaged(folder: Path, names: Sequence[str] | None = None) -> Iterator[str]:
    """Yields a line for each file that changed since it was sealed, or for the manifest itself.

    Raises:
      Unreadable: a file can't be read now, which is no damage.
    """
    path = folder / NAME
    try:
        with open_regular(path) as file:
            lines, _, recorded = file.read().decode().rpartition("# ")
    except FileNotFoundError:
        yield f"{folder} is not whole: it has no {NAME}, which is written last"
        return
    except (OSError, UnicodeError) as error:
        refuse_unreadable(path, error)
        yield f"{path} is damaged: {str(error)[:120]}"
        return
    if recorded != _digest_of(lines) + "\n":
        yield f"{path} is not what was written"
        return
    for line in lines.splitlines():
        digest, _, name = line.partition("  ")
        if names is not None and name not in names:
            continue
        try:
            if file_digest(folder / name) != digest:
                yield f"{folder / name} is not what was written (its SHA-256 differs)"
        except OSError as error:
            refuse_unreadable(folder / name, error)
            yield f"{folder / name} can't be read: {error.strerror}"


def _files(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path != folder / NAME:
            yield path.relative_to(folder).as_posix()


def file_digest(path: Path, *, durable: bool = False) -> str:
    """Returns the SHA-256 of a regular file, in hexadecimal; `durable` also flushes it to disk."""
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if durable:
            os.fsync(file.fileno())
    return digest


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(folder: Path) -> None:
    """Flushes a folder's list of names to disk, if the file system supports that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
