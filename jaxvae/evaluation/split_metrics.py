"""Metrics of a model on a whole split: the original's metrics, silhouette, posterior collapse.

Everything here is numpy on the results of one compiled pass.
"""

from collections.abc import Iterator

import numpy as np

from jaxvae.data.encoding import tag_counts
from jaxvae.data.splits import subsample
from jaxvae.evaluation.baselines import Independent
from jaxvae.evaluation.streaming_metrics import SplitMetrics

COLLAPSE_NATS = 1.0
"""Aggregate information I(x; z), in nats, under which a model has collapsed."""
SILHOUETTE_ROWS = 2000
"""Number of rows, drawn at random, whose silhouette is computed."""
INFORMATION_ROWS = 5000
"""Training rows, drawn at random, over which I(x; z) is estimated and dimensions are named."""
_MOST_SCALED = 1e9
"""Largest sum of squared means in deviations whose rounding in float64 stays under 1e-6 nats."""


def split_metrics(total: SplitMetrics, mean: np.ndarray, rows: np.ndarray) -> dict:
    """Returns every metric that validation logs, by name without the split's prefix.

    Args:
      total: the pass's sums.
      mean: `[N, L]` posterior means.
      rows: `[N, K]` the split's rows.
    """
    return {**total.compute(), "silhouette_score": silhouette(mean, rows)}


def silhouette(mean: np.ndarray, rows: np.ndarray) -> float | None:
    """Silhouette of posterior means labelled by each row's first tag (Rousseeuw 1987).

    At most 2,000 rows are used, since the cost is quadratic. The silhouette is None if it is
    undefined: fewer than two labels, or as many labels as rows. scikit-learn's is not used: its
    import takes as long as everything else before the first epoch, and its BLAS threads keep
    spinning into the next one.

    Args:
      mean: `[N, L]`.
      rows: `[N, K]` column numbers, rising.
    """
    positions = subsample(len(rows), SILHOUETTE_ROWS)
    labels, label = np.unique(rows[positions, 0], return_inverse=True)
    mean = np.asarray(mean, np.float64)[positions]
    if not 2 <= len(labels) < len(label) or not np.isfinite(mean).all():
        return None
    order = np.argsort(label, kind="stable")
    label, mean = label[order], mean[order] - mean.mean(axis=0)
    products = np.einsum("id,jd->ij", mean, mean)
    squares = np.diagonal(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0))
    np.fill_diagonal(distances, 0.0)

    own_cluster = np.arange(len(label)), label
    sizes = np.bincount(label)
    sums = np.add.reduceat(distances, np.searchsorted(label, np.arange(len(labels))), axis=1)
    within = sums[own_cluster] / np.maximum(sizes[label] - 1, 1)
    between = sums / sizes[None, :]
    between[own_cluster] = np.inf
    nearest = between.min(axis=1)
    greater = np.maximum(within, nearest)
    scored = (sizes[label] > 1) & (greater > 0)
    return float(np.mean(np.where(scored, nearest - within, 0.0) / np.where(scored, greater, 1.0)))


def independent_nll(rows: np.ndarray, train: np.ndarray, test) -> float:
    """Nats per test row under independent tags, a baseline that any model has to beat.

    Args:
      rows: `[N, K]`, padded with V.
      train: positions of the training rows, which give the tag frequencies, with half a
        pseudo-count for each value.
      test: `[M, V]`, boolean or as `to_csr` returns them.
    """
    counts = tag_counts(rows, test.shape[1], positions=train)
    independent = Independent.of_counts(counts, len(train))
    return float(-independent.log_likelihood(test).mean())


def aggregate_mutual_information(mean: np.ndarray, logvar: np.ndarray, *, seed: int = 0) -> float:
    """Aggregate information I(x; z) of the encoder over some rows, in nats.

    The mean of log q(z_n|x_n) - log (1/N) sum_m q(z_n|x_m) with one z per row (Hoffman & Johnson
    2016). It can't exceed ln N, so give it many rows; 5,000 of them at most are used. A deviation
    below the resolution of float32 at its mean counts as that: a decoder sees no finer z.

    Args:
      mean: `[N, L]`.
      logvar: `[N, L]`.
      seed: seed of the draw of z.
    """
    positions = subsample(len(mean), INFORMATION_ROWS)
    mean = np.asarray(mean, np.float64)[positions]
    resolution = np.finfo(np.float32).eps * np.maximum(np.abs(mean), np.finfo(np.float32).tiny)
    logvar = np.maximum(np.asarray(logvar, np.float64)[positions], 2.0 * np.log(resolution))
    noise = np.random.default_rng(seed).standard_normal(mean.shape)
    z = mean + np.exp(0.5 * logvar) * noise
    log_own = -0.5 * (np.square(noise) + logvar).sum(axis=1)
    total = 0.0
    for start, log_density in _log_densities(z, mean, logvar):
        top = log_density.max(axis=1)
        ratios = np.exp(log_density - top[:, None])
        aggregate = top + np.log(ratios.mean(axis=1))
        total += float((log_own[start : start + len(top)] - aggregate).sum())
    return total / len(z)


def _log_densities(
    z: np.ndarray, mean: np.ndarray, logvar: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number of a first draw and log q(z_n|x_m) `[.., M]` of some, up to a constant."""
    precision = np.exp(-logvar)
    scaled = np.square(mean) * precision
    constant = -0.5 * logvar.sum(axis=1)
    if scaled.sum(axis=1).max() < _MOST_SCALED:
        # Squared distances expanded into one product of matrices.
        constant = constant - 0.5 * scaled.sum(axis=1)
        of_row = np.concatenate([-0.5 * precision, mean * precision, constant[:, None]], axis=1).T
        of_draw = np.concatenate([np.square(z), z, np.ones((len(z), 1))], axis=1)
        for start in range(0, len(z), 500):
            yield start, of_draw[start : start + 500] @ of_row
        return
    for number, draw in enumerate(z):  # far slower, and only where that product would cancel
        difference = draw[None, :] - mean
        squares = np.einsum("ml,ml,ml->m", difference, difference, precision)
        yield number, (constant - 0.5 * squares)[None, :]


def collapse_message(nats: float, *, kld_weight: float) -> str | None:
    """Returns a warning if the posterior has collapsed, else None."""
    if nats >= COLLAPSE_NATS:
        return None
    advice = (
        f"lower --config.loss.kld_weight (now {kld_weight:g}), or hold the posterior at more nats, "
        f"--config.loss.objective=capacity with --config.loss.capacity=8.0"
        if kld_weight > 1.0
        else "train longer, raise --config.trainer.optimizer.lr, or lower "
        f"--config.loss.kld_weight (now {kld_weight:g})"
    )
    # A short run looks like a collapsed one; with a high beta it is certainly collapsed.
    verdict = "has collapsed" if kld_weight > 1.0 else "has collapsed, or has not learned yet"
    return (
        f"The model {verdict}: z carries {nats:.2f} nats about a row (a useful latent carries "
        f"several), so the decoder gives nearly the same tags whatever z is. To change that: "
        f"{advice}."
    )
