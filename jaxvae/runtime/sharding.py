"""Shards a run's arrays over its devices.

The mesh has two axes. Batches and the data set's rows are split over `data`. For wide vocabularies,
arrays with an axis of tags are split over `model`: the first and last layers, their optimizer state
and the logits. Batches and rows that do not divide evenly are padded, and the padding is masked.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvae.errors import InputError

_TAG_AXIS_SPECS = {
    "fc1/kernel": P("model"),
    "fc4/kernel": P(None, "model"),
    "fc4/bias": P("model"),
    "prior/pseudo_inputs": P(None, "model"),
}
"""The arrays with an axis of tags, by the end of their path, which their optimizer state shares."""


def append_empty_rows(rows: np.ndarray, *, num_tags: int) -> np.ndarray:
    """Appends an empty row to rows `[N, K]`, `[N + 1, K]`; padding points to row N.

    Args:
      rows: column numbers, padded with V.
      num_tags: V.
    """
    return np.pad(rows, ((0, 1), (0, 0)), constant_values=num_tags)


def check_vocabulary(mesh: Mesh, *, num_tags: int) -> None:
    """Raises InputError unless the tags divide evenly over the mesh's `model` axis."""
    size = mesh.shape["model"]
    if num_tags % size:
        fit = ", ".join(str(n) for n in range(1, mesh.size + 1) if num_tags % n == 0)
        raise InputError(
            f"--config.trainer.mesh.model={size}: {num_tags:,} tags do not divide over {size} "
            f"devices; it can be {fit}"
        )


def put(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Shards an array that every process has; each process fills its own devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(array), sharding))
    values = np.asarray(array)
    return jax.make_array_from_callback(values.shape, sharding, lambda at: values[at])


class Sharding:
    """Places arrays on a mesh, and constrains their sharding inside compiled programs.

    Args:
      mesh: axes `data` and `model`.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh

    @property
    def is_here(self) -> bool:
        """True if every device of the mesh belongs to this process."""
        return all(device.process_index == jax.process_index() for device in self.mesh.devices.flat)

    def padded(self, batch_size: int) -> int:
        """Rounds a batch size up to a multiple of the `data` axis."""
        return batch_size + -batch_size % self.mesh.shape["data"]

    def place_rows(self, rows: np.ndarray, positions: np.ndarray, *, num_tags: int) -> jax.Array:
        """Places selected rows, followed by empty ones, each on one device of `data`.

        Copies only the rows local to this process.

        Args:
          rows: `[N, K]` column numbers, padded with V.
          positions: `[M]`, positions of the rows to place, in order.
          num_tags: V.

        Returns:
          `[P, K]`, of which at least one row is empty.
        """
        shares = self.mesh.shape["data"]
        size = len(positions) + shares - len(positions) % shares

        def load_share(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(size)
            selected = positions[start:stop]
            # Rows in a mapped file are read in the file's order.
            order = np.argsort(selected)
            placed = np.full((stop - start, rows.shape[1]), num_tags, rows.dtype)
            placed[order] = rows[selected[order]]
            return placed

        sharding = NamedSharding(self.mesh, P("data"))
        return jax.make_array_from_callback((size, rows.shape[1]), sharding, load_share)

    def place(self, tree: Any) -> Any:
        """Places a train state, or a part of it, for training."""
        return jax.tree.map(put, tree, self._of(tree))

    def bytes_per_device(self, tree: Any) -> int:
        """Returns the bytes that arrays, or their shapes, take on each device once placed."""
        parts = jax.tree.map(
            lambda leaf, over: math.prod(over.shard_shape(leaf.shape)) * leaf.dtype.itemsize,
            tree,
            self._of(tree),
        )
        return sum(jax.tree.leaves(parts))

    def gather(self, tree: Any) -> Any:
        """Gathers a placed tree, unsharded, on the first of this process's devices."""
        replicated = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, P()))(tree)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), replicated)

    def whole(self, tree: Any) -> Any:
        """Constrains a tree inside a program: replicated on every device."""
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, P()))

    def keep(self, tree: Any) -> Any:
        """Constrains a tree inside a program to the sharding of `place`, so that epochs chain."""
        return jax.lax.with_sharding_constraint(tree, self._of(tree))

    def split(self, batch: jax.Array) -> jax.Array:
        """Constrains `[..., B, X]` inside a program: B is split over `data`."""
        over = P(*[None] * (batch.ndim - 2), "data", None)
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, over))

    def take(self, rows: jax.Array, row_numbers: jax.Array) -> jax.Array:
        """Gathers rows `[..., B, K]` by number `[..., B]` inside a program, B split over `data`.

        Each device looks up its own rows of the whole batch; one reduce-scatter moves every row to
        the device that works on it. No device ever holds more than that.
        """
        if self.mesh.shape["data"] == 1:
            return rows[row_numbers]
        axis = row_numbers.ndim - 1

        def exchange(own: jax.Array, numbers: jax.Array) -> jax.Array:
            index = numbers - jax.lax.axis_index("data").astype(numbers.dtype) * len(own)
            mine = (index >= 0) & (index < len(own))
            # The other devices add zeros. Every backend can sum int32.
            values = jnp.where(mine[..., None], own[jnp.where(mine, index, 0)], 0).astype(jnp.int32)
            return jax.lax.psum_scatter(values, "data", scatter_dimension=axis, tiled=True)

        return jax.shard_map(
            exchange,
            mesh=self.mesh,
            in_specs=(P("data"), P()),
            out_specs=P(*[None] * axis, "data", None),
        )(rows, row_numbers).astype(rows.dtype)

    def _of(self, tree: Any) -> Any:
        # Drop size-1 axes from the spec, as XLA does: a different but equivalent sharding would
        # cause a recompile.
        over_tags = _TAG_AXIS_SPECS if self.mesh.shape["model"] > 1 else {}

        def one(path: tuple, _: Any) -> NamedSharding:
            names = [str(getattr(key, "key", "")) for key in path[-2:]]
            return NamedSharding(self.mesh, over_tags.get("/".join(names), P()))

        return jax.tree_util.tree_map_with_path(one, tree)
