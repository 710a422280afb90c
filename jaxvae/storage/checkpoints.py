"""Orbax checkpoints of a run: the last state and the best parameters.

One checkpoint holds both, so they can't disagree, and the newest two are kept. Orbax notices most
damage but not a flipped bit in an array, nor that a folder was copied in part. So every array has a
digest, which is compared with the array that Orbax reads back, at the save and at every restore;
and every file has one, in a manifest that is written last. A message names a damaged checkpoint and
its file, and the checkpoint before it is used.
"""

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxvae.errors import InputError, Unreadable, one_line
from jaxvae.runtime import devices
from jaxvae.storage import manifest
from jaxvae.storage.atomic_files import read_json

KEPT = 2
_PLAIN = re.compile(r"[\w./ +,=@-]*")
"""Paths that Orbax takes literally."""


class Checkpoint(NamedTuple):
    """A restored checkpoint: the tree it was saved from, and the facts saved with it."""

    tree: Any
    facts: dict


def _alone() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax save from this process alone instead of waiting for all of them."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def _leaves(tree) -> dict[str, np.ndarray]:
    """Flattens a pytree to {dotted path: array}; typed PRNG keys become their raw data."""
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # On a CPU this is the device's own buffer, not a copy: it is written and compared before
        # the next epoch may overwrite it.
        flat[name] = np.asarray(_data(leaf))
    return flat


def _is_key(leaf) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(tree, flat: dict[str, np.ndarray]):
    """Inverts `_leaves`: returns `flat` in the structure (and key types) of `tree`."""
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
        leaves.append(jax.random.wrap_key_data(jnp.asarray(value)) if _is_key(leaf) else value)
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _nested(flat: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Nests the arrays whose dotted path begins with `prefix`, a dictionary for each dot."""
    tree: dict[str, Any] = {}
    for path, array in flat.items():
        if path.startswith(prefix):
            *groups, name = path.removeprefix(prefix).split(".")
            node = tree
            for group in groups:
                node = node.setdefault(group, {})
            node[name] = np.asarray(array)
    return tree


def _bytes(value: np.ndarray) -> memoryview:
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _describe(flat: dict[str, np.ndarray]) -> dict[str, dict]:
    return {
        name: {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "sha256": hashlib.sha256(_bytes(value)).hexdigest(),
        }
        for name, value in flat.items()
    }


def _verify(flat: dict[str, np.ndarray], described: dict[str, dict], where: str) -> None:
    for name, expected in described.items():
        if _describe({name: np.asarray(flat[name])})[name] != expected:
            raise InputError(f"{where}: array {name} is not what was saved (digest differs)")


def _targets(described: dict[str, dict], where: str) -> dict[str, np.ndarray]:
    try:
        return {
            name: np.zeros(leaf["shape"], np.dtype(leaf["dtype"]))
            for name, leaf in described.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: its record is damaged: {one_line(error)}") from error


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """Yields a path to a folder that Orbax takes literally: the folder's own, or a link's.

    Orbax looks for patterns below a path without escaping the path itself, so `[256,128]` is a set
    of characters; other special characters make it fail, or stand for a cloud address.
    """
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxvae-") as parent:
        if not _PLAIN.fullmatch(parent):
            raise InputError(
                f"{folder}: checkpoints can't be written below this path while TMPDIR is {parent}; "
                f"set TMPDIR to a folder named by letters and digits"
            )
        link = Path(parent) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _readable(where: Path) -> Iterator[None]:
    """Converts an error in reading into Unreadable, since intact files can't be its cause.

    For use after the files were compared with their manifest.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise Unreadable(where, error) from error


def set_aside_whole(folder: Path) -> list[Path]:
    """Returns the once finished checkpoints that were set aside as damaged, in order of path."""
    return sorted(path for path in folder.glob("*.damaged") if manifest.is_sealed(path))


class Checkpoints:
    """The checkpoints of one run folder; a context manager, since Orbax keeps threads.

    Args:
      folder: absolute path of the folder of checkpoints; made if missing.
      taxonomy_digest: digest of the columns' order, which shapes alone don't show; saved in every
        checkpoint and compared at restore.
    """

    def __init__(self, folder: Path, *, taxonomy_digest: str):
        devices.check_backend()
        self.folder = folder
        self._taxonomy_digest = taxonomy_digest
        folder.mkdir(parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self._manager = ocp.CheckpointManager(
            self._held.enter_context(_plainly_named(folder)),
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=_alone(),
                preservation_policy=preservation_policy.LatestN(KEPT),
                enable_async_checkpointing=False,
            ),
        )

    def save(self, epoch: int, tree, facts: dict) -> None:
        """Writes a checkpoint, reads it back and compares it.

        Args:
          epoch: finished epochs, the checkpoint's number.
          tree: pytree of arrays.
          facts: JSON-able facts to save beside the tree.

        Raises:
          InputError: writing failed, or the disk returned other data; the checkpoint before it is
            unchanged.
        """
        # Leftovers of a process that was killed while saving. Only a writer, which has locked the
        # folder, may remove them: Orbax would do so for a reader too, and in the background.
        for leftover in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)
        flat = _leaves(tree)
        leaves = _describe(flat)
        record = {"facts": facts, "taxonomy_digest": self._taxonomy_digest, "leaves": leaves}
        where = self.folder / str(epoch)
        try:
            saved = self._manager.save(
                epoch,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(flat), record=ocp.args.JsonSave(record)
                ),
            )
            self._manager.wait_until_finished()
            if saved:
                self._read(where, leaves)
                manifest.seal(where)
        # A disk's fault comes as an OSError, a ValueError or the runtime's own exception.
        except Exception as error:
            raise InputError(
                f"{self.folder}: checkpoint {epoch} not saved: {one_line(error)}"
            ) from error
        if not saved:
            raise InputError(f"{self.folder}: checkpoint {epoch} not saved: a newer one is there")

    def restore(self, like, *, set_aside: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """Restores the newest checkpoint that is intact, by the digests of its files and arrays.

        Args:
          like: a pytree with the structure, shapes and dtypes to expect.
          set_aside: whether to rename damaged checkpoints, so that their epochs can be saved again;
            for the folder's writer alone.

        Returns:
          (checkpoint or None if there is none, one line per damaged checkpoint passed over).

        Raises:
          InputError: there are checkpoints and none is intact, or they are another taxonomy's.
          Unreadable: a checkpoint can't be read now, which is no damage, so it is not passed over.
        """
        return self._newest(lambda arrays: _like(like, arrays), set_aside=set_aside)

    def restore_params(self) -> tuple[dict, dict, dict] | None:
        """Restores the parameters of the newest intact checkpoint, their moving average if kept.

        Returns:
          (params, batch_stats, facts), nested dictionaries of arrays; None without a checkpoint.

        Raises:
          InputError: as for `restore`.
          Unreadable: as for `restore`.
        """
        newest, _ = self._newest(lambda arrays: arrays, set_aside=False)
        if newest is None:
            return None
        params = _nested(newest.tree, "state.average.") or _nested(newest.tree, "state.params.")
        return params, _nested(newest.tree, "state.batch_stats."), newest.facts

    def _newest(
        self, build: Callable[[dict[str, np.ndarray]], Any], *, set_aside: bool
    ) -> tuple[Checkpoint | None, list[str]]:
        """Returns the newest intact checkpoint, as `restore` does.

        Args:
          build: makes the tree from arrays by their dotted paths; an InputError or KeyError means
            that the checkpoint is another model's.
          set_aside: whether to rename damaged checkpoints.
        """
        passed_over: list[str] = []
        unfinished = 0
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            where = self.folder / str(epoch)
            unfinished += not manifest.is_sealed(where)
            try:
                manifest.check(where)
                with _readable(where):
                    record = self._manager.restore(
                        epoch, args=ocp.args.Composite(record=ocp.args.JsonRestore())
                    ).record
                    flat = self._read(where, record["leaves"])
                tree = build(flat)
            except Unreadable:
                raise
            except (InputError, KeyError) as error:  # another model's checkpoint lacks an array
                passed_over.append(f"{where} was passed over: {one_line(error)}")
                if set_aside:
                    aside = self.folder / f"{epoch}.damaged"
                    shutil.rmtree(aside, ignore_errors=True)
                    where.rename(aside)  # kept, to be looked at
                    self._manager.reload()
                continue
            if record["taxonomy_digest"] != self._taxonomy_digest:
                raise InputError(f"{where} was trained with another taxonomy than the one here")
            return Checkpoint(tree, record["facts"]), passed_over
        # A run that was killed during its first save starts anew: no checkpoint is lost.
        if passed_over and (len(passed_over), unfinished) != (1, 1):
            raise InputError(
                f"no whole checkpoint: {'; '.join(passed_over)}. Start again in a new --workdir"
            )
        return None, passed_over

    def best_leaves(self, epoch: int) -> dict[str, dict]:
        """Returns a checkpoint's record of the best parameters: shape, type and digest of each."""
        what = ocp.args.Composite(record=ocp.args.JsonRestore())
        leaves = self._manager.restore(epoch, args=what).record["leaves"]
        best = "best."
        return {name[len(best) :]: leaf for name, leaf in leaves.items() if name.startswith(best)}

    def _read(self, where: Path, described: dict[str, dict]) -> dict[str, np.ndarray]:
        """Reads a checkpoint's arrays, and compares each with its digest."""
        targets = _targets(described, str(where))
        flat = self._manager.restore(
            int(where.name),
            args=ocp.args.Composite(state=ocp.args.StandardRestore(targets)),
        ).state
        _verify(flat, described, str(where))
        return flat

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()
        self._held.close()


def save_params(folder: Path, params: dict, batch_stats: dict, facts: dict) -> None:
    """Writes the exported parameters, replacing an older folder only once they are all written.

    Args:
      folder: absolute path, `final/` of a run.
      params: nested dictionary of arrays.
      batch_stats: nested dictionary of arrays, `{}` without batch norm.
      facts: JSON-able facts to save beside them (the epoch, which checkpoint).

    Raises:
      InputError: writing failed.
    """
    flat = _leaves({"params": params, "batch_stats": batch_stats})
    temporary = folder.with_name(folder.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    record = {"facts": facts, "leaves": _describe(flat)}
    try:
        temporary.mkdir()
        with (
            _plainly_named(temporary) as named,
            ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer,
        ):
            checkpointer.save(named / "arrays", flat)
            checkpointer.wait_until_finished()
        (temporary / "record.json").write_text(
            json.dumps(record, indent=2) + "\n", encoding="utf-8"
        )
        manifest.seal(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except Exception as error:  # as in `Checkpoints.save`
        raise InputError(f"{folder}: parameters not saved: {one_line(error)}") from error


def load_params(folder: Path) -> tuple[dict, dict, dict]:
    """Reads the parameters that `save_params` wrote.

    Returns:
      (params, batch_stats, facts), nested dictionaries of numpy arrays.

    Raises:
      InputError: a file is missing or damaged; the message names it.
      Unreadable: a file can't be read now, which is no damage.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no trained parameters here; did the run finish?")
    manifest.check(folder)
    record = read_json(folder / "record.json")
    leaves, facts = record.get("leaves"), record.get("facts")
    if not isinstance(leaves, dict) or not isinstance(facts, dict):
        raise InputError(f"{folder / 'record.json'}: damaged: no 'leaves' and 'facts' in it")
    targets = _targets(leaves, str(folder))
    devices.check_backend()
    with _readable(folder):
        with (
            _plainly_named(folder) as named,
            ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer,
        ):
            flat = checkpointer.restore(named / "arrays", targets)
        _verify(flat, leaves, str(folder))
    return _nested(flat, "params."), _nested(flat, "batch_stats."), facts
