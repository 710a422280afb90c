"""One process's part in a run: from the lock of its folder to the best parameters."""

import contextlib
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
from jaxvae.data.dataset import Dataset, InMemory, load_from_config
from jaxvae.data.summary import format_report
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference import transfer
from jaxvae.inference.verify import verify
from jaxvae.runtime import devices, multihost, signals
from jaxvae.runtime.sharding import Sharding, check_vocabulary
from jaxvae.storage import atomic_files, epoch_metrics, lock, run_dir, run_files, same_run
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.saved_rows import describe_damage
from jaxvae.train import loop, model_setup, program_setup, run_outputs
from jaxvae.train.choices import CHOICES
from jaxvae.train.loggers import display, trackers
from jaxvae.train.loggers.callbacks import Callback, load_callbacks
from jaxvae.train.plan import hyperparams, recipe
from jaxvae.train.plan.progress import RunProgress
from jaxvae.train.plan.run_config import RunConfig
from jaxvae.train.run_outputs import Hook
from jaxvae.train.train_state import TrainState
from jaxvae.train.user_code import UserCode, load_user_code


class Inputs(NamedTuple):
    """Devices and data of a run.

    Attributes:
      sharding: the devices, and how arrays lie on them.
      taxonomy: what the columns mean.
      dataset: rows and splits.
    """

    sharding: Sharding
    taxonomy: Taxonomy
    dataset: Dataset


class Session:
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
        self.config, self.folder, self.overrides = RunConfig(config), folder, overrides
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

    def prepare(self) -> Inputs:
        """Locks the folder and loads the data; nothing is written yet.

        Raises:
          InputError: another process uses the folder, it holds another run, or an argument or a
            file is wrong.
        """
        config, trainer = self.config.asked, self.config.asked.trainer
        with multihost.raise_together():
            self._callbacks = load_callbacks(trainer.callbacks)
            self._user_code = load_user_code(config, self.folder / run_files.EXTENSIONS)
            if self.is_primary:
                trackers.check_installed(config.logger.name)
                with self.requests.defer():  # so that the folder is either locked or removed
                    self.check_held = self._lock.enter_context(lock.acquire_run_lock(self.folder))
                same_run.check_same_settings(self.folder, self.config.fields)
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
        shared = _what_all_must_share(self.config.plain, taxonomy, dataset)
        shared["code of your own"] = json.dumps(self._user_code.copy_names)
        shared["values that follow the data"] = json.dumps(self.config.resolved)
        shared["init_from"] = self._start.record["parameters"] if self._start else ""
        multihost.check_equal(shared)
        return Inputs(Sharding(mesh), taxonomy, dataset)

    def _fill_in(self, dataset: Dataset) -> None:
        """Fills in the fields that follow the data, and checks the outcome."""
        with multihost.raise_together():
            sizes = self._start and transfer.sizes(self._start.run.network)
            self.config.fill_in(dataset, self.folder, start=sizes)
            validation.validate(self.config.filled, CHOICES)

    def is_finished(self) -> bool:
        """Returns whether the folder holds this very run, finished and whole."""
        is_intact = (
            self.is_primary
            and same_run.is_finished_run_of(self.folder, self.config.fields)
            and not verify(self.folder)[1]
        )
        return multihost.broadcast_from_primary(is_intact, [])[0]

    def report_finished(self) -> dict[str, dict[str, Any]]:
        """Prints that the run is finished, and adds to trackers what they lack of it."""
        self.requests.clean = None
        self.terminal.say(same_run.finished_message(self.folder, self.config.fields))
        if not self.is_primary:
            return {}
        stages = atomic_files.read_json(self.folder / run_files.METRICS)
        with contextlib.closing(self._open_trackers()) as tracked:
            tracked.catch_up(epoch_metrics.read_epochs(self.folder))
            tracked.finish(
                stages,
                folder=self.folder,
                artifacts=self.config.asked.logger.artifacts,
                epoch=atomic_files.read_json(self.folder / run_files.SUMMARY)["epochs"],
            )
        return stages

    def _open_trackers(self) -> trackers.TrackerGroup:
        return trackers.open_trackers(
            self.config.asked.logger.name,
            folder=self.folder,
            config=self.config.plain,
            overrides=self.overrides,
            say=self.terminal.say,
        )

    def build(self, inputs: Inputs) -> tuple[model_setup.ModelSetup, TrainState, loop.TrainContext]:
        """Builds the model, a fresh state, and the compiled programs."""
        config, dataset = self.config.filled, inputs.dataset
        train_split = dataset.splits["train"]
        model = model_setup.build_model(
            config,
            inputs.taxonomy,
            len(train_split),
            user_code=self._user_code,
            start=self._start,
        )
        program_setup.check_memory(model, inputs.sharding.mesh)
        state = model.initial(config, dataset.rows[train_split])
        context = program_setup.build_train_context(
            config, model, inputs.taxonomy, dataset, inputs.sharding
        )
        context.budget = self.config.budget(
            steps=context.steps,
            growth=context.growth,
            folder=self.folder if self.is_primary else None,
        )
        return model, state, context

    def begin(self, inputs: Inputs, state: TrainState) -> trackers.TrackerGroup:
        """Opens trackers and writes the run's first files."""
        self.requests.clean = None  # a signal must close trackers from here on
        tracked = trackers.no_trackers()
        with multihost.raise_together():
            if self.is_primary:
                tracked = self._open_trackers()
                self._held.callback(tracked.close)
                self._write_start(inputs, state)
        return tracked

    def _write_start(self, inputs: Inputs, state: TrainState) -> None:
        taxonomy, dataset, say = inputs.taxonomy, inputs.dataset, self.terminal.say
        if damage := describe_damage(self.folder, taxonomy, dataset):
            say(damage)
        say(format_report(dataset.report))
        say(parameter_overview.get_parameter_overview(state.params, include_stats=False))
        described = devices.describe_devices(inputs.sharding.mesh.devices.flatten())
        if self._start:
            say(self._start.describe())
        if self.config.resolved:
            say(recipe.describe(self.config.resolved, recipe.measure(dataset)))
        say(f"Training on {described}; run folder {self.folder}")
        with self.requests.defer():  # a whole start or none
            run_dir.write_start(
                self.folder,
                config=self.config.plain,
                resolved=self.config.resolved,
                overrides=self.overrides,
                devices=described,
                taxonomy=taxonomy,
                dataset=dataset,
                extensions=[*self._callbacks, *self._user_code.files],
                init_from=self._start and self._start.record,
            )

    def fit(
        self,
        inputs: Inputs,
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
                tensorboard="tensorboard" in self.config.asked.logger.name,
            )
            best, progress = loop.train(
                context,
                inputs.sharding.place(state),
                outputs,
                self.folder,
                plan=hyperparams.run_plan_from_config(self.config.filled, steps=context.steps),
                terminal=self.terminal,
                requests=self.requests,
            )
        return inputs.sharding.gather(best), progress


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
