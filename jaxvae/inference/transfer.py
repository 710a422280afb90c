"""Takes a trained model's parameters over to another taxonomy, to go on training there."""

from typing import Any, NamedTuple

import numpy as np

from jaxvae.config.schema import follows_data
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export.hub_files import sizes
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.inference.run import Run
from jaxvae.models.trained import parameters_digest

NEW = -1
_TAG_AXES = {
    ("fc1", "kernel"): 0,
    ("fc4", "kernel"): 1,
    ("fc4", "bias"): 0,
    ("prior", "pseudo_inputs"): 1,
}
"""Axes of the arrays that have one entry for each tag."""


class Start(NamedTuple):
    """A trained model to start from, and its columns' places in a new taxonomy.

    Attributes:
      run: the trained model.
      source_column: `[V]`, the model's column of each tag of the new taxonomy, `NEW` without one.
      record: what the new run's folder keeps of it, JSON-able.
    """

    run: Run
    source_column: np.ndarray
    record: dict[str, Any]

    def describe(self) -> str:
        """Returns a line for people."""
        tags = self.record["tags"]
        dropped = f", {len(tags['dropped'])} of its own dropped" if tags["dropped"] else ""
        return (
            f"Starting from {self.record['source']} (parameters {self.record['parameters'][:12]}): "
            f"{tags['shared']} tags shared, {len(tags['new'])} new{dropped}"
        )


def match_tags(run: Run, taxonomy: Taxonomy, *, source: str) -> Start:
    """Matches a trained model's tags with those of another taxonomy, by their normalised names.

    Args:
      run: the trained model.
      taxonomy: the new taxonomy.
      source: the model's path or address, as it was typed.

    Raises:
      InputError: the two have no tag in common.
    """
    old = run.taxonomy
    columns = [old.column(tag) if old.knows(tag) else NEW for tag in taxonomy.tags]
    source_column = np.array(columns, np.int64)
    is_new = source_column == NEW
    if is_new.all():
        raise InputError(
            f"--config.init_from={source}: none of its {old.num_tags} tags is in "
            f"{taxonomy.source}; leave it out, or give a model of such tags"
        )
    dropped = sorted({*range(old.num_tags)} - {*columns})
    record = {
        "source": source,
        "parameters": parameters_digest(to_state_dict(run.network)),
        "taxonomy_digest": old.digest,
        "checkpoint": run.facts.get("checkpoint"),
        "epoch": run.facts.get("epoch"),
        "tags": {
            "shared": int((~is_new).sum()),
            "new": taxonomy.names(np.flatnonzero(is_new)),
            "dropped": old.names(dropped),
        },
    }
    return Start(run, source_column, record)


def check_sizes(start: Start, model: dict[str, Any]) -> None:
    """Raises InputError unless a config's `model` has the sizes and the prior of the start."""
    expected = dict(model)
    if dims := list(expected["hidden_dims"]):  # one width may be written in two ways
        expected["hidden_dim"], expected["hidden_dims"] = dims[0], dims if len(dims) > 1 else []
    trained = sizes(start.run.network)
    wrong = [
        f"model.{name} is {value} there, {expected[name]} here"
        for name, value in trained.items()
        if (list(expected[name]) if isinstance(value, list) else expected[name]) != value
        and not follows_data(f"model.{name}", expected[name])
    ]
    if wrong:
        raise InputError(
            f"--config.init_from={start.record['source']}: {'; '.join(wrong)}; set them as they "
            f"are there, or leave init_from out"
        )


def transfer_params(
    start: Start, params: dict, *, log_odds: np.ndarray, rates: np.ndarray
) -> tuple[dict, dict]:
    """Returns a model's parameters for the new taxonomy.

    Tags that both have keep their weights. A new tag has no weights yet: the encoder does not see
    it, so that the other tags' predictions are unchanged, and its logit is its log-odds. Its values
    in the VampPrior's pseudo-inputs are its rate.

    Args:
      start: the trained model.
      params: freshly initialised parameters of the new model, for their names.
      log_odds: `[V]`, of each tag in the new training rows.
      rates: `[V]`, share of the new training rows that have each tag.

    Returns:
      (params, batch_stats), nested dictionaries of float32 arrays.

    Raises:
      InputError: the new model has an array that the trained one lacks, or tied layers where those
        of the trained one differ.
    """
    source = start.run.network.params
    if "kernel" not in params["fc4"] and not np.array_equal(
        source["fc4"]["kernel"], np.transpose(source["fc1"]["kernel"])
    ):
        raise InputError(
            f"--config.init_from={start.record['source']}: its first and last layer differ, which "
            f"--config.model.tied_weights=True can't have; leave one of the two out"
        )
    of_new = {("fc4", "bias"): log_odds, ("prior", "pseudo_inputs"): rates}

    def fitted(layer: str, name: str) -> np.ndarray:
        array = np.asarray(source[layer][name])
        axis = _TAG_AXES.get((layer, name))
        if axis is None:
            return array
        values = of_new.get((layer, name), np.zeros(len(log_odds)))
        gathered = np.moveaxis(np.take(array, start.source_column, axis=axis), axis, -1)
        of_tag = np.where(start.source_column == NEW, values, gathered)
        return np.ascontiguousarray(np.moveaxis(of_tag, -1, axis), np.float32)

    result: dict[str, dict[str, np.ndarray]] = {}
    for layer, arrays in params.items():
        for name, like in arrays.items():
            array = fitted(layer, name) if name in source.get(layer, {}) else None
            if array is None or array.shape != like.shape:
                raise InputError(
                    f"--config.init_from={start.record['source']}: it has no {layer}.{name} of "
                    f"shape {list(like.shape)}; leave it out, or take its architecture"
                )
            result.setdefault(layer, {})[name] = array
    return result, start.run.network.batch_stats
