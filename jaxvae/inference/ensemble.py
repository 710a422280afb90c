"""Ensembles: a mixture of several runs with equal weights.

Chance errors of single runs average out: the mixture's log-likelihood is never below its members'
mean (Jensen's inequality), and usually above it on held-out rows.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference.arguments import check_count, check_seed
from jaxvae.inference.mixture import Mixture
from jaxvae.inference.run import Run, TagSets
from jaxvae.inference.sampling import Samples


@dataclasses.dataclass(frozen=True)
class Ensemble(Mixture):
    """A mixture of runs with one taxonomy; created by `jaxvae.load_many`.

    Attributes:
      runs: the members, at least two.
    """

    runs: tuple[Run, ...]

    def __post_init__(self):
        if len(self.runs) < 2:
            raise InputError("an ensemble needs at least two runs")
        first = self.runs[0]
        for run in self.runs[1:]:
            if run.taxonomy.digest != first.taxonomy.digest:
                raise InputError(
                    f"{run.source} and {first.source} have other taxonomies: their tags can't be "
                    f"mixed"
                )

    def members(self) -> tuple[Run, ...]:
        """Returns the runs."""
        return self.runs

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the columns."""
        return self.runs[0].taxonomy

    def log_likelihood(
        self,
        tag_sets: TagSets,
        *,
        num_importance_samples: int = 1000,
        seed: int = 0,
        on_unknown: str = "error",
    ) -> np.ndarray:
        """Returns the log of the mean of the members' importance-weighted bounds `[N]`, nats."""
        rows = self.runs[0].to_rows(tag_sets, on_unknown=on_unknown)
        bounds = self.member_log_likelihood(rows, num_importance_samples, seed)
        return log_mean(bounds)

    def member_log_likelihood(self, rows: np.ndarray, draws: int, seed: int) -> np.ndarray:
        """Returns each member's bound on log p(x), `[members, N]`, of rows `[N, K]`."""
        return np.stack([run.row_likelihood(rows, draws, seed).log_likelihood for run in self.runs])

    def sample_sets(self, num: int, *, seed: int = 0, **options: Any) -> Samples:
        """Samples like `sample`, but returns boolean sets with their probabilities."""
        check_count("num", num)
        check_seed(seed)
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(num, np.full(len(self.runs), 1.0 / len(self.runs)))
        batches = [
            run.sample_sets(int(count), seed=int(rng.integers(2**31)), **options)
            for run, count in zip(self.runs, counts, strict=True)
            if count
        ]
        order = rng.permutation(num)
        shares = [len(batch.multi_hot) / num for batch in batches]
        empty = [batch.empty_fraction for batch in batches]
        return Samples(
            np.concatenate([batch.multi_hot for batch in batches])[order],
            np.concatenate([batch.probabilities for batch in batches])[order],
            float(np.dot(shares, empty)),
        )

    def sample(self, num: int, **options: Any) -> list[list[str]]:
        """Draws tag sets, each from a random member; options as in `Run.sample`."""
        return self.names(self.sample_sets(num, **options).multi_hot)

    def names(self, sets: np.ndarray) -> list[list[str]]:
        """Converts boolean sets `[N, V]` to lists of tags."""
        return self.runs[0].names(sets)

    def rows(self, split: str) -> np.ndarray:
        """Returns the rows `[N, K]` of a split, which must be the same for every member.

        Raises:
          InputError: members have different rows: one's test row may be another's training row.
        """
        rows = self.runs[0].rows(split)
        for run in self.runs[1:]:
            its = run.rows(split)
            if its.shape != rows.shape or (its != rows).any():
                raise InputError(
                    f"{run.source} and {self.runs[0].source} have other {split} rows; an ensemble "
                    f"can only be judged on rows that none was trained on"
                )
        return rows

    def export(self, output: str | Path) -> list[Path]:
        """Writes each member's model: `model_0.pth`, `model_1.pth`, ... for `model.pth`."""
        path = user_path(output)
        paths = [
            path.with_name(f"{path.stem}_{number}{path.suffix}") for number in range(len(self.runs))
        ]
        for run, file in zip(self.runs, paths, strict=True):
            run.export(file)
        return paths


def log_mean(log_values: np.ndarray) -> np.ndarray:
    """Returns the log of the mean of `exp(log_values)` over the first axis."""
    return np.logaddexp.reduce(log_values, axis=0) - np.log(len(log_values))


def evaluate_ensemble(
    ensemble: Ensemble, *, split: str, num_importance_samples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Evaluates the likelihood of an ensemble and its members on a split.

    Args:
      ensemble: an ensemble whose members have saved rows.
      split: "train", "val" or "test".
      num_importance_samples: importance samples per row and member.
      seed: seed of every draw.

    Returns:
      `nll_iw` (nats per row), `nll_iw_rows_stderr`, `members/nll_iw` (a list), and `gain/members`,
      the advantage over the members' mean on the same rows, with `_stderr`.
    """
    rows = ensemble.rows(split)
    bounds = ensemble.member_log_likelihood(rows, num_importance_samples, seed)
    mixture = log_mean(bounds)
    gain = mixture - bounds.mean(axis=0)
    root = np.sqrt(len(rows))
    return {
        "split": split,
        "rows": len(rows),
        "members": len(ensemble.runs),
        "num_importance_samples": num_importance_samples,
        "seed": seed,
        "nll_iw": float(-mixture.mean()),
        "nll_iw_rows_stderr": float(mixture.std(ddof=1) / root) if len(rows) > 1 else None,
        "members/nll_iw": (-bounds.mean(axis=1)).tolist(),
        "gain/members": float(gain.mean()),
        "gain/members_stderr": float(gain.std(ddof=1) / root) if len(rows) > 1 else None,
    }
