"""Turns a source's rows into rows of a taxonomy, given or made of them, and splits them."""

from typing import Any, NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.encoding import make_tag_lookup, tag_counts
from jaxvae.data.row_collector import CollectedRows, Spellings
from jaxvae.data.sources import Source
from jaxvae.data.spelling import MAX_QUOTED
from jaxvae.data.splits import SPLITS, complete_splits, split_rows
from jaxvae.data.summary import SHOWN, describe_rows, list_tags, rank_unknown
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import FROM_DATA, FromData, Vocabulary, make_vocabulary
from jaxvae.errors import InputError

MAX_ROWS_BYTES = 2**33
_FEW_KNOWN, _NEARLY_ALL = 0.5, 0.9


class Splitting(NamedTuple):
    """How rows are split; see `splits.split_rows`."""

    val_fraction: float
    test_fraction: float
    split_by: str
    seed: int

    def apply(self, rows: np.ndarray, split: np.ndarray | None) -> dict[str, np.ndarray]:
        """Returns the positions of each split.

        Args:
            rows: [N, K] numbers of tags.
            split: [N] positions in `SPLITS` that the source gives, or None.
        """
        if split is None:
            return split_rows(rows, **self._asdict())
        return complete_splits(split, rows, **self._asdict())


class TaggedRows(NamedTuple):
    """Rows of a taxonomy and their splits.

    Attributes:
        rows: [N, K] rising column numbers padded with V.
        source_row: [N] positions in the source.
        splits: positions in `rows`.
        report: the report's part about the rows.
        taxonomy: the V tags.
        vocabulary: the counts that the taxonomy was made of, or None.
    """

    rows: np.ndarray
    source_row: np.ndarray
    splits: dict[str, np.ndarray]
    report: dict
    taxonomy: Taxonomy
    vocabulary: Vocabulary | None = None


def collect_known_tags(
    source: Source, taxonomy: Taxonomy, *, splitting: Splitting, max_unreadable_fraction: float
) -> TaggedRows:
    """Reads the rows with a tag of a given taxonomy.

    Raises:
        InputError: too many rows are unreadable, none has a known tag, or a split would be empty.
    """
    collected = CollectedRows(source.blocks, make_tag_lookup(taxonomy), num_tags=taxonomy.num_tags)
    collected.check_readable(source.where, max_unreadable_fraction)
    ranked = rank_unknown(collected.unknown)
    if not len(collected.lengths):
        way = f", or let the data say: --config.data.taxonomy_path={FROM_DATA}" * bool(ranked)
        raise InputError(
            f"{source.where}: none of {collected.num_read:,} rows has a tag of "
            f"{taxonomy.source} ({collected.num_unreadable:,} unreadable); the commonest tags "
            f"met are {list_tags(ranked)}; set taxonomy_path or aspect_column{way}"
        )
    rows = _pad(
        collected.columns, collected.lengths, num_tags=taxonomy.num_tags, source=source.where
    )
    report = {
        **_count_rows(collected, num_kept=len(rows)),
        **describe_rows(collected.columns, collected.lengths, ranked, taxonomy),
    }
    known_share = collected.num_known / (collected.num_known + collected.unknown.total())
    if known_share < _FEW_KNOWN:
        report["hints"].append(
            f"{known_share:.0%} of the tags read are known to {taxonomy.source}; "
            f"--config.data.taxonomy_path={FROM_DATA} makes a taxonomy of the data"
        )
    splits = splitting.apply(rows, collected.split)
    return TaggedRows(rows, collected.source_row, splits, report, taxonomy)


def collect_counted_tags(
    source: Source, request: FromData, *, splitting: Splitting, max_unreadable_fraction: float
) -> TaggedRows:
    """Reads all rows with a tag, splits them, and keeps the tags with enough training rows.

    Rows that are left without a tag leave their split.

    Raises:
        InputError: too many rows are unreadable, no tag has enough rows, or a split would be empty.
    """
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
    if splitting.split_by == "set":
        raw = _pad(collected.columns, collected.lengths, num_tags=num_raw, source=source.where)
    splits = splitting.apply(raw, collected.split)
    row_of = np.repeat(np.arange(num_rows), collected.lengths)
    is_train = np.zeros(num_rows, bool)
    is_train[splits["train"]] = True
    vocabulary = make_vocabulary(
        request,
        tags=spellings.tags,
        spellings=spellings.commonest(),
        concepts=spellings.concepts(),
        num_rows=tag_counts(collected.columns[is_train[row_of]], num_raw),
        source=source.where,
    )
    column = vocabulary.column_of[collected.columns]
    is_known = column >= 0
    columns, lengths = encoding.distinct_columns(
        row_of[is_known],
        column[is_known],
        num_tags=vocabulary.taxonomy.num_tags,
        num_rows=num_rows,
    )
    stays = lengths > 0
    new_position = np.cumsum(stays) - 1
    new_splits = {
        name: new_position[positions[stays[positions]]] for name, positions in splits.items()
    }
    if empty := [name for name in SPLITS if not len(new_splits[name])]:
        raise InputError(
            f"{source.where}: no row of {' and '.join(empty)} has a tag with "
            f"{request.min_tag_rows} training rows; lower --config.data.min_tag_rows, or give more "
            f"rows"
        )
    taxonomy, lengths = vocabulary.taxonomy, lengths[stays]
    rows = _pad(columns, lengths, num_tags=taxonomy.num_tags, source=source.where)
    num_left = {name: int((~stays[positions]).sum()) for name, positions in splits.items()}
    report = {
        **_count_rows(collected, num_kept=len(rows)),
        **describe_rows(columns, lengths, [], taxonomy),
        "taxonomy_from_data": _describe_vocabulary(vocabulary, request.min_tag_rows, num_left),
    }
    source_row = collected.source_row[stays]
    return TaggedRows(rows, source_row, new_splits, report, taxonomy, vocabulary)


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


def _count_rows(collected: CollectedRows, *, num_kept: int) -> dict[str, Any]:
    """Returns the report's part about the rows read; its hints may be added to."""
    hints = []
    if collected.num_single >= _NEARLY_ALL * collected.num_tagged:
        hints.append(
            f"{collected.num_single:,} of {collected.num_tagged:,} rows have one tag: if the file "
            f"has a row for each tag of an item, say which column names the item, "
            f"--config.data.group_by=COLUMN"
        )
    if collected.num_rated:
        hints.append(
            f"{collected.num_rated:,} tags came in an object with a number, which is not used: a "
            f"tag of count 0 is a tag; leave those out of the file that are none"
        )
    return {
        "rows_read": collected.num_read,
        "rows_kept": num_kept,
        "rows_without_known_tag": collected.num_read - num_kept - collected.num_unreadable,
        "rows_unreadable": collected.num_unreadable,
        "missing_tags": collected.num_gaps,
        "tags_below_min_weight": collected.num_light,
        "unreadable": collected.unreadable,
        "hints": hints,
    }


def _pad(columns: np.ndarray, lengths: np.ndarray, *, num_tags: int, source: str) -> np.ndarray:
    """Lays rows out as [N, K], after a check that they fit in memory."""
    dtype = np.min_scalar_type(num_tags)
    longest = int(lengths.max())
    if len(lengths) * longest * dtype.itemsize > max(MAX_ROWS_BYTES, 4 * columns.nbytes):
        raise InputError(
            f"{source}: {len(lengths):,} rows padded to the longest, {longest:,} tags, exceed "
            f"{MAX_ROWS_BYTES >> 30} GiB; leave out the rows with the most tags"
        )
    return encoding.pad_ragged(columns, lengths, fill=num_tags, dtype=dtype)
