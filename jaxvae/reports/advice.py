"""What to try next, from the course of a run's losses and what its rows are."""

from typing import Any

STILL_FALLING = 0.01
"""Nats in the last fifth of the validations from which a loss counts as still falling."""
OVERFITTED = 0.1
"""Nats that the validation loss rises after its best epoch, from which that is worth a word."""
UNSTEADY = 0.1
"""Nats that the validation loss bounces, from which steps are too long."""
FEW_ROWS = 5.0
"""Training rows of the median tag below which tags are too rare to be learned."""
MANY_REPEATS = 0.33
"""Share of the rows whose set is in training from which it flatters."""


def advise(judged: dict[str, Any], *, is_behind: bool) -> str:
    """Returns what to try next, with what to type.

    Args:
      judged: the result of `evaluate_run`, whose `training/` values older evaluations lack.
      is_behind: whether a baseline is better than the model.
    """
    lines = [_step(judged, is_behind)]
    repeated = judged.get("training/repeated_fraction") or 0.0
    if repeated > MANY_REPEATS:
        lines.append(
            f"{repeated:.0%} of the {judged['split']} rows repeat a training row's set, which "
            f"flatters what learns rows by heart: --config.data.split_by=set says how it does on "
            f"new ones."
        )
    return " ".join(lines)


def _step(judged: dict[str, Any], is_behind: bool) -> str:
    weight = judged["kld_weight"]
    course = _course(judged)
    or_best = "; or --config=configs/best.py, which fits this kind of data better" * is_behind
    rows_of_tag = judged.get("training/rows_of_median_tag")
    minutes = judged.get("training/max_minutes") or 0.0
    longer = "--config.trainer.max_epochs"
    if minutes:
        longer = f"--config.trainer.max_minutes (it was {minutes:g})"
    if course and _is_unsteady(course):
        return (
            f"The learning rate is too high: validation is best at epoch {course['best_epoch']} of "
            f"{course['epochs']}, and its loss goes up and down by {course['bounce']:.2f} nats, or "
            f"the training loss rises with it. Try next: a third of --config.trainer.optimizer.lr."
        )
    if judged["collapsed"] and weight is not None and weight > 1.0:
        return (
            f"Try next: a lower --config.loss.kld_weight (it is {weight:g}; 1.0 or less learns "
            f"on data like this), or --config.loss.objective=capacity with "
            f"--config.loss.capacity=8.0."
        )
    if judged["collapsed"]:
        return f"Try next: more {longer}, or a lower --config.loss.kld_weight than the run's."
    if course and course["rise_after_best"] > OVERFITTED:
        return (
            f"It over-fits: validation is best at epoch {course['best_epoch']} of "
            f"{course['epochs']} and then {course['rise_after_best']:.2f} nats worse, while the "
            f"training loss falls on. Try next: a higher --config.model.dropout_p, a smaller "
            f"--config.model.hidden_dim, or fewer --config.trainer.max_epochs{or_best}."
        )
    if course and course["best_is_last"] and course["fall_at_end"] > STILL_FALLING:
        fall = (
            f"It under-fits: validation is best at the last epoch, {course['fall_at_end']:.2f} "
            f"nats below where the last fifth of them began"
        )
        if course["gap"] < 0.0:
            return (
                f"{fall}, and below the training loss. Try next: a larger "
                f"--config.model.hidden_dim, a lower --config.model.dropout_p, or more {longer}"
                f"{or_best}."
            )
        return f"{fall}. Try next: more {longer}{or_best}."
    if rows_of_tag is not None and rows_of_tag < FEW_ROWS:
        return (
            f"There are few rows for so many tags: half of them are in {rows_of_tag:g} training "
            f"rows or fewer. Try next: fewer tags (--config.data.taxonomy_path=from_data with "
            f"--config.data.min_tag_rows=20), or more rows."
        )
    if is_behind:
        return (
            "Try next: --config=configs/best.py, or the preset trainer=tuned, which fit this kind "
            "of data better."
        )
    return "Try next: other seeds (--config.seed=1), and compare the runs' spread."


_COURSE = (
    *("epochs", "best_epoch", "best_is_last", "fall_at_end", "rise_after_best"),
    *("train_change_after_best", "bounce", "gap"),
)


def _course(judged: dict[str, Any]) -> dict[str, Any]:
    """Returns the course of a run's losses; {} of a model that came without its log."""
    if judged.get("training/epochs") is None:
        return {}
    return {name: judged[f"training/{name}"] for name in _COURSE}


def _is_unsteady(course: dict[str, Any]) -> bool:
    """Tests whether the loss bounces, or both losses are higher at the end than at the best."""
    both_rise = course["rise_after_best"] > OVERFITTED and course["train_change_after_best"] > 0.0
    return both_rise or course["bounce"] > UNSTEADY
