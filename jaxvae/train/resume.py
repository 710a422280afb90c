"""The state that a run starts from: a fresh one, or the newest checkpoint."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.errors import InputError
from jaxvae.runtime import multihost
from jaxvae.runtime.sharding import put
from jaxvae.storage import epoch_metrics, run_files
from jaxvae.storage.checkpoints import Checkpoint, Checkpoints, set_aside_whole
from jaxvae.train.loggers import display
from jaxvae.train.plan.progress import RunProgress
from jaxvae.train.train_state import TrainState, eval_params


class TrainingFailed(RuntimeError):
    """Training can't go on: the message says when it stopped, why, and what to try."""


@jax.jit
def copy_tree(tree):
    """Copies a tree, because the next epoch reuses the memory of the state."""
    return jax.tree.map(jnp.copy, tree)


def resume(
    state: TrainState,
    checkpoints: Checkpoints | None,
    folder: Path,
    terminal: display.Terminal,
) -> tuple[TrainState, dict, RunProgress]:
    """Returns (state, best parameters, progress) of the newest checkpoint, or those of a fresh run.

    Args:
      state: the fresh state.
      checkpoints: the run's checkpoints; None in every process but the first.
      folder: the run's folder.
      terminal: where damaged checkpoints are named.

    Raises:
      InputError: no checkpoint is intact.
      TrainingFailed: the run ended by a loss that was not finite.
    """
    best = copy_tree(eval_params(state))
    like = {"state": state, "best": best}
    checkpoint = None
    with multihost.raise_together():
        if checkpoints is not None:
            checkpoint, damaged = checkpoints.restore(like, set_aside=True)
            for line in damaged:
                terminal.say(line)
    checkpoint = _share_checkpoint(checkpoint, like)
    if checkpoint is None:
        if checkpoints is not None and epoch_metrics.has_epochs(folder):
            if aside := set_aside_whole(checkpoints.folder):
                raise InputError(
                    f"{folder}: its epochs are in metrics.jsonl, but each checkpoint was set aside "
                    f"as damaged ({', '.join(path.name for path in aside)}). To go on, put a whole "
                    f"one back under its number; to train from the first epoch again, remove "
                    f"{checkpoints.folder}"
                )
            terminal.say(
                f"{folder / run_files.CHECKPOINTS}: no checkpoint, though metrics.jsonl has "
                f"epochs; training starts from the first"
            )
        return state, best, RunProgress()
    progress = RunProgress.from_facts(checkpoint.facts)
    if progress.nonfinite_step >= 0:
        raise TrainingFailed(describe_nonfinite(progress, folder))
    terminal.say(f"Resuming after epoch {progress.epoch}")
    tree = jax.tree.map(lambda new, old: put(new, old.sharding), checkpoint.tree, like)
    return tree["state"], tree["best"], progress


def _share_checkpoint(found: Checkpoint | None, like: dict) -> Checkpoint | None:
    """Sends the checkpoint that the first process restored to every process."""
    if not multihost.is_multiprocess():
        return found

    def is_key(leaf) -> bool:
        return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def raw(leaf) -> np.ndarray:
        if found is not None:
            return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        shape = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
        return np.zeros(shape.shape, shape.dtype)

    facts, _ = multihost.broadcast_from_primary(found and found.facts, [])
    if facts is None:
        return None
    tree = jax.tree.map(raw, found.tree if found else like)
    _, leaves = multihost.broadcast_from_primary(None, jax.tree.leaves(tree))
    tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    wrap = jax.random.wrap_key_data
    return Checkpoint(
        jax.tree.map(lambda leaf, old: wrap(leaf) if is_key(old) else leaf, tree, like), facts
    )


def describe_nonfinite(progress: RunProgress, folder: Path) -> str:
    """Describes where a loss stopped being finite, what is kept, and what to try."""
    saved = (
        f"the best parameters (epoch {progress.best_epoch}) are kept in "
        f"{folder / run_files.CHECKPOINTS}"
        if progress.best_epoch
        else "no epoch was finished"
    )
    return (
        f"the loss stopped being finite at epoch {progress.epoch + 1}, step "
        f"{progress.nonfinite_step}: {progress.nonfinite_terms} overflowed; {saved}. Try a "
        f"lower --config.trainer.optimizer.lr or --config.trainer.gradient_clip_val, in a new "
        f"--workdir"
    )
