"""Compares sampled tag sets, boolean `[N, V]`, with held-out data: tags, pairs, novelty, a test."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxvae.data.splits import subsample

_ROWS_AT_ONCE = 1000
_TRAIN_ROWS = 20_000
_TEST_ROWS = 2000
_PAIR_FEATURES = 2000
_PAIRED_TAGS = 2048
_PAIR_COUNT = 5
_NAMED = 10


class DataRows:
    """Precomputed statistics of the data, shared by all comparisons with it.

    Rows that are both held out and of training, the same array, count once.
    """

    def __init__(self, held_out: np.ndarray, train: np.ndarray):
        rows = (held_out,) if train is held_out else (held_out, train)
        counts = np.sum([np.asarray(split, bool).sum(axis=0) for split in rows], axis=0)
        train, self.held_out = np.asarray(train, bool), np.asarray(held_out, bool)
        self.columns = np.sort(np.argsort(-counts, kind="stable")[:_PAIRED_TAGS])
        self.pairs = _pair_counts(self.held_out[:, self.columns])
        self.train_pairs = _pair_counts(train[:, self.columns])
        common = counts[self.columns] >= max(_PAIR_COUNT, 0.01 * sum(map(len, rows)))
        self.common_pairs = np.triu(np.outer(common, common), 1)
        self.keys, distinct = np.unique(_keys(train), return_index=True)
        self.rows = train[distinct[subsample(len(distinct), _TRAIN_ROWS)]]

    def distances(self, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (differing tags from the nearest training row, is a copy of one), `[N]` each."""
        copies = np.isin(_keys(sets), self.keys)
        nearest = np.full(len(sets), np.inf)
        sizes = sets.sum(axis=1)
        for block in _blocks(self.rows):
            # |a - b| = |a| + |b| - 2ab
            block_sizes = block.sum(axis=1)
            partial = [
                (block_sizes - 2.0 * (chunk @ block.T)).min(axis=1) for chunk in _blocks(sets)
            ]
            nearest = np.minimum(nearest, sizes + np.concatenate(partial))
        # Copies of rows beyond the 20,000 also have distance 0.
        return np.where(copies, 0.0, nearest), copies


def describe_sets(
    sets: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    *,
    tags: Sequence[str],
    concepts: Sequence[tuple[str, range]] | None = None,
) -> dict:
    """Compares sets with data, in JSON-able values; None for an undefined one.

    `lift_error` is the root mean square, over pairs that held-out rows have or were expected to
    have 5 times if tags were independent, of the difference in log lift, log((p_ab + e) / (p_a p_b
    + e)) in nats. The pseudo-rate e is half a held-out row on both sides, so that unequal numbers
    of rows alone don't make a difference. `worst_pairs` has the largest differences.

    With more than 2,048 tags, all pair statistics are restricted to the commonest 2,048.

    A tag is common if it is in at least 1 % of training and held-out rows, and in at least 5.
    `pairs_never_in_data` takes the distinct pairs of common tags that the sets have; its `share` is
    that of pairs in neither training nor held-out rows. `pairs_never_sampled` takes the pairs that
    at least 5 training rows have; its `share` is that of pairs in no set. Both shares depend on the
    number of sets.

    Distances are numbers of differing tags, to the nearest of at most 20,000 distinct training
    rows. `copies_fraction` is the share of sets that equal any training row, `unseen_fraction` that
    of all others.

    Args:
      sets: boolean `[N, V]`.
      held_out: boolean `[M, V]`.
      train: boolean `[T, V]`.
      tags: the V names.
      concepts: names and columns, as a taxonomy's; adds `tags_per_set_of_concept`.
    """
    return _describe(np.asarray(sets, bool), DataRows(held_out, train), tags, concepts)


def are_among(sets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Returns whether each of some boolean sets `[N, V]` equals one of some rows, `[N]`."""
    return np.isin(_keys(np.asarray(sets, bool)), _keys(np.asarray(rows, bool)))


def two_sample_test(sets: np.ndarray, held_out: np.ndarray, *, seed: int, folds: int = 5) -> dict:
    """Trains classifiers to tell sets from held-out rows; returns their areas under the ROC curve.

    An area of 0.5 means that the two can't be told apart. Areas are means over the folds of a
    cross-validation, of boosted trees on tags and of a logistic regression on tags and on the pairs
    of tags (the 2,000 most frequent) that occur at least twice. Both sides have the same number of
    rows, 2,000 at most. The standard errors are those of a mean over folds; folds share rows, so
    repeated draws vary about one and a half times as much. Areas well under 0.5 mean that the sides
    agree more closely than two draws would: copies, or stratified splits. `size` is the number of
    rows on each side; with under 2 for each fold the areas are None.

    Args:
      sets: boolean `[N, V]`.
      held_out: boolean `[M, V]`.
      seed: seed of the choice of rows, the folds and the trees.
      folds: number of cross-validation folds.
    """
    from scipy.sparse import csr_matrix
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    sides = [np.asarray(side, bool) for side in (sets, held_out)]
    size = min(len(sides[0]), len(sides[1]), _TEST_ROWS)
    rng = np.random.default_rng(seed)
    pool = np.concatenate([side[rng.permutation(len(side))[:size]] for side in sides])
    # Pairs are chosen by their counts in both sides together, so the choice uses no labels.
    first, second = _top_pairs(np.triu(_pair_counts(pool), 1), least=2, most=_PAIR_FEATURES)
    pairs = np.concatenate([pool, pool[:, first] & pool[:, second]], axis=1)
    trees = GradientBoostingClassifier(max_features="sqrt", subsample=0.7, random_state=seed)
    logistic = LogisticRegression(solver="liblinear", random_state=seed)
    sparse = csr_matrix(pairs, dtype=np.float64)
    result: dict = {"size": size}
    for name, model, features in (("boosting", trees, pool), ("logistic", logistic, sparse)):
        result |= dict.fromkeys((f"auc_{name}", f"auc_{name}_stderr"))
        if size >= 2 * folds:
            split = StratifiedKFold(folds, shuffle=True, random_state=seed)
            label = np.repeat([1, 0], size)
            areas = cross_val_score(model, features, label, cv=split, scoring="roc_auc")
            result[f"auc_{name}"] = float(areas.mean())
            result[f"auc_{name}_stderr"] = float(areas.std(ddof=1) / folds**0.5)
    return result


def compare_samples(
    samples: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    independent: np.ndarray,
    *,
    tags: Sequence[str],
    concepts: Sequence[tuple[str, range]] | None = None,
    seed: int = 0,
) -> dict[str, dict]:
    """Compares samples with held-out data, next to resampled training rows and independent tags.

    Args:
      samples: boolean `[N, V]` drawn from the model.
      held_out: boolean `[M, V]`.
      train: boolean `[T, V]`; `train_rows` are N of its rows, drawn with replacement.
      independent: boolean `[any, V]` drawn with the data's tag rates and nothing else.
      tags: the V names.
      concepts: as in `describe_sets`.
      seed: seed of the training rows and of `two_sample_test`.
    """
    resampled = np.random.default_rng(seed).integers(len(train), size=len(samples))
    sides = {"samples": samples, "train_rows": train[resampled], "independent": independent}
    return compare_sets(sides, held_out, train, tags=tags, concepts=concepts, seed=seed)


def compare_sets(
    sides: Mapping[str, np.ndarray],
    held_out: np.ndarray,
    train: np.ndarray,
    *,
    tags: Sequence[str],
    concepts: Sequence[tuple[str, range]] | None = None,
    seed: int = 0,
) -> dict[str, dict]:
    """Applies `describe_sets` and `two_sample_test` to several named collections of sets."""
    data = DataRows(held_out, train)
    return {
        name: _describe(np.asarray(sets, bool), data, tags, concepts)
        | two_sample_test(sets[:, data.columns], data.held_out[:, data.columns], seed=seed)
        for name, sets in sides.items()
    }


def commonest_pairs(
    data: np.ndarray, drawn: np.ndarray, *, num: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the shares of sets that hold each pair of the commonest tags.

    Args:
      data: `[N, V]` boolean.
      drawn: `[M, V]` boolean, samples.
      num: T, the number of tags.

    Returns:
      (the tags' columns `[T]`, the share of `data` with both tags `[T, T]`, that of `drawn`); zeros
      on the diagonals.
    """
    columns = np.argsort(-data.sum(axis=0, dtype=np.float32))[:num]
    in_data, in_drawn = (_pair_counts(sets[:, columns]) / len(sets) for sets in (data, drawn))
    for shares in (in_data, in_drawn):
        np.fill_diagonal(shares, 0.0)
    return columns, in_data, in_drawn


def _describe(sets: np.ndarray, data: DataRows, tags: Sequence[str], concepts) -> dict:
    sides = {"": sets, "_held_out": data.held_out}
    rates, rates_data = (side.mean(axis=0) for side in sides.values())
    counts = _pair_counts(sets[:, data.columns])
    names = [tags[column] for column in data.columns]
    upper = np.triu(np.ones(counts.shape, bool), 1)
    frequent = upper & (data.train_pairs >= _PAIR_COUNT)
    in_data = data.pairs + data.train_pairs
    error = np.abs(rates - rates_data)
    result = {
        "marginal_mae": float(error.mean()),
        "marginal_total_variation": float(error.sum() / 2.0),
        "marginal_pearson": _pearson(rates, rates_data),
        "cooccurrence_pearson": _pearson(counts[upper], data.pairs[upper]),
        **_lift(len(sets), counts, data, names),
        "pairs_never_in_data": _absent(data.common_pairs & (counts > 0), in_data, counts, names),
        "pairs_never_sampled": _absent(frequent, counts, data.train_pairs, names),
        "distinct_fraction": len(np.unique(_keys(sets))) / len(sets),
    }
    for suffix, side in sides.items():
        sizes, (distances, copies) = side.sum(axis=1), data.distances(side)
        numbers = {
            "tags_per_set_mean": sizes.mean(),
            "tags_per_set_sd": sizes.std(),
            "empty_fraction": (sizes == 0).mean(),
            "nearest_train_distance": distances.mean(),
            "copies_fraction": copies.mean(),
            "unseen_fraction": (~copies).mean(),
        }
        result |= {name + suffix: float(number) for name, number in numbers.items()}
    by_concept = {name: float(rates[list(columns)].sum()) for name, columns in concepts or ()}
    return result | ({"tags_per_set_of_concept": by_concept} if by_concept else {})


def _lift(num_sets: int, counts: np.ndarray, data: DataRows, tags: Sequence[str]) -> dict:
    rows = len(data.held_out)
    expected = np.outer(np.diag(data.pairs), np.diag(data.pairs)) / rows
    first, second = np.nonzero(np.triu(np.maximum(data.pairs, expected) >= _PAIR_COUNT, 1))
    lifts = []
    for pairs, size in ((counts, num_sets), (data.pairs, rows)):
        rate = pairs.astype(np.float64) / size
        product = np.diag(rate)[first] * np.diag(rate)[second]
        lifts.append(np.log((rate[first, second] + 0.5 / rows) / (product + 0.5 / rows)))
    error = lifts[0] - lifts[1]
    worst = [
        {
            "tags": [tags[first[k]], tags[second[k]]],
            "log_lift_samples": float(lifts[0][k]),
            "log_lift_data": float(lifts[1][k]),
            "count_samples": int(counts[first[k], second[k]]),
            "count_data": int(data.pairs[first[k], second[k]]),
        }
        for k in np.argsort(-np.abs(error), kind="stable")[:_NAMED]
    ]
    rms = float(np.sqrt(np.square(error).mean())) if len(error) else None
    return {"lift_error": rms, "worst_pairs": worst}


def _absent(pairs: np.ndarray, where: np.ndarray, weight: np.ndarray, tags: Sequence[str]) -> dict:
    """Describes the pairs with no count in `where`, listing those of most weight; all `[V, V]`."""
    absent = pairs & (where == 0)
    columns = zip(*_top_pairs(np.where(absent, weight, 0), least=1, most=_NAMED), strict=True)
    return {
        "count": int(absent.sum()),
        "share": float(absent.sum() / pairs.sum()) if pairs.any() else None,
        "top": [{"tags": [tags[a], tags[b]], "count": int(weight[a, b])} for a, b in columns],
    }


def _pair_counts(sets: np.ndarray) -> np.ndarray:
    """Counts the boolean sets `[N, V]` with both tags, `[V, V]`; with one tag on the diagonal."""
    zero = np.zeros((sets.shape[1], sets.shape[1]), np.float32)  # Exact up to 16 million.
    return sum((block.T @ block for block in _blocks(sets)), start=zero)


def _blocks(sets: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(sets), _ROWS_AT_ONCE):
        yield sets[start : start + _ROWS_AT_ONCE].astype(np.float32)


def _top_pairs(counts: np.ndarray, *, least: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (first columns, second columns) of the pairs with the largest counts `[V, V]`."""
    first, second = np.nonzero(counts >= least)
    order = np.argsort(-counts[first, second], kind="stable")[:most]
    return first[order], second[order]


def _keys(sets: np.ndarray) -> np.ndarray:
    """Packs each row into one sortable value, `[N]`."""
    packed = np.packbits(sets, axis=1)
    return packed.view(f"S{packed.shape[1]}")[:, 0]


def _pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    if not (first.size and np.ptp(first) and np.ptp(second)):
        return None
    return float(np.corrcoef(first, second, dtype=np.float64)[0, 1])
