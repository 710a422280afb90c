"""Loads a data set: rows of column numbers from any source, their splits, and a data report.

Every dropped row is counted: rows read = kept + without a known tag + unreadable.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxvae.data.embedded_corpus import Corpus, build_corpus
from jaxvae.data.layouts.options import DEFAULT_COLUMN, TableFields
from jaxvae.data.readers.tables import Table
from jaxvae.data.sources import EMBEDDED, SourceFields, is_embedded, open_source
from jaxvae.data.splits import count_duplicates, group_rows, split_rows
from jaxvae.data.summary import format_report
from jaxvae.data.tagged_rows import Splitting, collect_counted_tags, collect_known_tags
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import FROM_DATA, FromData, Vocabulary

__all__ = [
    "Dataset",
    "fingerprint_rows",
    "format_report",
    "known_generator",
    "load_dataset",
    "load_from_config",
    "split_rows",
]


@dataclasses.dataclass(frozen=True)
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
        run_taxonomy = own_taxonomy if own_taxonomy is not None and own_taxonomy.is_file() else None
        taxonomy = FromData(
            data.min_tag_rows, Taxonomy.load(run_taxonomy) if run_taxonomy else None
        )
    else:
        taxonomy = Taxonomy.load(data.taxonomy_path or None)
    table = TableFields(**{name: data[name] for name in _names(TableFields)})
    source = {name: data[name] for name in _names(SourceFields) if name != "table"}
    if rows is not None:
        source["dataset_name"] = rows.table
    return _load(
        SourceFields(**source, table=table),
        taxonomy,
        Splitting(data.val_fraction, data.test_fraction, data.split_by, data.split_seed),
        data.max_unreadable_fraction,
    )


def _names(of: type) -> list[str]:
    return [field.name for field in dataclasses.fields(of)]


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
    splitting = Splitting(val_fraction, test_fraction, split_by, split_seed)
    return _load(fields, taxonomy, splitting, max_unreadable_fraction)


def _load(
    fields: SourceFields,
    taxonomy: Taxonomy | FromData,
    splitting: Splitting,
    max_unreadable_fraction: float,
) -> Dataset:
    limits: dict[str, Any] = {
        "splitting": splitting,
        "max_unreadable_fraction": max_unreadable_fraction,
    }
    if isinstance(taxonomy, Taxonomy):
        source = open_source(fields, taxonomy)
        tagged = collect_known_tags(source, taxonomy, **limits)
    else:
        source = open_source(fields, None)
        tagged = collect_counted_tags(source, taxonomy, **limits)
    groups = group_rows(tagged.rows)
    duplicates = count_duplicates(groups, tagged.splits)
    num_distinct = int(groups.max()) + 1
    fingerprint = fingerprint_rows(tagged.rows, tagged.taxonomy)
    report = {
        **tagged.report,
        "repeated_sets": {
            "distinct": num_distinct,
            "repeats": len(tagged.rows) - num_distinct,
            "val_rows_with_a_twin_in_train": duplicates["val"],
            "test_rows_with_a_twin_in_train": duplicates["test"],
        },
        "split_by": source.split_by or splitting.split_by,
        "split_sizes": {name: len(positions) for name, positions in tagged.splits.items()},
        "source": source.where,
        "read_as": source.read_as,
        "fingerprint": fingerprint,
    }
    return Dataset(
        rows=tagged.rows,
        source_row=tagged.source_row,
        splits=tagged.splits,
        report=report,
        fingerprint=fingerprint,
        source=source.where,
        taxonomy=tagged.taxonomy,
        vocabulary=tagged.vocabulary,
        generator=known_generator(fields.dataset_name, tagged.taxonomy),
    )


def known_generator(dataset_name: object, taxonomy: Taxonomy) -> Corpus | None:
    """Returns the corpus that drew a data set's rows; no model beats its likelihood on average.

    Args:
        dataset_name: as in `load_dataset`; only the embedded corpus has a known one.
        taxonomy: the meaning of the rows' columns; unless it is the corpus's own, None is returned.
    """
    corpus = build_corpus() if is_embedded(dataset_name) else None
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
