"""Evaluates, samples and exports the best parameters after training, and writes the results."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxvae.config import schema
from jaxvae.data import encoding
from jaxvae.data.dataset import Dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.evaluation import split_metrics, tag_sets
from jaxvae.evaluation.streaming_metrics import SplitMetrics
from jaxvae.export import model_files
from jaxvae.inference import sampling
from jaxvae.models.trained import rebuild_model
from jaxvae.runtime import sharding
from jaxvae.storage import atomic_files, epoch_metrics, run_dir, run_files
from jaxvae.storage.final_params import save_params
from jaxvae.train import setup
from jaxvae.train.loggers import display, tensorboard_events, tensorboard_projector, trackers
from jaxvae.train.loggers.run_summary import summarize_run
from jaxvae.train.objectives import LossWeights
from jaxvae.train.progress import RunProgress
from jaxvae.train.steps import eval_epoch

_PROBE_ROWS = 256


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
    model: setup.ModelSetup
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
        eval_pass = setup.build_eval_epoch(
            self.config, self.model, num_rows=len(rows), num_tags=num_tags
        )
        return jax.device_get(
            eval_pass(
                self.params,
                self.batch_stats,
                self.weights,
                np.float32(self.config.inference.threshold),
                jax.random.key(self.config.seed),
                sharding.append_empty_rows(rows, num_tags=num_tags),
            )
        )


class _Evaluation(NamedTuple):
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


def finalize_run(
    folder: Path,
    fitted: FittedRun,
    *,
    models_dir: Path | None,
    terminal: display.Terminal,
    tracked: trackers.TrackerGroup,
) -> dict[str, dict[str, Any]]:
    """Evaluates the best model, samples from it, exports it, writes the final files and seals.

    Args:
      folder: the run's folder, with its `metrics.jsonl`.
      fitted: the trained run.
      models_dir: where copies named after the model go; None makes none.
      terminal: where the summary is printed.
      tracked: trackers that get the final metrics, too.

    Returns:
      The final metrics by stage, each under its logged name.
    """
    config, progress = fitted.config, fitted.progress
    evaluation = _evaluate_splits(folder, fitted)
    stages = evaluation.stages
    if config.inference.enabled:
        stages["inference"] = _sample(folder, fitted, evaluation.test_sets)
    summary = {
        "config": config.to_dict(),
        "metrics": stages,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "collapsed": evaluation.collapse is not None,
        "test_kl_per_dimension": evaluation.test_kl,
        "largest_logit_difference": _export(folder, fitted),
    }
    if "tensorboard" in config.logger.name and tensorboard_events.is_installed():
        _write_tensorboard(folder / run_files.TENSORBOARD, fitted, evaluation)
    atomic_files.write_json(folder / run_files.METRICS, stages)
    atomic_files.write_json(folder / run_files.SUMMARY, summary)
    copies = _copy(folder, models_dir, config.model_name) if models_dir else ""
    terminal.summary("Done", summarize_run(folder, stages, summary, copies))
    if evaluation.collapse is not None:
        terminal.say(evaluation.collapse)
    run_dir.seal(folder)
    tracked.finish(stages, folder=folder, artifacts=config.logger.artifacts, epoch=progress.epoch)
    return stages


def _evaluate_splits(folder: Path, fitted: FittedRun) -> _Evaluation:
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
    }
    positions = fitted.dataset.splits["train"][: split_metrics.INFORMATION_ROWS]
    train_rows = fitted.dataset.rows[positions]
    _, train_mean, train_logvar = fitted.evaluate(train_rows)
    information = split_metrics.aggregate_mutual_information(train_mean, train_logvar)
    stages["train"]["train/information"] = information
    return _Evaluation(
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


def _export(folder: Path, fitted: FittedRun) -> float:
    """Saves the best parameters and exports them; returns the largest difference of logits."""
    facts = {
        "checkpoint": "best",
        "epoch": fitted.progress.best_epoch,
        "taxonomy_digest": fitted.taxonomy.digest,
    }
    save_params(folder / run_files.FINAL, fitted.params, fitted.batch_stats, facts)
    probe = fitted.split_rows("test")[:_PROBE_ROWS]
    return model_files.write_model(
        folder / run_files.MODEL,
        rebuild_model(fitted.params, fitted.batch_stats, fitted.model.own_classes),
        taxonomy=fitted.taxonomy,
        config=fitted.config.to_dict(),
        probe=encoding.to_multi_hot(probe, fitted.taxonomy.num_tags),
    )


def _write_tensorboard(folder: Path, fitted: FittedRun, evaluation: _Evaluation) -> None:
    """Writes the final metrics and an embedding of training rows for TensorBoard."""
    stages = evaluation.stages
    with atomic_files.name_file_in_errors(folder):
        tensorboard_events.write_final(
            folder,
            fields={
                name: value
                for name, value in schema.flatten(fitted.config.to_dict())
                if not name.startswith(("logger.", "inference."))
            },
            metrics={**stages["test"], **stages.get("inference", {})},
            epochs=fitted.progress.epoch,
        )
    tensorboard_projector.write_projector(
        folder, evaluation.train_mean, evaluation.train_rows, fitted.taxonomy
    )


def _decode(fitted: FittedRun, z: np.ndarray):
    """The tags that are more probable than the threshold given each z, as a sparse `[N, V]`."""
    from scipy.sparse import csr_matrix, vstack

    graphdef, threshold = fitted.model.graphdef, fitted.config.inference.threshold
    size = eval_epoch.eval_batch_size(len(z), fitted.taxonomy.num_tags)
    decode = jax.jit(
        lambda params, stats, z: (
            jax.nn.sigmoid(nnx.merge(graphdef, params, stats).decode(z)) > threshold
        )
    )
    blocks = []
    for start in range(0, len(z), size):
        block = z[start : start + size]
        padded = np.pad(block, ((0, size - len(block)), (0, 0)))
        blocks.append(
            csr_matrix(np.asarray(decode(fitted.params, fitted.batch_stats, padded))[: len(block)])
        )
    return vstack(blocks, format="csr")


def _train_losses(folder: Path, best_epoch: int) -> dict[str, Any]:
    lines = {line["epoch"]: line for line in epoch_metrics.read_epochs(folder)}
    line = lines.get(best_epoch, {})
    return {name: value for name, value in line.items() if name.startswith("train/")}


def _sample(folder: Path, fitted: FittedRun, test_sets) -> dict[str, Any]:
    """Writes sampled tag sets to `samples.json`; returns their metrics."""
    inference = fitted.config.inference
    samples = sampling.sample_prior(
        fitted.model.graphdef,
        fitted.params,
        fitted.batch_stats,
        num_samples=inference.num_samples,
        temperature=inference.temperature,
        decode=inference.decode,
        threshold=inference.threshold,
        seed=inference.seed,
    )
    values = {
        **sampling.describe_samples(samples),
        **tag_sets.diversity(samples.multi_hot),
        **tag_sets.cooccurrence(samples.multi_hot, test_sets),
        "temperature": inference.temperature,
        "decode": inference.decode,
        "threshold": inference.threshold,
        "seed": inference.seed,
    }
    sets = [fitted.taxonomy.names(np.flatnonzero(row)) for row in samples.multi_hot]
    atomic_files.write_json(folder / run_files.SAMPLES, sets)
    return {f"inference/{name}": value for name, value in values.items()}


def _copy(folder: Path, models_dir: Path, name: str) -> str:
    """Copies the export and the metrics under the model's name; returns where, as text."""
    copies = {
        run_files.MODEL: models_dir / f"{name}.pth",
        run_files.SAFETENSORS: models_dir / f"{name}.safetensors",
        run_files.MODEL_MEANING: models_dir / f"{name}.json",
        run_files.METRICS: models_dir / "metrics" / f"{name}_metrics.json",
        run_files.SUMMARY: models_dir / "metrics" / f"{name}_summary.json",
    }
    replaced = copies[run_files.SAFETENSORS].exists()
    for source, target in copies.items():
        if not (folder / source).exists():  # model.pth, which can't express every architecture
            target.unlink(missing_ok=True)  # of an older run, whose config is replaced
            continue
        with (folder / source).open("rb") as file, atomic_files.atomic_write(target) as copy:
            shutil.copyfileobj(file, copy)
    written = next(target for target in copies.values() if target.exists())
    return f"{written}" + (" (replaced an older one)" if replaced else "")
