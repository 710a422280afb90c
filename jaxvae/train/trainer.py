"""One run, from a config and a folder to a trained, evaluated, exported model."""

import contextlib
import functools
import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from clu import parameter_overview
from ml_collections import ConfigDict

from jaxvae.config import schema, validation
from jaxvae.config.extensions import Extension
from jaxvae.config.paths import run_path, user_path
from jaxvae.data.dataset import Dataset, InMemory, load_from_config
from jaxvae.data.summary import format_report
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference import transfer
from jaxvae.inference.verify import verify
from jaxvae.runtime import compilation_cache, devices, multihost, signals
from jaxvae.runtime.sharding import Sharding, check_vocabulary
from jaxvae.storage import atomic_files, epoch_metrics, lock, run_dir, run_files, same_run
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.saved_rows import describe_damage
from jaxvae.train import loop, model_setup, program_setup, run_outputs
from jaxvae.train.choices import CHOICES
from jaxvae.train.final_evaluation import FittedRun
from jaxvae.train.finalize import finalize_run
from jaxvae.train.loggers import display, trackers
from jaxvae.train.loggers.callbacks import Callback, CallbackFailed, load_callbacks
from jaxvae.train.plan import hyperparams, recipe
from jaxvae.train.plan.budget import LONGER, Budget
from jaxvae.train.plan.progress import RunPlan, RunProgress
from jaxvae.train.resume import TrainingFailed
from jaxvae.train.run_outputs import Hook
from jaxvae.train.train_state import TrainState
from jaxvae.train.user_code import UserCode, load_user_code

__all__ = ["CallbackFailed", "Hook", "TrainingFailed", "train_and_evaluate"]


def train_and_evaluate(
    config: ConfigDict,
    workdir: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    hooks: Sequence[Hook] = (),
    models_dir: str | Path = "models",
    rows: InMemory | None = None,
    silent: bool = False,
) -> dict[str, dict[str, Any]]:
    """Trains, evaluates, samples and exports a model; an unfinished run in `workdir` resumes.

    An intact finished run of the same config is left unchanged.

    Args:
      config: every field of `configs/base.py`.
      workdir: the run's folder, made if missing.
      overrides: what the user typed on the command line, for the record.
      hooks: each is called once an epoch with (epoch, that epoch's metrics, state). The state's
        arrays are only valid during the call: the next epoch reuses their memory.
      models_dir: where the copies named after `config.model_name` go.
      rows: rows in memory, in place of those that `config.data.dataset_name` names.
      silent: print nothing.

    Returns:
      The final metrics, nested as in `metrics.json`; {} in a process that is not the first.

    Raises:
      InputError: an argument or a file is wrong; nothing was written.
      PeerLost: another process of the job ended; saved checkpoints stay.
      TrainingFailed: the loss stopped being finite; the best parameters so far are kept.
      CallbackFailed: a function of `trainer.callbacks` raised; its epoch is saved.
      Interrupted: SIGINT or SIGTERM was received; in training, its epoch was saved first.
    """
    validation.validate(config, CHOICES)
    trainer = config.trainer
    models_dir = user_path(models_dir).resolve()  # now, since a callback may change the folder
    compilation_cache.enable_compilation_cache()
    devices.configure_platform(accelerator=trainer.accelerator, deterministic=trainer.deterministic)
    with contextlib.ExitStack() as opened:
        session = _Session(
            config, run_path(workdir), overrides or {}, opened, rows=rows, silent=silent
        )
        inputs = session.prepare()
        if session.is_finished():
            return session.report_finished()
        model, state, context = session.build(inputs)
        tracked = session.begin(inputs, state)
        best, progress = session.fit(inputs, state, context, tracked=tracked, hooks=hooks)
        stages = {}
        if session.is_primary:
            session.check_held()
            fitted = FittedRun(
                config=session.filled,
                model=model,
                params=best["params"],
                batch_stats=best["batch_stats"],
                progress=progress,
                weights=context.hyperparams.loss,
                taxonomy=inputs.taxonomy,
                dataset=inputs.dataset,
            )
            stages = finalize_run(
                session.folder,
                fitted,
                models_dir=models_dir,
                terminal=session.terminal,
                tracked=tracked,
            )
        multihost.wait_for_primary()
        return stages


class _Inputs(NamedTuple):
    """Devices and data of a run.

    Attributes:
      sharding: the devices, and how arrays lie on them.
      taxonomy: what the columns mean.
      dataset: rows and splits.
    """

    sharding: Sharding
    taxonomy: Taxonomy
    dataset: Dataset


class _Session:
    """One process's part in a run, from the lock of its folder to its last epoch.

    Only the first of several processes writes, prints and locks the folder.

    Args:
      config: every field.
      folder: the run's folder.
      overrides: values that the user typed on the command line.
      held: closes, at the end, everything that the session opens.
      rows: rows in memory, or None.
      silent: print nothing.
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        overrides: dict[str, Any],
        held: contextlib.ExitStack,
        *,
        rows: InMemory | None,
        silent: bool,
    ):
        self.config, self.folder, self.overrides = config, folder, overrides
        self.plain = json.loads(config.to_json())
        self.fields = dict(schema.flatten(self.plain))
        self.filled = config  # once the rows are read, with what follows them filled in
        self._resolved: dict[str, Any] = {}
        self._held, self._rows = held, rows
        # jax.distributed itself handles a scheduler's SIGTERM, since all hosts must agree.
        distributed = jax.distributed.is_initialized()
        ignore = (signal.SIGTERM,) if distributed else ()
        self.requests = held.enter_context(signals.listen_for_stop(ignore=ignore))
        self._lock = held.enter_context(contextlib.ExitStack())
        if not distributed:  # other hosts would not shut down cleanly
            self.requests.clean = self._lock.close
        held.enter_context(multihost.translate_peer_errors())
        self.is_primary = multihost.is_primary()
        self.check_held: Callable[[], None] = _nothing
        self._callbacks: list[Extension] = []
        self._user_code = UserCode()
        self._start: transfer.Start | None = None
        self.terminal = display.Terminal(
            progress_bar=config.trainer.enable_progress_bar, silent=silent or not self.is_primary
        )

    def prepare(self) -> _Inputs:
        """Locks the folder and loads the data; nothing is written yet.

        Raises:
          InputError: another process uses the folder, it holds another run, or an argument or a
            file is wrong.
        """
        config, trainer = self.config, self.config.trainer
        with multihost.raise_together():
            self._callbacks = load_callbacks(trainer.callbacks)
            self._user_code = load_user_code(config, self.folder / run_files.EXTENSIONS)
            if self.is_primary:
                trackers.check_installed(config.logger.name)
                with self.requests.defer():  # so that the folder is either locked or removed
                    self.check_held = self._lock.enter_context(lock.acquire_run_lock(self.folder))
                same_run.check_same_settings(self.folder, self.fields)
                for extension in self._user_code.files:
                    same_run.check_same_extension(self.folder, extension)
            mesh = devices.make_mesh(
                accelerator=trainer.accelerator, num_devices=trainer.devices, **trainer.mesh
            )
            dataset = load_from_config(
                config, own_taxonomy=self.folder / run_files.TAXONOMY, rows=self._rows
            )
            taxonomy = dataset.taxonomy
            check_vocabulary(mesh, num_tags=taxonomy.num_tags)
            if self.is_primary:
                same_run.check_same_data(self.folder, taxonomy, dataset)
        resumes = self.is_primary and same_run.can_resume(self.folder)
        if not multihost.broadcast_from_primary(resumes, [])[0]:
            with multihost.raise_together():
                self._start = model_setup.load_start(config, taxonomy)
                if self._start and self.is_primary:
                    same_run.check_same_start(self.folder, self._start.record)
        self._fill_in(dataset)
        shared = _what_all_must_share(self.plain, taxonomy, dataset)
        shared["code of your own"] = json.dumps(self._user_code.copy_names)
        shared["values that follow the data"] = json.dumps(self._resolved)
        shared["init_from"] = self._start.record["parameters"] if self._start else ""
        multihost.check_equal(shared)
        return _Inputs(Sharding(mesh), taxonomy, dataset)

    def _fill_in(self, dataset: Dataset) -> None:
        """Fills in the fields that follow the data, as the folder's run did if it has begun."""
        with multihost.raise_together():
            values = recipe.resolve(
                self.config,
                functools.partial(recipe.measure, dataset),
                start=self._start and transfer.sizes(self._start.run.network),
            )
            before = recipe.recorded(self.config, self.folder)
            self._resolved = values | before
            if self.config.trainer.max_minutes and "trainer.max_epochs" not in before:
                self._resolved.pop("trainer.max_epochs", None)  # until it is settled
            if self._has_unsettled_length and "trainer.max_epochs" in values:
                values["trainer.max_epochs"] *= LONGER
            self.filled = recipe.fill_in(self.config, values | before)
            validation.validate(self.filled, CHOICES)

    @property
    def _has_unsettled_length(self) -> bool:
        """Whether minutes are given, and have not been turned into epochs yet."""
        return bool(self.config.trainer.max_minutes) and "trainer.max_epochs" not in self._resolved

    def _budget(self, steps: int, growth: int) -> Budget:
        """Returns what settles the run's length, by epochs of so many optimizer steps."""

        def replan(epochs: int) -> tuple[hyperparams.Hyperparams, RunPlan]:
            config = recipe.fill_in(self.filled, {"trainer.max_epochs": epochs})
            numbers = hyperparams.hyperparams_from_config(config, steps=steps, growth=growth)
            self.filled = config
            return numbers, hyperparams.run_plan_from_config(config, steps=steps)

        def record(epochs: int) -> None:
            if self.is_primary:
                self._resolved["trainer.max_epochs"] = epochs
                run_dir.write_resolved(self.folder, self._resolved)

        return Budget(60.0 * self.config.trainer.max_minutes, replan=replan, record=record)

    def is_finished(self) -> bool:
        """Returns whether the folder holds this very run, finished and whole."""
        is_intact = (
            self.is_primary
            and same_run.is_finished_run_of(self.folder, self.fields)
            and not verify(self.folder)[1]
        )
        return multihost.broadcast_from_primary(is_intact, [])[0]

    def report_finished(self) -> dict[str, dict[str, Any]]:
        """Prints that the run is finished, and adds to trackers what they lack of it."""
        self.requests.clean = None
        self.terminal.say(same_run.finished_message(self.folder, self.fields))
        if not self.is_primary:
            return {}
        return _tell_trackers(self.folder, self.config, self.overrides, self.terminal)

    def build(
        self, inputs: _Inputs
    ) -> tuple[model_setup.ModelSetup, TrainState, loop.TrainContext]:
        """Builds the model, a fresh state, and the compiled programs."""
        config, dataset = self.filled, inputs.dataset
        train_split = dataset.splits["train"]
        model = model_setup.build_model(
            config,
            inputs.taxonomy,
            len(train_split),
            user_code=self._user_code,
            start=self._start,
        )
        state = model.initial(config, dataset.rows[train_split])
        context = program_setup.build_train_context(
            config, model, inputs.taxonomy, dataset, inputs.sharding
        )
        if self._has_unsettled_length:
            context.budget = self._budget(context.steps, context.growth)
        return model, state, context

    def begin(self, inputs: _Inputs, state: TrainState) -> trackers.TrackerGroup:
        """Opens trackers and writes the run's first files."""
        self.requests.clean = None  # a signal must close trackers from here on
        tracked = trackers.no_trackers()
        with multihost.raise_together():
            if self.is_primary:
                tracked = trackers.open_trackers(
                    self.config.logger.name,
                    folder=self.folder,
                    config=self.plain,
                    overrides=self.overrides,
                    say=self.terminal.say,
                )
                self._held.callback(tracked.close)
                self._write_start(inputs, state)
        return tracked

    def _write_start(self, inputs: _Inputs, state: TrainState) -> None:
        taxonomy, dataset, say = inputs.taxonomy, inputs.dataset, self.terminal.say
        if damage := describe_damage(self.folder, taxonomy, dataset):
            say(damage)
        say(format_report(dataset.report))
        say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        described = devices.describe_devices(inputs.sharding.mesh.devices.flatten())
        if self._start:
            say(self._start.describe())
        if self._resolved:
            say(recipe.describe(self._resolved, recipe.measure(dataset)))
        say(f"Training on {described}; run folder {self.folder}")
        with self.requests.defer():  # a whole start or none
            run_dir.write_start(
                self.folder,
                config=self.plain,
                resolved=self._resolved,
                overrides=self.overrides,
                devices=described,
                taxonomy=taxonomy,
                dataset=dataset,
                extensions=[*self._callbacks, *self._user_code.files],
                init_from=self._start and self._start.record,
            )

    def fit(
        self,
        inputs: _Inputs,
        state: TrainState,
        context: loop.TrainContext,
        *,
        tracked: trackers.TrackerGroup,
        hooks: Sequence[Hook],
    ) -> tuple[dict, RunProgress]:
        """Trains from the newest checkpoint, if there is one, to the end.

        Returns:
          (the best parameters and running statistics, the run's progress).
        """
        with contextlib.ExitStack() as training:
            training.enter_context(self.requests.defer())
            checkpoints = None
            with multihost.raise_together():
                if self.is_primary:
                    digest = inputs.taxonomy.digest
                    opened = Checkpoints(
                        self.folder / run_files.CHECKPOINTS, taxonomy_digest=digest
                    )
                    checkpoints = training.enter_context(opened)
            outputs = run_outputs.Outputs(
                context.gather,
                checkpoints,
                tracked=tracked,
                hooks=[*hooks, *map(Callback, self._callbacks)],
                check_held=self.check_held,
                tensorboard="tensorboard" in self.config.logger.name,
            )
            best, progress = loop.train(
                context,
                inputs.sharding.place(state),
                outputs,
                self.folder,
                plan=hyperparams.run_plan_from_config(self.filled, steps=context.steps),
                terminal=self.terminal,
                requests=self.requests,
            )
        return inputs.sharding.gather(best), progress


def _tell_trackers(
    folder: Path, config: ConfigDict, overrides: dict[str, Any], terminal: display.Terminal
) -> dict[str, dict[str, Any]]:
    """Adds to trackers what they lack of a finished run; returns its final metrics."""
    stages = atomic_files.read_json(folder / run_files.METRICS)
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
            epoch=atomic_files.read_json(folder / run_files.SUMMARY)["epochs"],
        )
    return stages


def _nothing() -> None:
    """No-op lock check for processes that write nothing."""


def _what_all_must_share(plain: dict, taxonomy: Taxonomy, dataset: Dataset) -> dict[str, str]:
    """Facts that must be equal in all processes: file contents, but not file paths."""
    paths = {"data.dataset_name", "data.taxonomy_path", "init_from"}
    fields = {name: value for name, value in schema.flatten(plain) if name not in paths}
    return {
        "config": json.dumps(fields, sort_keys=True),
        "taxonomy": taxonomy.digest,
        "data set": dataset.fingerprint,
        "jax": jax.__version__,
    }
