"""Reconstruction metrics and recall of held-out tags."""

from collections.abc import Callable

import numpy as np

RECALL_AT = (5, 10, 20)
_MAX_HELD_OUT = 3
_RANKED_TAGS = 2048
_CALIBRATION_EDGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)


def reconstruction_scores(probabilities: np.ndarray, sets: np.ndarray, *, threshold: float) -> dict:
    """Computes scores of thresholded reconstructions, by scikit-learn where it has them.

    Args:
      probabilities: `[N, V]`, decoded from posterior means.
      sets: boolean `[N, V]`, the rows.
      threshold: probability above which a tag is predicted.
    """
    from sklearn.metrics import f1_score

    decoded = probabilities > threshold
    intersection, union = int((decoded & sets).sum()), int((decoded | sets).sum())
    return {
        "threshold": threshold,
        "hamming_loss": float((decoded != sets).mean()),
        "f1_micro": float(f1_score(sets, decoded, average="micro", zero_division=0)),
        "f1_macro": float(
            f1_score(
                sets[:, sets.any(axis=0)],
                decoded[:, sets.any(axis=0)],
                average="macro",
                zero_division=0,
            )
        ),
        "jaccard_mean": mean_jaccard(decoded, sets),
        "jaccard_pooled": intersection / union if union else 1.0,
    }


def best_threshold(probabilities: np.ndarray, sets: np.ndarray) -> float:
    """Returns the threshold with the highest mean Jaccard on these rows, in steps of 0.05."""
    cuts = np.arange(1, 20) / 20.0
    scores = [mean_jaccard(probabilities > cut, sets) for cut in cuts]
    return float(cuts[int(np.argmax(scores))])


def mean_jaccard(decoded: np.ndarray, sets: np.ndarray) -> float:
    """Mean over rows of |intersection| / |union|; 1 for a row whose sets are both empty."""
    union = (decoded | sets).sum(axis=1)
    intersection = (decoded & sets).sum(axis=1)
    return float(np.where(union > 0, intersection / np.maximum(union, 1), 1.0).mean())


def mean_average_precision(probabilities: np.ndarray, sets: np.ndarray) -> float:
    """Mean average precision of ranking rows, over the commonest 2,048 tags that occur.

    Args:
      probabilities: `[N, V]`.
      sets: boolean `[N, V]`, with at least one tag.
    """
    from sklearn.metrics import average_precision_score

    counts = sets.sum(axis=0)
    tags = np.sort(np.argsort(-counts, kind="stable")[: min(_RANKED_TAGS, (counts > 0).sum())])
    return float(average_precision_score(sets[:, tags], probabilities[:, tags], average="macro"))


def hold_out_tags(sets: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds out one to three tags of each row, leaving at least one.

    Args:
      sets: boolean `[N, V]`.
      seed: seed of the choice of tags.

    Returns:
      (observed tags, held-out tags), boolean `[M, V]`; rows with fewer than two tags are left out.
    """
    rng = np.random.default_rng(seed)
    sets = sets[sets.sum(axis=1) >= 2]
    count = np.minimum(rng.integers(1, _MAX_HELD_OUT + 1, len(sets)), sets.sum(axis=1) - 1)
    # A random order of each row's own tags; all others sort last, at infinity.
    order = np.where(sets, rng.random(sets.shape), np.inf).argsort(axis=1).argsort(axis=1)
    held_out = (order < count[:, None]) & sets
    return sets & ~held_out, held_out


def rank_tags(scores: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Ranks the tags of each row by score, the best from 0; observed ones, `left`, come last."""
    return np.where(left, -np.inf, scores).argsort(axis=1)[:, ::-1].argsort(axis=1)


def recall_at(
    scores: np.ndarray, left: np.ndarray, taken: np.ndarray, concepts: dict[str, range]
) -> dict[str, float | None]:
    """Share of held-out tags among the k best-scored tags, observed ones excluded.

    Args:
      scores: `[M, V]`.
      left: boolean `[M, V]`, observed tags; never recommended.
      taken: boolean `[M, V]`, held-out tags to recall.
      concepts: columns of concepts by name; adds the recall at 10 of each concept's tags.
    """
    rank = rank_tags(scores, left)
    values: dict[str, float | None] = {}
    for k in RECALL_AT:
        values[f"recall_at_{k}"] = _share(taken & (rank < k), taken)
    for name, columns in concepts.items():
        span = slice(columns.start, columns.stop)
        hit = (taken & (rank < 10))[:, span]
        values[f"recall_at_10/{name}"] = _share(hit, taken[:, span])
    return values


def compare_recall(
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]],
    sets: np.ndarray,
    concepts: dict[str, range],
    *,
    seed: int,
) -> dict[str, dict]:
    """Compares `recall_at` of several predictors, functions from observed tags to scores."""
    observed, held_out = hold_out_tags(sets, seed=seed)
    if not len(observed):
        return {}
    return {
        name: recall_at(predict(observed), observed, held_out, concepts)
        for name, predict in predictors.items()
    }


def calibration(
    predicted: np.ndarray, left: np.ndarray, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibration of predictions for unobserved tags, by bins of probability.

    Args:
      predicted: `[M, V]` probabilities given `left`.
      left: boolean `[M, V]`, observed tags; their predictions are ignored.
      taken: boolean `[M, V]`, the rows' held-out tags.

    Returns:
      For every non-empty bin of probabilities: the mean prediction, the share of tags present, and
      the number of predictions.
    """
    p, is_present = predicted[~left], taken[~left]
    bins = np.clip(np.digitize(p, _CALIBRATION_EDGES) - 1, 0, len(_CALIBRATION_EDGES) - 2)
    count, total, present = (np.bincount(bins, weights) for weights in (None, p, is_present))
    full = count > 0
    return total[full] / count[full], present[full] / count[full], count[full]


def _share(hits: np.ndarray, of: np.ndarray) -> float | None:
    return float(hits.sum() / of.sum()) if of.any() else None
