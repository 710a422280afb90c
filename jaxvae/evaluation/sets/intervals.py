"""Intervals of the figures of tag sets, by bootstrap."""

import numpy as np

from jaxvae.evaluation.sets.sample_quality import DataRows


def bootstrap_intervals(
    sets: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, seed: int, resamples: int = 200
) -> dict[str, list[float]]:
    """Returns 95 % intervals of some of `describe_sets`, by resampling sets and held-out rows.

    The intervals are basic ones (Davison & Hinkley 1997), which also take out the bias by which
    errors grow with the noise of resampling; lower ends of errors and shares are at least 0.

    Args:
      sets: boolean `[N, V]`.
      held_out: boolean `[M, V]`.
      train: boolean `[T, V]`.
      seed: seed of the resamples.
      resamples: number of resamples.
    """
    sides = [np.asarray(side, bool) for side in (sets, held_out)]
    distances, copies = DataRows(held_out, train).distances(sides[0])
    of_set = np.stack([sides[0].sum(axis=1), distances, ~copies, copies], axis=1).astype(float)
    names = ("tags_per_set_mean", "nearest_train_distance", "unseen_fraction", "copies_fraction")
    floats = [side.astype(np.float32) for side in sides]

    def measure(weights: list[np.ndarray]) -> np.ndarray:
        rates = [w.astype(np.float32) @ side for w, side in zip(weights, floats, strict=True)]
        error = np.abs(rates[0] - rates[1])
        return np.array([*(weights[0] @ of_set), error.mean(), error.sum() / 2.0])

    rng = np.random.default_rng(seed)
    evenly = [np.full(len(side), 1.0 / len(side)) for side in sides]
    resampled = np.array(
        [measure([rng.multinomial(len(w), w) / len(w) for w in evenly]) for _ in range(resamples)]
    )
    value = measure(evenly)
    high, low = np.quantile(resampled, (0.025, 0.975), axis=0)
    ends = np.maximum(0.0, np.stack([2.0 * value - low, 2.0 * value - high], axis=1))
    of_rates = ("marginal_mae", "marginal_total_variation")
    return dict(zip((*names, *of_rates), ends.tolist(), strict=True))
