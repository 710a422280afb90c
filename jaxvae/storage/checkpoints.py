"""What a run keeps on disk to go on from: the last state and the best parameters, with Orbax.

One checkpoint holds both, so they can't disagree, and the newest two are kept. Orbax notices most
damage but not a flipped bit in an array, nor that a folder was copied in part. So every array has a
digest, which is compared with what Orbax reads back, at the save and at every restore; and every
file has one, in a manifest that is written last. A checkpoint that fails is named, with the file,
and the one before it is used.
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
"""Paths that Orbax takes as they are."""


class Checkpoint(NamedTuple):
    """A restored checkpoint: the tree it was saved from, and the facts saved with it."""

    tree: Any
    facts: dict


def _alone() -> ocp.options.MultiprocessingOptions:
    """Orbax waits for all processes of a job otherwise, and only one of them is here."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})


def _leaves(tree) -> dict[str, np.ndarray]:
    """A pytree as {dotted path: array}; typed PRNG keys become their raw data."""
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
        leaves.append(jax.random.wrap_key_data(jnp.asarray(value)) if _is_key(leaf) else value)
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _nested(flat: dict[str, np.ndarray], prefix: str) -> dict[str, dict]:
    """`{layer: {name: array}}` of the arrays whose dotted path begins so."""
    tree: dict[str, dict] = {}
    for path, array in flat.items():
        if path.startswith(prefix):
            layer, name = path.removeprefix(prefix).split(".")
            tree.setdefault(layer, {})[name] = np.asarray(array)
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
    """A path to a folder in which nothing is more than a character: its own, or a link's.

    Orbax looks for patterns below a path without escaping the path itself, so `[256,128]` is a set
    of characters; other characters are an error of its, or a cloud's address.
    """
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="jaxvae-") as place:
        if not _PLAIN.fullmatch(place):
            raise InputError(
                f"{folder}: checkpoints can't be written below this path while TMPDIR is {place}; "
                f"set TMPDIR to a folder named by letters and digits"
            )
        link = Path(place) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _readable(where: Path) -> Iterator[None]:
    """Where every file is what was written, an error in reading says nothing about the files."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise Unreadable(where, error) from error


def set_aside_whole(folder: Path) -> list[Path]:
    """The checkpoints that were once finished and were set aside as damaged since, oldest first."""
    return sorted(path for path in folder.glob("*.damaged") if manifest.is_sealed(path))


class Checkpoints:
    """The checkpoints of one run folder; a context manager, since Orbax keeps threads.

    Args:
      folder: absolute path of the folder that holds them; made if missing.
      taxonomy_digest: of the columns' order, which shapes alone don't show; kept in every
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
        """Writes a checkpoint; when this returns, it has been read back and compared.

        Args:
          epoch: finished epochs, the checkpoint's number.
          tree: pytree of arrays.
          facts: JSON-able facts kept beside it.

        Raises:
          InputError: the disk refused, or gave back something else; the checkpoint before it is
            as it was.
        """
        # Left by a process that was killed while saving. Only a writer, which has the folder to
        # itself, may remove them: Orbax would do so for a reader too, and in the background.
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
        """The newest checkpoint whose every file and array is what was saved.

        Args:
          like: a pytree with the structure, shapes and dtypes to expect.
          set_aside: rename those that are passed over, so that their epochs can be saved again;
            for the folder's writer alone.

        Returns:
          (checkpoint or None where there is none, one line per damaged one passed over).

        Raises:
          InputError: there are checkpoints and none is whole, or they are another taxonomy's.
          Unreadable: one can't be read now, which is no damage; none is passed over for it.
        """
        return self._newest(lambda arrays: _like(like, arrays), set_aside=set_aside)

    def restore_params(self) -> tuple[dict, dict, dict] | None:
        """The parameters of the newest whole checkpoint: their moving average where one is kept.

        Returns:
          (params, batch_stats, facts), nested dictionaries of arrays; None where there is none.

        Raises:
          InputError: as `restore` says.
          Unreadable: as `restore` says.
        """
        newest, _ = self._newest(lambda arrays: arrays, set_aside=False)
        if newest is None:
            return None
        params = _nested(newest.tree, "state.average.") or _nested(newest.tree, "state.params.")
        return params, _nested(newest.tree, "state.batch_stats."), newest.facts

    def _newest(
        self, build: Callable[[dict[str, np.ndarray]], Any], *, set_aside: bool
    ) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint, as `restore` says.

        Args:
          build: makes the tree of arrays by their dotted paths; an InputError or KeyError is a
            checkpoint of another model.
          set_aside: rename those that are passed over.
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
            except (InputError, KeyError) as error:  # another model's lacks an array
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
        # Killed during its first save, a run has nothing to go on from and nothing to lose.
        if passed_over and (len(passed_over), unfinished) != (1, 1):
            raise InputError(
                f"no whole checkpoint: {'; '.join(passed_over)}. Start again in a new --workdir"
            )
        return None, passed_over

    def best_leaves(self, epoch: int) -> dict[str, dict]:
        """Shape, type and digest of each of the best parameters, as a checkpoint recorded them."""
        what = ocp.args.Composite(record=ocp.args.JsonRestore())
        leaves = self._manager.restore(epoch, args=what).record["leaves"]
        best = "best."
        return {name[len(best) :]: leaf for name, leaf in leaves.items() if name.startswith(best)}

    def _read(self, where: Path, described: dict[str, dict]) -> dict[str, np.ndarray]:
        """A checkpoint's arrays from the disk, each compared with its digest."""
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
    """Writes the parameters that were exported, replacing what is there in one step.

    Args:
      folder: absolute path, `final/` of a run.
      params: nested dictionary of arrays.
      batch_stats: nested dictionary of arrays, `{}` without batch norm.
      facts: JSON-able facts kept beside them (the epoch, which checkpoint).

    Raises:
      InputError: the disk refused.
    """
    flat = _leaves({"params": params, "batch_stats": batch_stats})
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    record = {"facts": facts, "leaves": _describe(flat)}
    try:
        fresh.mkdir()
        with (
            _plainly_named(fresh) as named,
            ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer,
        ):
            checkpointer.save(named / "arrays", flat)
            checkpointer.wait_until_finished()
        (fresh / "record.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        manifest.seal(fresh)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except Exception as error:  # as in `Checkpoints.save`
        raise InputError(f"{folder}: parameters not saved: {one_line(error)}") from error


def load_params(folder: Path) -> tuple[dict, dict, dict]:
    """Reads what `save_params` wrote.

    Returns:
      (params, batch_stats, facts), nested dictionaries of numpy arrays.

    Raises:
      InputError: missing or damaged, naming the file.
      Unreadable: it can't be read now, which is no damage.
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
    tree: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, value in flat.items():
        group, layer, leaf = name.split(".")
        tree[group].setdefault(layer, {})[leaf] = np.asarray(value)
    return tree["params"], tree["batch_stats"], facts
