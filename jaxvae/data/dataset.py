"""Loads a data set: rows of column numbers from any source, their splits, and a data report.

Every dropped row is counted: rows read = kept + without a known tag + unreadable.
"""

import hashlib
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data import encoding
from jaxvae.data.embedded_corpus import Corpus, build_corpus
from jaxvae.data.encoding import make_tag_lookup
from jaxvae.data.readers import tables
from jaxvae.data.readers.hub_dataset import read_hub
from jaxvae.data.spill_array import SpillArray
from jaxvae.data.splits import count_duplicates, group_rows, split_rows
from jaxvae.data.summary import (
    SHOWN,
    describe_rows,
    describe_unreadable,
    format_report,
    list_tags,
    rank_unknown,
)
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean

__all__ = [
    "Dataset",
    "fingerprint_rows",
    "format_report",
    "known_generator",
    "load_dataset",
    "split_rows",
]

EMBEDDED = "embedded"
"""The name of the corpus that needs neither file nor network."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
MAX_ROWS_BYTES = 2**33


@dataclass(frozen=True)
class Dataset:
    """Rows of tags, ready to be placed on a device.

    Attributes:
        rows: [N, K] rising column numbers padded with V, in the narrowest unsigned type; large
            ones lie in a file that is mapped.
        source_row: [N] int64, each row's 0-based position among the source's rows.
        splits: positions in `rows` under "train", "val" and "test"; disjoint, covering, rising.
        report: counts of rows read, kept and dropped, and statistics of the rows; see
            `format_report`.
        fingerprint: SHA-256 (hexadecimal) of the rows and the taxonomy's digest.
        source: a description of the rows' origin, for people.
        generator: the corpus that drew the rows, whose likelihood no model beats on average; None
            if the generator is unknown.
    """

    rows: np.ndarray
    source_row: np.ndarray
    splits: dict[str, np.ndarray]
    report: dict
    fingerprint: str
    source: str
    generator: Corpus | None = None


def load_dataset(
    *,
    taxonomy: Taxonomy,
    dataset_name: str | Path = EMBEDDED,
    dataset_split: str = "train",
    hub_streaming: bool = False,
    aspect_column: str = "aspect_list",
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    split_by: str = "row",
    split_seed: int = 42,
    max_unreadable_fraction: float = 0.01,
) -> Dataset:
    """Reads a source, keeps the rows with a tag of the taxonomy, and splits them.

    Args:
        taxonomy: the V tags that columns stand for.
        dataset_name: "embedded", a path to a file of one of `tables.SUFFIXES`, or the id of a data
            set on the Hugging Face hub, "user/name".
        dataset_split: the hub data set's split; other sources have "train" alone.
        hub_streaming: stream a hub data set without caching a copy; see `hub_dataset.read_hub`.
        aspect_column: the column that holds each row's tags; the embedded corpus needs none.
        val_fraction: share of the kept rows for validation, size rounded down.
        test_fraction: share of the kept rows for test, size rounded down.
        split_by: "row", or "set" to keep rows with equal tags in one split.
        split_seed: seed of the splits.
        max_unreadable_fraction: the greatest allowed share of rows with an unreadable cell.

    Raises:
        InputError: the source cannot be read, too many of its cells are unreadable, no row has a
            known tag, or a split would be empty.
    """
    cells, source = _open(str(dataset_name), dataset_split, aspect_column, hub_streaming)
    rows, source_row, report = _encode(cells, taxonomy, source, max_unreadable_fraction)
    splits = split_rows(
        rows,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_by=split_by,
        seed=split_seed,
    )
    groups = group_rows(rows)
    duplicates = count_duplicates(groups, splits)
    distinct = int(groups.max()) + 1
    report["repeated_sets"] = {
        "distinct": distinct,
        "repeats": len(rows) - distinct,
        "val_rows_with_a_twin_in_train": duplicates["val"],
        "test_rows_with_a_twin_in_train": duplicates["test"],
    }
    report["split_by"] = split_by
    report["split_sizes"] = {name: len(positions) for name, positions in splits.items()}
    report["source"] = source
    report["fingerprint"] = fingerprint = fingerprint_rows(rows, taxonomy)
    generator = known_generator(str(dataset_name), taxonomy)
    return Dataset(rows, source_row, splits, report, fingerprint, source, generator)


def known_generator(dataset_name: str, taxonomy: Taxonomy) -> Corpus | None:
    """Returns the corpus that drew a data set's rows; no model beats its likelihood on average.

    Args:
        dataset_name: as in `load_dataset`; only "embedded" has a known generator.
        taxonomy: the meaning of the rows' columns; unless it is the corpus's own, None is returned.
    """
    corpus = build_corpus() if dataset_name == EMBEDDED else None
    return corpus if corpus and corpus.taxonomy.digest == taxonomy.digest else None


def fingerprint_rows(rows: np.ndarray, taxonomy: Taxonomy) -> str:
    """Returns the SHA-256 (hexadecimal) of rows and their taxonomy's digest.

    Args:
        rows: [N, K] column numbers, padded with V.
        taxonomy: the meaning of the columns.
    """
    little = np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{taxonomy.digest} {rows.shape} {little.dtype.str}".encode())
    digest.update(little.data)
    return digest.hexdigest()


def _open(name: str, split: str, column: str, streaming: bool) -> tuple[tables.Cells, str]:
    """Opens a source by its name; returns its cells and a line that describes the source."""
    path = user_path(name)
    # Unlike Path.exists, os.path.exists takes any text, even one that no file can be called.
    is_file = "\0" not in name and (path.suffix.lower() in tables.SUFFIXES or os.path.exists(path))
    if not is_file and name != EMBEDDED:
        if HUB_ID.fullmatch(name):
            return read_hub(name, split, column, streaming=streaming)
        raise InputError(
            f"dataset_name {name[:80]!r} is neither 'embedded' nor a hub id (user/name) "
            f"nor a file ending in {' '.join(tables.SUFFIXES)}{did_you_mean(name, ['embedded'])}"
        )
    if streaming:
        raise InputError("hub_streaming: only hub data sets stream; leave it out")
    if split != "train":
        raise InputError(f"dataset_split {split!r}: only hub data sets have splits; leave 'train'")
    if name != EMBEDDED:
        return tables.read_column(path, column), f"{name}, column {column}"
    # The seed is fixed: the embedded corpus is one data set, the same everywhere.
    return ((None, tags) for tags in build_corpus().draw(seed=0).tags), "the embedded corpus"


def _next_share(share: float) -> float:
    """Rounds a share up to whole percents."""
    return math.ceil(share * 100.0) / 100.0


def _encode(
    cells: tables.Cells, taxonomy: Taxonomy, source: str, max_unreadable_fraction: float
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Encodes cells as rows [N, K], their source rows [N], and the report's part about them."""
    column_of = make_tag_lookup(taxonomy)
    dtype = np.min_scalar_type(taxonomy.num_tags)
    unknown: Counter[str] = Counter()
    unreadable: list[dict] = []
    flat, counts, positions = SpillArray(dtype), SpillArray(np.uint32), SpillArray(np.int64)
    num_read = num_unreadable = num_kept = 0
    for block in encoding.read_blocks(cells, taxonomy):
        columns, lengths, unknown_here = encoding.encode_block(block, column_of, taxonomy.num_tags)
        unknown.update(unknown_here)
        for row, line, reason in block.unreadable[: SHOWN - len(unreadable)]:
            at_line = {} if line is None else {"line": line}
            unreadable.append({"row": num_read + row, **at_line, "reason": reason})
        nonempty = np.flatnonzero(lengths)
        flat.extend(columns.astype(dtype))
        counts.extend(lengths[nonempty].astype(np.uint32))
        positions.extend(num_read + nonempty)
        num_read += block.num_rows
        num_unreadable += len(block.unreadable)
        num_kept += len(nonempty)
    if not num_read:
        raise InputError(f"{source}: there are column names but no rows")
    if num_unreadable > max_unreadable_fraction * num_read:
        first = describe_unreadable(unreadable[0])
        enough = _next_share(num_unreadable / num_read)
        raise InputError(
            f"{source}: {num_unreadable:,} of {num_read:,} rows are unreadable, more than the "
            f"{max_unreadable_fraction:.2%} allowed; the first is {first}; mend them, or allow "
            f"more by --config.data.max_unreadable_fraction={enough}"
        )
    ranked = rank_unknown(unknown)
    if not num_kept:
        raise InputError(
            f"{source}: none of {num_read:,} rows has a tag of {taxonomy.source} "
            f"({num_unreadable:,} unreadable); the commonest tags met are {list_tags(ranked)}; "
            "set taxonomy_path or aspect_column"
        )
    columns, lengths = flat.array(), counts.array()
    size = num_kept * int(lengths.max()) * dtype.itemsize
    if size > max(MAX_ROWS_BYTES, 4 * columns.nbytes):
        raise InputError(
            f"{source}: {num_kept:,} rows padded to the longest, {lengths.max():,} tags, exceed "
            f"{MAX_ROWS_BYTES >> 30} GiB; leave out the rows with the most tags"
        )
    rows = encoding.pad_ragged(columns, lengths, fill=taxonomy.num_tags, dtype=dtype)
    report = {
        "rows_read": num_read,
        "rows_kept": len(rows),
        "rows_without_known_tag": num_read - len(rows) - num_unreadable,
        "rows_unreadable": num_unreadable,
        "unreadable": unreadable,
        **describe_rows(columns, lengths, ranked, taxonomy),
    }
    return rows, positions.array(), report
