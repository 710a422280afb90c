"""The JSON file beside a table of tag sets, which says how they were drawn."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import __version__
from jaxvae.data.splits import SPLITS
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.inference.generation.order import SetSource
from jaxvae.models.trained import TrainedModel, parameters_digest


def record_path(output: Path) -> Path:
    """Returns the path of the JSON file beside a table: `tags.csv.json` for `tags.csv`."""
    return output.with_name(output.name + ".json")


def make_order(network: TrainedModel, taxonomy: Taxonomy, options: dict[str, Any]) -> dict:
    """Returns all that a table's contents depend on, JSON-able.

    Args:
      network: the model.
      taxonomy: the tags of its columns.
      options: what was asked for, by name.
    """
    asked = json.loads(json.dumps(options, default=_plain))
    return {
        "jaxvae_version": __version__,
        "parameters": parameters_digest(to_state_dict(network)),
        "taxonomy_digest": taxonomy.digest,
        **asked,
    }


def _plain(value: Any) -> Any:
    """Returns a value of NumPy's, or a path, as JSON has it."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


def make_record(
    generation: SetSource,
    counts: Counter[str],
    facts: dict[str, Any],
    contents: Mapping[str, Any],
) -> dict:
    """Returns what is said of a table, once its sets are drawn.

    Args:
      generation: the sets, all of them drawn.
      counts: numbers of tags and of sets of each split.
      facts: what else is said, such as the command.
      contents: what `make_order` returned.
    """
    order, tally = generation.order, generation.tally
    sets = sum(counts[name] for name in SPLITS)
    return {
        "jaxvae_version": contents["jaxvae_version"],
        **facts,
        "parameters": contents["parameters"],
        "taxonomy_digest": contents["taxonomy_digest"],
        "seed": order.seed,
        "temperature": generation.temperature,
        "constraints": generation.constraints.describe(),
        "balance": None,
        **generation.describe(),
        "log_probability": generation.log_probability,
        "probability": math.exp(generation.log_probability),
        "sets": sets,
        "sets_are": generation.sets_are,
        "distinct": order.distinct,
        "unseen": int(order.unseen),
        "draws": tally.draws,
        "effective_draws": tally.effective_draws,
        "repeats": tally.repeats,
        "near_training": tally.near_training,
        "tags_per_set": counts["tags"] / sets,
        "splits": dict(zip(SPLITS, order.splits, strict=True)),
        "sets_in_split": {name: counts[name] for name in SPLITS},
    }
