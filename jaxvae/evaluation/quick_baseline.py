"""Compares a model with a mixture of Bernoullis that is fitted in a moment, at a run's end.

It tells whether the model has learned what tags go together. It is weaker than the mixture that
`evaluate` tunes on all rows, so the two are never named alike.
"""

import numpy as np

from jaxvae.data.encoding import to_multi_hot
from jaxvae.data.splits import subsample
from jaxvae.evaluation.baselines import Mixture
from jaxvae.inference.likelihood import row_likelihood
from jaxvae.models.trained import TrainedModel

COMPONENTS = 80
TRAIN_ROWS = 2000
_SMOOTHING = 0.1
_ROWS = 512
_LEAST_ROWS = 100
_MOST_VALUES = 2**25
_DRAWS = 100


def compare_with_quick_mixture(
    network: TrainedModel, *, train: np.ndarray, val: np.ndarray, test: np.ndarray
) -> dict[str, float]:
    """Returns the quick mixture's NLL and how far the model is ahead of it on the same test rows.

    The mixture has at most 80 components and 2,000 training rows; at most 512 test rows are
    compared, by 100 importance samples each, all drawn at random. With a vocabulary of ten
    thousands all are fewer.

    Args:
      network: the model.
      train: `[N, K]` column numbers padded with V.
      val: `[M, K]`, which end the fit.
      test: `[T, K]`.

    Returns:
      `quick_mixture_nll`, `quick_mixture_gain` (above 0: the model is ahead) and its standard error
      over rows, in nats a row; `quick_mixture_rows`, test rows compared. {} where a split is empty.
    """
    if not (len(train) and len(val) and len(test)):
        return {}
    limit = max(_LEAST_ROWS, _MOST_VALUES // network.num_tags)
    train, val, test = (
        split[subsample(len(split), min(rows, limit))]
        for split, rows in ((train, TRAIN_ROWS), (val, _ROWS), (test, _ROWS))
    )
    train_sets, val_sets, test_sets = (
        to_multi_hot(rows, network.num_tags) for rows in (train, val, test)
    )
    mixture, _ = Mixture.fit(
        train_sets,
        val_sets,
        components=min(COMPONENTS, len(train)),
        smoothing=_SMOOTHING,
        seed=0,
    )
    mixture_log_p = mixture.log_likelihood(test_sets)
    model_log_p = row_likelihood(
        network, test, num_importance_samples=_DRAWS, seed=0
    ).log_likelihood
    gain = model_log_p - mixture_log_p
    return {
        "quick_mixture_nll": float(-mixture_log_p.mean()),
        "quick_mixture_gain": float(gain.mean()),
        "quick_mixture_gain_stderr": float(gain.std() / np.sqrt(max(len(gain) - 1, 1))),
        "quick_mixture_rows": len(test),
    }
