"""Wiring: from a config and a folder to a trained, judged, exported model.

The only room besides the entry that sees a config; everything it calls takes named arguments.
"""

import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from flax import nnx
from ml_collections import ConfigDict

from jaxvae import (
    compiled,
    devices,
    epoch,
    evaluate,
    interrupt,
    lock,
    loop,
    record,
    run_folder,
    settings,
)
from jaxvae.checkpoints import Checkpoints
from jaxvae.data_report import format_report
from jaxvae.dataset import load_dataset
from jaxvae.finish import finish
from jaxvae.kept_rows import damage_to_repair
from jaxvae.loop import Hook, TrainingFailed
from jaxvae.losses import Objective
from jaxvae.model import VAE
from jaxvae.state import TrainState, create_state, make_numbers
from jaxvae.taxonomy import Taxonomy

__all__ = ["Hook", "TrainingFailed", "train_and_evaluate"]


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
    models_dir: str | Path = "models",
) -> dict[str, dict[str, Any]]:
    """Trains, judges, samples and exports a model; the same folder again resumes.

    Args:
      config: every field of `configs/base.py`.
      workdir: the run's folder, made if missing.
      overrides: what the user typed on the command line, for the record.
      hooks: each is called once an epoch with (epoch, that epoch's metrics, state). The state's
        arrays are only valid during the call: the next epoch reuses their memory.
      models_dir: where the copies named after `config.model_name` go.

    Returns:
      The final metrics, nested as in `metrics.json`.

    Raises:
      InputError: something given is wrong; nothing was written.
      TrainingFailed: the loss stopped being finite; the best parameters so far are kept.
      Interrupted: SIGINT or SIGTERM came; during training, after the epoch it came in was saved.
    """
    settings.validate(config)
    trainer = config.trainer
    compiled.keep_programs()
    devices.start(accelerator=trainer.accelerator, deterministic=trainer.deterministic)
    folder = Path(workdir).expanduser().resolve()
    # Under jax.distributed, a scheduler's SIGTERM is its business: all hosts must agree.
    ignore = (signal.SIGTERM,) if jax.distributed.is_initialized() else ()
    with interrupt.requests(ignore=ignore) as requests, lock.claim(folder):
        plain = json.loads(config.to_json())
        run_folder.refuse_other_settings(folder, dict(settings.fields(plain)))
        mesh = devices.make_mesh(accelerator=trainer.accelerator, num_devices=trainer.devices)
        terminal = record.Terminal(progress_bar=trainer.enable_progress_bar)
        taxonomy = Taxonomy.load(config.data.taxonomy_path or None)
        dataset = load_dataset(taxonomy=taxonomy, **settings.data_arguments(config))
        run_folder.refuse_other_data(folder, taxonomy, dataset)
        train_rows = dataset.rows[dataset.splits["train"]]
        graphdef, state = _make_state(config, taxonomy, train_rows)
        programs = _compile(config, graphdef, taxonomy, dataset, mesh)

        for line in damage_to_repair(folder, taxonomy, dataset):
            terminal.say(line)
        terminal.say(format_report(dataset.report))
        terminal.say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        terminal.say(f"Training on {devices.describe(mesh.devices.flatten())}; run folder {folder}")
        run_folder.write_start(
            folder,
            config=plain,
            overrides=overrides or {},
            devices=devices.describe(mesh.devices.flatten()),
            taxonomy=taxonomy,
            dataset=dataset,
        )

        with (
            requests.defer(),
            Checkpoints(folder / "checkpoints", taxonomy_digest=taxonomy.digest) as checkpoints,
        ):
            best, progress = loop.train(
                programs,
                devices.replicate(state, mesh),
                checkpoints,
                folder,
                plan=loop.Plan(
                    max_epochs=trainer.max_epochs,
                    warmup_epochs=_warmup_epochs(config),
                    check_val_every_n_epoch=trainer.check_val_every_n_epoch,
                    patience=trainer.early_stopping_patience,
                    min_delta=trainer.early_stopping_min_delta,
                    checkpoint_every_seconds=trainer.checkpoint_every_seconds,
                ),
                terminal=terminal,
                trackers=config.logger.name,
                hooks=hooks,
                requests=requests,
            )
        stages = finish(
            folder,
            graphdef=graphdef,
            params=best["params"],
            batch_stats=best["batch_stats"],
            best_epoch=progress.best_epoch,
            epochs=progress.epoch,
            key=jax.random.key(config.seed),
            weights=programs.numbers.loss_weights,
            objective=_objective(config),
            latent_dim=config.model.latent_dim,
            taxonomy=taxonomy,
            dataset=dataset,
            config=config.to_dict(),
            inference=config.inference.to_dict(),
            models_dir=Path(models_dir).expanduser().resolve(),
            terminal=terminal,
        )
        run_folder.seal(folder)
        return stages


def _objective(config: ConfigDict) -> Objective:
    loss = config.loss
    return Objective(
        name=loss.objective,
        num_draws=loss.num_importance_samples if loss.objective == "iw" else 1,
        schedule=loss.kld_schedule,
        use_binary_cross_entropy=loss.use_binary_cross_entropy,
    )


def _warmup_epochs(config: ConfigDict) -> float:
    """Epochs until the loss has its final weights; a number below 1 is a share of all."""
    warmup = config.loss.kld_warmup
    if config.loss.kld_schedule == "constant":
        return 0.0
    return warmup * config.trainer.max_epochs if warmup < 1.0 else warmup


def _make_state(
    config: ConfigDict, taxonomy: Taxonomy, rows: np.ndarray
) -> tuple[nnx.GraphDef, TrainState]:
    settings_, num_tags = config.model, taxonomy.num_tags
    log_odds = pseudo_inputs = None
    if settings_.decoder_bias == "log_odds":
        present = np.bincount(rows.ravel(), minlength=num_tags + 1)[:num_tags] + 0.5
        log_odds = np.log(present) - np.log(len(rows) + 1.0 - present)
    if settings_.prior == "vamp":
        drawn = np.random.default_rng(config.seed).permutation(len(rows))
        chosen = rows[np.resize(drawn, settings_.prior_components)]
        pseudo_inputs = evaluate.to_multi_hot(chosen, num_tags).astype(np.float32)

    def build() -> VAE:
        return VAE(
            num_tags=num_tags,
            latent_dim=settings_.latent_dim,
            hidden_dim=settings_.hidden_dim,
            use_batch_norm=settings_.use_batch_norm,
            use_layer_norm=settings_.use_layer_norm,
            prior=settings_.prior,
            num_components=settings_.prior_components,
            pseudo_inputs=pseudo_inputs,
            decoder_bias=log_odds,
            compute_dtype=jnp.bfloat16 if config.trainer.precision == "bf16" else jnp.float32,
            rngs=nnx.Rngs(config.seed),
        )

    return create_state(
        build,
        seed=config.seed,
        average=config.trainer.ema_decay > 0.0,
        decoupled=config.trainer.optimizer.decoupled_weight_decay,
    )


def _compile(config: ConfigDict, graphdef, taxonomy, dataset, mesh) -> loop.Programs:
    trainer, loss = config.trainer, config.loss
    growth = mesh.size if trainer.scale_batch_with_devices else 1
    batch_size = config.data.batch_size * growth
    devices.check_divisible(batch_size=batch_size, mesh=mesh)
    train, val = (dataset.rows[dataset.splits[name]] for name in ("train", "val"))
    sizes = {"num_tags": taxonomy.num_tags, "latent_dim": config.model.latent_dim}
    steps = epoch.steps_per_epoch(len(train), batch_size, trainer.accumulate_grad_batches)
    objective = _objective(config)
    return loop.Programs(
        train_epoch=epoch.make_train_epoch(
            graphdef,
            num_rows=len(train),
            batch_size=batch_size,
            shuffle=config.data.shuffle,
            accumulate=trainer.accumulate_grad_batches,
            objective=objective,
            dropout_per_row=config.model.dropout_per_row,
            hidden_dropout=config.model.hidden_dim if config.model.hidden_dropout_p else 0,
            decoupled=trainer.optimizer.decoupled_weight_decay,
            batch_sharding=devices.batch_sharding(mesh),
            **sizes,
        ),
        validate=epoch.make_eval_pass(
            graphdef,
            num_rows=len(val),
            batch_size=epoch.eval_batch_size(len(val), taxonomy.num_tags),
            objective=objective,
            **sizes,
        ),
        numbers=make_numbers(
            learning_rate=trainer.optimizer.lr * math.sqrt(growth),
            betas=trainer.optimizer.betas,
            weight_decay=trainer.optimizer.weight_decay,
            clip_norm=trainer.gradient_clip_val,
            lr_schedule=trainer.lr_scheduler.name,
            warmup_steps=round(trainer.lr_scheduler.warmup_epochs * steps),
            total_steps=trainer.max_epochs * steps,
            final_fraction=trainer.lr_scheduler.final_fraction,
            dropout_p=config.model.dropout_p,
            hidden_dropout_p=config.model.hidden_dropout_p,
            average_decay=trainer.ema_decay,
            bce_weight=loss.bce_weight,
            kld_weight=loss.kld_weight,
            kld_warmup_steps=_warmup_epochs(config) * steps,
            kld_cycles=loss.kld_cycles,
            free_bits=loss.free_bits,
            capacity=loss.capacity,
        ),
        train_rows=devices.place_rows(train, mesh, num_tags=taxonomy.num_tags),
        val_rows=devices.place_rows(val, mesh, num_tags=taxonomy.num_tags),
        labelled_rows=val[: evaluate.SILHOUETTE_ROWS],
    )
