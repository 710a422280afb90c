"""Evaluates, samples and exports the best parameters after training, and writes the results."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae.config import schema
from jaxvae.data import encoding
from jaxvae.evaluation.sets import tag_sets
from jaxvae.export import model_files
from jaxvae.inference import sampling
from jaxvae.models.trained import rebuild_model
from jaxvae.storage import atomic_files, run_dir, run_files
from jaxvae.storage.final_params import save_params
from jaxvae.train.final_evaluation import Evaluation, FittedRun, evaluate_splits
from jaxvae.train.loggers import display, tensorboard_events, tensorboard_projector, trackers
from jaxvae.train.loggers.run_summary import summarize_run

_PROBE_ROWS = 256


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
    evaluation = evaluate_splits(folder, fitted)
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
        rebuild_model(fitted.params, fitted.batch_stats, fitted.model.user_classes),
        taxonomy=fitted.taxonomy,
        config=fitted.config.to_dict(),
        probe=encoding.to_multi_hot(probe, fitted.taxonomy.num_tags),
    )


def _write_tensorboard(folder: Path, fitted: FittedRun, evaluation: Evaluation) -> None:
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
