"""Statistics of collections of tag sets: diversity and co-occurrence."""

import collections
import itertools
import math

import numpy as np

_MOST_PAIRS = 10**8


def diversity(sets) -> dict[str, float]:
    """Computes the diversity of tag sets.

    `entropy` (nats) and `gini_coefficient` are of the distribution over distinct sets.

    Args:
      sets: `[N, V]`, boolean or as `to_csr` returns them.
    """
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(sets)
    counts = collections.Counter(
        matrix.indices[start:end].tobytes() for start, end in itertools.pairwise(matrix.indptr)
    )
    share = np.sort(list(counts.values())) / matrix.shape[0]
    distinct = len(share)
    rank = np.arange(1, distinct + 1)
    return {
        "diversity_unique_combinations": distinct,
        "diversity_pct_unique_combinations": 100.0 * distinct / matrix.shape[0],
        "diversity_entropy": float(-(share * np.log(share)).sum()),
        "diversity_gini_coefficient": float(
            2.0 * (rank * share).sum() / distinct - (distinct + 1) / distinct
        ),
    }


def cooccurrence(sets, reference) -> dict[str, float | None]:
    """Compares the co-occurrence of tags in two collections of sets.

    The matrices `[V, V]` have counts of tags on their diagonal and of pairs off it, as the
    original's do; distributions are the matrices divided by their sums. They are sparse, since few
    of a wide vocabulary's pairs ever occur. Values are None if a side is empty or constant, or if
    so many pairs may occur that the matrix would not fit (an untrained model draws half of all
    tags).

    Args:
      sets: `[N, V]`, decoded or sampled, boolean or as `to_csr` returns them.
      reference: `[M, V]`, data.
    """
    from scipy.sparse import csr_matrix

    names = ("cosine_similarity", "kl_divergence", "hellinger_distance", "pearson_correlation")
    values: tuple = (None,) * 4
    p, q = (
        _pair_counts(csr_matrix(collection, dtype=np.int32)) for collection in (reference, sets)
    )
    total_p, total_q = int(p.sum()), int(q.sum())
    if total_p > 0 and total_q > 0:
        pq, pp, qq = (int(a.multiply(b).sum()) for a, b in ((p, q), (p, p), (q, q)))
        # In integers, so that a constant matrix has a variance of exactly zero.
        cells = p.shape[0] ** 2
        variances = (cells * pp - total_p**2) * (cells * qq - total_q**2)
        covariance = cells * pq - total_p * total_q
        p, q = (p / total_p).tocoo(), q.tocsr() / total_q
        # The original's floor for empty cells; without it the divergence would be infinite.
        floor = 1e-10
        at_p = np.asarray(q[p.row, p.col]).ravel()
        values = (
            pq / math.sqrt(pp * qq),
            float((p.data * np.log((p.data + floor) / (at_p + floor))).sum()),
            float(np.sqrt(0.5 * (p.tocsr().sqrt() - q.sqrt()).power(2).sum())),
            covariance / math.sqrt(variances) if variances > 0 else None,
        )
    return {f"cooccurrence_{name}": value for name, value in zip(names, values, strict=True)}


def _pair_counts(matrix):
    """Counts the rows that two tags share, sparse `[V, V]`; all zero if it would not fit."""
    num_tags = matrix.shape[1]
    pairs = np.square(np.diff(matrix.indptr).astype(np.int64)).sum()
    if min(pairs, num_tags**2) > _MOST_PAIRS:
        matrix = matrix[:0]
    return (matrix.T @ matrix).astype(np.float64)
