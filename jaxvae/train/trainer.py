"""Wiring: from a config and a folder to a trained, judged, exported model.

Sees the config, as `prepare` does; everything else below takes named arguments.
"""

import contextlib
import functools
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxvae.config import schema, validation
from jaxvae.config.paths import run_path, user_path
from jaxvae.data.dataset import Dataset, load_dataset
from jaxvae.data.summary import format_report
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference.verify import verify
from jaxvae.runtime import compilation_cache, devices, multihost, signals
from jaxvae.runtime.sharding import Sharding, check_vocabulary
from jaxvae.storage import atomic_files, epoch_metrics, lock, run_dir
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.saved_rows import describe_damage
from jaxvae.train import hyperparams, loop, setup
from jaxvae.train.finalize import finalize_run
from jaxvae.train.loggers import display, trackers
from jaxvae.train.loop import Hook, TrainingFailed
from jaxvae.train.objectives import LossWeights
from jaxvae.train.progress import RunProgress

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

    A finished run of the same config that is whole is left as it is.

    Args:
      config: every field of `configs/base.py`.
      workdir: the run's folder, made if missing.
      overrides: what the user typed on the command line, for the record.
      hooks: each is called once an epoch with (epoch, that epoch's metrics, state). The state's
        arrays are only valid during the call: the next epoch reuses their memory.
      models_dir: where the copies named after `config.model_name` go.

    Returns:
      The final metrics, nested as in `metrics.json`; {} in a process that is not the first.

    Raises:
      InputError: something given is wrong; nothing was written.
      PeerLost: another process of the job ended; what was saved stands.
      TrainingFailed: the loss stopped being finite; the best parameters so far are kept.
      Interrupted: SIGINT or SIGTERM came; during training, after the epoch it came in was saved.
    """
    validation.validate(config)
    trainer = config.trainer
    compilation_cache.enable_compilation_cache()
    devices.configure_platform(accelerator=trainer.accelerator, deterministic=trainer.deterministic)
    folder = run_path(workdir)
    # Under jax.distributed, a scheduler's SIGTERM is its business: all hosts must agree.
    ignore = (signal.SIGTERM,) if jax.distributed.is_initialized() else ()
    with contextlib.ExitStack() as held:
        requests = held.enter_context(signals.listen_for_stop(ignore=ignore))
        claimed = held.enter_context(contextlib.ExitStack())
        if not jax.distributed.is_initialized():  # others would not hear of it in good order
            requests.clean = claimed.close
        held.enter_context(multihost.translate_peer_errors())
        first = multihost.is_primary()
        terminal = display.Terminal(progress_bar=trainer.enable_progress_bar, silent=not first)
        plain = json.loads(config.to_json())
        with multihost.raise_together():
            if first:
                trackers.check_installed(config.logger.name)
            with requests.defer():  # a folder that is made is held, or gone again
                check_held = (
                    claimed.enter_context(lock.acquire_run_lock(folder)) if first else _nothing
                )
            if first:
                run_dir.check_same_settings(folder, dict(schema.flatten(plain)))
            mesh = devices.make_mesh(
                accelerator=trainer.accelerator, num_devices=trainer.devices, **trainer.mesh
            )
            taxonomy = Taxonomy.load(config.data.taxonomy_path or None)
            check_vocabulary(mesh, num_tags=taxonomy.num_tags)
            dataset = load_dataset(taxonomy=taxonomy, **schema.data_arguments(config))
            if first:
                run_dir.check_same_data(folder, taxonomy, dataset)
        multihost.check_equal(_what_all_must_share(plain, taxonomy, dataset))
        asked = dict(schema.flatten(plain))
        whole = first and run_dir.is_finished_run_of(folder, asked) and not verify(folder)[1]
        if multihost.broadcast_from_primary(whole, [])[0]:
            requests.clean = None
            terminal.say(run_dir.finished_message(folder, asked))
            return _tell_trackers(folder, config, overrides or {}, terminal) if first else {}
        train_split = dataset.splits["train"]
        made = setup.build_model(config, taxonomy, len(train_split))
        state = made.initial(config, dataset.rows[train_split])
        sharding = Sharding(mesh)
        programs = setup.build_train_context(config, made.graphdef, taxonomy, dataset, sharding)

        tracked = trackers.no_trackers()
        requests.clean = None  # from here on the run writes, and has trackers to close
        with multihost.raise_together():
            if first:
                tracked = trackers.open_trackers(
                    config.logger.name,
                    folder=folder,
                    config=plain,
                    overrides=overrides or {},
                    say=terminal.say,
                )
                held.callback(tracked.close)
                if damage := describe_damage(folder, taxonomy, dataset):
                    terminal.say(damage)
                terminal.say(format_report(dataset.report))
                overview = parameter_overview.get_parameter_overview
                terminal.say(overview(state.params, include_stats=False))
                described = devices.describe_devices(mesh.devices.flatten())
                terminal.say(f"Training on {described}; run folder {folder}")
                with requests.defer():  # a run folder or none
                    run_dir.write_start(
                        folder,
                        config=plain,
                        overrides=overrides or {},
                        devices=described,
                        taxonomy=taxonomy,
                        dataset=dataset,
                    )

        with contextlib.ExitStack() as training:
            training.enter_context(requests.defer())
            checkpoints = None
            with multihost.raise_together():
                if first:
                    digest = taxonomy.digest
                    opened = Checkpoints(folder / "checkpoints", taxonomy_digest=digest)
                    checkpoints = training.enter_context(opened)
            best, progress = loop.train(
                programs,
                sharding.place(state),
                checkpoints,
                folder,
                plan=hyperparams.run_plan_from_config(config, steps=programs.steps),
                terminal=terminal,
                tensorboard="tensorboard" in config.logger.name,
                tracked=tracked,
                hooks=hooks,
                requests=requests,
                check_held=check_held,
            )
        best = sharding.gather(best)
        stages = {}
        if first:
            check_held()
            stages = conclude(
                folder,
                config,
                made,
                best,
                progress,
                weights=programs.hyperparams.loss_weights,
                taxonomy=taxonomy,
                dataset=dataset,
                models_dir=user_path(models_dir).resolve(),
                terminal=terminal,
                tracked=tracked,
            )
        multihost.wait_for_primary()
        return stages


def _tell_trackers(
    folder: Path, config: ConfigDict, overrides: dict[str, Any], terminal: display.Terminal
) -> dict[str, dict[str, Any]]:
    """Gives trackers what they lack of a finished run; returns its final metrics."""
    stages = atomic_files.read_json(folder / "metrics.json")
    tracked = trackers.open_trackers(
        config.logger.name,
        folder=folder,
        config=json.loads(config.to_json()),
        overrides=overrides,
        say=terminal.say,
    )
    with contextlib.closing(tracked):
        tracked.catch_up(epoch_metrics.read_epochs(folder))
        tracked.finish(
            stages,
            folder=folder,
            artifacts=config.logger.artifacts,
            epoch=atomic_files.read_json(folder / "summary.json")["epochs"],
        )
    return stages


def _nothing() -> None:
    """What a process checks that writes nothing."""


def _what_all_must_share(plain: dict, taxonomy: Taxonomy, dataset: Dataset) -> dict[str, str]:
    """What processes compare before they train: paths may differ, what lies there may not."""
    paths = {"data.dataset_name", "data.taxonomy_path"}
    fields = {name: value for name, value in schema.flatten(plain) if name not in paths}
    return {
        "config": json.dumps(fields, sort_keys=True),
        "taxonomy": taxonomy.digest,
        "data set": dataset.fingerprint,
        "jax": jax.__version__,
    }


def conclude(
    folder: Path,
    config: ConfigDict,
    made: setup.ModelSetup,
    best: dict,
    progress: RunProgress,
    *,
    weights: LossWeights,
    taxonomy: Taxonomy,
    dataset: Dataset,
    models_dir: Path | None,
    terminal: display.Terminal,
    tracked: trackers.TrackerGroup,
) -> dict[str, dict[str, Any]]:
    """The tail of a trained run: judged, sampled, exported, and the folder sealed.

    Args:
      folder: the run's folder, with its metrics.jsonl.
      config: the run's.
      made: what it was trained with.
      best: the parameters and running statistics to keep.
      progress: where training ended.
      weights: weights of the loss terms that it was trained with.
      taxonomy: what the columns mean.
      dataset: rows and splits.
      models_dir: where the copies named after `config.model_name` go; None makes none.
      terminal: where the summary is printed.
      tracked: where else the final metrics go.

    Returns:
      The final metrics, nested as in `metrics.json`.
    """
    stages = finalize_run(
        folder,
        graphdef=made.graphdef,
        make_eval_pass=functools.partial(
            setup.build_eval_epoch, config, made.graphdef, num_tags=taxonomy.num_tags
        ),
        params=best["params"],
        batch_stats=best["batch_stats"],
        best_epoch=progress.best_epoch,
        epochs=progress.epoch,
        key=jax.random.key(config.seed),
        weights=weights,
        objective=made.objective,
        taxonomy=taxonomy,
        dataset=dataset,
        config=config.to_dict(),
        inference=config.inference.to_dict(),
        models_dir=models_dir,
        terminal=terminal,
        tensorboard="tensorboard" in config.logger.name,
    )
    run_dir.seal(folder)
    tracked.finish(stages, folder=folder, artifacts=config.logger.artifacts, epoch=progress.epoch)
    return stages
