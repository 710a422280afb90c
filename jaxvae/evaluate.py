"""How good a model is on a split: the original's metrics over the whole split, latent health.

Everything here is numpy on what one compiled pass returned.
"""

import numpy as np

from jaxvae.baselines import Independent
from jaxvae.metrics import SplitMetrics

COLLAPSE_NATS = 1.0
"""Aggregate information I(x; z) under which a model has collapsed."""
_SILHOUETTE_ROWS = 2000
_INFORMATION_ROWS = 5000


def split_metrics(total: SplitMetrics, mean: np.ndarray, rows: np.ndarray) -> dict:
    """Every metric that validation logs, by name without the split's prefix.

    Args:
      total: sums of the pass.
      mean: `[N, L]` posterior means.
      rows: `[N, K]` the split's rows.
    """
    return {**total.compute(), "silhouette_score": silhouette(mean, rows)}


def silhouette(mean: np.ndarray, rows: np.ndarray) -> float | None:
    """Silhouette of posterior means labelled by each row's first tag (Rousseeuw 1987).

    Over the first 2,000 rows, since its cost is quadratic. None where it is undefined: fewer than
    two labels, or as many labels as rows. Not scikit-learn's, whose import takes as long as all
    else before the first epoch, and whose BLAS threads spin on into the next one.

    Args:
      mean: `[N, L]`.
      rows: `[N, K]` column numbers, rising.
    """
    labels, label = np.unique(rows[:_SILHOUETTE_ROWS, 0], return_inverse=True)
    mean = np.asarray(mean, np.float64)[:_SILHOUETTE_ROWS]
    if not 2 <= len(labels) < len(label) or not np.isfinite(mean).all():
        return None
    order = np.argsort(label, kind="stable")
    label, mean = label[order], mean[order] - mean.mean(axis=0)
    products = np.einsum("id,jd->ij", mean, mean)
    squares = np.diagonal(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0))
    np.fill_diagonal(distances, 0.0)

    here = np.arange(len(label)), label
    sizes = np.bincount(label)
    sums = np.add.reduceat(distances, np.searchsorted(label, np.arange(len(labels))), axis=1)
    within = sums[here] / np.maximum(sizes[label] - 1, 1)
    others = sums / sizes[None, :]
    others[here] = np.inf
    nearest = others.min(axis=1)
    greater = np.maximum(within, nearest)
    scored = (sizes[label] > 1) & (greater > 0)
    return float(np.mean(np.where(scored, nearest - within, 0.0) / np.where(scored, greater, 1.0)))


def to_multi_hot(rows: np.ndarray, num_tags: int) -> np.ndarray:
    """`[N, K]` rows padded with `num_tags` as boolean `[N, V]`."""
    hot = np.zeros((len(rows), num_tags + 1), bool)
    hot[np.arange(len(rows))[:, None], rows] = True
    return hot[:, :num_tags]


def diversity(sets: np.ndarray) -> dict[str, float]:
    """How varied boolean tag sets `[N, V]` are.

    `entropy` (nats) and `gini_coefficient` are of the distribution over distinct sets.
    """
    _, counts = np.unique(np.packbits(sets, axis=1), axis=0, return_counts=True)
    share = np.sort(counts) / counts.sum()
    distinct = len(share)
    rank = np.arange(1, distinct + 1)
    return {
        "diversity_unique_combinations": distinct,
        "diversity_pct_unique_combinations": 100.0 * distinct / len(sets),
        "diversity_entropy": float(-(share * np.log(share)).sum()),
        "diversity_gini_coefficient": float(
            2.0 * (rank * share).sum() / distinct - (distinct + 1) / distinct
        ),
    }


def cooccurrence(sets: np.ndarray, reference: np.ndarray) -> dict[str, float | None]:
    """Compares how often tags occur together in two collections of sets.

    The matrices have counts of tags on their diagonal and of pairs beside it, as the original's
    do; distributions are the matrices divided by their sums. None where a side is empty or
    constant.

    Args:
      sets: boolean `[N, V]`, decoded or sampled.
      reference: boolean `[M, V]`, data.
    """
    p, q = (
        (hot.astype(np.float32).T @ hot.astype(np.float32)).astype(np.float64).ravel()
        for hot in (reference, sets)
    )
    names = ("cosine_similarity", "kl_divergence", "hellinger_distance", "pearson_correlation")
    values: tuple = (None,) * 4
    if p.sum() > 0 and q.sum() > 0:
        varies = p.std() > 0 and q.std() > 0
        pearson = float(np.corrcoef(p, q)[0, 1]) if varies else None
        p, q = p / p.sum(), q / q.sum()
        # The original's floor under empty cells; without it the divergence would be infinite.
        floor = 1e-10
        values = (
            float(p @ q / (np.linalg.norm(p) * np.linalg.norm(q))),
            float((p * np.log((p + floor) / (q + floor))).sum()),
            float(np.sqrt(0.5 * np.square(np.sqrt(p) - np.sqrt(q)).sum())),
            pearson,
        )
    return {f"cooccurrence_{name}": value for name, value in zip(names, values, strict=True)}


def independent_nll(train: np.ndarray, test: np.ndarray) -> float:
    """Nats per row of the test set under independent tags: what any model has to beat.

    Args:
      train: boolean `[N, V]`; tag frequencies with half a pseudo-count either way.
      test: boolean `[M, V]`.
    """
    return float(-Independent.fit(train).log_likelihood(test).mean())


def information(mean: np.ndarray, logvar: np.ndarray, *, seed: int = 0) -> float:
    """Aggregate information I(x; z) of the encoder over some rows, in nats.

    The mean of log q(z_n|x_n) - log (1/N) sum_m q(z_n|x_m) with one z per row (Hoffman & Johnson
    2016). It can't exceed ln N, so give it many rows; the first 5,000 are used.

    Args:
      mean: `[N, L]`.
      logvar: `[N, L]`.
      seed: of the draw of z.
    """
    mean = np.asarray(mean, np.float64)[:_INFORMATION_ROWS]
    logvar = np.asarray(logvar, np.float64)[:_INFORMATION_ROWS]
    noise = np.random.default_rng(seed).standard_normal(mean.shape)
    z = mean + np.exp(0.5 * logvar) * noise
    precision = np.exp(-logvar)
    # The squared distance, multiplied out into two matrix products.
    constant = (np.square(mean) * precision + logvar).sum(axis=1)
    own = -0.5 * (np.square(noise) + logvar).sum(axis=1)
    total = 0.0
    for start in range(0, len(z), 500):
        block = z[start : start + 500]
        distance = np.square(block) @ precision.T - 2.0 * block @ (mean * precision).T
        log_density = -0.5 * (distance + constant[None, :])
        top = log_density.max(axis=1)
        aggregate = top + np.log(np.exp(log_density - top[:, None]).mean(axis=1))
        total += float((own[start : start + 500] - aggregate).sum())
    return total / len(z)


def collapse_message(nats: float, *, kld_weight: float) -> str | None:
    """Plain words for a model whose latent says nothing, None for one whose latent does."""
    if nats >= COLLAPSE_NATS:
        return None
    advice = (
        f"lower --config.loss.kld_weight (now {kld_weight:g})"
        if kld_weight > 1.0
        else "train longer, raise --config.trainer.optimizer.lr, or lower "
        f"--config.loss.kld_weight (now {kld_weight:g})"
    )
    # A short run looks the same as a collapsed one; where beta is high there is no doubt.
    verdict = "has collapsed" if kld_weight > 1.0 else "has collapsed, or has not learned yet"
    return (
        f"The model {verdict}: z carries {nats:.2f} nats about a row (a useful latent carries "
        f"several), so the decoder gives nearly the same tags whatever z is. To change that: "
        f"{advice}."
    )
