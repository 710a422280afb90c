"""Compares two files of tag sets, without a model: the figures that `evaluate` has of samples."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.encoding import TagBlock
from jaxvae.data.layouts.options import DEFAULT_COLUMN, FileFields
from jaxvae.data.row_collector import CollectedRows
from jaxvae.data.sources import open_file
from jaxvae.data.spelling import normalize
from jaxvae.data.splits import subsample
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import ALL
from jaxvae.errors import InputError
from jaxvae.evaluation.sets import sample_quality
from jaxvae.evaluation.sets.intervals import bootstrap_intervals
from jaxvae.inference.run import Run

_SETS = 10_000
_ROWS = 100_000
_LEAST = 1000
_MOST_VALUES = 2**26
_COMMON = 20_000
_NAMED = 10


class TagFile(NamedTuple):
    """A file of tag sets.

    Attributes:
      path: the file.
      column: its column of tags; None finds it as training does.
      option: the option that names the column, for messages.
    """

    path: Path
    column: str | None = None
    option: str = "--column"


class _Read(NamedTuple):
    """Sets that were read: boolean `[N, V]`, and counts of what is not among them."""

    sets: np.ndarray
    counts: dict[str, int]


def evaluate_set_files(
    file: TagFile,
    against: TagFile,
    *,
    taxonomy: Taxonomy | None = None,
    train: TagFile | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares a file of tag sets with another.

    At most 10,000 sets of the file, and 100,000 rows of each other file, are taken, always the same
    ones; of a wide vocabulary fewer.

    Args:
      file: the sets to judge.
      against: the rows that they should be like.
      taxonomy: the known tags; None takes all tags of the files, as one concept.
      train: the rows that a model has seen, from which novelty is measured; None takes `against`.
      seed: seed of the two-sample tests and of the independent tags.

    Returns:
      Values by name: those of `sample_quality` under `sets/`, under `independent/` for as many sets
      with the rows' tag rates and nothing else, and with `train` under `train_rows/` for rows of
      it drawn with replacement; `files` has each file's counts.

    Raises:
      InputError: a file can't be read, or has no known tag.
    """
    files = {"sets": file, "rows": against} | ({"train": train} if train is not None else {})
    all_tags = taxonomy or _all_tags(files.values())
    limit = _MOST_VALUES // all_tags.num_tags
    limits = {"sets": min(_SETS, limit)}
    read = {
        name: _read(
            entry, all_tags, taxonomy, most=max(_LEAST, limits.get(name, min(_ROWS, limit)))
        )
        for name, entry in files.items()
    }
    sets, rows = read["sets"].sets, read["rows"].sets
    train_sets = read["train"].sets if train is not None else None
    return {
        "seed": seed,
        "tags": all_tags.num_tags,
        "files": {
            name: {"path": str(files[name].path), **entry.counts} for name, entry in read.items()
        },
        **compare_with_rows(sets, rows, train_sets, taxonomy=all_tags, seed=seed),
    }


def compare_with_rows(
    sets: np.ndarray,
    rows: np.ndarray,
    train: np.ndarray | None,
    *,
    taxonomy: Taxonomy,
    seed: int = 0,
) -> dict[str, Any]:
    """Compares sets with rows, all boolean `[any, V]`: see `evaluate_set_files`.

    `equal_to_rows_fraction` is the share of sets that equal one of the rows. `sets/intervals` has
    95 % intervals of some values of the sets, `sets/worst_tags` the tags whose
    shares of the sets and of the rows differ most.
    """
    rng = np.random.default_rng(seed)
    sides = {"sets": sets}
    if train is not None:
        sides["train_rows"] = train[rng.integers(len(train), size=len(sets))]
    sides["independent"] = _independent(rows.mean(axis=0), len(sets), rng)
    train_or_rows = rows if train is None else train
    compared = sample_quality.compare_sets(
        sides, rows, train_or_rows, tags=taxonomy.spellings, concepts=taxonomy.concepts, seed=seed
    )
    for side, some in sides.items():
        among = sample_quality.are_among(some, rows)
        compared[side]["equal_to_rows_fraction"] = float(among.mean())
    compared["sets"]["worst_tags"] = _worst_tags(sets, rows, taxonomy)
    compared["sets"]["intervals"] = bootstrap_intervals(sets, rows, train_or_rows, seed=seed)
    return {
        f"{side}/{name}": value
        for side, measures in compared.items()
        for name, value in measures.items()
    }


def judge_of(run: Run, *, seed: int = 0) -> Callable[[np.ndarray], dict[str, Any]]:
    """Returns a function that compares sets of a run's model with its held-out rows.

    The rows are those of test, or of validation where there is no test split.

    Raises:
      InputError: the run has no rows.
    """
    split = "test" if len(run.rows("test")) else "val"
    few = run.with_rows_at_most(train=_ROWS, others=_ROWS)
    rows, train = few.sets(split), few.sets("train")

    def judge(sets: np.ndarray) -> dict[str, Any]:
        compared = compare_with_rows(sets, rows, train, taxonomy=run.taxonomy, seed=seed)
        return {"split": split, "rows": len(rows), "compared": len(sets), **compared}

    return judge


def _worst_tags(sets: np.ndarray, rows: np.ndarray, taxonomy: Taxonomy) -> list[dict[str, Any]]:
    rates = [side.mean(axis=0) for side in (sets, rows)]
    worst = np.argsort(-np.abs(rates[0] - rates[1]), kind="stable")[:_NAMED]
    return [
        {"tag": tag, "rate_samples": float(rates[0][v]), "rate_data": float(rates[1][v])}
        for v, tag in zip(worst, taxonomy.names(worst), strict=True)
    ]


def _independent(rates: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Draws sets `[num, V]` of independent tags; an empty one is drawn once more."""
    sets = rng.random((num, len(rates))) < rates
    empty = ~sets.any(axis=1)
    sets[empty] = rng.random((int(empty.sum()), len(rates))) < rates
    return sets


def _blocks(file: TagFile, taxonomy: Taxonomy | None) -> Iterator[TagBlock]:
    table = FileFields(aspect_column=file.column or DEFAULT_COLUMN, option=file.option)
    return open_file(file.path, table, taxonomy).blocks


def _all_tags(files) -> Taxonomy:
    """Returns a taxonomy of all tags of some files."""
    spellings: dict[str, str] = {}
    for file in files:
        for block in _blocks(file, None):
            for word in block.words:
                spellings.setdefault(normalize(word), word)
    tags = [spellings[name] for name in sorted(spellings) if name]
    if not tags:
        raise InputError(f"{file.path}: no tag in it")
    if len(tags) > _COMMON:
        raise InputError(
            f"the files have {len(tags):,} tags, too many to compare; name those that count by "
            f"--taxonomy"
        )
    return Taxonomy.from_mapping({ALL: tags}, source="the files' own tags")


def _read(file: TagFile, known: Taxonomy, given: Taxonomy | None, *, most: int) -> _Read:
    """Reads a file's sets of known tags, at most so many, drawn with a fixed seed."""
    blocks = _blocks(file, given)
    collected = CollectedRows(blocks, encoding.make_tag_lookup(known), num_tags=known.num_tags)
    collected.check_readable(str(file.path), 1.0)
    num_rows, num_tagged = collected.num_read, len(collected.lengths)
    if not num_tagged:
        raise InputError(
            f"{file.path}: none of its {num_rows:,} rows has a tag of {known.source}; name the "
            f"column of tags by {file.option}, or another --taxonomy"
        )
    rows = encoding.pad_ragged(
        collected.columns, collected.lengths, fill=known.num_tags, dtype=np.int32
    )
    positions = subsample(num_tagged, most)
    counts = {
        "rows": num_rows,
        "without_known_tag": num_rows - num_tagged - collected.num_unreadable,
        "unreadable": collected.num_unreadable,
        "unknown_tags": collected.unknown.total(),
        "compared": len(positions),
    }
    return _Read(encoding.to_multi_hot(rows[positions], known.num_tags), counts)
