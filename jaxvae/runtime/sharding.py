"""How a run's arrays lie on its devices.

A mesh has two axes. Over `data` a batch is split, and so are the rows it is taken from; over
`model`, for wide vocabularies, what has an axis of tags: the first layer, the last one, their
optimizer state and the logits. Whatever does not divide is padded, and the padding masked.
"""

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
"""The arrays with an axis of tags, by the end of their path; so also their optimizer state."""


def append_empty_rows(rows: np.ndarray, *, num_tags: int) -> np.ndarray:
    """Rows `[N, K]` with an empty row behind, `[N + 1, K]`; padding points to row N.

    Args:
      rows: column numbers, padded with V.
      num_tags: V.
    """
    return np.pad(rows, ((0, 1), (0, 0)), constant_values=num_tags)


def check_vocabulary(mesh: Mesh, *, num_tags: int) -> None:
    """Raises InputError where the tags do not divide over the mesh's `model` axis."""
    size = mesh.shape["model"]
    if num_tags % size:
        fit = ", ".join(str(n) for n in range(1, mesh.size + 1) if num_tags % n == 0)
        raise InputError(
            f"--config.trainer.mesh.model={size}: {num_tags:,} tags do not divide over {size} "
            f"devices; it can be {fit}"
        )


def put(array: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Lays out an array that every process has; each sends its own devices their parts."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(array), sharding))
    values = np.asarray(array)
    return jax.make_array_from_callback(values.shape, sharding, lambda at: values[at])


class Sharding:
    """Places arrays on a mesh, and tells compiled programs where they are.

    Args:
      mesh: axes `data` and `model`.
    """

    def __init__(self, mesh: Mesh):
        self.mesh = mesh

    @property
    def is_here(self) -> bool:
        """Whether every device of the mesh is this process's."""
        return all(device.process_index == jax.process_index() for device in self.mesh.devices.flat)

    def padded(self, batch_size: int) -> int:
        """Rows of a batch that every device on `data` has an equal part of."""
        return batch_size + -batch_size % self.mesh.shape["data"]

    def place_rows(self, rows: np.ndarray, positions: np.ndarray, *, num_tags: int) -> jax.Array:
        """Rows, and empty ones behind, each on one device of `data`.

        No more of them is copied than this process's devices have.

        Args:
          rows: `[N, K]` column numbers, padded with V.
          positions: `[M]`, which of them, in which order.
          num_tags: V.

        Returns:
          `[P, K]`, at least one row of them empty.
        """
        shares = self.mesh.shape["data"]
        size = len(positions) + shares - len(positions) % shares

        def part(at: Any) -> np.ndarray:
            start, stop, _ = at[0].indices(size)
            wanted = positions[start:stop]
            # Rows that lie on a disk are read from its one end to the other.
            order = np.argsort(wanted)
            placed = np.full((stop - start, rows.shape[1]), num_tags, rows.dtype)
            placed[order] = rows[wanted[order]]
            return placed

        sharding = NamedSharding(self.mesh, P("data"))
        return jax.make_array_from_callback((size, rows.shape[1]), sharding, part)

    def place(self, tree: Any) -> Any:
        """A state, or a part of one, laid out for training."""
        return jax.tree.map(put, tree, self._of(tree))

    def gather(self, tree: Any) -> Any:
        """A placed tree, whole, on the first of this process's devices."""
        whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, P()))(tree)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)

    def whole(self, tree: Any) -> Any:
        """Inside a program: on every device."""
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, P()))

    def keep(self, tree: Any) -> Any:
        """Inside a program: the same layout as `place`, so that every epoch gets what it gave."""
        return jax.lax.with_sharding_constraint(tree, self._of(tree))

    def split(self, batch: jax.Array) -> jax.Array:
        """Inside a program: `[..., B, X]` with B over `data`."""
        over = P(*[None] * (batch.ndim - 2), "data", None)
        return jax.lax.with_sharding_constraint(batch, NamedSharding(self.mesh, over))

    def take(self, rows: jax.Array, row_numbers: jax.Array) -> jax.Array:
        """Inside a program: rows `[..., B, K]` by their numbers `[..., B]`, B over `data`.

        Each device looks up what it has of the whole batch; one reduce-scatter brings every row
        to the device that is to work on it. No device ever holds more.
        """
        if self.mesh.shape["data"] == 1:
            return rows[row_numbers]
        axis = row_numbers.ndim - 1

        def exchange(own: jax.Array, numbers: jax.Array) -> jax.Array:
            at = numbers - jax.lax.axis_index("data").astype(numbers.dtype) * len(own)
            mine = (at >= 0) & (at < len(own))
            # The other devices add zeros; as integers of a width that every backend can add.
            found = jnp.where(mine[..., None], own[jnp.where(mine, at, 0)], 0).astype(jnp.int32)
            return jax.lax.psum_scatter(found, "data", scatter_dimension=axis, tiled=True)

        return jax.shard_map(
            exchange,
            mesh=self.mesh,
            in_specs=(P("data"), P()),
            out_specs=P(*[None] * axis, "data", None),
        )(rows, row_numbers).astype(rows.dtype)

    def _of(self, tree: Any) -> Any:
        # Over one device as if there was no such axis: that is how XLA writes it, and a program
        # that gets its own results in other words is compiled again.
        over_tags = _TAG_AXIS_SPECS if self.mesh.shape["model"] > 1 else {}

        def one(path: tuple, _: Any) -> NamedSharding:
            names = [getattr(key, "key", "") for key in path[-2:]]
            return NamedSharding(self.mesh, over_tags.get("/".join(names), P()))

        return jax.tree_util.tree_map_with_path(one, tree)
