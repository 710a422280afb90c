"""How well rows come back: reconstruction scores, and held-out tags asked for again."""

from collections.abc import Callable

import numpy as np

RECALL_AT = (5, 10, 20)
_MAX_HELD_OUT = 3
_RANKED_TAGS = 2048
_CALIBRATION_EDGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)


def reconstruction_scores(probabilities: np.ndarray, sets: np.ndarray, *, threshold: float) -> dict:
    """Scores of thresholded reconstructions, by scikit-learn where it has them.

    Args:
      probabilities: `[N, V]`, decoded from posterior means.
      sets: boolean `[N, V]`, the rows.
      threshold: cut of the probabilities.
    """
    from sklearn.metrics import f1_score

    decoded = probabilities > threshold
    both, either = int((decoded & sets).sum()), int((decoded | sets).sum())
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
        "jaccard_pooled": both / either if either else 1.0,
    }


def best_threshold(probabilities: np.ndarray, sets: np.ndarray) -> float:
    """The cut with the highest mean Jaccard on these rows, in steps of 0.05."""
    cuts = np.arange(1, 20) / 20.0
    scores = [mean_jaccard(probabilities > cut, sets) for cut in cuts]
    return float(cuts[int(np.argmax(scores))])


def mean_jaccard(decoded: np.ndarray, sets: np.ndarray) -> float:
    """Mean over rows of |both| / |either|; 1 where both are empty."""
    either = (decoded | sets).sum(axis=1)
    both = (decoded & sets).sum(axis=1)
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def mean_average_precision(probabilities: np.ndarray, sets: np.ndarray) -> float:
    """Mean over the tags that occur, the commonest 2,048, of the average precision of ranking rows.

    Args:
      probabilities: `[N, V]`.
      sets: boolean `[N, V]`, at least one tag in them.
    """
    from sklearn.metrics import average_precision_score

    counts = sets.sum(axis=0)
    seen = np.sort(np.argsort(-counts, kind="stable")[: min(_RANKED_TAGS, (counts > 0).sum())])
    return float(average_precision_score(sets[:, seen], probabilities[:, seen], average="macro"))


def hold_out_tags(sets: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes one to three tags from each row that keeps at least one.

    Args:
      sets: boolean `[N, V]`.
      seed: of which tags go.

    Returns:
      (what is left, what was taken), boolean `[M, V]`; rows of a single tag are left out.
    """
    rng = np.random.default_rng(seed)
    sets = sets[sets.sum(axis=1) >= 2]
    count = np.minimum(rng.integers(1, _MAX_HELD_OUT + 1, len(sets)), sets.sum(axis=1) - 1)
    # A random order of each row's own tags: the rest get infinity.
    order = np.where(sets, rng.random(sets.shape), np.inf).argsort(axis=1).argsort(axis=1)
    taken = (order < count[:, None]) & sets
    return sets & ~taken, taken


def recall_at(
    scores: np.ndarray, left: np.ndarray, taken: np.ndarray, concepts: dict[str, range]
) -> dict[str, float | None]:
    """Share of the taken tags among the k best-scored that are not in the row.

    Args:
      scores: `[M, V]`.
      left: boolean `[M, V]`, tags that were shown; never recommended.
      taken: boolean `[M, V]`, tags that are asked for.
      concepts: also recall of each concept's tags at 10.
    """
    rank = np.where(left, -np.inf, scores).argsort(axis=1)[:, ::-1].argsort(axis=1)
    values: dict[str, float | None] = {}
    for k in RECALL_AT:
        values[f"recall_at_{k}"] = _share(taken & (rank < k), taken)
    for name, columns in concepts.items():
        part = slice(columns.start, columns.stop)
        hit = (taken & (rank < 10))[:, part]
        values[f"recall_at_10/{name}"] = _share(hit, taken[:, part])
    return values


def compare_recall(
    predictors: dict[str, Callable[[np.ndarray], np.ndarray]],
    sets: np.ndarray,
    concepts: dict[str, range],
    *,
    seed: int,
) -> dict[str, dict]:
    """`recall_at` of several predictors, each a function of what is left to scores, on one task."""
    left, taken = hold_out_tags(sets, seed=seed)
    if not len(left):
        return {}
    return {
        name: recall_at(predict(left), left, taken, concepts)
        for name, predict in predictors.items()
    }


def calibration(
    predicted: np.ndarray, left: np.ndarray, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether tags that were not shown are there as often as predicted.

    Args:
      predicted: `[M, V]` probabilities given `left`.
      left: boolean `[M, V]`, tags that were shown; these count for nothing.
      taken: boolean `[M, V]`, the other tags that the rows have.

    Returns:
      Of every bin of probabilities that is not empty: the mean prediction, the share present, and
      the number of predictions.
    """
    p, there = predicted[~left], taken[~left]
    at = np.clip(np.digitize(p, _CALIBRATION_EDGES) - 1, 0, len(_CALIBRATION_EDGES) - 2)
    count, total, present = (np.bincount(at, weights) for weights in (None, p, there))
    full = count > 0
    return total[full] / count[full], present[full] / count[full], count[full]


def _share(hits: np.ndarray, of: np.ndarray) -> float | None:
    return float(hits.sum() / of.sum()) if of.any() else None
