"""Metrics that accumulate sums and counts over batches: exact for any batch size.

`from_batch` and `merge` run inside compiled programs; `compute` runs on the host, on the fetched
sums (`jax.device_get`), without compilation.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics

ACTIVE_KL = 0.05
"""Nats of mean KL above which a latent unit counts as active."""
ACTIVE_VARIANCE = 0.01
"""Variance of posterior means above which a unit counts as active by Burda et al. (2016)."""


@flax.struct.dataclass
class Losses(clu_metrics.Metric):
    """Sums over examples of the loss and its terms."""

    loss: jax.Array
    bce: jax.Array
    kld: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls) -> "Losses":
        """Sums of no rows."""
        zero = jnp.zeros((), jnp.float32)
        return cls(loss=zero, bce=zero, kld=zero, count=zero)

    @classmethod
    def from_batch(cls, *, loss, bce, kld, mask) -> "Losses":
        """Sums of a batch: `loss`, `bce` and `kld` `[B]`, over rows where `mask` is set."""

        def total(values):
            return jnp.sum(jnp.where(mask, values, 0.0))

        return cls(
            loss=total(loss),
            bce=total(bce),
            kld=total(kld),
            count=jnp.sum(mask.astype(jnp.float32)),
        )

    def merge(self, other: "Losses") -> "Losses":
        """Merges two accumulators."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, float]:
        """Means per example: `loss`, `bce`, `kld`, in nats."""
        count = float(self.count)
        return {name: float(getattr(self, name)) / count for name in ("loss", "bce", "kld")}


@flax.struct.dataclass
class Reconstruction(clu_metrics.Metric):
    """Counts behind the Hamming loss and the pooled Jaccard index of thresholded decodings."""

    mismatches: jax.Array
    intersection: jax.Array
    union: jax.Array
    cells: jax.Array

    @classmethod
    def empty(cls) -> "Reconstruction":
        """Counts of no rows."""
        zero = jnp.zeros((), jnp.float32)
        return cls(mismatches=zero, intersection=zero, union=zero, cells=zero)

    @classmethod
    def from_batch(cls, *, predicted, x, mask) -> "Reconstruction":
        """Counts of a batch: `predicted` and `x` boolean `[B, V]`, `mask` `[B]`."""
        rows = mask[:, None]

        # A batch's count is exact in float32; the split's sum may exceed int32.
        def count(cells):
            return jnp.sum((cells & rows).astype(jnp.float32))

        return cls(
            mismatches=count(predicted ^ x),
            intersection=count(predicted & x),
            union=count(predicted | x),
            cells=count(jnp.ones_like(x)),
        )

    def merge(self, other: "Reconstruction") -> "Reconstruction":
        """Merges two accumulators."""
        return jax.tree.map(jnp.add, self, other)

    def compute(self) -> dict[str, float]:
        """`hamming_loss` and `jaccard_index` (1 when both sides are empty throughout)."""
        union = float(self.union)
        return {
            "hamming_loss": float(self.mismatches) / float(self.cells),
            "jaccard_index": float(self.intersection) / union if union else 1.0,
        }


@flax.struct.dataclass
class Latent(clu_metrics.Metric):
    """Per-dimension KL and moments of the posterior means, merged by Chan et al. (1979)."""

    kl: jax.Array
    mean: jax.Array
    squares: jax.Array
    count: jax.Array

    @classmethod
    def empty(cls, latent_dim: int) -> "Latent":
        """Moments of no rows."""
        zeros = jnp.zeros((latent_dim,), jnp.float32)
        return cls(kl=zeros, mean=zeros, squares=zeros, count=jnp.zeros((), jnp.float32))

    @classmethod
    def from_batch(cls, *, kl, mean, mask) -> "Latent":
        """Moments of a batch: `kl` and `mean` `[B, L]`, over rows where `mask` `[B]` is set."""
        rows = mask[:, None]
        count = jnp.sum(mask.astype(jnp.float32))
        centre = jnp.sum(jnp.where(rows, mean, 0.0), axis=0) / jnp.maximum(count, 1.0)
        deviation = jnp.where(rows, mean - centre[None, :], 0.0)
        return cls(
            kl=jnp.sum(jnp.where(rows, kl, 0.0), axis=0),
            mean=centre,
            squares=jnp.sum(jnp.square(deviation), axis=0),
            count=count,
        )

    def merge(self, other: "Latent") -> "Latent":
        """Merges two accumulators."""
        count = self.count + other.count
        divisor = jnp.maximum(count, 1.0)
        gap = other.mean - self.mean
        return Latent(
            kl=self.kl + other.kl,
            mean=self.mean + gap * other.count / divisor,
            squares=self.squares
            + other.squares
            + jnp.square(gap) * self.count * other.count / divisor,
            count=count,
        )

    def compute(self) -> dict[str, float]:
        """Active units by both criteria, and the spread of the posterior means' variance."""
        kl = np.asarray(self.kl) / self.count
        variance = np.asarray(self.squares) / np.maximum(self.count - 1.0, 1.0)
        units = len(kl)
        active = int((kl > ACTIVE_KL).sum())
        by_variance = int((variance > ACTIVE_VARIANCE).sum())
        return {
            "active_units_num_active_units": active,
            "active_units_pct_active_units": 100.0 * active / units,
            "active_units_num_by_variance": by_variance,
            "active_units_pct_by_variance": 100.0 * by_variance / units,
            "active_units_total_units": units,
            "active_units_mean_variance": float(variance.mean()),
            "active_units_min_variance": float(variance.min()),
            "active_units_max_variance": float(variance.max()),
        }

    def kl_per_dimension(self) -> list[float]:
        """Mean KL of every latent dimension over the split, nats."""
        return [float(value) for value in np.asarray(self.kl) / self.count]


@flax.struct.dataclass
class SplitMetrics(clu_metrics.Metric):
    """Losses, reconstruction counts and latent moments of one pass over a split."""

    losses: Losses
    reconstruction: Reconstruction
    latent: Latent

    @classmethod
    def empty(cls, latent_dim: int) -> "SplitMetrics":
        """Sums of no rows."""
        return cls(Losses.empty(), Reconstruction.empty(), Latent.empty(latent_dim))

    def merge(self, other: "SplitMetrics") -> "SplitMetrics":
        """Merges two accumulators."""
        return SplitMetrics(
            self.losses.merge(other.losses),
            self.reconstruction.merge(other.reconstruction),
            self.latent.merge(other.latent),
        )

    def compute(self) -> dict[str, float]:
        """Computes the split's metrics under their logged names, without the split's prefix."""
        collectors = (self.losses, self.reconstruction, self.latent)
        return {
            name: value for collector in collectors for name, value in collector.compute().items()
        }
