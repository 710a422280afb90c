"""Describes latent dimensions in tags, traverses them, and projects them to two dimensions."""

import importlib.util

import numpy as np

from jaxvae.data.splits import subsample
from jaxvae.evaluation.disentanglement import mutual_information_with_sets
from jaxvae.inference import queries
from jaxvae.models.trained import TrainedModel

_SHOWN = 5
_ORIGINS = 256


def name_dimensions(
    network: TrainedModel,
    mean: np.ndarray,
    sets: np.ndarray,
    kl: np.ndarray,
    *,
    tags: tuple[str, ...],
    concepts: dict[str, range],
) -> list[dict]:
    """Describes every dimension in tags, in order of falling KL.

    Args:
      network: the model.
      mean: `[N, L]` posterior means of rows.
      sets: boolean `[N, V]`, the same rows.
      kl: `[L]` mean KL of each dimension, nats.
      tags: V names.
      concepts: names of concepts and their columns.

    Returns:
      For each dimension: `dim`; `kl`; `rises` and `falls`, pairs of tag and change for the tags
      that gain and lose most probability from -2 to 2 standard deviations of the prior, with the
      rows' values in the other dimensions; `informs`, pairs of tag and nats, the mutual information
      of its mean with single tags; `concepts`, that information summed over each concept's tags,
      nats; `concept`, the largest.
    """
    information = mutual_information_with_sets(mean, sets)
    origins = mean[subsample(len(mean), _ORIGINS)]
    centre, deviation = queries.prior_moments(network)
    named = []
    for dim in np.argsort(-np.asarray(kl), kind="stable"):
        low, high = origins.copy(), origins.copy()
        low[:, dim] = centre[dim] - 2.0 * deviation[dim]
        high[:, dim] = centre[dim] + 2.0 * deviation[dim]
        change = queries.probabilities(network, high).mean(axis=0)
        change = change - queries.probabilities(network, low).mean(axis=0)
        order = np.argsort(change)
        by_concept = {
            name: float(information[dim, columns.start : columns.stop].sum())
            for name, columns in concepts.items()
        }
        strongest = max(by_concept, key=lambda name: by_concept[name])
        best = np.argsort(-information[dim])[:_SHOWN]
        named.append(
            {
                "dim": int(dim),
                "kl": float(kl[dim]),
                "rises": [(tags[v], float(change[v])) for v in order[::-1][:_SHOWN]],
                "falls": [(tags[v], float(change[v])) for v in order[:_SHOWN]],
                "informs": [(tags[v], float(information[dim, v])) for v in best],
                "concept": strongest if by_concept[strongest] > 0.0 else None,
                "concepts": by_concept,
            }
        )
    return named


def two_dimensions(mean: np.ndarray) -> tuple[np.ndarray, str]:
    """Projects posterior means `[N, L]` to `[N, 2]`, by UMAP if installed, and names the method."""
    if importlib.util.find_spec("umap") is not None and len(mean) > 15:
        import umap

        return umap.UMAP(random_state=0, n_jobs=1).fit_transform(mean), "UMAP"
    centre, axes, _ = principal_axes(mean)
    return (mean - centre) @ axes.T, "PCA"


def principal_axes(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Two principal axes of posterior means.

    Args:
      mean: `[N, L]`.

    Returns:
      (the centre `[L]`, the axes `[2, L]`, zeros for one that there is not, their share of the
      variance).
    """
    width = mean.shape[1]
    centre = mean.mean(axis=0, dtype=np.float64)
    covariance = np.cov(mean - centre, rowvar=False, ddof=0).reshape(width, width)
    values, vectors = np.linalg.eigh(covariance)
    axes = np.zeros((2, width))
    largest = vectors[:, np.argsort(-values, kind="stable")[:2]].T
    axes[: len(largest)] = largest
    # The sign of an axis is arbitrary; a fixed one keeps a map from being mirrored.
    turn = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    axes *= np.where(turn == 0.0, 1.0, turn)[:, None]
    share = values.clip(0.0)
    total = float(share.sum())
    return centre, axes, float(np.sort(share)[-2:].sum()) / total if total > 0.0 else 0.0
