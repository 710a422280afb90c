"""Many configs on one data set: shares programs among them, and makes trained ones into runs.

Takes config objects.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvae.config import validation
from jaxvae.data.dataset import Dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.evaluation.streaming_metrics import ACTIVE_KL
from jaxvae.inference import likelihood, transfer
from jaxvae.models import trained
from jaxvae.runtime import devices, sharding, signals
from jaxvae.storage import lock, run_dir, run_files
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.sweeps.member_loop import Member, MemberCallbacks, train_members
from jaxvae.sweeps.population import Population
from jaxvae.sweeps.shapes import check_sweepable, program_key
from jaxvae.train import model_setup, program_setup
from jaxvae.train.choices import CHOICES
from jaxvae.train.final_evaluation import FittedRun
from jaxvae.train.finalize import finalize_run
from jaxvae.train.loggers import display, metrics_log, trackers
from jaxvae.train.plan import hyperparams, recipe
from jaxvae.train.user_code import load_user_code

METRICS = (
    *("val/nll_iw", "val/nll_iw_stderr", "val/rate", "val/distortion", "val/active_units"),
    *("val/loss", "val/bce", "val/kld", "val/hamming_loss", "val/jaccard_index"),
    *("val/active_units_num_active_units", "val/active_units_pct_active_units"),
    *("val/active_units_num_by_variance", "val/active_units_pct_by_variance"),
    *("val/active_units_mean_variance", "val/active_units_total_units"),
    *("val/active_units_min_variance", "val/active_units_max_variance"),
)
"""Names of the values that `validation_measures` returns."""
LIKELIHOOD_DRAWS = 200
"""Importance samples of `val/nll_iw`: enough to choose among models, too few for a report."""


@dataclasses.dataclass
class TrialRunner:
    """Runs of many configs on one data set.

    Attributes:
      taxonomy: what the columns mean.
      dataset: rows and splits.
      mesh: the devices that share the members.
      at_once: most members in training.
    """

    taxonomy: Taxonomy
    dataset: Dataset
    mesh: Mesh
    at_once: int

    def __post_init__(self):
        self._before: Path | None = None
        self._starts: dict[str, transfer.Start | None] = {}
        self._shapes: dict[Hashable, tuple[ConfigDict, model_setup.ModelSetup]] = {}
        self._train, self._val = (
            self.dataset.rows[self.dataset.splits[name]] for name in ("train", "val")
        )

    def resolve_as(self, folder: Path) -> None:
        """Gives fields that follow the data the values of a run in `folder`, whatever the rule."""
        self._before = folder

    def member(self, name: Any, config: ConfigDict) -> Member:
        """Makes a config's run before its first step; the config must not be changed afterwards.

        Raises:
          InputError: the config has a value that only a single run can have, or as many of its
            model as each device holds do not fit there.
        """
        check_sweepable(config)
        trackers.check_installed(config.logger.name)
        config = recipe.fill_in(config, self._resolve(config))
        validation.validate(config, CHOICES)
        shape = program_key(config)
        if shape not in self._shapes:
            start = self._load_start(config)
            model = model_setup.build_model(
                config,
                self.taxonomy,
                len(self._train),
                user_code=load_user_code(config),
                start=start,
            )
            program_setup.check_memory(model, self.mesh, at_once=self._per_device)
            self._shapes[shape] = config, model
        model = self._shapes[shape][1]
        steps = hyperparams.steps_per_epoch_from_config(config, num_rows=len(self._train))
        return Member(
            name=name,
            shape=shape,
            fresh=lambda: model.initial(config, self._train),
            hyperparams=hyperparams.hyperparams_from_config(config, steps=steps),
            plan=hyperparams.run_plan_from_config(config, steps=steps),
        )

    def _load_start(self, config: ConfigDict) -> transfer.Start | None:
        """Loads the model that a config starts from, and checks its sizes."""
        if config.init_from not in self._starts:
            start = model_setup.load_start(config, self.taxonomy)
            if start is not None:
                display.Terminal().say(start.describe())
            self._starts[config.init_from] = start
        start = self._starts[config.init_from]
        if start is not None:
            transfer.check_sizes(start, config.model.to_dict())
        return start

    def _resolve(self, config: ConfigDict) -> dict[str, Any]:
        """Returns the values of a config's fields that follow the data."""
        start = self._load_start(config)
        values = recipe.resolve(
            config, lambda: self._size, start=start and transfer.sizes(start.run.network)
        )
        return values | (recipe.recorded(config, self._before) if self._before else {})

    @property
    def _per_device(self) -> int:
        """Slots that each device has of a population: enough for `at_once` members."""
        return -(-self.at_once // self.mesh.size)

    @functools.cached_property
    def _size(self) -> recipe.DataSize:
        return recipe.measure(self.dataset)

    def train(
        self,
        ask: Callable[[], Member | None],
        watch: MemberCallbacks,
        requests: signals.StopRequest,
    ) -> None:
        """Trains members until `ask` gives no more: see `member_loop.train_members`."""
        train_members(ask, self._population, at_once=self.at_once, watch=watch, requests=requests)

    def _population(self, shape: Hashable) -> Population:
        config, model = self._shapes[shape]
        num_tags = self.taxonomy.num_tags
        bound, bound_rows = program_setup.build_likelihood_bound(
            config, model.graphdef, val_rows=self._val, num_tags=num_tags
        )
        return Population(
            train_epoch=program_setup.build_train_epoch(
                config,
                model,
                num_rows=len(self._train),
                num_tags=num_tags,
                batch_size=config.data.batch_size,
            ),
            validate=program_setup.build_eval_epoch(
                config, model, num_rows=len(self._val), num_tags=num_tags
            ),
            mesh=self.mesh,
            slots=self._per_device * self.mesh.size,
            train_rows=sharding.append_empty_rows(self._train, num_tags=num_tags),
            val_rows=sharding.append_empty_rows(self._val, num_tags=num_tags),
            likelihood_bound=bound,
            bound_rows=bound_rows,
        )

    def likelihood(self, member: Member, trees: dict[str, Any]) -> likelihood.RowLikelihood:
        """Importance-weighted likelihood of the validation rows by a member's best parameters."""
        best, user_code = trees["best"], self._shapes[member.shape][1].user_classes
        network = trained.rebuild_model(best["params"], best["batch_stats"], user_code)
        return likelihood.row_likelihood(
            network, self._val, num_importance_samples=LIKELIHOOD_DRAWS, seed=0
        )

    def write_run(
        self,
        folder: Path,
        config: ConfigDict,
        member: Member,
        trees: dict[str, Any],
        *,
        overrides: dict[str, Any],
    ) -> dict[str, dict[str, Any]]:
        """Makes a trained member a run like any other: evaluates, samples and exports it.

        Args:
          folder: the run's folder, new or left half-made by a killed process.
          config: the member's config.
          member: the member, after its training.
          trees: the member's `{"state", "best"}`.
          overrides: values in which the config differs from its config file.

        Returns:
          The final metrics, nested as in `metrics.json`.
        """
        model = self._shapes[member.shape][1]
        plain, resolved = json.loads(config.to_json()), self._resolve(config)
        with contextlib.ExitStack() as opened:
            opened.enter_context(lock.acquire_run_lock(folder))
            run_dir.write_start(
                folder,
                config=plain,
                resolved=resolved,
                overrides=overrides,
                devices=devices.describe_devices(self.mesh.devices.flatten()),
                taxonomy=self.taxonomy,
                dataset=self.dataset,
                extensions=model.user_code.files,
                init_from=model.start and model.start.record,
            )
            log = metrics_log.MetricsLog(
                folder, tensorboard="tensorboard" in config.logger.name, finished=0
            )
            for line in member.lines:
                log.append(line)
            log.sync()
            tracked = self._tracked(folder, plain, overrides)
            opened.callback(tracked.close)
            tracked.catch_up(member.lines)
            epoch, digest = member.progress.epoch, self.taxonomy.digest
            with Checkpoints(folder / run_files.CHECKPOINTS, taxonomy_digest=digest) as checkpoints:
                facts = dataclasses.asdict(member.progress)
                if checkpoints.restore(trees, set_aside=True)[0] is None:
                    checkpoints.save(epoch, trees, facts)
            fitted = FittedRun(
                config=recipe.fill_in(config, resolved),
                model=model,
                params=trees["best"]["params"],
                batch_stats=trees["best"]["batch_stats"],
                progress=member.progress,
                weights=member.hyperparams.loss,
                taxonomy=self.taxonomy,
                dataset=self.dataset,
            )
            return finalize_run(
                folder,
                fitted,
                models_dir=None,
                terminal=display.Terminal(silent=True),
                tracked=tracked,
            )

    def _tracked(
        self, folder: Path, config: dict, overrides: dict[str, Any]
    ) -> trackers.TrackerGroup:
        """Opens a trained member's trackers; if one can't be opened, the run is written without."""
        say = display.Terminal().say
        try:
            return trackers.open_trackers(
                config["logger"]["name"],
                folder=folder,
                config=config,
                overrides=overrides,
                say=say,
            )
        except InputError as error:
            say(f"{folder}: not tracked: {error}")
            return trackers.no_trackers()


def validation_measures(member: Member, found: likelihood.RowLikelihood) -> dict[str, float]:
    """Returns a trained member's results on the validation split, by name.

    Args:
      member: the member, after its training.
      found: the likelihood of the validation rows under the member's best parameters.

    Returns:
      The `val/` values of the best epoch's line, and from the likelihood `val/nll_iw`,
      `val/nll_iw_stderr`, `val/rate`, `val/distortion` (nats) and `val/active_units`.
    """
    best = next(line for line in member.lines if line["epoch"] == member.progress.best_epoch)
    nll = -found.log_likelihood
    return {
        **{name: value for name, value in best.items() if name.startswith("val/")},
        "val/nll_iw": float(nll.mean()),
        "val/nll_iw_stderr": float(nll.std(ddof=1) / np.sqrt(len(nll))) if len(nll) > 1 else 0.0,
        "val/rate": float(found.rate.mean()),
        "val/distortion": float(found.distortion.mean()),
        "val/active_units": int((found.kl_per_dimension.mean(axis=0) > ACTIVE_KL).sum()),
    }


def share_devices(accelerator: str, at_once: int) -> Mesh:
    """Returns a mesh for `at_once` members: all devices, without idle ones; of a CPU, the cores.

    Args:
      accelerator: as `devices.make_mesh` takes it.
      at_once: most members in training.
    """
    devices.expose_cpu_cores()
    num_devices = devices.make_mesh(accelerator=accelerator, num_devices=-1).size
    return devices.make_mesh(accelerator=accelerator, num_devices=min(num_devices, at_once))
