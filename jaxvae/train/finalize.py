"""What follows training: the best parameters are judged, sampled, exported and written down."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from jaxvae.config import schema
from jaxvae.config.monitor import Monitor
from jaxvae.data import encoding
from jaxvae.data.dataset import Dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.evaluation import split_metrics, tag_sets
from jaxvae.export import model_files
from jaxvae.inference import sampling
from jaxvae.runtime import sharding
from jaxvae.storage import atomic_files, epoch_metrics
from jaxvae.storage.checkpoints import save_params
from jaxvae.train import eval_epoch
from jaxvae.train.loggers import display, tensorboard_events, tensorboard_projector
from jaxvae.train.objectives import LossWeights, Objective

_INFORMATION_ROWS = 5000


def finalize_run(
    folder: Path,
    *,
    graphdef: nnx.GraphDef,
    make_eval_pass: Callable[..., Callable],
    params: dict,
    batch_stats: dict,
    best_epoch: int,
    epochs: int,
    key: jax.Array,
    weights: LossWeights,
    objective: Objective,
    taxonomy: Taxonomy,
    dataset: Dataset,
    config: dict,
    inference: dict,
    models_dir: Path | None,
    terminal: display.Terminal,
    tensorboard: bool,
) -> dict[str, dict[str, Any]]:
    """Evaluates the best model, samples from it, exports it and writes the final files.

    Args:
      folder: the run's folder.
      graphdef: the model's static graph.
      make_eval_pass: the pass over so many rows (`num_rows=`), as validation was made during
        training: see `eval_epoch.make_eval_pass`.
      params: the parameters to judge, those of the best validation.
      batch_stats: their running statistics.
      best_epoch: the epoch they are from.
      epochs: epochs trained.
      key: the run's root key.
      weights: weights of the loss terms.
      objective: what was minimised.
      taxonomy: what the columns mean.
      dataset: rows and splits.
      config: the whole config, for the record.
      inference: the config's `inference` group.
      models_dir: where copies named after the model go; None makes none.
      terminal: where the summary is printed.
      tensorboard: whether to write the final metrics and an embedding for it.

    Returns:
      The final metrics by stage, each under its logged name.
    """
    num_tags = taxonomy.num_tags

    def judge(rows):
        eval_pass = make_eval_pass(num_rows=len(rows))
        placed = sharding.append_empty_rows(rows, num_tags=num_tags)
        threshold = np.float32(inference["threshold"])
        return jax.device_get(eval_pass(params, batch_stats, weights, threshold, key, placed))

    split_rows = {name: dataset.rows[dataset.splits[name]] for name in ("val", "test")}
    stages: dict[str, dict[str, Any]] = {"train": _train_losses(folder, best_epoch)}
    for name in ("val", "test"):
        total, mean, _ = judge(split_rows[name])
        values = split_metrics.split_metrics(total, mean, split_rows[name])
        stages[name] = {f"{name}/{metric}": value for metric, value in values.items()}
    test_kl = total.latent.kl_per_dimension()

    test_sets = encoding.to_csr(split_rows["test"], num_tags)
    decoded = _decode(graphdef, params, batch_stats, mean, num_tags, inference["threshold"])
    stages["test"] |= {
        f"test/{metric}": value
        for metric, value in {
            **tag_sets.diversity(decoded),
            **tag_sets.cooccurrence(decoded, test_sets),
        }.items()
    }
    if objective.use_binary_cross_entropy:
        stages["test"]["test/independent_nll"] = split_metrics.independent_nll(
            dataset.rows, dataset.splits["train"], test_sets
        )
        if dataset.generator is not None:
            nll = float(-dataset.generator.log_likelihood(split_rows["test"]).mean())
            stages["test"]["test/generator_nll"] = nll
    some_rows = dataset.rows[dataset.splits["train"][:_INFORMATION_ROWS]]
    _, mean, logvar = judge(some_rows)
    information = split_metrics.aggregate_mutual_information(mean, logvar)
    stages["train"]["train/information"] = information

    if inference["enabled"]:
        stages["inference"] = _sample(
            folder, graphdef, params, batch_stats, inference, taxonomy, test_sets
        )
    facts = {"checkpoint": "best", "epoch": best_epoch, "taxonomy_digest": taxonomy.digest}
    save_params(folder / "final", params, batch_stats, facts)
    difference = model_files.write_model(
        folder / "model.pth",
        params,
        batch_stats,
        taxonomy=taxonomy,
        config=config,
        probe=encoding.to_multi_hot(split_rows["test"][:256], num_tags),
    )
    collapse = split_metrics.collapse_message(information, kld_weight=float(weights.kld))
    summary = {
        "config": config,
        "metrics": stages,
        "best_epoch": best_epoch,
        "epochs": epochs,
        "collapsed": collapse is not None,
        "test_kl_per_dimension": test_kl,
        "largest_logit_difference": difference,
    }
    if tensorboard and tensorboard_events.is_installed():
        with atomic_files.name_file_in_errors(folder / "tensorboard"):
            tensorboard_events.write_final(
                folder / "tensorboard",
                fields={
                    name: value
                    for name, value in schema.flatten(config)
                    if not name.startswith(("logger.", "inference."))
                },
                metrics={**stages["test"], **stages.get("inference", {})},
                epochs=epochs,
            )
        tensorboard_projector.write_projector(folder / "tensorboard", mean, some_rows, taxonomy)
    atomic_files.write_json(folder / "metrics.json", stages)
    atomic_files.write_json(folder / "summary.json", summary)
    copies = _copy(folder, models_dir, config["model_name"]) if models_dir else ""
    _announce(terminal, folder, stages, summary, copies)
    if collapse is not None:
        terminal.say(collapse)
    return stages


def _decode(graphdef, params, batch_stats, z: np.ndarray, num_tags: int, threshold: float):
    """The tags that are more probable than a threshold given each z, as a sparse `[N, V]`."""
    from scipy.sparse import csr_matrix, vstack

    size = eval_epoch.eval_batch_size(len(z), num_tags)
    decode = jax.jit(
        lambda params, stats, z: (
            jax.nn.sigmoid(nnx.merge(graphdef, params, stats).decode(z)) > threshold
        )
    )
    blocks = []
    for start in range(0, len(z), size):
        part = z[start : start + size]
        padded = np.pad(part, ((0, size - len(part)), (0, 0)))
        blocks.append(csr_matrix(np.asarray(decode(params, batch_stats, padded))[: len(part)]))
    return vstack(blocks, format="csr")


def _train_losses(folder: Path, best_epoch: int) -> dict[str, Any]:
    lines = {line["epoch"]: line for line in epoch_metrics.read_epochs(folder)}
    line = lines.get(best_epoch, {})
    return {name: value for name, value in line.items() if name.startswith("train/")}


def _sample(
    folder, graphdef, params, batch_stats, inference, taxonomy, test_sets
) -> dict[str, Any]:
    samples = sampling.sample_prior(
        graphdef,
        params,
        batch_stats,
        num_samples=inference["num_samples"],
        temperature=inference["temperature"],
        decode=inference["decode"],
        threshold=inference["threshold"],
        seed=inference["seed"],
    )
    values = {
        **sampling.describe_samples(samples),
        **tag_sets.diversity(samples.multi_hot),
        **tag_sets.cooccurrence(samples.multi_hot, test_sets),
        "temperature": inference["temperature"],
        "decode": inference["decode"],
        "threshold": inference["threshold"],
        "seed": inference["seed"],
    }
    sets = [taxonomy.names(np.flatnonzero(row)) for row in samples.multi_hot]
    atomic_files.write_json(folder / "samples.json", sets)
    return {f"inference/{name}": value for name, value in values.items()}


def _copy(folder: Path, models_dir: Path, name: str) -> str:
    """Copies the export and the metrics under the model's name; says where they are."""
    copies = {
        "model.pth": models_dir / f"{name}.pth",
        "model.safetensors": models_dir / f"{name}.safetensors",
        "model.json": models_dir / f"{name}.json",
        "metrics.json": models_dir / "metrics" / f"{name}_metrics.json",
        "summary.json": models_dir / "metrics" / f"{name}_summary.json",
    }
    replaced = copies["model.pth"].exists()
    for source, target in copies.items():
        with (folder / source).open("rb") as file, atomic_files.atomic_write(target) as copy:
            shutil.copyfileobj(file, copy)
    return f"{copies['model.pth']}" + (" (replaced an older one)" if replaced else "")


def _announce(terminal, folder: Path, stages, summary, copies: str) -> None:
    test = stages["test"]
    independent = test.get("test/independent_nll")
    trainer = summary["config"]["trainer"]
    chosen = Monitor(trainer["monitor"], trainer["monitor_mode"])
    unit = "nats" if independent is not None else "squared error and nats"
    rows = {
        "best epoch": f"{summary['best_epoch']} of {summary['epochs']} "
        f"({chosen.direction} {chosen.name})",
        "test loss": f"{test['test/loss']:.3f} = reconstruction {test['test/bce']:.3f}, "
        f"KL {test['test/kld']:.3f} ({unit} per row, before weights)",
        "test Jaccard, Hamming": f"{test['test/jaccard_index']:.3f}, "
        f"{test['test/hamming_loss']:.4f}",
        "active units": f"{test['test/active_units_num_active_units']} of "
        f"{test['test/active_units_total_units']}",
    }
    if independent is not None:
        gain = independent - test["test/bce"] - test["test/kld"]
        rows["independent tags"] = (
            f"{independent:.3f} nats per row; the model's -ELBO is {abs(gain):.3f} "
            f"{'better' if gain > 0 else 'worse'}"
        )
    if "test/generator_nll" in test:
        rows["best possible"] = (
            f"{test['test/generator_nll']:.3f} nats per row: the corpus's own generator"
        )
    if "inference" in stages:
        drawn = stages["inference"]
        rows["samples"] = (
            f"{drawn['inference/unique_combinations']} distinct sets of "
            f"{drawn['inference/num_samples']}, {drawn['inference/avg_tags_per_sample']:.2f} tags "
            f"each, {drawn['inference/empty_sets']} empty: samples.json"
        )
    rows["export"] = (
        f"model.pth, read back: logits differ by at most {summary['largest_logit_difference']:.1e}"
    )
    rows["run folder"] = str(folder)
    if copies:
        rows["copies"] = copies
    terminal.summary("Done", rows)
