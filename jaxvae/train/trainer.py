"""One run, from a config and a folder to a trained, evaluated, exported model."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import validation
from jaxvae.config.paths import run_path, user_path
from jaxvae.data.dataset import InMemory
from jaxvae.runtime import compilation_cache, devices, multihost
from jaxvae.train.choices import CHOICES
from jaxvae.train.final_evaluation import FittedRun
from jaxvae.train.finalize import finalize_run
from jaxvae.train.loggers.callbacks import CallbackFailed
from jaxvae.train.resume import TrainingFailed
from jaxvae.train.run_outputs import Hook
from jaxvae.train.session import Session

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
        session = Session(
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
                config=session.config.filled,
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
