"""The evaluation of a run's best model on its splits, after training."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvae.data import encoding
from jaxvae.data.dataset import Dataset
from jaxvae.data.splits import subsample
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.evaluation import quick_baseline, split_metrics
from jaxvae.evaluation.sets import tag_sets
from jaxvae.evaluation.streaming_metrics import SplitMetrics
from jaxvae.inference import queries
from jaxvae.models.trained import TrainedModel, rebuild_model
from jaxvae.runtime import devices, sharding
from jaxvae.storage import epoch_metrics
from jaxvae.train import model_setup, program_setup
from jaxvae.train.objectives import LossWeights
from jaxvae.train.plan.progress import RunProgress
from jaxvae.train.steps import eval_epoch


class FittedRun(NamedTuple):
    """A trained run, before its evaluation.

    Attributes:
      config: the run's config, every field.
      model: the static graph and the objective that it was trained with.
      params: the best parameters.
      batch_stats: their running statistics.
      progress: where training ended, and which epoch was best.
      weights: weights of the loss terms in training.
      taxonomy: what the columns mean.
      dataset: rows and splits.
    """

    config: ConfigDict
    model: model_setup.ModelSetup
    params: dict
    batch_stats: dict
    progress: RunProgress
    weights: LossWeights
    taxonomy: Taxonomy
    dataset: Dataset

    def split_rows(self, name: str) -> np.ndarray:
        """Rows `[n, K]` of a split."""
        return self.dataset.rows[self.dataset.splits[name]]

    def evaluate(self, rows: np.ndarray) -> tuple[SplitMetrics, np.ndarray, np.ndarray]:
        """Returns (metrics, posterior means, log-variances) of rows `[n, K]`."""
        num_tags = self.taxonomy.num_tags
        eval_pass = program_setup.build_eval_epoch(
            self.config, self.model, num_rows=len(rows), num_tags=num_tags
        )
        # Placed as in training on one device, whose program for these sizes is compiled already.
        (device,) = jnp.asarray(jax.tree.leaves(self.params)[0]).devices()
        placed = sharding.Sharding(devices.one_device_mesh(device))
        state = placed.place(
            {
                "params": self.params,
                "batch_stats": self.batch_stats,
                "key": jax.random.key(self.config.seed),
            }
        )
        return jax.device_get(
            eval_pass(
                state["params"],
                state["batch_stats"],
                self.weights,
                np.float32(self.config.inference.threshold),
                state["key"],
                placed.place_rows(rows, np.arange(len(rows)), num_tags=num_tags),
            )
        )

    @property
    def network(self) -> TrainedModel:
        """The best model as it was trained: with its precision, and with layers that are tied."""
        rebuilt = rebuild_model(self.params, self.batch_stats, self.model.user_classes)
        return rebuilt._replace(
            graphdef=self.model.graphdef, params=self.params, batch_stats=self.batch_stats
        )


class Evaluation(NamedTuple):
    """Final metrics, and other results of the evaluation that the final files have.

    Attributes:
      stages: metrics by stage, each under its logged name.
      test_sets: the test split's sets, sparse `[n, V]`.
      test_kl: KL of each latent dimension on the test split, nats.
      collapse: a warning for a collapsed posterior, else None.
      train_rows: some training rows.
      train_mean: their posterior means.
    """

    stages: dict[str, dict[str, Any]]
    test_sets: Any
    test_kl: list[float]
    collapse: str | None
    train_rows: np.ndarray
    train_mean: np.ndarray


def evaluate_splits(folder: Path, fitted: FittedRun) -> Evaluation:
    """Evaluates the validation and test splits, and I(x; z) on training rows."""
    stages: dict[str, dict[str, Any]] = {
        "train": _train_losses(folder, fitted.progress.best_epoch),
    }
    val_total, val_mean, _ = fitted.evaluate(fitted.split_rows("val"))
    stages["val"] = _named("val", val_total, val_mean, fitted.split_rows("val"))
    test_total, test_mean, _ = fitted.evaluate(fitted.split_rows("test"))
    test_sets = encoding.to_csr(fitted.split_rows("test"), fitted.taxonomy.num_tags)
    stages["test"] = {
        **_named("test", test_total, test_mean, fitted.split_rows("test")),
        **_decoded_sets(fitted, test_mean, test_sets),
        **_references(fitted, test_sets),
        **_quick_baseline(fitted),
    }
    train = fitted.dataset.splits["train"]
    some = train[subsample(len(train), split_metrics.INFORMATION_ROWS)]
    train_rows = fitted.dataset.rows[some]
    train_mean, train_logvar = queries.posterior(fitted.network, train_rows)
    information = split_metrics.aggregate_mutual_information(train_mean, train_logvar)
    stages["train"]["train/information"] = information
    return Evaluation(
        stages=stages,
        test_sets=test_sets,
        test_kl=test_total.latent.kl_per_dimension(),
        collapse=split_metrics.collapse_message(
            information, kld_weight=float(fitted.weights.kld_weight)
        ),
        train_rows=train_rows,
        train_mean=train_mean,
    )


def _named(name: str, total: SplitMetrics, mean: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
    """A split's metrics under their logged names."""
    values = split_metrics.split_metrics(total, mean, rows)
    return {f"{name}/{metric}": value for metric, value in values.items()}


def _decoded_sets(fitted: FittedRun, mean: np.ndarray, test_sets) -> dict[str, Any]:
    """Diversity and co-occurrence of the sets decoded from the test split's posterior means."""
    decoded = _decode(fitted, mean)
    values = {**tag_sets.diversity(decoded), **tag_sets.cooccurrence(decoded, test_sets)}
    return {f"test/{metric}": value for metric, value in values.items()}


def _references(fitted: FittedRun, test_sets) -> dict[str, float]:
    """NLL of the test split under independent tags and the generator; {} for squared error."""
    dataset = fitted.dataset
    if not fitted.model.objective.use_binary_cross_entropy:
        return {}
    independent = split_metrics.independent_nll(dataset.rows, dataset.splits["train"], test_sets)
    if dataset.generator is None:
        return {"test/independent_nll": independent}
    generator = float(-dataset.generator.log_likelihood(fitted.split_rows("test")).mean())
    return {"test/independent_nll": independent, "test/generator_nll": generator}


def _quick_baseline(fitted: FittedRun) -> dict[str, float]:
    """Compares the model with a quick mixture, if that is asked for; {} for squared error."""
    is_asked = fitted.config.inference.quick_baseline
    if not (is_asked and fitted.model.objective.use_binary_cross_entropy):
        return {}
    splits = {name: fitted.split_rows(name) for name in ("train", "val", "test")}
    compared = quick_baseline.compare_with_quick_mixture(fitted.network, **splits)
    return {f"test/{name}": value for name, value in compared.items()}


def _decode(fitted: FittedRun, z: np.ndarray):
    """The tags that are more probable than the threshold given each z, as a sparse `[N, V]`."""
    from scipy.sparse import csr_matrix, vstack

    network, threshold = fitted.network, fitted.config.inference.threshold
    size = eval_epoch.eval_batch_size(len(z), fitted.taxonomy.num_tags)
    blocks = [
        csr_matrix(queries.probabilities(network, z[start : start + size]) > threshold)
        for start in range(0, len(z), size)
    ]
    return vstack(blocks, format="csr")


def _train_losses(folder: Path, best_epoch: int) -> dict[str, Any]:
    lines = {line["epoch"]: line for line in epoch_metrics.read_epochs(folder)}
    line = lines.get(best_epoch, {})
    return {name: value for name, value in line.items() if name.startswith("train/")}
