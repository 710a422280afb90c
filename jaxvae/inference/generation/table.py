"""Writes drawn tag sets as a table, with a JSON file beside it that says how they were drawn."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvae import __version__
from jaxvae.data import encoding
from jaxvae.data.splits import SPLITS
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.export.model_files import to_state_dict
from jaxvae.inference.arguments import check_count
from jaxvae.inference.generation.balance import BalancedGeneration
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.splits import identify
from jaxvae.inference.likelihood import row_likelihood
from jaxvae.models.trained import parameters_digest
from jaxvae.storage.atomic_files import atomic_write, to_json
from jaxvae.storage.row_tables import Fields, open_table

CHUNK = 4096
"""Sets of a chunk, a multiple of the rows that `likelihood.row_likelihood` takes at once."""


class TableOptions(NamedTuple):
    """Columns of a table that are a matter of choice.

    Attributes:
      num_importance_samples: draws for each set's log-likelihood; None leaves the column out.
      command: the command that asks for the table, for the record.
    """

    num_importance_samples: int | None = None
    command: str | None = None


def write_sets(
    generation: Generation | BalancedGeneration, output: Path, options: TableOptions
) -> dict:
    """Draws sets and writes them: see `Run.generate_file`.

    Args:
      generation: the sets to draw.
      output: the table; `record_path` of it is written too, and both appear once complete.
      options: the table's columns.

    Returns:
      The record, which is in the JSON file.
    """
    if options.num_importance_samples is not None:
        check_count("num_importance_samples", options.num_importance_samples)
    taxonomy = generation.constraints.taxonomy
    counts = Counter[str]()
    fields: Fields = {
        "id": "text",
        "tags": "texts",
        **{f"{concept}_tags": "texts" for concept, _ in taxonomy.concepts},
        "temperature": "number",
        "split": "text",
    }
    if options.num_importance_samples is not None:
        fields["log_likelihood"] = "number"
    with atomic_write(record_path(output)) as file:
        with open_table(output, fields) as write:
            first = 0
            for sets in _chunks(generation.blocks()):
                write(_table_rows(generation, sets, options, counts, first_row=first))
                first += len(sets)
        record = _record(generation, options, counts)
        file.write(to_json(record).encode() + b"\n")
    return record


def record_path(output: Path) -> Path:
    """Returns the path of the JSON file beside a table: `tags.csv.json` for `tags.csv`."""
    return output.with_name(output.name + ".json")


def _table_rows(
    generation: Generation | BalancedGeneration,
    sets: np.ndarray,
    options: TableOptions,
    counts: Counter[str],
    *,
    first_row: int,
) -> Iterator[list]:
    """Yields the rows of a chunk of sets, and adds to the counts of tags and splits."""
    taxonomy, temperature = generation.constraints.taxonomy, generation.order.temperature
    columns = [np.flatnonzero(row).tolist() for row in sets]
    extra: list[list[float]] = [[] for _ in columns]
    if options.num_importance_samples is not None:
        estimates = row_likelihood(
            generation.network,
            encoding.pad_tag_ids(columns, taxonomy.num_tags),
            num_importance_samples=options.num_importance_samples,
            seed=generation.order.seed,
            first_row=first_row,
        )
        extra = [[value] for value in estimates.log_likelihood.tolist()]
    for present, values in zip(columns, extra, strict=True):
        identity, split = identify(taxonomy, present, generation.order.splits)
        counts.update({"tags": len(present), split: 1})
        yield [
            identity,
            taxonomy.names(present),
            *_by_concept(taxonomy, present),
            float(temperature),
            split,
            *values,
        ]


def _by_concept(taxonomy: Taxonomy, present: list[int]) -> list[list[str]]:
    return [
        [taxonomy.spellings[v] for v in present if v in columns] for _, columns in taxonomy.concepts
    ]


def _record(
    generation: Generation | BalancedGeneration, options: TableOptions, counts: Counter[str]
) -> dict:
    order, tally = generation.order, generation.tally
    return {
        "jaxvae_version": __version__,
        "command": options.command,
        "parameters": parameters_digest(to_state_dict(generation.network)),
        "taxonomy_digest": generation.constraints.taxonomy.digest,
        "seed": order.seed,
        "temperature": order.temperature,
        "constraints": generation.constraints.describe(),
        "balance": generation.describe() or None,
        "log_probability": generation.log_probability,
        "probability": math.exp(generation.log_probability),
        "sets": tally.kept,
        "sets_are": "first occurrences among independent draws, in their order"
        if order.distinct
        else "independent draws",
        "distinct": order.distinct,
        "unseen": int(order.unseen),
        "draws": tally.draws,
        "effective_draws": tally.effective_draws,
        "repeats": tally.repeats,
        "near_training": tally.near_training,
        "tags_per_set": counts["tags"] / tally.kept,
        "splits": dict(zip(SPLITS, order.splits, strict=True)),
        "sets_in_split": {name: counts[name] for name in SPLITS},
        "num_importance_samples": options.num_importance_samples,
    }


def _chunks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Regroups blocks of sets into chunks of `CHUNK`, the last one shorter."""
    waiting: np.ndarray | None = None
    for block in blocks:
        waiting = block if waiting is None else np.concatenate([waiting, block])
        while len(waiting) >= CHUNK:
            yield waiting[:CHUNK]
            waiting = waiting[CHUNK:]
    if waiting is not None and len(waiting):
        yield waiting
