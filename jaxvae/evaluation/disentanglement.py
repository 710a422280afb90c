"""Disentanglement metrics: do single latent dimensions encode single, known factors?

MIG (Chen et al. 2018), SAP (Kumar et al. 2018) and DCI (Eastwood & Williams 2018), as compared by
Locatello et al. (2019). Codes are posterior means; constant factors are left out of every mean.
"""

from collections.abc import Mapping

import numpy as np

_CODES_AT_ONCE = 16
_ROWS_OF_A_TREE = 2000


def mutual_information(
    codes: np.ndarray, labels: np.ndarray, *, bins: int = 20, corrected: bool = False
) -> np.ndarray:
    """Mutual information of each code, in bins of equal width, with labels, in nats `[L]`.

    Args:
      codes: `[N, L]`; a constant code has 0.
      labels: `[N]` integers.
      bins: number of bins between each code's smallest and largest value.
      corrected: subtract the Miller-Madow estimate of the bias, (occupied cells - occupied bins -
        occupied labels + 1) / 2N, and clip results at 0.
    """
    binned = _binned(codes, bins)
    values, labels = np.unique(labels, return_inverse=True)
    num_codes, num_values = binned.shape[1], len(values)
    cell = (np.arange(num_codes) * bins + binned) * num_values + labels.reshape(-1, 1)
    counts = np.bincount(cell.ravel(), minlength=num_codes * bins * num_values)
    return _information(counts.reshape(num_codes, bins, num_values, 1), corrected)[:, 0]


def mutual_information_with_sets(
    codes: np.ndarray, sets: np.ndarray, *, bins: int = 20, corrected: bool = True
) -> np.ndarray:
    """Mutual information of each binned code with the presence of each tag, in nats `[L, V]`.

    Args:
      codes: `[N, L]`.
      sets: boolean `[N, V]`.
      bins: as in `mutual_information`.
      corrected: as in `mutual_information`; rare tags look informative without it.
    """
    binned = _binned(codes, bins)
    hot = np.asarray(sets, np.float32)  # Counts are exact in float32 up to 16 million rows.
    blocks = [np.zeros((0, hot.shape[1]))]
    for start in range(0, binned.shape[1], _CODES_AT_ONCE):
        block = binned[:, start : start + _CODES_AT_ONCE]
        in_bin = (block[:, :, None] == np.arange(bins)).astype(np.float32)
        present = (in_bin.reshape(len(hot), -1).T @ hot).reshape(block.shape[1], bins, -1)
        rows = in_bin.sum(axis=0)[:, :, None]
        blocks.append(_information(np.stack([rows - present, present], axis=2), corrected))
    return np.concatenate(blocks)


def _binned(codes: np.ndarray, bins: int) -> np.ndarray:
    """Returns the bin of each value, 0 .. bins - 1, `[N, L]`."""
    codes = np.asarray(codes, np.float64)
    if codes.ndim != 2 or not len(codes) or not np.isfinite(codes).all():
        raise ValueError(f"codes must be finite numbers [N, L], N > 0, not {list(codes.shape)}")
    # Lower edges as in np.histogram; those of a constant code coincide, so it falls into one bin.
    edges = np.linspace(codes.min(axis=0), codes.max(axis=0), bins + 1)[:-1]
    columns = zip(edges.T, codes.T, strict=True)
    return np.stack([np.searchsorted(*pair, side="right") - 1 for pair in columns], axis=1)


def _information(counts: np.ndarray, corrected: bool) -> np.ndarray:
    """Mutual information in nats `[L, T]` of counts `[L, bins, values, T]`."""
    joint = np.asarray(counts, np.float64)
    total = joint.sum(axis=(1, 2), keepdims=True)
    by_bin, by_value = joint.sum(axis=2, keepdims=True), joint.sum(axis=1, keepdims=True)
    occupied = joint > 0
    expected = np.where(occupied, by_bin * by_value / total, 1.0)
    ratio = np.where(occupied, joint, 1.0) / expected
    nats = (joint / total * np.log(ratio)).sum(axis=(1, 2))
    if corrected:
        margins = (by_bin > 0).sum(axis=(1, 2)) + (by_value > 0).sum(axis=(1, 2))
        nats -= (occupied.sum(axis=(1, 2)) - margins + 1) / (2.0 * total[:, 0, 0])
    return np.maximum(nats, 0.0)


def mig(codes: np.ndarray, factors: Mapping[str, np.ndarray], *, bins: int = 20) -> dict:
    """Mutual information gap: the best code's information about a factor less the second best's.

    The gap is a share of the factor's entropy. With one code the second best is 0.

    Args:
      codes: `[N, L]`.
      factors: `[N]` integers of each factor, by name.
      bins: as in `mutual_information`.

    Returns:
      `mig_per_factor` by name, None for a constant factor, and `mig`, their mean, None if every
      factor is constant.
    """
    gaps: dict[str, float | None] = dict.fromkeys(factors)
    for name, labels in _varying(factors).items():
        share = np.bincount(labels) / len(labels)
        entropy = -(share * np.log(share)).sum()
        gaps[name] = _gap(mutual_information(codes, labels, bins=bins)) / float(entropy)
    return {"mig": _mean(gaps), "mig_per_factor": gaps}


def sap(codes: np.ndarray, factors: Mapping[str, np.ndarray], *, seed: int = 0) -> dict:
    """Separated attribute predictability: the best code's accuracy less the second best's.

    The accuracy is that of a linear support vector classifier with balanced classes (C = 0.01, as
    Locatello et al. use) on a held-out third of the rows. One line for each value can't separate
    middle values from those on both sides, so for factors with many values even perfect codes score
    low; so do codes of tiny scale. With one code the second best is 0. Returns `sap` and
    `sap_per_factor`, as `mig` does.

    Args:
      codes: `[N, L]`.
      factors: `[N]` integers of each factor, by name.
      seed: seed of the split into rows to fit and to test.
    """
    from sklearn.svm import LinearSVC

    codes = np.asarray(codes, np.float64)
    fit, test = _split(len(codes), seed)
    gaps: dict[str, float | None] = dict.fromkeys(factors)
    for name, labels in _varying(factors).items():
        scores = []
        # If the factor is constant on the rows to fit, no code can predict anything.
        for code in codes.T[:, :, None] if np.ptp(labels[fit]) else ():
            model = LinearSVC(C=0.01, class_weight="balanced", dual=False)
            scores.append(model.fit(code[fit], labels[fit]).score(code[test], labels[test]))
        gaps[name] = _gap(np.array(scores))
    return {"sap": _mean(gaps), "sap_per_factor": gaps}


def dci(codes: np.ndarray, factors: Mapping[str, np.ndarray], *, seed: int = 0) -> dict:
    """Disentanglement, completeness and informativeness, by random forests.

    A forest, whose trees see 2,000 rows each at most, predicts each factor from all codes. Its
    importances form the matrix for `dci_scores`; its accuracy on a held-out third of the rows,
    averaged over factors, is the informativeness.
    Keys begin with `dci_`; values are None if every factor is constant.

    Args:
      codes: `[N, L]`.
      factors: `[N]` integers of each factor, by name.
      seed: seed of the split and of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier

    codes = np.asarray(codes, np.float32)
    fit, test = _split(len(codes), seed)
    importance, accuracy = [], []
    for labels in _varying(factors).values():
        # With few candidates per split irrelevant codes get credit; with all, fits take twice as
        # long, and so they do where each tree sees as many rows as the embedded corpus has.
        forest = RandomForestClassifier(
            40,
            max_features=(codes.shape[1] + 1) // 2,
            max_samples=min(len(fit), _ROWS_OF_A_TREE),
            min_samples_leaf=5,
            random_state=seed,
            n_jobs=-1,
        )
        forest.fit(codes[fit], labels[fit])
        importance.append(forest.feature_importances_)
        accuracy.append(forest.score(codes[test], labels[test]))
    names = ("dci_disentanglement", "dci_completeness", "dci_informativeness")
    if not importance:
        return dict.fromkeys(names)
    scores = (*dci_scores(np.stack(importance, axis=1)), float(np.mean(accuracy)))
    return dict(zip(names, scores, strict=True))


def dci_scores(importance: np.ndarray) -> tuple[float, float]:
    """Disentanglement and completeness of importances, each in 0..1.

    Disentanglement is the mean over codes of 1 - the entropy, in base F, of a code's importances
    for the factors, weighted by the code's share of all importance. Completeness is the same over
    factors, in base L. With one factor every code is disentangled, with one code every factor is
    complete: 1. Without any importance both are 0.

    Args:
      importance: `[L, F]`, not negative.
    """
    importance = np.asarray(importance, np.float64)
    return _concentration(importance), _concentration(importance.T)


def _concentration(weights: np.ndarray) -> float:
    """Mean over rows of 1 - normalised entropy, weighted by each row's share of the weights."""
    by_row = weights.sum(axis=1, keepdims=True)
    if not by_row.any():
        return 0.0
    share = weights / np.where(by_row > 0, by_row, 1.0)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    base = np.log(max(weights.shape[1], 2))  # A single column has entropy 0 in any base.
    return float(((1.0 - entropy / base) * by_row[:, 0]).sum() / by_row.sum())


def disentanglement(
    codes: np.ndarray, factors: Mapping[str, np.ndarray], *, seed: int = 0
) -> dict[str, float | None]:
    """Computes the scores of `mig`, `sap` and `dci`, by name, without those of single factors."""
    gaps = {"mig": mig(codes, factors)["mig"], "sap": sap(codes, factors, seed=seed)["sap"]}
    return {**gaps, **dci(codes, factors, seed=seed)}


def _varying(factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the factors with more than one value, their values numbered from 0."""
    coded = {name: np.unique(labels, return_inverse=True)[1] for name, labels in factors.items()}
    return {name: labels for name, labels in coded.items() if labels.max(initial=0) > 0}


def _split(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits row positions at random: two thirds to fit, one third to test."""
    order = np.random.default_rng(seed).permutation(num_rows)
    return order[num_rows // 3 :], order[: num_rows // 3]


def _gap(scores: np.ndarray) -> float:
    """Returns the best of scores `[L]` less the second best, both at least 0."""
    best = np.sort(np.append(scores, (0.0, 0.0)))[-2:]
    return float(best[1] - best[0])


def _mean(gaps: Mapping[str, float | None]) -> float | None:
    defined = [gap for gap in gaps.values() if gap is not None]
    return float(np.mean(defined)) if defined else None
