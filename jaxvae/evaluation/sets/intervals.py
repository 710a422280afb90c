"""Intervals of the figures of tag sets, by bootstrap."""

import numpy as np

from jaxvae.evaluation.sets.sample_quality import DataRows


def bootstrap_intervals(
    sets: np.ndarray, held_out: np.ndarray, train: np.ndarray, *, seed: int, resamples: int = 200
) -> dict[str, list[float]]:
    """Returns 95 % intervals of some of `describe_sets`, by resampling sets and held-out rows.

    They are of the values that ever more sets and rows would have. Those of means and shares are
    basic ones (Davison & Hinkley 1997). Errors of tag rates are larger the noisier the rates are:
    their intervals go from the estimate less all that noise can add to it (|a + b| <= |a| + |b|) to
    the estimate, which is too large on average (Jensen), with 1.96 standard deviations at both
    ends. So every interval contains its estimate.

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

    def measure(counts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the means, and the differences of tag rates, with each row so many times."""
        rates = [
            number.astype(np.float32) @ side / len(side)
            for number, side in zip(counts, floats, strict=True)
        ]
        return counts[0] @ of_set / len(of_set), rates[0] - rates[1]

    rng = np.random.default_rng(seed)
    evenly = [np.full(len(side), 1.0 / len(side)) for side in sides]
    means, difference = measure([np.ones(len(side)) for side in sides])
    resampled, errors, noise = [], [], []
    for _ in range(resamples):
        means_again, again = measure([rng.multinomial(len(share), share) for share in evenly])
        resampled.append(means_again)
        errors.append(np.abs(again).mean())
        noise.append(np.abs(again - difference).mean())
    high, low = np.quantile(resampled, (0.025, 0.975), axis=0)
    most = [np.inf, np.inf, 1.0, 1.0]
    ends = np.clip(np.stack([2.0 * means - low, 2.0 * means - high], axis=1).T, 0.0, most).T
    error, spread = float(np.abs(difference).mean()), 1.96 * float(np.std(errors))
    span = [max(0.0, error - float(np.mean(noise)) - spread), error + spread]
    return {
        **dict(zip(names, ends.tolist(), strict=True)),
        "marginal_mae": span,
        "marginal_total_variation": [end * len(difference) / 2.0 for end in span],
    }
