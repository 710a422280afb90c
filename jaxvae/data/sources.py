"""Opens what `data.dataset_name` names: a file, a hub data set, the embedded corpus, a function."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from jaxvae.config.extensions import ExtensionFailed, is_reference, load_extension, users_code
from jaxvae.config.paths import user_path
from jaxvae.data.embedded_corpus import build_corpus
from jaxvae.data.encoding import TagBlock
from jaxvae.data.layouts.columns import read_blocks
from jaxvae.data.layouts.options import FileFields, Reading, TableFields
from jaxvae.data.layouts.recognise import read_table
from jaxvae.data.readers import containers
from jaxvae.data.readers.hub.dataset import open_hub
from jaxvae.data.readers.tables import SUFFIXES, Rows, Table, check_columns, open_table
from jaxvae.data.splits import SPLITS
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean

EMBEDDED = "embedded"
"""The name of the corpus that needs neither file nor network."""
EMBEDDED_ROWS = 5_500
_MOST_EMBEDDED_ROWS = 10**9
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_END = object()
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class SourceFields:
    """Fields that say what rows come from; the names are those of the fields in `data` of a config.

    Attributes:
        dataset_name: "embedded", or "embedded:N" for its first N rows; a file (see
            `tables.open_table`), the id of a hub data set, or `file.py:name`, a function that
            yields rows; or a table in memory.
        dataset_config: the configuration of a hub data set.
        dataset_split: the split of a hub data set.
        val_from: a file like the first, or a split of the hub data set, that holds the rows of the
            validation; "" draws them.
        test_from: likewise of the test.
        hub_streaming: read a hub data set without keeping a copy.
        table: how a table's tags are found.
    """

    dataset_name: str | Path | Table = EMBEDDED
    dataset_config: str = ""
    dataset_split: str = "train"
    val_from: str = ""
    test_from: str = ""
    hub_streaming: bool = False
    table: TableFields = field(default_factory=TableFields)


@dataclass(frozen=True)
class Source:
    """Rows of tags, ready to be read once.

    Attributes:
        blocks: the rows, in order.
        where: the rows' origin, for people.
        read_as: how its tags were found, for people; "" where there is one way.
        split_by: how the rows are split, if the source says so: "data.split_column=…", or ""; rows
            of splits that it lacks are drawn.
    """

    blocks: Iterator[TagBlock]
    where: str
    read_as: str = ""
    split_by: str = ""


def open_source(fields: SourceFields, taxonomy: Taxonomy | None) -> Source:
    """Opens the rows of a config.

    Args:
        fields: what the config says.
        taxonomy: the known tags, which say where the tags of a text end; None if not known.

    Raises:
        InputError: there is no such source, or its layout is uncertain; more is raised while its
            blocks are read.
    """
    other_names = {"val": fields.val_from, "test": fields.test_from}
    if not any(other_names.values()):
        source = _open_one(fields, taxonomy)
        column = fields.table.split_column
        return replace(source, split_by=f"column {column}") if column else source
    if fields.table.split_column:
        raise InputError(
            f"--config.data.split_column={fields.table.split_column} and --config.data."
            f"{'val' if fields.val_from else 'test'}_from: both say how rows are split; give one"
        )
    fields_of_split = {
        "train": fields,
        **{name: _fields_of(fields, other_name) for name, other_name in other_names.items()},
    }
    sources = {
        name: _open_one(source_of_split, taxonomy)
        for name, source_of_split in fields_of_split.items()
        if name == "train" or other_names[name]
    }
    where = "; ".join(
        f"{name} from {source_of_split.where}" for name, source_of_split in sources.items()
    )
    read_as = "; ".join(
        dict.fromkeys(source_of_split.read_as for source_of_split in sources.values())
    )
    listed = " and ".join(f"{name}_from" for name in sources if name != "train")
    return Source(_chained(sources), where, read_as, listed)


def open_file(path: Path, table: TableFields, taxonomy: Taxonomy | None) -> Source:
    """Opens the rows of a file that a command names, which no name of a data set stands for.

    Raises:
        InputError: there is no such file; or as in `open_source`.
    """
    name = str(path)
    if not (os.path.lexists(path) or _is_file(name) or any(mark in name for mark in "*?[")):
        raise InputError(f"{name[:200]}: no such file")
    if not isinstance(table, FileFields):
        table = FileFields(**vars(table))
    return open_source(SourceFields(dataset_name=path, table=table), taxonomy)


def _fields_of(fields: SourceFields, other: str) -> SourceFields:
    """Returns the fields of another split: a split of the same hub data set, or another file."""
    if is_hub_id(fields.dataset_name) and not _is_file(other):
        return replace(fields, dataset_split=other)
    return replace(fields, dataset_name=other)


def _chained(parts: dict[str, Source]) -> Iterator[TagBlock]:
    for name, source in parts.items():
        for block in source.blocks:
            split = np.full(block.num_rows, SPLITS.index(name), np.uint8)
            yield replace(block, split=split)


def _open_one(fields: SourceFields, taxonomy: Taxonomy | None) -> Source:
    name = fields.dataset_name
    if is_embedded(name):
        _refuse_hub_fields(fields)
        # The seed is fixed: the embedded corpus is one data set, the same everywhere.
        tags_of_rows = build_corpus().draw_tags(_embedded_rows(name), seed=0)
        rows = ((None, [tags]) for tags in tags_of_rows)
        return Source(read_blocks(rows, taxonomy=taxonomy), "the embedded corpus")
    if isinstance(name, Table):
        table = name
    elif is_hub_id(name):
        table = open_hub(
            str(name),
            split=fields.dataset_split,
            config_name=fields.dataset_config,
            streaming=fields.hub_streaming,
        )
    else:
        _refuse_hub_fields(fields)
        table = _open_file(str(name), fields)
    reading: Reading = read_table(table, fields.table, taxonomy)
    where = str(name) if isinstance(name, str | Path) and not is_hub_id(name) else table.where
    of_kind = f" of {table.kind}" if table.kind not in ("", "CSV", "TSV", "Parquet") else ""
    return Source(reading.blocks, where, reading.read_as + of_kind)


def is_embedded(name: object) -> TypeGuard[str]:
    """Tests whether a data set's name is that of the embedded corpus, of any number of rows."""
    return isinstance(name, str) and (name == EMBEDDED or name.startswith(f"{EMBEDDED}:"))


def _embedded_rows(name: str) -> int:
    """Returns the number of rows that `embedded` or `embedded:N` asks for."""
    if name == EMBEDDED:
        return EMBEDDED_ROWS
    number = name.removeprefix(f"{EMBEDDED}:").replace("_", "")
    if not (number.isascii() and number.isdigit() and 1 <= int(number) <= _MOST_EMBEDDED_ROWS):
        raise InputError(
            f"--config.data.dataset_name={name[:80]}: behind the colon stands a number of rows "
            f"from 1 to {_MOST_EMBEDDED_ROWS:,}, such as {EMBEDDED}:50000"
        )
    return int(number)


def is_hub_id(name: object) -> bool:
    """Tests whether a data set's name is the id of one on the hub, and no file."""
    return isinstance(name, str) and bool(HUB_ID.fullmatch(name)) and not _is_file(name)


def _is_file(name: str) -> bool:
    # Unlike Path.exists, os.path.exists takes any text, even one that no file can be called.
    path = user_path(name)
    suffixes = (*SUFFIXES, *containers.SUFFIXES)
    return "\0" not in name and (path.suffix.lower() in suffixes or os.path.exists(path))


def _open_file(name: str, fields: SourceFields) -> Table:
    if is_reference(name) and not isinstance(fields.dataset_name, Path):
        return _open_function(name)
    if not name:
        raise InputError(
            "dataset_name is empty; name a file, a folder of Parquet files or a hub id"
        )
    if _URL.match(name):
        raise InputError(
            f"--config.data.dataset_name={name[:80]}: a URL is not read; download the file and "
            f"name that, or give a data set of the Hugging Face hub as user/name"
        )
    if not _is_file(name) and not any(mark in name for mark in "*?["):
        raise InputError(
            f"dataset_name {name[:80]!r} is neither 'embedded' nor a hub id (user/name) "
            f"nor a file ending in {' '.join(SUFFIXES)}{did_you_mean(name, [EMBEDDED])}"
        )
    columns = fields.table.aspect_column.split(",")
    return open_table(user_path(name), [column.strip() for column in columns])


def _open_function(reference: str) -> Table:
    """Opens a function of the user's that yields each row's tags, or an object of columns."""
    extension = load_extension(reference, field="data.dataset_name", arguments=())

    def values() -> Iterator[tuple[None, Any]]:
        iterator: Iterator | None = None
        for number in itertools.count():
            try:
                with users_code(extension.path):
                    iterator = iter(extension.function()) if iterator is None else iterator
                    value = next(iterator, _END)
            except ExtensionFailed as error:
                raise InputError(
                    f"--config.data.dataset_name={reference}{error.at_line}: failed at row "
                    f"{number} (counted from 0): {error.reason}"
                ) from error.__cause__
            if value is _END:
                return
            yield None, value

    first: Any = next(values(), (None, []))[1]
    names = list(first) if isinstance(first, dict) else ["tags"]

    def rows(columns: Sequence[str]) -> Rows:
        check_columns(columns, names, reference)
        if isinstance(first, dict):
            return ((None, [row.get(column) for column in columns]) for _, row in values())
        return ((None, [row] * len(columns)) for _, row in values())

    return Table(reference, names, rows, "a function")


def _refuse_hub_fields(fields: SourceFields) -> None:
    if fields.hub_streaming:
        raise InputError("hub_streaming: only hub data sets stream; leave it out")
    if fields.dataset_split != "train":
        raise InputError(
            f"dataset_split {fields.dataset_split!r}: only hub data sets have splits; leave 'train'"
        )
    if fields.dataset_config:
        raise InputError(
            f"dataset_config {fields.dataset_config!r}: only hub data sets have configurations; "
            f"leave it out"
        )
