"""Loads a data set: rows of column numbers from any source, their splits, and a data report.

Every dropped row is counted: rows read = kept + without a known tag + unreadable.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvae.data import encoding
from jaxvae.data.embedded_corpus import Corpus, build_corpus
from jaxvae.data.encoding import make_tag_lookup, tag_counts
from jaxvae.data.layouts.options import DEFAULT_COLUMN, TableFields
from jaxvae.data.readers.tables import Table
from jaxvae.data.row_collector import CollectedRows, Spellings
from jaxvae.data.sources import EMBEDDED, Source, SourceFields, open_source
from jaxvae.data.splits import SPLITS, complete_splits, count_duplicates, group_rows, split_rows
from jaxvae.data.summary import (
    MAX_QUOTED,
    SHOWN,
    describe_rows,
    format_report,
    list_tags,
    rank_unknown,
)
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import FROM_DATA, FromData, Vocabulary, make_vocabulary
from jaxvae.errors import InputError

__all__ = [
    "Dataset",
    "fingerprint_rows",
    "format_report",
    "known_generator",
    "load_dataset",
    "load_from_config",
    "split_rows",
]

MAX_ROWS_BYTES = 2**33
_FEW_KNOWN = 0.5


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
        taxonomy: the V tags that the columns stand for.
        vocabulary: the counts that the taxonomy was made of, if it was made of these rows.
        generator: the corpus that drew the rows, whose likelihood no model beats on average; None
            if the generator is unknown.
    """

    rows: np.ndarray
    source_row: np.ndarray
    splits: dict[str, np.ndarray]
    report: dict
    fingerprint: str
    source: str
    taxonomy: Taxonomy
    vocabulary: Vocabulary | None = None
    generator: Corpus | None = None


class InMemory(NamedTuple):
    """Rows in memory, in place of those that a config names.

    Attributes:
        table: the rows.
        taxonomy: the meaning of their columns; None takes what the config names.
    """

    table: Table
    taxonomy: Taxonomy | None = None


def load_from_config(
    config: ConfigDict, *, own_taxonomy: Path | None = None, rows: InMemory | None = None
) -> Dataset:
    """Loads the data of a config.

    Args:
        config: every field of `configs/base.py`.
        own_taxonomy: the taxonomy file of the run that is resumed; where the taxonomy is made of
            the data, the run's own counts, if there is one.
        rows: rows in memory, or None.

    Raises:
        InputError: as in `load_dataset`.
    """
    data = config.data
    taxonomy: Taxonomy | FromData
    if rows is not None and rows.taxonomy is not None:
        taxonomy = rows.taxonomy
    elif data.taxonomy_path == FROM_DATA:
        made = own_taxonomy if own_taxonomy is not None and own_taxonomy.is_file() else None
        taxonomy = FromData(data.min_tag_rows, Taxonomy.load(made) if made else None)
    else:
        taxonomy = Taxonomy.load(data.taxonomy_path or None)
    names = (
        *("dataset_name", "dataset_config", "dataset_split", "val_from", "test_from"),
        *("hub_streaming", "layout", "aspect_column", "separator", "group_by", "weight_column"),
        *("min_weight", "split_column", "val_fraction", "test_fraction", "split_by"),
        *("split_seed", "max_unreadable_fraction"),
    )
    arguments: dict[str, Any] = {name: data[name] for name in names}
    if rows is not None:
        arguments["dataset_name"] = rows.table
    return load_dataset(taxonomy=taxonomy, **arguments)


def load_dataset(
    *,
    taxonomy: Taxonomy | FromData,
    dataset_name: str | Path | Table = EMBEDDED,
    dataset_config: str = "",
    dataset_split: str = "train",
    val_from: str = "",
    test_from: str = "",
    hub_streaming: bool = False,
    layout: str = "auto",
    aspect_column: str = DEFAULT_COLUMN,
    separator: str = "",
    group_by: str = "",
    weight_column: str = "",
    min_weight: float = 0.0,
    split_column: str = "",
    val_fraction: float = 0.05,
    test_fraction: float = 0.05,
    split_by: str = "row",
    split_seed: int = 42,
    max_unreadable_fraction: float = 0.01,
) -> Dataset:
    """Reads a source, keeps the rows with a tag of the taxonomy, and splits them.

    A taxonomy made of the data has the tags that are common enough among the training rows. Then
    all rows with any tag are split first, by their raw tags, and rows left without a known tag
    leave their split.

    Args:
        taxonomy: the V tags that columns stand for, or the wish for one made of the data.
        dataset_name: what `sources.SourceFields` says, a path, or a table in memory.
        dataset_config: see `sources.SourceFields`.
        dataset_split: see there, as for the next three.
        val_from: a source of the validation's rows.
        test_from: a source of the test's rows.
        hub_streaming: read a hub data set without keeping a copy.
        layout: see `layouts.options.TableFields`.
        aspect_column: see there, as for the next five.
        separator: what stands between the tags of a text.
        group_by: the item of a row for each tag.
        weight_column: the weight of such a row.
        min_weight: the least such weight.
        split_column: the column that gives each row's split.
        val_fraction: share of the kept rows for validation, size rounded down.
        test_fraction: share of the kept rows for test, size rounded down.
        split_by: "row", or "set" to keep rows with equal tags in one split.
        split_seed: seed of the splits.
        max_unreadable_fraction: the greatest allowed share of rows with an unreadable cell.

    Raises:
        InputError: the source cannot be read, too many of its cells are unreadable, no row has a
            known tag, or a split would be empty.
    """
    fields = SourceFields(
        dataset_name=str(dataset_name) if isinstance(dataset_name, Path) else dataset_name,
        dataset_config=dataset_config,
        dataset_split=dataset_split,
        val_from=val_from,
        test_from=test_from,
        hub_streaming=hub_streaming,
        table=TableFields(
            layout=layout,
            aspect_column=aspect_column,
            separator=separator,
            group_by=group_by,
            weight_column=weight_column,
            min_weight=min_weight,
            split_column=split_column,
        ),
    )
    source = open_source(fields, taxonomy if isinstance(taxonomy, Taxonomy) else None)
    splitting = {
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "split_by": split_by,
        "seed": split_seed,
    }
    vocabulary = None
    if isinstance(taxonomy, Taxonomy):
        known = _KnownTags(source, taxonomy, max_unreadable_fraction)
        rows, report = known.rows, known.report
        splits = _split(rows, known.collected.split, splitting)
        source_row = known.collected.source_row
    else:
        counted = _CountedTags(source, taxonomy, splitting, max_unreadable_fraction)
        rows, report, splits = counted.rows, counted.report, counted.splits
        source_row, vocabulary = counted.source_row, counted.vocabulary
        taxonomy = vocabulary.taxonomy
    groups = group_rows(rows)
    duplicates = count_duplicates(groups, splits)
    distinct = int(groups.max()) + 1
    report["repeated_sets"] = {
        "distinct": distinct,
        "repeats": len(rows) - distinct,
        "val_rows_with_a_twin_in_train": duplicates["val"],
        "test_rows_with_a_twin_in_train": duplicates["test"],
    }
    report["split_by"] = source.split_by or split_by
    report["split_sizes"] = {name: len(positions) for name, positions in splits.items()}
    report["source"] = source.where
    report["read_as"] = source.read_as
    report["fingerprint"] = fingerprint = fingerprint_rows(rows, taxonomy)
    return Dataset(
        rows=rows,
        source_row=source_row,
        splits=splits,
        report=report,
        fingerprint=fingerprint,
        source=source.where,
        taxonomy=taxonomy,
        vocabulary=vocabulary,
        generator=known_generator(dataset_name, taxonomy),
    )


def known_generator(dataset_name: object, taxonomy: Taxonomy) -> Corpus | None:
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


def _split(
    rows: np.ndarray, given: np.ndarray | None, splitting: dict[str, Any]
) -> dict[str, np.ndarray]:
    if given is None:
        return split_rows(rows, **splitting)
    return complete_splits(given, rows, **splitting)


class _KnownTags:
    """Rows of a given taxonomy: `rows` [N, K], the report's part about them, and `collected`."""

    def __init__(self, source: Source, taxonomy: Taxonomy, max_unreadable_fraction: float):
        collected = CollectedRows(
            source.blocks, make_tag_lookup(taxonomy), num_tags=taxonomy.num_tags
        )
        collected.check_readable(source.where, max_unreadable_fraction)
        ranked = rank_unknown(collected.unknown)
        num_tags_read = collected.num_known + collected.unknown.total()
        few = collected.num_known < _FEW_KNOWN * num_tags_read
        if not len(collected.lengths):
            made = f", or let the data say: --config.data.taxonomy_path={FROM_DATA}" * bool(ranked)
            raise InputError(
                f"{source.where}: none of {collected.num_read:,} rows has a tag of "
                f"{taxonomy.source} ({collected.num_unreadable:,} unreadable); the commonest tags "
                f"met are {list_tags(ranked)}; set taxonomy_path or aspect_column{made}"
            )
        self.collected = collected
        self.rows = _padded(
            collected.columns, collected.lengths, num_tags=taxonomy.num_tags, source=source.where
        )
        self.report = {
            **_counts(collected, num_kept=len(self.rows)),
            **describe_rows(collected.columns, collected.lengths, ranked, taxonomy),
        }
        if few:
            share = collected.num_known / num_tags_read
            self.report["hints"].append(
                f"{share:.0%} of the tags read are known to {taxonomy.source}; "
                f"--config.data.taxonomy_path={FROM_DATA} makes a taxonomy of the data"
            )


class _CountedTags:
    """Rows of a taxonomy that is made of them.

    Attributes:
        vocabulary: the taxonomy, and what was left out.
        rows: [N, K] columns of the taxonomy, padded with V.
        source_row: [N] positions in the source.
        splits: positions in `rows`.
        report: the report's part about the rows.
    """

    def __init__(
        self,
        source: Source,
        wanted: FromData,
        splitting: dict[str, Any],
        max_unreadable_fraction: float,
    ):
        spellings = Spellings()
        collected = CollectedRows(spellings.counting(source.blocks), spellings.number)
        collected.check_readable(source.where, max_unreadable_fraction)
        num_rows, num_raw = len(collected.lengths), len(spellings.tags)
        if not num_rows:
            raise InputError(
                f"{source.where}: none of {collected.num_read:,} rows has a tag "
                f"({collected.num_unreadable:,} unreadable); set aspect_column"
            )
        raw = np.zeros((num_rows, 1), np.uint8)  # rows split one by one need no tags
        if splitting["split_by"] == "set":
            raw = _padded(
                collected.columns, collected.lengths, num_tags=num_raw, source=source.where
            )
        splits = _split(raw, collected.split, splitting)
        row_of = np.repeat(np.arange(num_rows), collected.lengths)
        is_train = np.zeros(num_rows, bool)
        is_train[splits["train"]] = True
        self.vocabulary = vocabulary = make_vocabulary(
            wanted,
            tags=spellings.tags,
            spellings=spellings.commonest(),
            concepts=spellings.concepts(),
            num_rows=tag_counts(collected.columns[is_train[row_of]], num_raw),
            source=source.where,
        )
        taxonomy = vocabulary.taxonomy
        column = vocabulary.column_of[collected.columns]
        is_kept = column >= 0
        cells = np.sort(row_of[is_kept] * taxonomy.num_tags + column[is_kept])
        row_of, columns = np.divmod(cells, taxonomy.num_tags)
        lengths = np.bincount(row_of, minlength=num_rows)
        stays = lengths > 0
        lengths = lengths[stays]
        new_position = np.cumsum(stays) - 1
        self.splits = {
            name: new_position[positions[stays[positions]]] for name, positions in splits.items()
        }
        if empty := [name for name in SPLITS if not len(self.splits[name])]:
            raise InputError(
                f"{source.where}: no row of {' and '.join(empty)} has a tag with "
                f"{wanted.min_tag_rows} training rows; lower --config.data.min_tag_rows, or give "
                f"more rows"
            )
        self.rows = _padded(columns, lengths, num_tags=taxonomy.num_tags, source=source.where)
        self.source_row = collected.source_row[stays]
        self.report = {
            **_counts(collected, num_kept=len(self.rows)),
            **describe_rows(columns, lengths, [], taxonomy),
            "taxonomy_from_data": _describe_vocabulary(
                vocabulary,
                wanted.min_tag_rows,
                {name: int((~stays[positions]).sum()) for name, positions in splits.items()},
            ),
        }


def _describe_vocabulary(
    vocabulary: Vocabulary, min_tag_rows: int, left: dict[str, int]
) -> dict[str, Any]:
    concepts = vocabulary.taxonomy.concepts
    return {
        "min_tag_rows": min_tag_rows,
        "concepts": {name: len(columns) for name, columns in concepts},
        "num_left_out": len(vocabulary.left_out),
        "left_out": [
            {"tag": tag[:MAX_QUOTED], "training_rows": count}
            for tag, count in vocabulary.left_out[:SHOWN]
        ],
        "rows_left_without_tag": left,
    }


def _counts(collected: CollectedRows, *, num_kept: int) -> dict[str, Any]:
    """Returns the report's part about the rows read; its hints may be added to."""
    hints = []
    if num_kept > 1 and collected.most_tags == 1:
        hints.append(
            "every row has one tag: if the file has a row for each tag of an item, say which "
            "column names the item, --config.data.group_by=COLUMN"
        )
    return {
        "rows_read": collected.num_read,
        "rows_kept": num_kept,
        "rows_without_known_tag": collected.num_read - num_kept - collected.num_unreadable,
        "rows_unreadable": collected.num_unreadable,
        "missing_tags": collected.num_gaps,
        "unreadable": collected.unreadable,
        "hints": hints,
    }


def _padded(columns: np.ndarray, lengths: np.ndarray, *, num_tags: int, source: str) -> np.ndarray:
    """Lays rows out as [N, K], after a check that they fit in memory."""
    dtype = np.min_scalar_type(num_tags)
    longest = int(lengths.max())
    if len(lengths) * longest * dtype.itemsize > max(MAX_ROWS_BYTES, 4 * columns.nbytes):
        raise InputError(
            f"{source}: {len(lengths):,} rows padded to the longest, {longest:,} tags, exceed "
            f"{MAX_ROWS_BYTES >> 30} GiB; leave out the rows with the most tags"
        )
    return encoding.pad_ragged(columns, lengths, fill=num_tags, dtype=dtype)
