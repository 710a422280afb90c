"""Host-side training loop: runs epochs, logs, validates, saves, stops early, resumes."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvae.config import monitor
from jaxvae.errors import InputError
from jaxvae.evaluation import split_metrics
from jaxvae.evaluation.streaming_metrics import Losses
from jaxvae.runtime import devices, multihost, signals
from jaxvae.train.loggers import display
from jaxvae.train.loggers.callbacks import CallbackFailed
from jaxvae.train.plan.budget import Budget
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.plan.progress import RunPlan, RunProgress
from jaxvae.train.resume import TrainingFailed, copy_tree, describe_nonfinite, resume
from jaxvae.train.run_outputs import Outputs
from jaxvae.train.train_state import TrainState, eval_params


@dataclasses.dataclass
class TrainContext:
    """The compiled programs of a run and their inputs."""

    train_epoch: Callable
    validate: Callable
    hyperparams: Hyperparams
    rows_of_epoch: Callable[[int], jax.Array]
    """Returns the training rows of an epoch, by its number from 0."""
    val_rows: jax.Array
    labelled: np.ndarray
    """Positions of the validation rows whose silhouette is computed."""
    labelled_rows: np.ndarray
    """These rows, on the host."""
    steps: int
    """Optimizer steps of an epoch."""
    growth: int
    """The batch size as a multiple of `data.batch_size`."""
    gather: Callable
    """Gathers a tree of the state's arrays for writing."""
    budget: Budget | None = None
    """Settles the run's length; None if that is known."""
    likelihood_bound: Callable | None = None
    """Bounds the mean -log p(x) of some validation rows, nats; None unless the monitor needs it."""


def train(
    programs: TrainContext,
    state: TrainState,
    outputs: "Outputs",
    folder: Path,
    *,
    plan: RunPlan,
    terminal: display.Terminal,
    requests: signals.StopRequest,
) -> tuple[dict, RunProgress]:
    """Trains to the end, from the newest checkpoint if there is one.

    Args:
      programs: the compiled programs of the run.
      state: the fresh state; its memory is reused.
      outputs: the checkpoints to resume from and to write, the trackers and the hooks.
      folder: the run's folder.
      plan: the run's length, and how often it validates and saves.
      terminal: where progress is shown.
      requests: signals that ask the run to stop.

    Returns:
      (the best parameters and running statistics, the run's progress).

    Raises:
      TrainingFailed: the loss stopped being finite.
      InputError: the number of steps per epoch differs from the checkpoint's.
      Interrupted: SIGINT or SIGTERM was received; the epoch in training was finished and saved.
      CallbackFailed: a callback raised; the epoch was saved.
      PeerLost: another process of the job ended.
    """
    state, best, progress = resume(state, outputs.checkpoints, folder, terminal)
    _check_steps(plan, progress, step=int(state.step), per_epoch=programs.steps, folder=folder)
    outputs.open_log(folder, terminal, finished=progress.epoch)
    saved_at, saved_epoch = time.monotonic(), progress.epoch
    budget = programs.budget
    with terminal.epochs(plan.max_epochs, progress.epoch) as progress_display:
        while progress.epoch < plan.max_epochs and not progress.stopped_early:
            state, line = _train_one_epoch(programs, state, progress)
            if line is None:
                break
            programs, plan, settled = _settle_length(programs, plan, progress, line["seconds"])
            progress_display.total = plan.max_epochs
            kl_per_dimension = None
            if plan.validates(progress.epoch):
                kl_per_dimension = _validate(programs, state, plan.monitor, line)
                if not math.isfinite(line["val/loss"]):
                    progress.fail(int(state.step), _losses(line, "val/"))
                    break
                if progress.observe(line[plan.monitor.name], plan):
                    best = copy_tree(eval_params(state))
            failure = outputs.append(line, kl_per_dimension, state, progress_display)
            stop, due, failed = _agree_to_stop(
                requests,
                progress.epoch,
                due=time.monotonic() - saved_at >= plan.checkpoint_every_seconds,
                failed=failure is not None,
            )
            if due or stop or failed or settled or saved_epoch == 0:
                outputs.save(state, best, progress)
                saved_at, saved_epoch = time.monotonic(), progress.epoch
            if budget and settled:  # what came before is saved: no resumed run trains that again
                budget.record(settled)
                terminal.say(f"Training for {settled:,} epochs, which the minutes given allow")
            if failed:
                raise failure or CallbackFailed("a callback of the first process failed")
            if stop:
                saved = f"epoch {progress.epoch} of {plan.max_epochs} is saved"
                raise signals.Interrupted(stop, saved)
    # A saved epoch is not saved again: after a failure, a resumed run meets the same bad step.
    if saved_epoch != progress.epoch:
        outputs.save(state, best, progress)
    if progress.nonfinite_step >= 0:
        raise TrainingFailed(describe_nonfinite(progress, folder))
    if progress.stopped_early:
        terminal.say(
            f"Stopped early at epoch {progress.epoch}: {progress.stale_validations} validations "
            f"without a better {plan.monitor.name}"
        )
    return best, progress


def _settle_length(
    programs: TrainContext, plan: RunPlan, progress: RunProgress, seconds: float
) -> tuple[TrainContext, RunPlan, int]:
    """Settles the run's length where its budget can; returns (programs, plan, epochs or 0)."""
    budget = programs.budget
    settled = budget and budget.settle(progress.epoch, seconds, most=plan.max_epochs)
    if not budget or not settled:
        return programs, plan, 0
    hyperparams, plan = budget.replan(settled)
    return dataclasses.replace(programs, hyperparams=hyperparams, budget=None), plan, settled


def _check_steps(
    plan: RunPlan, progress: RunProgress, *, step: int, per_epoch: int, folder: Path
) -> None:
    """Raises InputError if the number of steps per epoch differs from the checkpoint's."""
    if plan.steps_after(progress.epoch, per_epoch) != step:
        raise InputError(
            f"{folder} has {step:,} steps behind it in {progress.epoch:,} epochs, but "
            f"an epoch has {per_epoch:,} on these devices (see --config.trainer."
            f"scale_batch_with_devices); go on with as many as before, or in a new --workdir"
        )


def _train_one_epoch(
    programs: TrainContext, state: TrainState, progress: RunProgress
) -> tuple[TrainState, dict[str, Any] | None]:
    """Trains an epoch; returns (state, line), the line None if a loss or gradient is not finite."""
    started = time.perf_counter()
    rows = programs.rows_of_epoch(progress.epoch)
    state, sums = programs.train_epoch(state, programs.hyperparams, rows)
    sums, bad_step = jax.device_get((sums, state.bad_step))
    seconds = time.perf_counter() - started
    if bad_step >= 0:
        progress.fail(int(bad_step), sums.compute())
        return state, None
    progress.epoch += 1
    return state, training_line(progress.epoch, int(state.step), sums, seconds)


def _agree_to_stop(
    requests: signals.StopRequest, epoch: int, *, due: bool, failed: bool
) -> tuple[int, int, int]:
    """Returns (signal to stop by or 0, whether to save, whether a callback failed) for all hosts.

    Clocks and signals differ between hosts, and saving takes all of them.
    """
    preempted = signal.SIGTERM if devices.reached_preemption(epoch) else 0
    stop, is_due, has_failed = multihost.max_across_hosts(requests.signum or preempted, due, failed)
    return stop, is_due, has_failed


def _losses(line: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Numbers of one split in an epoch's line, by name without the prefix."""
    return {
        name.removeprefix(prefix): value for name, value in line.items() if name.startswith(prefix)
    }


def training_line(epoch: int, step: int, sums: Losses, seconds: float) -> dict[str, Any]:
    """Returns the line of metrics.jsonl for an epoch's training.

    Args:
      epoch: number of the epoch, from 1.
      step: optimizer steps since the start.
      sums: sums of the epoch's losses.
      seconds: duration of the epoch's training.
    """
    return {
        "epoch": epoch,
        "step": step,
        **{f"train/{name}": value for name, value in sums.compute().items()},
        "seconds": seconds,
        "examples_per_second": float(sums.count) / seconds,
    }


def _validate(
    programs: TrainContext, state: TrainState, watched: monitor.Monitor, line: dict[str, Any]
) -> list[float]:
    """Adds the validation's metrics to an epoch's line; returns the KL of each dimension, nats."""
    started = time.perf_counter()
    judged = eval_params(state)
    # The same noise at every validation: epochs differ by their parameters, not by luck.
    total, mean, _ = programs.validate(
        judged["params"],
        judged["batch_stats"],
        programs.hyperparams.loss,
        np.float32(0.5),
        state.key,
        programs.val_rows,
    )
    if len(programs.labelled) < len(mean):
        mean = mean[programs.labelled]
    total, mean = jax.device_get((total, mean))
    values = split_metrics.split_metrics(total, mean, programs.labelled_rows)
    bound = 0.0
    if programs.likelihood_bound is not None:
        bound = programs.likelihood_bound(judged["params"], judged["batch_stats"], state.key)
    values |= monitor.added_values(watched, values, bound=bound)
    line |= {f"val/{name}": value for name, value in values.items()}
    line["seconds_eval"] = time.perf_counter() - started
    return total.latent.kl_per_dimension()
