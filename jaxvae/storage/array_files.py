"""Arrays in Orbax's files: their names, digests and paths."""

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxvae.errors import InputError, Unreadable, one_line

_PLAIN = re.compile(r"[\w./ +,=@-]*")
"""Paths that Orbax takes literally."""


def alone() -> ocp.options.MultiprocessingOptions:
    """Makes Orbax save from this process alone instead of waiting for all of them."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def flatten_leaves(tree) -> dict[str, np.ndarray]:
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


def fill_like(tree, flat: dict[str, np.ndarray]):
    """Inverts `flatten_leaves`: returns `flat` in the structure (and key types) of `tree`."""
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


def nest(flat: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
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


def describe_arrays(flat: dict[str, np.ndarray]) -> dict[str, dict]:
    """Returns the shape, type and digest of each array, as a checkpoint records them."""
    return {
        name: {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "sha256": hashlib.sha256(_bytes(value)).hexdigest(),
        }
        for name, value in flat.items()
    }


def verify_arrays(flat: dict[str, np.ndarray], described: dict[str, dict], where: str) -> None:
    """Raises InputError unless arrays are as `describe_arrays` described them."""
    for name, expected in described.items():
        if describe_arrays({name: np.asarray(flat[name])})[name] != expected:
            raise InputError(f"{where}: array {name} is not what was saved (digest differs)")


def target_arrays(described: dict[str, dict], where: str) -> dict[str, np.ndarray]:
    """Returns zeros of the described shapes and types, into which Orbax restores.

    Raises:
      InputError: the description is damaged.
    """
    try:
        return {
            name: np.zeros(leaf["shape"], np.dtype(leaf["dtype"]))
            for name, leaf in described.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: its record is damaged: {one_line(error)}") from error


@contextlib.contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
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
def converting_read_errors(where: Path) -> Iterator[None]:
    """Converts an error in reading into Unreadable, since intact files can't be its cause.

    For use after the files were compared with their manifest.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise Unreadable(where, error) from error
