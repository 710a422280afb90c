"""Answers about every row of a file, written as a table row by row: completions, likelihoods.

Files are read and written in chunks, so that memory does not grow with the rows.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.layouts.options import TableFields
from jaxvae.data.sources import open_file
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import likelihood, pool
from jaxvae.inference.arguments import check_count, check_seed
from jaxvae.models.trained import TrainedModel
from jaxvae.storage.row_tables import Fields, open_table

CHUNK = 4096
"""Rows of a chunk, a multiple of the rows that `likelihood.row_likelihood` takes at once."""
COMPLETED = {
    "row": "count",
    "effective_draws": "number",
    "tags": "texts",
    "probabilities": "numbers",
}
LIKELIHOODS = {
    "row": "count",
    "known_tags": "count",
    "log_likelihood": "number",
    "log_likelihood_nonempty": "number",
    "standard_error": "number",
    "effective_draws": "number",
}
"""Columns of the written tables."""


class FileRows(NamedTuple):
    """Counts of a file's rows.

    Attributes:
      rows: number of rows, each of which has one in the written table.
      without_known_tag: number of readable rows without a known tag; nothing is said of them.
      unreadable: number of rows whose cell is not a set of tags; likewise.
      unknown_tags: number of tags not in the taxonomy, repeats counted; they are ignored.
      read_as: what was taken for tags.
    """

    rows: int
    without_known_tag: int
    unreadable: int
    unknown_tags: int
    read_as: str = ""


def complete_file(
    networks: Sequence[TrainedModel],
    taxonomy: Taxonomy,
    source: Path,
    output: Path,
    *,
    table: TableFields,
    top: int,
    draws: int | None,
    seed: int,
) -> FileRows:
    """Writes the likeliest other tags of every row: see `Run.complete_file`."""
    num_tags = taxonomy.num_tags
    check_seed(seed)
    check_count("top", top)
    if draws is None:
        draws = pool.default_draws(num_tags)
    else:
        pool.check_draws(draws, num_tags)
    shared = pool.draw_pool(networks, draws=draws, seed=seed)

    def answer(rows: np.ndarray) -> Iterator[list]:
        likeliest = pool.likeliest_tags(shared, rows, top=min(top, num_tags))
        for columns, p, effective in zip(*map(np.ndarray.tolist, likeliest), strict=True):
            missing = [value for value in p if value >= 0.0]
            yield [effective, taxonomy.names(columns[: len(missing)]), missing]

    return _write_answers(source, output, COMPLETED, answer, taxonomy=taxonomy, table=table)


def likelihood_file(
    networks: Sequence[TrainedModel],
    taxonomy: Taxonomy,
    source: Path,
    output: Path,
    *,
    table: TableFields,
    num_importance_samples: int,
    seed: int,
) -> FileRows:
    """Writes the log-likelihood of every row: see `Run.likelihood_file`."""
    check_seed(seed)
    check_count("num_importance_samples", draws := num_importance_samples)
    empty = [likelihood.log_prob_empty(network, seed=seed) for network in networks]
    log_rest = math.log1p(-np.exp(empty).mean())
    first = 0

    def answer(rows: np.ndarray) -> Iterator[list]:
        nonlocal first
        members = [
            likelihood.row_likelihood(
                network, rows, num_importance_samples=draws, seed=seed, first_row=first
            )
            for network in networks
        ]
        first += len(rows)
        log_p, variance, effective = likelihood.mix(members, draws)
        known_tags = (rows < taxonomy.num_tags).sum(axis=1)
        columns = (known_tags, log_p, log_p - log_rest, np.sqrt(variance), effective)
        yield from map(list, zip(*map(np.ndarray.tolist, columns), strict=True))

    return _write_answers(source, output, LIKELIHOODS, answer, taxonomy=taxonomy, table=table)


def _write_answers(
    source: Path,
    output: Path,
    fields: Fields,
    answer: Callable[[np.ndarray], Iterable[list]],
    *,
    taxonomy: Taxonomy,
    table: TableFields,
) -> FileRows:
    """Writes a table with a row for each of a file's, whose number comes first.

    Args:
      source: the file of tags.
      output: the table; it takes its name when it is complete.
      fields: the table's columns.
      answer: returns the other columns' values for each of some rows `[n, K]`.
      taxonomy: the known tags.
      table: how its tags are found.
    """
    counts = Counter[str]()
    opened = open_file(source, table, taxonomy)
    with open_table(output, fields) as write:
        for rows in _read_rows(opened.blocks, taxonomy, counts):
            has_tag = (rows < taxonomy.num_tags).any(axis=1).tolist()
            nothing = [None] * (len(fields) - 1)
            write(
                [number, *(values if has else nothing)]
                for number, (has, values) in enumerate(
                    zip(has_tag, answer(rows), strict=True), start=counts["rows"]
                )
            )
            counts.update(rows=len(rows), without_known_tag=has_tag.count(False))
        num_rows, without = counts["rows"], counts["without_known_tag"]
        if not num_rows:
            raise InputError(f"{source}: there are column names but no rows")
        if without == num_rows:
            raise InputError(
                f"{source}: none of its {num_rows:,} rows, read as {opened.read_as}, has a tag of "
                f"the run's taxonomy; name another column by --column"
            )
    unreadable = counts["unreadable"]
    return FileRows(
        rows=num_rows,
        without_known_tag=without - unreadable,
        unreadable=unreadable,
        unknown_tags=counts["unknown_tags"],
        read_as=opened.read_as,
    )


def _read_rows(
    blocks: Iterable[encoding.TagBlock], taxonomy: Taxonomy, counts: Counter[str]
) -> Iterator[np.ndarray]:
    """Yields chunks `[CHUNK, K]` of a file's rows, the last one shorter, padded with V.

    Adds the unreadable rows and the unknown tags to `counts`.
    """
    column_of = encoding.make_tag_lookup(taxonomy)
    num_tags = taxonomy.num_tags
    columns, lengths = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def padded(num: int) -> np.ndarray:
        size = int(lengths[:num].sum())
        return encoding.pad_ragged(columns[:size], lengths[:num], fill=num_tags, dtype=np.int32)

    for block in blocks:
        *more, unknown = encoding.encode_block(block, column_of, num_tags)
        counts.update(unreadable=len(block.unreadable), unknown_tags=unknown.total())
        columns, lengths = (
            np.concatenate(pair) for pair in zip((columns, lengths), more, strict=True)
        )
        while len(lengths) >= CHUNK:
            yield padded(CHUNK)
            columns, lengths = columns[lengths[:CHUNK].sum() :], lengths[CHUNK:]
    if len(lengths):
        yield padded(len(lengths))
