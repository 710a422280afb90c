"""How a run fitted, in numbers: for what it is told to try next."""

from typing import Any

import numpy as np

from jaxvae.data.encoding import tag_counts
from jaxvae.inference.run import Run
from jaxvae.storage import epoch_metrics


def training_course(run: Run, split: str) -> dict[str, Any]:
    """Describes how a run fitted: the course of its losses, and how its rows stand to its tags.

    Losses are compared without their weights, so that a warm-up of the KL's weight does not show.
    `bounce` is what the validation loss went up, in the second half, only to come down again: nats
    a validation. `max_minutes` is 0 where training had no limit of time.
    """
    train, rows = run.rows("train"), run.rows(split)
    counts = tag_counts(train, run.network.num_tags)
    known = {row.tobytes() for row in train}
    values: dict[str, Any] = {
        "training/rows_of_median_tag": float(np.median(counts)),
        "training/repeated_fraction": float(np.mean([row.tobytes() in known for row in rows])),
    }
    if not epoch_metrics.has_epochs(run.folder):  # an exported or published model
        return values
    lines = epoch_metrics.read_epochs(run.folder)
    validated = [line for line in lines if _elbo(line, "val") is not None]
    if not validated:
        return values
    losses, fitted = (
        np.array([_elbo(line, name) for line in validated], np.float64) for name in ("val", "train")
    )
    best = int(losses.argmin())
    before = len(losses) - 1 - max(1, len(losses) // 5)
    late = np.diff(losses[len(losses) // 2 :])
    bounce = (np.maximum(late, 0.0).sum() - max(late.sum(), 0.0)) / max(len(late), 1)
    return values | {
        "training/max_minutes": float(run.config["trainer"].get("max_minutes", 0.0)),
        "training/epochs": lines[-1]["epoch"],
        "training/best_epoch": validated[best]["epoch"],
        "training/best_is_last": best == len(losses) - 1,
        "training/fall_at_end": float(losses[max(before, 0)] - losses[-1]),
        "training/rise_after_best": float(losses[-1] - losses[best]),
        "training/train_change_after_best": float(fitted[-1] - fitted[best]),
        "training/bounce": float(bounce),
        "training/gap": float(losses[best] - fitted[best]),
    }


def _elbo(line: dict[str, Any], split: str) -> float | None:
    """The negative ELBO of an epoch's line, nats; None if the split was not looked at in it."""
    if f"{split}/kld" not in line:
        return None
    return float(line[f"{split}/bce"]) + float(line[f"{split}/kld"])
