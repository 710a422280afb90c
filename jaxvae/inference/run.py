"""The Python API of a trained model: encode, sample, complete, likelihood, export."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data import encoding
from jaxvae.data.encoding import tag_counts, to_multi_hot
from jaxvae.data.layouts.options import TableFields
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean
from jaxvae.export import formats
from jaxvae.inference import queries, sampling
from jaxvae.inference.arguments import check_count, check_seed, check_share, check_temperature
from jaxvae.inference.generation.run_generation import GeneratingRun
from jaxvae.inference.likelihood import RowLikelihood, row_likelihood
from jaxvae.inference.mixture import Mixture
from jaxvae.models import trained
from jaxvae.reports.run_plots import Plots
from jaxvae.storage import run_files
from jaxvae.storage.saved_rows import SavedRows, load_saved_rows

TagSets = Sequence[Iterable[str]] | np.ndarray
_RATE_PSEUDO_ROWS = 20.0


class Exported(NamedTuple):
    """Result of an export.

    Attributes:
      files: the written files.
      difference: largest difference between the logits computed from the files and the model's.
    """

    files: list[Path]
    difference: float


@dataclasses.dataclass(frozen=True)
class Run(Mixture, GeneratingRun):
    """A trained model with everything needed to use it; created by `jaxvae.load`.

    Tag sets are lists of lists of tags in any spelling, or a boolean array `[N, V]`. An unknown tag
    is an error unless `on_unknown="ignore"`. Tags are returned in the taxonomy's spelling.

    Attributes:
      folder: the run's folder, or the file's or published model's path.
      config: the training config, as nested dictionaries; for an imported model only the known
        fields.
      taxonomy: the taxonomy of the columns.
      network: the parameters, ready to compute with.
      facts: the parameters' checkpoint and epoch.
    """

    folder: Path
    config: dict
    taxonomy: Taxonomy
    network: trained.TrainedModel
    facts: dict

    def members(self) -> tuple["Run"]:
        """Returns the run itself, which alone is a mixture of one."""
        return (self,)

    @property
    def plot(self) -> Plots:
        """The report's figures, one by one: `run.plot.latent_map()`."""
        return Plots(self)

    def posterior(
        self, tag_sets: TagSets, *, on_unknown: str = "error"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and log-variance of q(z|x), each `[N, L]`; dropout is off."""
        return queries.posterior(self.network, self.to_rows(tag_sets, on_unknown=on_unknown))

    def encode(self, tag_sets: TagSets, *, on_unknown: str = "error") -> np.ndarray:
        """Returns posterior means `[N, L]`; equal inputs give equal vectors."""
        return self.posterior(tag_sets, on_unknown=on_unknown)[0]

    def probabilities(self, z: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
        """p(tag present | z) `[N, V]` of latent vectors `[N, L]`."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.network.latent_dim:
            raise InputError(f"z must be [N, {self.network.latent_dim}], not {list(z.shape)}")
        check_temperature(temperature)
        return queries.probabilities(self.network, z, temperature)

    def reconstruct(
        self, tag_sets: TagSets, *, threshold: float = 0.5, on_unknown: str = "error"
    ) -> list[list[str]]:
        """Returns the tags whose probability, given the posterior mean, exceeds `threshold`."""
        check_share("threshold", threshold)
        decoded = self.probabilities(self.encode(tag_sets, on_unknown=on_unknown)) > threshold
        return self.names(decoded)

    def log_likelihood(
        self,
        tag_sets: TagSets,
        *,
        num_importance_samples: int = 1000,
        seed: int = 0,
        on_unknown: str = "error",
    ) -> np.ndarray:
        """Returns the importance-weighted bound on log p(x) `[N]`, nats (Burda et al. 2016)."""
        rows = self.to_rows(tag_sets, on_unknown=on_unknown)
        return self.row_likelihood(rows, num_importance_samples, seed).log_likelihood

    def row_likelihood(self, rows: np.ndarray, draws: int, seed: int) -> RowLikelihood:
        """Estimates likelihood, its Monte-Carlo variance, rate and distortion of rows `[N, K]`."""
        check_count("num_importance_samples", draws)
        check_seed(seed)
        return row_likelihood(self.network, rows, num_importance_samples=draws, seed=seed)

    def sample_sets(
        self,
        num: int,
        *,
        temperature: float = 1.0,
        decode: str = "bernoulli",
        threshold: float = 0.5,
        top_k: int | None = None,
        seed: int = 0,
    ) -> sampling.Samples:
        """Samples like `sample`, but returns boolean sets with their probabilities."""
        check_count("num", num)
        check_temperature(temperature)
        check_seed(seed)
        if decode not in sampling.DECODES:
            raise InputError(
                f"decode {decode!r}: must be one of {', '.join(sampling.DECODES)}"
                f"{did_you_mean(str(decode), sampling.DECODES)}"
            )
        check_share("threshold", threshold)
        network = self.network
        cut: float | np.ndarray = threshold
        if decode == "calibrated":
            cut = sampling.calibrate(
                network.graphdef,
                network.params,
                network.batch_stats,
                rates=self._rates(),
                temperature=temperature,
            )
        if decode == "top_k" and top_k is None:
            try:
                train = self.rows("train")
            except InputError as error:
                raise InputError(f"{error}; give top_k, the tags of a set") from error
            top_k = max(1, round(float((train < network.num_tags).sum(axis=1).mean())))
        if top_k is not None and not 1 <= top_k <= network.num_tags:
            raise InputError(f"top_k {top_k}: must be between 1 and {network.num_tags}, the tags")
        return sampling.sample_prior(
            network.graphdef,
            network.params,
            network.batch_stats,
            num_samples=num,
            temperature=temperature,
            decode=decode,
            threshold=cut,
            top_k=top_k or 1,
            seed=seed,
        )

    def sample(self, num: int, **options: Any) -> list[list[str]]:
        """Draws tag sets from the model.

        Args:
          num: number of sets.
          **options: `temperature` (divides the logits), `decode` ("bernoulli", without empty sets,
            by default; "threshold"; "calibrated", thresholds with which every tag is as frequent
            as in validation; "top_k"), `threshold`, `top_k` (by default the mean number of tags of
            a training row), `seed`.
        """
        return self.names(self.sample_sets(num, **options).multi_hot)

    def table_fields(self, column: str | None) -> TableFields:
        """Says how to find a table's tags: in a column, or for None as in training."""
        if column:
            return TableFields(aspect_column=column)
        data = self.config.get("data", {})
        defaults = dataclasses.asdict(TableFields())
        del defaults["split_column"]  # which the table need not have
        # A published config may hold values of any type.
        return TableFields(
            **{
                name: data[name]
                for name, default in defaults.items()
                if type(data.get(name)) is type(default)
            }
        )

    def to_rows(self, tag_sets: TagSets, *, on_unknown: str = "error") -> np.ndarray:
        """Converts tag sets to column numbers `[N, K]` padded with V."""
        if isinstance(tag_sets, np.ndarray) and tag_sets.dtype.kind in "biuf":
            if tag_sets.ndim != 2 or tag_sets.shape[1] != self.network.num_tags:
                raise InputError(
                    f"tag sets as an array must be [N, {self.network.num_tags}] of zeros and ones, "
                    f"not {list(tag_sets.shape)}"
                )
            if not np.isin(tag_sets, (0, 1)).all():
                raise InputError("tag sets as an array must hold zeros and ones alone")
            columns = [np.flatnonzero(row).tolist() for row in tag_sets]
        else:
            if isinstance(tag_sets, str):
                raise InputError("expected a list of tag sets, found one text")
            columns = [self.taxonomy.columns(tags, on_unknown) for tags in tag_sets]
        if not columns:
            raise InputError("no tag sets given")
        return encoding.pad_tag_ids(columns, self.network.num_tags)

    def names(self, sets: np.ndarray) -> list[list[str]]:
        """Converts boolean sets `[N, V]` to lists of tags."""
        return [self.taxonomy.names(np.flatnonzero(row)) for row in sets]

    @property
    def source(self) -> str:
        """The run's folder, or its address on the Hub, for messages."""
        return self.facts.get("source") or str(self.folder)

    @functools.cached_property
    def kept(self) -> SavedRows:
        """The run's saved rows; InputError if it has none, like an imported model."""
        if "source" in self.facts:
            raise InputError(
                f"{self.source}: a published model has no rows; give the folder of the run that "
                f"trained it"
            )
        return load_saved_rows(self.folder, self.taxonomy)

    @property
    def has_rows(self) -> bool:
        """Whether the run's rows came with it, as they do not with an exported model."""
        return "source" not in self.facts and (self.folder / run_files.ROWS).exists()

    def with_rows_at_most(self, *, train: int, others: int) -> "Run":
        """Returns a copy of the run that subsamples large splits with a fixed seed."""
        fewer = dataclasses.replace(self)
        vars(fewer)["kept"] = self.kept.at_most(train=train, others=others)
        return fewer

    def rows(self, split: str) -> np.ndarray:
        """Returns the rows `[N, K]` of "train", "val" or "test", padded with V.

        Raises:
          InputError: the run has no saved rows (an imported model) or no such split.
        """
        return self.kept.rows[self.kept.positions(split)]

    def source_row(self, split: str) -> np.ndarray:
        """Returns each row's 0-based position among the source's rows, `[N]`."""
        return self.kept.source_row[self.kept.positions(split)]

    def sets(self, split: str) -> np.ndarray:
        """Returns the rows of a split as boolean sets `[N, V]`."""
        return to_multi_hot(self.rows(split), self.network.num_tags)

    def _rates(self) -> np.ndarray:
        """Tag rates of validation, shrunk a little towards training, which has more rare tags."""
        train, val = self.rows("train"), self.rows("val")
        num_tags = self.network.num_tags
        pseudo_counts = _RATE_PSEUDO_ROWS * tag_counts(train, num_tags) / len(train)
        counts = tag_counts(val, num_tags) + pseudo_counts
        return counts / (len(val) + _RATE_PSEUDO_ROWS)

    def export(self, output: str | Path, *, format: str | None = None) -> Exported:
        """Writes the model for other runtimes; docs/export.md describes the formats.

        Args:
          output: a name that ends in `.pth`, `.safetensors`, `.onnx` or `.stablehlo`, or a folder.
          format: "pth", "safetensors", "onnx", "stablehlo" or "torch_module", which is a folder;
            None infers it from the output's suffix.

        Raises:
          InputError: a different file exists there, a package is missing, or the suffix is not the
            format's.
        """
        return Exported(
            *formats.write(
                user_path(output),
                formats.format_of(output, format),
                self.network,
                taxonomy=self.taxonomy,
                config=self.config,
                facts=self.facts,
                probe=_probe(self.taxonomy.num_tags),
            )
        )


def _probe(num_tags: int) -> np.ndarray:
    """Random rows of about four tags each, to compare the logits of an export on."""
    return np.random.default_rng(0).random((64, num_tags)) < min(1.0, 4.0 / num_tags)
