"""Evaluates a run unless that was done before."""

import contextlib
from collections.abc import Callable
from typing import Any

from jaxvae.errors import InputError
from jaxvae.evaluation import evaluate_run
from jaxvae.evaluation.saved_evaluation import evaluation_path, save_evaluation, saved_evaluation
from jaxvae.inference.run import Run


def load_or_evaluate(
    run: Run,
    *,
    split: str,
    num_importance_samples: int | None,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Loads a run's saved evaluation of the same settings, or evaluates the run and saves it.

    Args:
      run: the run, with its rows.
      split: "train", "val" or "test".
      num_importance_samples: importance samples per row for the likelihood; None takes a saved
        evaluation with any number, else 1,000.
      seed: seed of every draw.
      say: callback for progress messages.

    Raises:
      InputError: the run has no rows, or no such split.
    """
    run.rows(split)
    judged = saved_evaluation(
        run, split=split, num_importance_samples=num_importance_samples, seed=seed
    )
    if judged:
        say(f"taking what is kept in {evaluation_path(run.folder, split)}")
        return judged
    draws = evaluate_run.NUM_DRAWS if num_importance_samples is None else num_importance_samples
    judged = evaluate_run.evaluate_run(
        run, split=split, num_importance_samples=draws, seed=seed, say=say
    )
    with contextlib.suppress(InputError):  # a read-only run directory: nothing is saved
        save_evaluation(run.folder, split, judged)
    return judged
