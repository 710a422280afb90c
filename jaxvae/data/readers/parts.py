"""Finds the Parquet files of a folder, or those that a pattern names."""

import glob
from collections.abc import Sequence
from pathlib import Path

from jaxvae.errors import InputError


def find_parts(path: Path) -> list[Path]:
    """Returns the Parquet files that a folder or a pattern stands for, in the order of their names.

    Args:
        path: a folder, of which hidden files and those below it count too except hidden ones; a
            pattern with `*`, `?` or `[`, unless a file is called so; or a file, which has no parts.

    Raises:
        InputError: the pattern names no file, or one that is no Parquet file.
    """
    if path.is_file():
        return []
    if path.is_dir():
        in_folder = sorted(file for file in path.rglob("*.parquet") if file.is_file())
        return [file for file in in_folder if not _is_hidden(file.relative_to(path))]
    if not glob.has_magic(str(path)):
        return []
    named = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [file for file in named if file.is_file()]
    if not files:
        raise InputError(f"no file is called {path}; a pattern names Parquet files")
    for file in files:
        if file.suffix.lower() != ".parquet":
            raise InputError(
                f"{path} names {file}, which is no .parquet file; only of those several are read"
            )
    return files


def other_tables(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """Returns the tables in a folder of Parquet files that are of another kind.

    Args:
        path: the folder; a pattern has none.
        suffixes: those of tables.
    """
    if not path.is_dir():
        return []
    tables = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    return [
        file
        for file in tables
        if file.suffix.lower() != ".parquet" and not _is_hidden(file.relative_to(path))
    ]


def _is_hidden(relative: Path) -> bool:
    """Tests for what Spark and Hive leave beside the parts, such as `_temporary/`."""
    return any(name.startswith((".", "_")) for name in relative.parts)
