"""Rate against distortion over a range of weights of the KL, trained in one program.

Takes config objects. After Alemi et al. (2018), "Fixing a broken ELBO".
"""

import math
import re
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from jaxvae.errors import InputError
from jaxvae.evaluation.spread import spread
from jaxvae.runtime import signals
from jaxvae.sweeps.member_loop import Member, MemberCallbacks
from jaxvae.sweeps.trials import TrialRunner, validation_measures

PURPOSES = {
    "likelihood": "the lowest val/nll_iw",
    "reconstruction": "the lowest distortion within 1 nat of the lowest val/nll_iw",
    "compact": "the lowest rate of at least 1 nat whose val/nll_iw is within 1 nat of the lowest",
}
"""Purposes for which a weight is recommended, and the criterion of each."""
_WITHIN = 1.0
_MOST = 1000


def parse_weight_grid(text: str) -> list[float]:
    """Parses weights such as `0.1:10:16log`, `0.5:2:4` or `0.5,1,4`; returns them rising.

    Raises:
      InputError: the text has none of these forms, or a weight is not above 0.
    """
    how = "write LOW:HIGH:NUMBER, LOW:HIGH:NUMBERlog or a list such as 0.5,1,4"
    match = re.fullmatch(r"([^:,]+):([^:,]+):(\d+)(log)?", text.strip())
    try:
        if match is None:
            weights = [float(word) for word in text.split(",")]
        else:
            low, high, num = float(match[1]), float(match[2]), int(match[3])
            if not 2 <= num <= _MOST or not low < high:
                raise InputError(
                    f"--kld_weights={text}: needs LOW below HIGH and 2 to {_MOST:,} weights; {how}"
                )
            fractions = [index / (num - 1) for index in range(num)]
            if match[4] and low > 0:
                weights = [low * (high / low) ** fraction for fraction in fractions]
            else:
                weights = [low + (high - low) * fraction for fraction in fractions]
            weights[-1] = high
    except ValueError as error:
        raise InputError(f"--kld_weights={text}: {how}") from error
    if not all(weight > 0 and math.isfinite(weight) for weight in weights):
        raise InputError(f"--kld_weights={text}: every weight must be above 0 and finite; {how}")
    return sorted({float(f"{weight:.6g}") for weight in weights})


def train_rate_distortion(
    trials: TrialRunner,
    config: ConfigDict,
    *,
    weights: list[float],
    num_seeds: int,
    requests: signals.StopRequest,
    ended: Callable[[float, int, Member], None],
) -> list[dict[str, Any]]:
    """Trains every weight with every seed and measures the validation split.

    Args:
      trials: trains the runs.
      config: the config of all runs, but for weight and seed.
      weights: values of `loss.kld_weight`.
      num_seeds: runs of each weight.
      requests: signals that ask the training to stop.
      ended: called with the weight, the seed and the member of each run that ended.

    Returns:
      For each weight `{"kld_weight", "seeds", name: {"mean", "sd"}}` with the names of
      `trials.validation_measures`; weights none of whose runs stayed finite are left out.
    """
    waiting = []
    for weight in weights:
        for seed in range(config.seed, config.seed + num_seeds):
            run_config = config.copy_and_resolve_references()
            run_config.loss.kld_weight, run_config.seed = weight, seed
            waiting.append(trials.member((weight, seed), run_config))
    measures: dict[float, list[dict[str, float]]] = {weight: [] for weight in weights}

    def end(member: Member, trees: dict[str, Any]) -> None:
        weight, seed = member.name
        if not member.failed:
            measures[weight].append(validation_measures(member, trials.likelihood(member, trees)))
        ended(weight, seed, member)

    trials.train(
        lambda: waiting.pop(0) if waiting else None,
        MemberCallbacks(lambda member: None, end),
        requests,
    )
    return [
        {
            "kld_weight": weight,
            "seeds": len(values),
            **{name: spread([measured[name] for measured in values]) for name in values[0]},
        }
        for weight, values in measures.items()
        if values
    ]


def recommend(points: list[dict[str, Any]]) -> dict[str, float | None]:
    """Returns the weight for each of `PURPOSES`, or None if no weight meets the criterion."""

    def mean(point: dict[str, Any], name: str) -> float:
        return point[f"val/{name}"]["mean"]

    if not points:
        return dict.fromkeys(PURPOSES)
    lowest = min(mean(point, "nll_iw") for point in points)
    near = [point for point in points if mean(point, "nll_iw") <= lowest + _WITHIN]
    informative = [point for point in near if mean(point, "rate") >= 1.0]
    best = {
        "likelihood": min(points, key=lambda point: mean(point, "nll_iw")),
        "reconstruction": min(near, key=lambda point: mean(point, "distortion")),
        "compact": min(informative, key=lambda point: mean(point, "rate"), default=None),
    }
    return {purpose: point["kld_weight"] if point else None for purpose, point in best.items()}
