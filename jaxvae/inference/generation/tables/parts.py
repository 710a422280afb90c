"""The parts of a table on its way, in a folder beside it: a killed `generate` goes on from them.

All sets are drawn again, so that no state of the draws need be kept, and those of a complete part
are compared with what it was made of; its likelihoods, texts and rows are not made again.
"""

import contextlib
import fcntl
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.data.spelling import cut
from jaxvae.errors import InputError
from jaxvae.inference.generation.order import LabelledSets
from jaxvae.storage.atomic_files import name_file_in_errors, read_json, write_json
from jaxvae.storage.manifest import file_digest
from jaxvae.storage.row_tables import Fields, join_tables, open_table

RowsOf = Callable[[LabelledSets, int, Counter[str]], Iterable[list]]
"""Makes the rows of some sets, the first of which has this number, and counts what is in them."""
_ORDER, _LOCK = "order.json", ".lock"
_OWN = re.compile(r"\d{5,}\.\w+(\.new)?|order\.json(\.new)?|\.lock")
_NAMED = 3
_EXCERPT = 60


class _OtherSets(InputError):
    """A complete part is of other sets than are drawn now."""


class Parts:
    """Parts of a table, some of them perhaps of an earlier process; made by `open_parts`.

    Args:
      output: the table.
      fields: its columns.
      folder: the parts' folder.

    Attributes:
      command: the command that asked for the table first.
    """

    def __init__(self, output: Path, fields: Fields, folder: Path):
        self._output, self._fields, self._folder = output, fields, folder
        self._number = self._rows = 0
        self.command: str | None = None

    def start(self, order: dict[str, Any], command: str | None, *, resume: bool) -> None:
        """Compares an order with the one that the folder is of, if it has parts.

        Raises:
          InputError: it has, and this is another order, or nothing was said of resuming.
        """
        if not (rows := self.complete_rows()):
            self.remove(keep=_LOCK)
            write_json(self._folder / _ORDER, {"command": command, "order": order})
            self.command = command
            return
        if not resume:
            raise InputError(
                f"{self._folder}: {rows:,} sets of a table that was broken off; --resume "
                f"(resume=True) goes on with them, or delete the folder"
            )
        saved = read_json(self._folder / _ORDER)
        before, now = saved.get("order"), json.loads(json.dumps(order))
        if not isinstance(before, dict):
            raise InputError(f"{self._folder / _ORDER}: damaged; delete the folder")
        if before != now:
            raise InputError(
                f"{self._folder}: of another order: {_differences(before, now)}; give the same, or "
                f"delete the folder"
            )
        self.command = saved.get("command")

    def add(self, chunks: Iterable[LabelledSets], rows_of: RowsOf) -> Counter[str]:
        """Writes the next part, unless it is complete; returns what `rows_of` counts in it.

        Raises:
          InputError: the sets are not those of the complete part, or writing failed.
        """
        number, self._number = self._number, self._number + 1
        saved, path = self._saved(number), self._path(number)
        digest, counts, first = hashlib.sha256(), Counter[str](), self._rows
        with contextlib.ExitStack() as stack:
            write = None
            if saved is None:
                opened = open_table(path, self._fields, header=number == 0)
                write = stack.enter_context(opened)
            for chunk in chunks:
                digest.update(np.packbits(chunk.sets, axis=1).tobytes())
                if write is not None:
                    write(rows_of(chunk, self._rows, counts))
                self._rows += len(chunk.sets)
        if saved is None:
            facts = {"rows": self._rows - first, "sets": digest.hexdigest(), "counts": counts}
            write_json(self._facts(number), {**facts, "file": file_digest(path)})
            return counts
        if saved["sets"] != digest.hexdigest():
            raise _OtherSets(
                f"{path}: of other sets than are drawn now: other versions of libraries, another "
                f"device or other rows; go on as it was begun, or delete the folder"
            )
        return Counter(saved["counts"])

    def join(self, before: Callable[[str], object]) -> None:
        """Makes the table of its parts; `before` takes its SHA-256 before it appears."""
        paths = [self._path(number) for number in range(self._number)]
        join_tables(paths, self._output, self._fields, before)

    def complete_rows(self) -> int:
        """Returns the number of sets in complete parts."""
        number = rows = 0
        while (saved := self._saved(number)) is not None:
            number, rows = number + 1, rows + saved["rows"]
        return rows

    def remove(self, keep: str = "") -> None:
        """Removes the parts, and the folder if nothing else is in it."""
        for path in sorted(self._folder.iterdir()):
            if _OWN.fullmatch(path.name) and path.name != keep:
                path.unlink()
        if not keep:
            with contextlib.suppress(OSError):
                self._folder.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05}{self._output.suffix}"

    def _facts(self, number: int) -> Path:
        return self._folder / f"{number:05}.json"

    def _saved(self, number: int) -> dict[str, Any] | None:
        """Returns the facts of a part if it is complete, and None otherwise."""
        try:
            facts = read_json(self._facts(number))
            is_whole = file_digest(self._path(number)) == facts["file"]
        except (InputError, OSError, KeyError):
            return None
        return facts if is_whole and {"rows", "sets", "counts"} <= {*facts} else None


def parts_folder(output: Path) -> Path:
    """Returns the folder of a table's parts: `tags.csv.partial` for `tags.csv`."""
    return output.with_name(output.name + ".partial")


@contextlib.contextmanager
def open_parts(
    output: Path, fields: Fields, order: dict[str, Any], *, command: str | None, resume: bool
) -> Iterator[Parts]:
    """Opens the parts of a table, in the folder `NAME.partial` beside it.

    An error that lies in the order removes the parts. A failed write, a signal or the end of the
    process leaves those that are complete.

    Args:
      output: the table.
      fields: its columns.
      order: all that the table's contents depend on, JSON-able.
      command: the command that asks for the table.
      resume: whether to go on with parts that are there.

    Raises:
      InputError: as in `Parts.start`; or another process is writing this table.
    """
    folder = parts_folder(output)
    with name_file_in_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        parts = Parts(output, fields, folder)
        try:
            parts.start(order, command, resume=resume)
        except BaseException:
            if not parts.complete_rows():
                parts.remove()
            raise
        try:
            yield parts
        except _OtherSets:
            raise
        except BaseException as error:
            is_broken_off = not isinstance(error, InputError) or isinstance(
                error.__cause__, OSError
            )
            rows = parts.complete_rows() if is_broken_off else 0
            if not rows:
                parts.remove()
            elif isinstance(error, InputError):
                raise InputError(
                    f"{error}; {rows:,} sets are kept in {folder.name}, and --resume (resume=True) "
                    f"goes on with them"
                ) from error.__cause__
            raise
        parts.remove()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a folder to one process, where the file system has locks."""
    with name_file_in_errors(folder), (folder / _LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is writing this table") from None
        except OSError:
            pass  # a file system without locks
        yield


def _differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in (*now, *(before.keys() - now)) if before.get(name) != now.get(name)]
    parts = [
        f"{name} was {_excerpt(before.get(name))}, and is {_excerpt(now.get(name))}"
        for name in names[:_NAMED]
    ]
    return "; ".join(parts) + (f"; and {len(names) - _NAMED} more" if names[_NAMED:] else "")


def _excerpt(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _EXCERPT)
