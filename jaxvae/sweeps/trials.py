"""Many configs on one data set: which of them share a program, and how a trained one becomes a run.

Sees configs, as `train` and `prepare` do.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvae.config import schema
from jaxvae.data.dataset import Dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.evaluation.streaming_metrics import ACTIVE_KL
from jaxvae.inference import likelihood
from jaxvae.models import trained
from jaxvae.runtime import devices, sharding, signals
from jaxvae.storage import lock, run_dir
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.sweeps.member_loop import Member, MemberCallbacks, train_members
from jaxvae.sweeps.population import Population
from jaxvae.train import hyperparams, setup
from jaxvae.train.finalize import FittedRun, finalize_run
from jaxvae.train.loggers import display, metrics_log, trackers

TRACED_FIELDS = (
    *("seed", "model_name", "model.dropout_p", "model.decoder_bias"),
    *("loss.bce_weight", "loss.kld_weight", "loss.kld_warmup", "loss.kld_cycles"),
    *("loss.free_bits", "loss.capacity"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.gradient_clip_val"),
    *("trainer.optimizer.lr", "trainer.optimizer.betas", "trainer.optimizer.weight_decay"),
    *("trainer.lr_scheduler", "trainer.check_val_every_n_epoch"),
    *("trainer.early_stopping_patience", "trainer.early_stopping_min_delta"),
    *("trainer.checkpoint_every_seconds", "trainer.enable_progress_bar", "inference", "logger"),
)
"""Fields that members of one program may differ in; any other difference is another shape."""
_ON_OR_OFF = ("model.hidden_dropout_p", "trainer.ema_decay")
"""Numbers too, but whether they are 0 is part of the shape."""
METRICS = (
    *("val/nll_iw", "val/nll_iw_stderr", "val/rate", "val/distortion", "val/active_units"),
    *("val/loss", "val/bce", "val/kld", "val/hamming_loss", "val/jaccard_index"),
    *("val/active_units_num_active_units", "val/active_units_pct_active_units"),
    *("val/active_units_num_by_variance", "val/active_units_pct_by_variance"),
    *("val/active_units_mean_variance", "val/active_units_total_units"),
    *("val/active_units_min_variance", "val/active_units_max_variance"),
)
"""What `validation_measures` knows of a member."""
LIKELIHOOD_DRAWS = 200
"""Importance samples of `val/nll_iw`: it is for choosing among models, not for a report."""


def program_key(config: ConfigDict) -> str:
    """What a config's compiled program depends on: configs of equal shapes share it."""
    kept = {
        name: bool(value) if name in _ON_OR_OFF else value
        for name, value in schema.flatten(config)
        if not any(name == own or name.startswith(own + ".") for own in TRACED_FIELDS)
    }
    return json.dumps(kept, sort_keys=True)


def check_sweepable(config: ConfigDict) -> None:
    """Raises InputError for a field that only a run by itself can have."""
    values = dict(schema.flatten(config))
    shared = "here devices share the models, not a batch or a layer"
    for field, neutral, why in (
        ("trainer.scale_batch_with_devices", False, shared),
        ("trainer.mesh.model", 1, shared),
        ("data.rows_per_epoch", 0, "here all models train on the same rows at the same time"),
    ):
        if values[field] != neutral:
            raise InputError(f"--config.{field}={values[field]}: {why}; leave it out")


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
        self._shapes: dict[Hashable, tuple[ConfigDict, setup.ModelSetup]] = {}
        self._train, self._val = (
            self.dataset.rows[self.dataset.splits[name]] for name in ("train", "val")
        )

    def member(self, name: Any, config: ConfigDict) -> Member:
        """A config's run, before its first step; the config is its own from now on.

        Raises:
          InputError: the config has a field that a run among others can't have.
        """
        check_sweepable(config)
        trackers.check_installed(config.logger.name)
        shape = program_key(config)
        if shape not in self._shapes:
            made = setup.build_model(config, self.taxonomy, len(self._train))
            self._shapes[shape] = config, made
        made = self._shapes[shape][1]
        steps = hyperparams.steps_per_epoch_from_config(config, num_rows=len(self._train))
        return Member(
            name=name,
            shape=shape,
            fresh=lambda: made.initial(config, self._train),
            hyperparams=hyperparams.hyperparams_from_config(config, steps=steps),
            plan=hyperparams.run_plan_from_config(config, steps=steps),
        )

    def train(
        self,
        ask: Callable[[], Member | None],
        watch: MemberCallbacks,
        requests: signals.StopRequest,
    ) -> None:
        """Trains members until `ask` gives no more: see `member_loop.train_members`."""
        train_members(ask, self._population, at_once=self.at_once, watch=watch, requests=requests)

    def _population(self, shape: Hashable) -> Population:
        config, made = self._shapes[shape]
        num_tags = self.taxonomy.num_tags
        bound, bound_rows = setup.build_likelihood_bound(
            config, made.graphdef, val_rows=self._val, num_tags=num_tags
        )
        return Population(
            train_epoch=setup.build_train_epoch(
                config,
                made.graphdef,
                num_rows=len(self._train),
                num_tags=num_tags,
                batch_size=config.data.batch_size,
            ),
            validate=setup.build_eval_epoch(
                config, made.graphdef, num_rows=len(self._val), num_tags=num_tags
            ),
            mesh=self.mesh,
            slots=-(-self.at_once // self.mesh.size) * self.mesh.size,
            train_rows=sharding.append_empty_rows(self._train, num_tags=num_tags),
            val_rows=sharding.append_empty_rows(self._val, num_tags=num_tags),
            likelihood_bound=bound,
            bound_rows=bound_rows,
        )

    def likelihood(self, trees: dict[str, Any]) -> likelihood.RowLikelihood:
        """What importance sampling says of the validation rows under a member's best parameters."""
        network = trained.rebuild_model(trees["best"]["params"], trees["best"]["batch_stats"])
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
        """Makes a trained member a run like any other, judged, sampled and exported.

        Args:
          folder: the run's folder, new or left half-made by a killed process.
          config: the member's.
          member: as it ended.
          trees: its `{"state", "best"}`.
          overrides: what makes it differ from its config file.

        Returns:
          The final metrics, nested as in `metrics.json`.
        """
        made = self._shapes[member.shape][1]
        plain = json.loads(config.to_json())
        with contextlib.ExitStack() as held:
            held.enter_context(lock.acquire_run_lock(folder))
            run_dir.write_start(
                folder,
                config=plain,
                overrides=overrides,
                devices=devices.describe_devices(self.mesh.devices.flatten()),
                taxonomy=self.taxonomy,
                dataset=self.dataset,
            )
            log = metrics_log.MetricsLog(
                folder, tensorboard="tensorboard" in config.logger.name, finished=0
            )
            for line in member.lines:
                log.append(line)
            log.sync()
            tracked = self._tracked(folder, plain, overrides)
            held.callback(tracked.close)
            tracked.catch_up(member.lines)
            epoch, digest = member.progress.epoch, self.taxonomy.digest
            with Checkpoints(folder / "checkpoints", taxonomy_digest=digest) as checkpoints:
                facts = dataclasses.asdict(member.progress)
                if checkpoints.restore(trees, set_aside=True)[0] is None:
                    checkpoints.save(epoch, trees, facts)
            fitted = FittedRun(
                config=config,
                model=made,
                params=trees["best"]["params"],
                batch_stats=trees["best"]["batch_stats"],
                progress=member.progress,
                weights=member.hyperparams.loss_weights,
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
        """A trained member in its trackers; it is not lost where one can't be opened by now."""
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
    """What is known of a trained member on the validation split, by name.

    Args:
      member: as it ended.
      found: the likelihood of the validation rows under its best parameters.

    Returns:
      What its line of the best epoch says of `val/`; and of the likelihood `val/nll_iw`,
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
    """The devices for so many members: all there are, but no idle ones; of a CPU, its cores.

    Args:
      accelerator: as `devices.make_mesh` takes it.
      at_once: most members in training.
    """
    devices.expose_cpu_cores()
    found = devices.make_mesh(accelerator=accelerator, num_devices=-1).size
    return devices.make_mesh(accelerator=accelerator, num_devices=min(found, at_once))
