"""What a run keeps on disk to go on from: the last state and the best parameters, with Orbax.

One checkpoint holds both, so they can't disagree, and the newest two are kept. Orbax notices most
damage but not a flipped bit in an array, so every leaf has a digest of its own that is compared at
restore; a checkpoint that fails is named and the one before it is used.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxvae.errors import InputError

KEPT = 2


class Checkpoint(NamedTuple):
    """A restored checkpoint: the tree it was saved from, and the facts saved with it."""

    tree: Any
    facts: dict


def _leaves(tree) -> dict[str, np.ndarray]:
    """A pytree as {dotted path: array}; typed PRNG keys become their raw data."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # An owned copy: the next epoch donates, and so overwrites, the device's buffer.
        flat[name] = np.array(_data(leaf))
    return flat


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(tree, flat: dict[str, np.ndarray]):
    """The inverse of `_leaves`: `flat` in the structure (and key types) of `tree`."""
    paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
    leaves = []
    for path, leaf in paths:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        value = flat[name]
        expected = jax.eval_shape(_data, leaf)
        if (value.shape, value.dtype) != (expected.shape, expected.dtype):
            raise InputError(
                f"array {name} is {value.dtype}{list(value.shape)}, "
                f"the model needs {expected.dtype}{list(expected.shape)}"
            )
        if _is_key(leaf):
            value = jax.random.wrap_key_data(jnp.asarray(value))
        leaves.append(value)
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _describe(flat: dict[str, np.ndarray]) -> dict[str, dict]:
    return {
        name: {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest(),
        }
        for name, value in flat.items()
    }


def _verify(flat: dict[str, np.ndarray], described: dict[str, dict], where: str) -> None:
    for name, expected in described.items():
        if _describe({name: np.asarray(flat[name])})[name] != expected:
            raise InputError(f"{where}: array {name} is not what was saved (digest differs)")


def _targets(described: dict[str, dict]) -> dict[str, np.ndarray]:
    return {
        name: np.zeros(leaf["shape"], np.dtype(leaf["dtype"])) for name, leaf in described.items()
    }


class Checkpoints:
    """The checkpoints of one run folder; a context manager, since Orbax keeps threads.

    Args:
      folder: absolute path of the folder that holds them; made if missing.
      taxonomy_digest: of the columns' order, which shapes alone don't show; kept in every
        checkpoint and compared at restore.
    """

    def __init__(self, folder: Path, *, taxonomy_digest: str):
        self.folder = folder
        self._taxonomy_digest = taxonomy_digest
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(KEPT),
                enable_async_checkpointing=False,
            ),
        )

    def save(self, epoch: int, tree, facts: dict) -> None:
        """Writes a checkpoint; when this returns, its bytes are complete.

        Args:
          epoch: finished epochs, the checkpoint's number.
          tree: pytree of arrays.
          facts: JSON-able facts kept beside it.

        Raises:
          InputError: the disk refused.
        """
        # Left by a process that was killed while saving. Only a writer, which has the folder to
        # itself, may remove them: Orbax would do so for a reader too, and in the background.
        for leftover in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        flat = _leaves(tree)
        record = {
            "facts": facts,
            "taxonomy_digest": self._taxonomy_digest,
            "leaves": _describe(flat),
        }
        try:
            saved = self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(flat), record=ocp.args.JsonSave(record)
                ),
            )
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{self.folder}: checkpoint {epoch} not saved: {reason}") from error
        if not saved:
            raise InputError(f"{self.folder}: checkpoint {epoch} not saved: a newer one is there")

    def restore(self, like) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint whose every array is what was saved.

        Args:
          like: a pytree with the structure, shapes and dtypes to expect.

        Returns:
          (checkpoint or None where there is none, one line per damaged one passed over).

        Raises:
          InputError: there are checkpoints and none is whole, or they are another taxonomy's.
        """
        passed_over: list[str] = []
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            where = f"{self.folder / str(epoch)}"
            try:
                record = self._manager.restore(
                    epoch, args=ocp.args.Composite(record=ocp.args.JsonRestore())
                ).record
                flat = self._manager.restore(
                    epoch,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(_targets(record["leaves"]))
                    ),
                ).state
                _verify(flat, record["leaves"], where)
                tree = _like(like, flat)
            # Damage shows as whatever the parser at hand raises: KeyError, ValueError, OSError...
            except Exception as error:
                reason = " ".join(str(error).split())[:160]
                passed_over.append(f"{where} is damaged and was passed over: {reason}")
                # Out of the way, so that the epoch can be saved again; kept, to be looked at.
                (self.folder / str(epoch)).rename(self.folder / f"{epoch}.damaged")
                self._manager.reload()
                continue
            if record["taxonomy_digest"] != self._taxonomy_digest:
                raise InputError(f"{where} was trained with another taxonomy than the one here")
            return Checkpoint(tree, record["facts"]), passed_over
        if passed_over:
            raise InputError(
                f"no whole checkpoint: {'; '.join(passed_over)}. Start again in a new --workdir"
            )
        return None, []

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()


def save_params(folder: Path, params: dict, batch_stats: dict, facts: dict) -> None:
    """Writes the parameters that were exported, replacing what is there in one step.

    Args:
      folder: absolute path, `final/` of a run.
      params: nested dictionary of arrays.
      batch_stats: nested dictionary of arrays, `{}` without batch norm.
      facts: JSON-able facts kept beside them (the epoch, which checkpoint).
    """
    flat = _leaves({"params": params, "batch_stats": batch_stats})
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(fresh / "arrays", flat)
        checkpointer.wait_until_finished()
    record = {"facts": facts, "leaves": _describe(flat)}
    (fresh / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def load_params(folder: Path) -> tuple[dict, dict, dict]:
    """Reads what `save_params` wrote.

    Returns:
      (params, batch_stats, facts), nested dictionaries of numpy arrays.

    Raises:
      InputError: missing or damaged, naming the file.
    """
    try:
        record = json.loads((folder / "record.json").read_text())
        with ocp.StandardCheckpointer() as checkpointer:
            flat = checkpointer.restore(folder / "arrays", _targets(record["leaves"]))
        _verify(flat, record["leaves"], str(folder))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no trained parameters here; did the run finish?") from error
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: the parameters are damaged: {reason}") from error
    tree: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, value in flat.items():
        group, layer, leaf = name.split(".")
        tree[group].setdefault(layer, {})[leaf] = np.asarray(value)
    return tree["params"], tree["batch_stats"], record["facts"]
