"""Orbax checkpoints of a run: the last state and the best parameters.

One checkpoint holds both, so they can't disagree, and the newest two are kept. Orbax notices most
damage but not a flipped bit in an array, nor that a folder was copied in part. So every array has a
digest, which is compared with the array that Orbax reads back, at the save and at every restore;
and every file has one, in a manifest that is written last. A message names a damaged checkpoint and
its file, and the checkpoint before it is used.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from jaxvae.errors import InputError, Unreadable, one_line
from jaxvae.runtime import devices
from jaxvae.storage import manifest
from jaxvae.storage.array_files import (
    alone,
    converting_read_errors,
    describe_arrays,
    fill_like,
    flatten_leaves,
    nest,
    plainly_named,
    target_arrays,
    verify_arrays,
)

KEPT = 2


class Checkpoint(NamedTuple):
    """A restored checkpoint: the tree it was saved from, and the facts saved with it."""

    tree: Any
    facts: dict


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
            self._held.enter_context(plainly_named(folder)),
            options=ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=alone(),
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
        flat = flatten_leaves(tree)
        leaves = describe_arrays(flat)
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
        return self._newest(lambda arrays: fill_like(like, arrays), set_aside=set_aside)

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
        params = nest(newest.tree, "state.average.") or nest(newest.tree, "state.params.")
        return params, nest(newest.tree, "state.batch_stats."), newest.facts

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
                with converting_read_errors(where):
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
        targets = target_arrays(described, str(where))
        flat = self._manager.restore(
            int(where.name),
            args=ocp.args.Composite(state=ocp.args.StandardRestore(targets)),
        ).state
        verify_arrays(flat, described, str(where))
        return flat

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()
        self._held.close()
