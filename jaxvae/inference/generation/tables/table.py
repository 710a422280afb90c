"""Writes drawn tag sets as a table, with a JSON file beside it that says how they were drawn."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae.data import encoding
from jaxvae.inference.arguments import check_count
from jaxvae.inference.generation.order import LabelledSets, SetSource
from jaxvae.inference.generation.splits import identify
from jaxvae.inference.generation.tables.parts import open_parts
from jaxvae.inference.generation.tables.prompts import Prompts, by_concept
from jaxvae.inference.generation.tables.record import make_record, record_path
from jaxvae.inference.likelihood import row_likelihood
from jaxvae.storage.atomic_files import atomic_write, to_json
from jaxvae.storage.row_tables import Fields

CHUNK = 4096
"""Sets of a chunk, an even multiple of the rows that `likelihood.row_likelihood` takes at once."""
PART = 8
"""Chunks of a part, which is what a killed process loses at most."""
_PAIR_DRAWS = 100
_JUDGED = 10_000
Judge = Callable[[np.ndarray], dict[str, Any]]
"""Returns figures of boolean sets `[n, V]`."""


class TableOptions(NamedTuple):
    """Columns of a table that are a matter of choice.

    Attributes:
      num_importance_samples: draws for each set's log-likelihood; None leaves the column out.
      prompts: texts of the sets; None leaves the column out.
      facts: what else the record says, by name; the `command` at least, or None.
      order: all that the table's contents depend on, from `make_order`.
      resume: whether to go on with the parts of the same order.
      judge: returns figures of some of the sets, for the record.
    """

    num_importance_samples: int | None
    prompts: Prompts | None
    facts: Mapping[str, Any]
    order: Mapping[str, Any]
    resume: bool
    judge: Judge | None


def write_sets(generation: SetSource, output: Path, options: TableOptions) -> dict:
    """Draws sets and writes them: see `Run.generate_file`.

    Args:
      generation: the sets to draw.
      output: the table; `record_path` of it is written too, and both appear once complete.
      options: the table's columns.

    Returns:
      The record, which is in the JSON file.
    """
    if options.num_importance_samples is None and "pair" in generation.fields:
        options = options._replace(num_importance_samples=_PAIR_DRAWS)
    if options.num_importance_samples is not None:
        check_count("num_importance_samples", options.num_importance_samples)
    sample = _Sample(generation.constraints.taxonomy.num_tags, generation.order.seed)

    def rows_of(chunk: LabelledSets, first_row: int, counts: Counter[str]) -> Iterator[list]:
        return _table_rows(generation, chunk, options, counts, first_row=first_row)

    fields, counts = _fields(generation, options), Counter[str]()
    command, order = options.facts.get("command"), {**options.order, "sets_of_a_part": PART * CHUNK}
    with open_parts(output, fields, order, command=command, resume=options.resume) as parts:
        chunks = _chunks(generation.labelled())
        if options.judge is not None:
            chunks = map(sample.add, chunks)
        for first in chunks:
            counts += parts.add(
                itertools.chain([first], itertools.islice(chunks, PART - 1)), rows_of
            )
        facts = {
            **options.facts,
            "command": parts.command,
            **({"resumed_by": command} if command != parts.command else {}),
            "columns": fields,
            "num_importance_samples": options.num_importance_samples,
            "template": options.prompts and options.prompts.source,
        }
        record = make_record(generation, counts, facts, options.order)
        if options.judge is not None:
            record["figures"] = options.judge(sample.sets)
        with atomic_write(record_path(output)) as file:

            def write_record(table_digest: str) -> None:
                record["table_sha256"] = table_digest
                file.write(to_json(record).encode() + b"\n")
                file.flush()

            parts.join(write_record)
    return record


def _fields(generation: SetSource, options: TableOptions) -> Fields:
    """Returns the table's columns."""
    fields: Fields = {
        "id": "text",
        "tags": "texts",
        **{f"{concept}_tags": "texts" for concept, _ in generation.constraints.taxonomy.concepts},
        "temperature": "number",
        "split": "text",
        **generation.fields,
    }
    if options.num_importance_samples is not None:
        fields["log_likelihood"] = "number"
    if "pair" in generation.fields:
        fields["log_likelihood_difference"] = "number"
    if options.prompts is not None:
        fields["text"] = "text"
    return fields


def _table_rows(
    generation: SetSource,
    chunk: LabelledSets,
    options: TableOptions,
    counts: Counter[str],
    *,
    first_row: int,
) -> Iterator[list]:
    """Yields the rows of a chunk of sets, and adds to the counts of tags and splits."""
    taxonomy, shares = generation.constraints.taxonomy, generation.order.splits
    columns = [np.flatnonzero(row).tolist() for row in chunk.sets]
    extra: list[list[float]] = [[] for _ in columns]
    if options.num_importance_samples is not None:
        estimates = row_likelihood(
            generation.network,
            encoding.pad_tag_ids(columns, taxonomy.num_tags),
            num_importance_samples=options.num_importance_samples,
            seed=generation.order.seed,
            first_row=first_row,
        )
        values = [estimates.log_likelihood]
        if "pair" in generation.fields:
            values.append(np.repeat(values[0][::2] - values[0][1::2], 2))
        extra = np.stack(values, axis=1).tolist()
    temperatures = chunk.labels["temperature"].tolist()
    is_own = (chunk.split_as == chunk.sets).all(axis=1)
    for row, present in enumerate(columns):
        identity, split = identify(taxonomy, present, shares)
        if not is_own[row]:
            split = identify(taxonomy, np.flatnonzero(chunk.split_as[row]), shares)[1]
        counts.update({"tags": len(present), split: 1})
        yield [
            identity,
            taxonomy.names(present),
            *by_concept(taxonomy, present).values(),
            temperatures[row],
            split,
            *(chunk.labels[name][row].item() for name in generation.fields),
            *extra[row],
            *([options.prompts.text_of(present)] if options.prompts else ()),
        ]


class _Sample:
    """At most 10,000 of the sets, all equally likely to be among them, in their order."""

    def __init__(self, num_tags: int, seed: int):
        self.sets = np.zeros((0, num_tags), bool)
        self._ranks = np.zeros(0)
        self._rng = np.random.default_rng(seed)

    def add(self, chunk: LabelledSets) -> LabelledSets:
        """Takes some sets of a chunk, and returns the chunk."""
        ranks = np.concatenate([self._ranks, self._rng.random(len(chunk.sets))])
        taken = np.sort(np.argsort(ranks)[:_JUDGED])
        self.sets = np.concatenate([self.sets, chunk.sets])[taken]
        self._ranks = ranks[taken]
        return chunk


def _chunks(blocks: Iterable[LabelledSets]) -> Iterator[LabelledSets]:
    """Regroups blocks of sets into chunks of `CHUNK`, the last one shorter."""
    waiting: LabelledSets | None = None
    for block in blocks:
        waiting = block if waiting is None else waiting.then(block)
        while len(waiting.sets) >= CHUNK:
            yield waiting.part(slice(CHUNK))
            waiting = waiting.part(slice(CHUNK, None))
    if waiting is not None and len(waiting.sets):
        yield waiting
