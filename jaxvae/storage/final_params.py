"""The exported parameters of a run, `final/`."""

import json
import shutil
from pathlib import Path

import orbax.checkpoint as ocp

from jaxvae.errors import InputError, one_line
from jaxvae.runtime import devices
from jaxvae.storage import manifest
from jaxvae.storage.array_files import (
    alone,
    converting_read_errors,
    describe_arrays,
    flatten_leaves,
    nest,
    plainly_named,
    target_arrays,
    verify_arrays,
)
from jaxvae.storage.atomic_files import read_json


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
    flat = flatten_leaves({"params": params, "batch_stats": batch_stats})
    temporary = folder.with_name(folder.name + ".new")
    shutil.rmtree(temporary, ignore_errors=True)
    record = {"facts": facts, "leaves": describe_arrays(flat)}
    try:
        temporary.mkdir()
        with (
            plainly_named(temporary) as named,
            ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer,
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
    targets = target_arrays(leaves, str(folder))
    devices.check_backend()
    with converting_read_errors(folder):
        with (
            plainly_named(folder) as named,
            ocp.StandardCheckpointer(multiprocessing_options=alone()) as checkpointer,
        ):
            flat = checkpointer.restore(named / "arrays", targets)
        verify_arrays(flat, leaves, str(folder))
    return nest(flat, "params."), nest(flat, "batch_stats."), facts
