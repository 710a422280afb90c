"""A finished run, ready to be asked: the Python API."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvae.config.paths import user_path
from jaxvae.data import encoding
from jaxvae.data.encoding import tag_counts, to_multi_hot
from jaxvae.data.tag_lists import quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean
from jaxvae.export import formats
from jaxvae.inference import completion, queries, sampling
from jaxvae.inference.arguments import check_count, check_positive, check_seed, check_share
from jaxvae.inference.likelihood import RowLikelihood, row_likelihood
from jaxvae.models import trained
from jaxvae.reports.run_figures import Plots
from jaxvae.storage.saved_rows import SavedRows, load_saved_rows

TagSets = Sequence[Iterable[str]] | np.ndarray
_RATE_PSEUDO_ROWS = 20.0


@dataclasses.dataclass(frozen=True)
class Completed:
    """Completions of a partial tag set.

    Attributes:
      sets: distinct consistent sets of tags, most probable first.
      probability: of each set, given what is present and absent.
      tags: by concept, every tag that was not given with its probability, highest first.
      log_evidence: log-probability of what is present and absent, nats.
      effective_draws: independent draws that the estimate is worth; distrust it under 100.
    """

    sets: list[list[str]]
    probability: list[float]
    tags: dict[str, list[tuple[str, float]]]
    log_evidence: float
    effective_draws: float


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
      files: the files.
      difference: the largest between their logits, computed from the files, and the model's.
    """

    files: list[Path]
    difference: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with everything needed to use it; get one by `jaxvae.load`.

    Tag sets are lists of lists of tags in any spelling, or a boolean array `[N, V]`. An unknown tag
    is an error unless `on_unknown="ignore"`. Tags are returned in the taxonomy's spelling.

    Attributes:
      folder: where it lies.
      config: the config it was trained with, as nested dictionaries; of an imported model only
        what is known.
      taxonomy: what the columns mean.
      network: the parameters, ready to compute with.
      facts: which checkpoint the parameters are, and of which epoch.
    """

    folder: Path
    config: dict
    taxonomy: Taxonomy
    network: trained.TrainedModel
    facts: dict

    @property
    def plot(self) -> Plots:
        """The report's figures, one by one: `run.plot.latent_map()`."""
        return Plots(self)

    def posterior(
        self, tag_sets: TagSets, *, on_unknown: str = "error"
    ) -> tuple[np.ndarray, np.ndarray]:
        """q(z|x): its mean and log-variance, each `[N, L]`; dropout is off."""
        return queries.posterior(self.network, self.to_rows(tag_sets, on_unknown=on_unknown))

    def encode(self, tag_sets: TagSets, *, on_unknown: str = "error") -> np.ndarray:
        """Posterior means `[N, L]`: the same input always gives the same vectors."""
        return self.posterior(tag_sets, on_unknown=on_unknown)[0]

    def probabilities(self, z: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
        """p(tag present | z) `[N, V]` of latent vectors `[N, L]`."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.network.latent_dim:
            raise InputError(f"z must be [N, {self.network.latent_dim}], not {list(z.shape)}")
        check_positive("temperature", temperature)
        return queries.probabilities(self.network, z, temperature)

    def reconstruct(
        self, tag_sets: TagSets, *, threshold: float = 0.5, on_unknown: str = "error"
    ) -> list[list[str]]:
        """Tags whose probability, decoded from the posterior mean, exceeds `threshold`."""
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
        """The importance-weighted bound on log p(x) `[N]`, nats (Burda et al. 2016)."""
        rows = self.to_rows(tag_sets, on_unknown=on_unknown)
        return self.row_likelihood(rows, num_importance_samples, seed).log_likelihood

    def row_likelihood(self, rows: np.ndarray, draws: int, seed: int) -> RowLikelihood:
        """Likelihood, its Monte-Carlo variance, rate and distortion of rows `[N, K]`."""
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
        """As `sample`, as boolean sets with their probabilities."""
        check_count("num", num)
        check_positive("temperature", temperature)
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
          num: how many.
          **options: `temperature` (divides the logits), `decode` ("bernoulli", without empty sets,
            by default; "threshold"; "calibrated", thresholds under which every tag is as frequent
            as in validation; "top_k"), `threshold`, `top_k` (by default the mean number of tags of
            a training row), `seed`.
        """
        return self.names(self.sample_sets(num, **options).multi_hot)

    def complete(
        self,
        present: Iterable[str] = (),
        absent: Iterable[str] = (),
        *,
        num: int = 5,
        seed: int = 0,
        on_unknown: str = "error",
    ) -> Completed:
        """Completes a partial set by conditioning the model on what is present and absent.

        Args:
          present: tags that must be there.
          absent: tags that must not.
          num: distinct sets to return; fewer where there are not so many.
          seed: of the draws.
          on_unknown: "ignore" skips unknown tags.

        Raises:
          InputError: a tag is both present and absent, or none is given.
        """
        return complete_tags(
            [self.network],
            self.taxonomy,
            present,
            absent,
            num=num,
            seed=seed,
            on_unknown=on_unknown,
        )

    def to_rows(self, tag_sets: TagSets, *, on_unknown: str = "error") -> np.ndarray:
        """Tag sets as column numbers `[N, K]` padded with V."""
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
        """Boolean sets `[N, V]` as lists of tags."""
        return [self.taxonomy.names(np.flatnonzero(row)) for row in sets]

    @property
    def source(self) -> str:
        """Where it came from, for messages: its folder, or its address on the Hub."""
        return self.facts.get("source") or str(self.folder)

    @functools.cached_property
    def kept(self) -> SavedRows:
        """The run's data; InputError where it keeps none, as an imported model does."""
        if "source" in self.facts:
            raise InputError(
                f"{self.source}: a published model has no rows; give the folder of the run that "
                f"trained it"
            )
        return load_saved_rows(self.folder, self.taxonomy)

    def with_rows_at_most(self, *, train: int, others: int) -> "Run":
        """The same run with only some rows of large splits, always the same, drawn at random."""
        fewer = dataclasses.replace(self)
        vars(fewer)["kept"] = self.kept.at_most(train=train, others=others)
        return fewer

    def rows(self, split: str) -> np.ndarray:
        """The rows `[N, K]` of "train", "val" or "test", padded with the vocabulary's size.

        Raises:
          InputError: the run keeps no rows (an imported model) or has no such split.
        """
        return self.kept.rows[self.kept.positions(split)]

    def source_row(self, split: str) -> np.ndarray:
        """Each row's 0-based position among the source's rows, `[N]`."""
        return self.kept.source_row[self.kept.positions(split)]

    def sets(self, split: str) -> np.ndarray:
        """The rows of a split as boolean sets `[N, V]`."""
        return to_multi_hot(self.rows(split), self.network.num_tags)

    def _rates(self) -> np.ndarray:
        """Tag rates of validation, drawn a little towards training, which knows rare tags."""
        train, val = self.rows("train"), self.rows("val")
        num_tags = self.network.num_tags
        drawn = _RATE_PSEUDO_ROWS * tag_counts(train, num_tags) / len(train)
        counts = tag_counts(val, num_tags) + drawn
        return counts / (len(val) + _RATE_PSEUDO_ROWS)

    def export(self, output: str | Path, *, format: str | None = None) -> Exported:
        """Writes the model for other runtimes; see docs/export.md for what each format holds.

        Args:
          output: a name that ends in `.pth`, `.safetensors`, `.onnx` or `.stablehlo`, or a folder.
          format: "pth", "safetensors", "onnx", "stablehlo" or "torch_module", which is a folder;
            None goes by the output's ending.

        Raises:
          InputError: another file is there, a package is missing, or the name is not the format's.
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


def complete_tags(
    networks: Sequence[trained.TrainedModel],
    taxonomy: Taxonomy,
    present: Iterable[str],
    absent: Iterable[str],
    *,
    num: int,
    seed: int,
    on_unknown: str,
) -> Completed:
    """Completes a partial set by tags: see `Run.complete`; several networks are a mixture."""
    check_count("num", num)
    check_seed(seed)
    there = taxonomy.columns(present, on_unknown)
    gone = taxonomy.columns(absent, on_unknown)
    if both := sorted({*there} & {*gone}):
        raise InputError(
            f"both present and absent: {', '.join(map(quote_tag, taxonomy.names(both)))}"
        )
    if not there and not gone:
        raise InputError("nothing to complete: give a tag that is present or absent")
    if len(gone) == taxonomy.num_tags:
        raise InputError("every tag is absent: no set is left")
    found = completion.complete(networks, there, gone, num=num, seed=seed)
    free = {*range(taxonomy.num_tags)} - {*there, *gone}
    tags = {}
    for concept, columns in taxonomy.concepts:
        ranked = sorted(free & {*columns}, key=lambda v: -found.marginals[v])
        tags[concept] = [(taxonomy.spellings[v], float(found.marginals[v])) for v in ranked]
    return Completed(
        [taxonomy.names(np.flatnonzero(row)) for row in found.sets],
        found.probability.tolist(),
        tags,
        found.log_evidence,
        found.effective_draws,
    )


def _probe(num_tags: int) -> np.ndarray:
    """Rows to compare logits on where a run has none: about four tags each."""
    return np.random.default_rng(0).random((64, num_tags)) < min(1.0, 4.0 / num_tags)
