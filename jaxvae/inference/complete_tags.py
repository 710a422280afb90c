"""Completions of a partial set of tags, in tags."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import completion
from jaxvae.inference.arguments import check_count, check_seed
from jaxvae.models import trained


@dataclasses.dataclass(frozen=True)
class Completed:
    """Completions of a partial tag set.

    Attributes:
      sets: distinct consistent sets of tags, most probable first.
      probability: each set's probability, given the present and absent tags.
      tags: by concept, every other tag with its probability, highest first.
      log_evidence: log-probability of the given present and absent tags, nats.
      effective_draws: effective number of independent draws; distrust estimates under 100.
    """

    sets: list[list[str]]
    probability: list[float]
    tags: dict[str, list[tuple[str, float]]]
    log_evidence: float
    effective_draws: float


def complete_tags(
    networks: Sequence[trained.TrainedModel],
    taxonomy: Taxonomy,
    present: Iterable[str],
    absent: Iterable[str],
    *,
    num: int,
    seed: int,
    on_unknown: str,
) -> Completed:
    """Completes a partial set of tags, as in `Run.complete`; several networks form a mixture."""
    check_count("num", num)
    check_seed(seed)
    present_columns = taxonomy.columns(present, on_unknown)
    absent_columns = taxonomy.columns(absent, on_unknown)
    if common := sorted({*present_columns} & {*absent_columns}):
        raise InputError(
            f"both present and absent: {', '.join(map(quote_tag, taxonomy.names(common)))}"
        )
    if not present_columns and not absent_columns:
        raise InputError("nothing to complete: give a tag that is present or absent")
    if len(absent_columns) == taxonomy.num_tags:
        raise InputError("every tag is absent: no set is left")
    completed = completion.complete(networks, present_columns, absent_columns, num=num, seed=seed)
    free = {*range(taxonomy.num_tags)} - {*present_columns, *absent_columns}
    tags = {}
    for concept, columns in taxonomy.concepts:
        ranked = sorted(free & {*columns}, key=lambda v: -completed.marginals[v])
        tags[concept] = [(taxonomy.spellings[v], float(completed.marginals[v])) for v in ranked]
    return Completed(
        [taxonomy.names(np.flatnonzero(row)) for row in completed.sets],
        completed.probability.tolist(),
        tags,
        completed.log_evidence,
        completed.effective_draws,
    )
