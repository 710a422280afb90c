"""Wiring and the host loop: from a config and a folder to a trained, judged, exported model.

The only room besides the entry that sees a config; everything it calls takes named arguments.
"""

import dataclasses
import json
import math
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview
from flax import nnx
from ml_collections import ConfigDict

from jaxvae import compiled, devices, epoch, evaluate, interrupt, lock, record, run_folder, settings
from jaxvae.checkpoints import Checkpoints
from jaxvae.data_report import format_report
from jaxvae.dataset import load_dataset
from jaxvae.finish import finish
from jaxvae.model import VAE
from jaxvae.progress import Progress
from jaxvae.state import Numbers, TrainState, best_of, create_state, make_numbers
from jaxvae.taxonomy import Taxonomy

Hook = Callable[[int, dict[str, Any], TrainState], None]


class TrainingFailed(RuntimeError):
    """Training can't go on: the message says when it stopped, why, and what to try."""


@dataclasses.dataclass
class Programs:
    """The compiled programs of a run and what they are called with."""

    train_epoch: Callable
    validate: Callable
    numbers: Numbers
    train_rows: jax.Array
    val_rows: jax.Array
    labelled_rows: np.ndarray
    """The validation rows, on the host, whose silhouette is taken."""


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
        graphdef, state = _make_state(config, taxonomy)
        programs = _compile(config, graphdef, taxonomy, dataset, mesh)

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
            best, progress = _train(
                config,
                programs,
                devices.replicate(state, mesh),
                checkpoints,
                folder,
                terminal,
                hooks,
                requests,
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
            use_binary_cross_entropy=config.loss.use_binary_cross_entropy,
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


def _make_state(config: ConfigDict, taxonomy: Taxonomy) -> tuple[nnx.GraphDef, TrainState]:
    settings_ = config.model

    def build() -> VAE:
        return VAE(
            num_tags=taxonomy.num_tags,
            latent_dim=settings_.latent_dim,
            hidden_dim=settings_.hidden_dim,
            use_batch_norm=settings_.use_batch_norm,
            compute_dtype=jnp.bfloat16 if config.trainer.precision == "bf16" else jnp.float32,
            rngs=nnx.Rngs(config.seed),
        )

    return create_state(build, seed=config.seed)


def _compile(config: ConfigDict, graphdef, taxonomy, dataset, mesh) -> Programs:
    trainer, loss = config.trainer, config.loss
    growth = mesh.size if trainer.scale_batch_with_devices else 1
    batch_size = config.data.batch_size * growth
    devices.check_divisible(batch_size=batch_size, mesh=mesh)
    train, val = (dataset.rows[dataset.splits[name]] for name in ("train", "val"))
    sizes = {"num_tags": taxonomy.num_tags, "latent_dim": config.model.latent_dim}
    steps = epoch.steps_per_epoch(len(train), batch_size, trainer.accumulate_grad_batches)
    return Programs(
        train_epoch=epoch.make_train_epoch(
            graphdef,
            num_rows=len(train),
            batch_size=batch_size,
            shuffle=config.data.shuffle,
            accumulate=trainer.accumulate_grad_batches,
            use_binary_cross_entropy=loss.use_binary_cross_entropy,
            batch_sharding=devices.batch_sharding(mesh),
            **sizes,
        ),
        validate=epoch.make_eval_pass(
            graphdef,
            num_rows=len(val),
            batch_size=epoch.eval_batch_size(len(val), taxonomy.num_tags),
            use_binary_cross_entropy=loss.use_binary_cross_entropy,
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
            bce_weight=loss.bce_weight,
            kld_weight=loss.kld_weight,
        ),
        train_rows=devices.place_rows(train, mesh, num_tags=taxonomy.num_tags),
        val_rows=devices.place_rows(val, mesh, num_tags=taxonomy.num_tags),
        labelled_rows=val[: evaluate.SILHOUETTE_ROWS],
    )


def _train(
    config, programs, state, checkpoints, folder, terminal, hooks, requests
) -> tuple[dict, Progress]:
    """The host loop: one compiled call, one line, one decision per epoch."""
    trainer = config.trainer
    state, best, progress = _resume(state, checkpoints, terminal)
    log = record.EpochLog(folder, trackers=config.logger.name, finished=progress.epoch)
    if log.note:
        terminal.say(log.note)
    saved_at, saved_epoch = time.monotonic(), progress.epoch
    total = trainer.max_epochs

    def save():
        tree = {"state": state, "best": best}
        log.sync()
        checkpoints.save(progress.epoch, tree, dataclasses.asdict(progress))

    with terminal.epochs(total, progress.epoch) as display:
        while progress.epoch < total and not progress.stopped_early:
            started = time.perf_counter()
            state, sums = programs.train_epoch(state, programs.numbers, programs.train_rows)
            sums, bad_step = jax.device_get((sums, state.bad_step))
            seconds = time.perf_counter() - started
            if bad_step >= 0:
                progress.nonfinite_step = int(bad_step)
                progress.nonfinite_terms = _nonfinite_terms(sums.compute())
                break
            progress.epoch += 1
            line = {
                "epoch": progress.epoch,
                "step": int(state.step),
                **{f"train/{name}": value for name, value in sums.compute().items()},
                "seconds": seconds,
                "examples_per_second": float(sums.count) / seconds,
            }
            if progress.epoch % trainer.check_val_every_n_epoch == 0 or progress.epoch == total:
                started = time.perf_counter()
                values = _validate(programs, state)
                line |= {f"val/{name}": value for name, value in values.items()}
                line["seconds_eval"] = time.perf_counter() - started
                if not math.isfinite(values["loss"]):
                    progress.nonfinite_step = int(state.step)
                    progress.nonfinite_terms = _nonfinite_terms(values)
                    break
                if progress.observe(
                    values["loss"],
                    patience=trainer.early_stopping_patience,
                    min_delta=trainer.early_stopping_min_delta,
                ):
                    best = _copy(best_of(state))
            log.append(line)
            display.show(line)
            for hook in hooks:
                hook(progress.epoch, line, state)
            stop = requests.signum or (signal.SIGTERM if devices.preempted(progress.epoch) else 0)
            due = time.monotonic() - saved_at >= trainer.checkpoint_every_seconds
            if due or stop or saved_epoch == 0:
                save()
                saved_at, saved_epoch = time.monotonic(), progress.epoch
            if stop:
                log.close()
                raise interrupt.Interrupted(stop, f"epoch {progress.epoch} of {total} is saved")
    log.close()
    # An epoch that is saved stays as it is: resumed, the run meets the same bad step again.
    if saved_epoch != progress.epoch:
        save()
    if progress.nonfinite_step >= 0:
        raise TrainingFailed(_nonfinite(progress, folder))
    if progress.stopped_early:
        terminal.say(
            f"Stopped early at epoch {progress.epoch}: {progress.stale_validations} validations "
            f"without a lower loss"
        )
    return best, progress


def _validate(programs: Programs, state: TrainState) -> dict:
    # The same noise at every validation: epochs differ by their parameters, not by luck.
    total, mean, _ = programs.validate(
        state.params,
        state.batch_stats,
        programs.numbers.loss_weights,
        np.float32(0.5),
        state.key,
        programs.val_rows,
    )
    seen = programs.labelled_rows
    total, mean = jax.device_get((total, mean[: len(seen)]))
    return evaluate.split_metrics(total, mean, seen)


@jax.jit
def _copy(tree):
    """A copy that outlives the original: the next epoch is given the state's memory."""
    return jax.tree.map(jnp.copy, tree)


def _resume(state, checkpoints: Checkpoints, terminal) -> tuple[TrainState, dict, Progress]:
    best = _copy(best_of(state))
    like = {"state": state, "best": best}
    found, damaged = checkpoints.restore(like, set_aside=True)
    for line in damaged:
        terminal.say(line)
    if found is None:
        return state, best, Progress()
    progress = Progress(**found.facts)
    if progress.nonfinite_step >= 0:
        raise TrainingFailed(_nonfinite(progress, checkpoints.folder.parent))
    terminal.say(f"Resuming after epoch {progress.epoch}")
    tree = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), found.tree, like)
    return tree["state"], tree["best"], progress


def _nonfinite_terms(values: dict) -> str:
    names = {"bce": "the reconstruction term", "kld": "the KL term (a log-variance grew too large)"}
    terms = [text for name, text in names.items() if not math.isfinite(values[name])]
    return " and ".join(terms) or "the gradient, both terms being finite"


def _nonfinite(progress: Progress, folder: Path) -> str:
    kept = (
        f"the best parameters (epoch {progress.best_epoch}) are kept in {folder / 'checkpoints'}"
        if progress.best_epoch
        else "no epoch was finished"
    )
    return (
        f"the loss stopped being finite at epoch {progress.epoch + 1}, step "
        f"{progress.nonfinite_step}: {progress.nonfinite_terms} overflowed; {kept}. Try a "
        f"lower --config.trainer.optimizer.lr or --config.trainer.gradient_clip_val, in a new "
        f"--workdir"
    )
