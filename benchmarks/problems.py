"""What is trained in a benchmark: the rows, the sizes of the model, and the machine it runs on."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from jaxvae.data.dataset import load_dataset
from jaxvae.data.encoding import to_multi_hot
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.models.vae import VAE
from jaxvae.train.plan.progress import steps_per_epoch

SIZES = {"small": (32, 128), "medium": (64, 256), "large": (128, 512)}
"""Latent and hidden size of the configs."""


@dataclass(frozen=True)
class Problem:
    """Training and validation rows `[N, K]` padded with `num_tags`, and the sizes."""

    rows: np.ndarray
    val_rows: np.ndarray
    num_tags: int
    latent_dim: int
    hidden_dim: int
    batch_size: int

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_per_epoch(len(self.rows), self.batch_size)

    def build(self, rngs: nnx.Rngs) -> VAE:
        """The model, freshly initialised."""
        return VAE(
            num_tags=self.num_tags,
            latent_dim=self.latent_dim,
            hidden_dim=self.hidden_dim,
            rngs=rngs,
        )

    def save(self, path: Path) -> None:
        """Writes multi-hot rows for those who want them: `train`, and `val` as `test` too."""
        train, val = (to_multi_hot(rows, self.num_tags) for rows in (self.rows, self.val_rows))
        np.savez(path, train=train, val=val, test=val)


def source() -> tuple[Path | None, Path | None, str]:
    """A file of rows, its taxonomy and their name: MusicCaps if `JAXVAE_SHARED` has it.

    Else the embedded corpus, which needs neither.
    """
    shared = os.environ.get("JAXVAE_SHARED")
    if not shared:
        return None, None, "the embedded corpus"
    data = Path(shared).resolve() / "data"
    return data / "musiccaps-public.csv", data / "concepts_to_tags.json", "MusicCaps"


def load_problem(size: str, batch_size: int) -> Problem:
    """The training and validation split of `source`, and the sizes of a config."""
    file, taxonomy_file, _ = source()
    taxonomy = Taxonomy.load(taxonomy_file)
    dataset = load_dataset(taxonomy=taxonomy, **({"dataset_name": file} if file else {}))
    train, val = (dataset.rows[dataset.splits[name]] for name in ("train", "val"))
    return Problem(train, val, taxonomy.num_tags, *SIZES[size], batch_size)


def machine() -> str:
    """One line: CPUs, JAX's device and the versions of what is compared."""
    versions = []
    for name in ("jax", "flax", "torch", "lightning", "numpy"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    device = jax.devices()[0]
    return (
        f"{os.cpu_count()} CPUs ({platform.machine()}), JAX on {device.device_kind}; "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )
