"""Many models of one shape in one compiled program: each trains as it would alone.

A member is a slot of stacked arrays. Members differ by numbers alone (seed, learning rate, weights
of the loss, ...), so one program serves them all, and a slot whose member ended takes the next one
without another compilation. The devices share the slots. A CPU device trains its members in turn,
since their matrices are too small to gain from being stacked; an accelerator trains them together.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvae.evaluation import streaming_metrics
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.train_state import TrainState, eval_params

_MEMBERS = PartitionSpec("data")
_WHOLE = PartitionSpec()


class Population:
    """Slots for members of one shape.

    Args:
      train_epoch: one member's epoch, from `train_epoch.make_train_epoch`.
      validate: one member's validation, from `eval_epoch.make_eval_pass`.
      mesh: the devices that share the slots.
      slots: number of slots, a multiple of the devices.
      train_rows: `[N + 1, K]`, the training rows and the empty one.
      val_rows: the same for the validation split.
      likelihood_bound: from `likelihood.make_likelihood_bound`, if it chooses epochs.
      bound_rows: `[M, K]`, the rows of `likelihood_bound`.
      together: whether a device trains its members at once; None: unless it is a CPU.
    """

    def __init__(
        self,
        *,
        train_epoch: Callable,
        validate: Callable,
        mesh: Mesh,
        slots: int,
        train_rows: np.ndarray,
        val_rows: np.ndarray,
        likelihood_bound: Callable | None = None,
        bound_rows: np.ndarray | None = None,
        together: bool | None = None,
    ):
        self._members = NamedSharding(mesh, _MEMBERS)
        self._train_rows, *self._val_rows = jax.device_put(
            (train_rows, val_rows, bound_rows), NamedSharding(mesh, _WHOLE)
        )
        if together is None:
            together = mesh.devices.flat[0].platform != "cpu"
        self._train, self._validate = _programs(
            train_epoch, validate, likelihood_bound, mesh, together
        )
        self._stacked: tuple[TrainState, Hyperparams, dict] | None = None
        self._slots, self._devices = slots, mesh.size
        self.taken = np.zeros(slots, bool)
        """Slots that have a member, `[slots]`."""

    def admit(self, state: TrainState, hyperparams: Hyperparams) -> int:
        """Gives a free slot to a fresh member and returns its number."""
        member = (state, hyperparams, eval_params(state))
        if self._stacked is None:
            self._stacked = jax.tree.map(
                lambda leaf: jax.device_put(jnp.stack([leaf] * self._slots), self._members), member
            )
        # Takes the device with the fewest members, since a device trains its members in turn.
        by_device = self.taken.reshape(self._devices, -1)
        free = np.where(by_device.all(axis=1), self._slots, by_device.sum(axis=1))
        device = int(free.argmin())
        slot = device * by_device.shape[1] + int(by_device[device].argmin())
        if self.taken[slot]:
            raise ValueError("every slot is taken")
        is_slot = np.arange(self._slots) == slot
        self._stacked = _place(self._stacked, jax.device_put(is_slot, self._members), member)
        self.taken[slot] = True
        return slot

    def release(self, slot: int) -> None:
        """Frees a slot, whose member is trained no further."""
        self.taken[slot] = False

    def train(self) -> tuple[streaming_metrics.Losses, np.ndarray, np.ndarray]:
        """Trains every member for an epoch.

        Returns:
          (sums of the losses, steps taken, first step that was not finite or -1), each `[slots]`.
        """
        state, hyperparams, best = self._parts()
        state, sums = self._train(state, hyperparams, self._train_rows, self.taken)
        self._stacked = state, hyperparams, best
        return jax.device_get((sums, state.step, state.bad_step))

    def validate(self, due: np.ndarray) -> tuple[streaming_metrics.SplitMetrics, np.ndarray]:
        """Validates the members that are due, `[slots]`.

        Returns:
          (sums of their metrics, each `[slots, ...]`; their likelihood bounds `[slots]`, 0 without
          a bound).
        """
        state, hyperparams, _ = self._parts()
        variables = eval_params(state)
        results = self._validate(
            variables["params"],
            variables["batch_stats"],
            hyperparams.loss,
            state.key,
            self._val_rows,
            due,
        )
        return jax.device_get(results)

    def keep(self, improved: np.ndarray) -> None:
        """Stores the current parameters as best for the members that improved, `[slots]`."""
        if improved.any():
            state, hyperparams, best = self._parts()
            self._stacked = state, hyperparams, _keep(best, eval_params(state), improved)

    def member(self, slot: int) -> dict[str, Any]:
        """Returns a slot's trees `{"state", "best"}`, the same as those of a single run."""
        state, _, best = self._parts()
        per_device = self._slots // self._devices
        first = slot // per_device * per_device

        # Reads the member's own device: indexing the whole array would be a collective operation.
        def take(leaf: jax.Array) -> jax.Array:
            shards = {shard.index[0].start or 0: shard.data for shard in leaf.addressable_shards}
            return shards[first][slot - first]

        return jax.tree.map(take, {"state": state, "best": best})

    def _parts(self) -> tuple[TrainState, Hyperparams, dict]:
        if self._stacked is None:
            raise ValueError("no member yet")
        return self._stacked


def _programs(
    train_epoch: Callable,
    validate: Callable,
    likelihood_bound: Callable | None,
    mesh: Mesh,
    together: bool,
) -> tuple[Callable, Callable]:
    """Compiles the epoch and the validation of all members; inactive members are skipped."""

    def over_members(function: Callable, *args) -> Any:
        return jax.vmap(function)(*args) if together else jax.lax.map(lambda a: function(*a), args)

    def train(states, hyperparams, rows, active):
        def one(state, hyperparams, active):
            return jax.lax.cond(
                active,
                lambda state: train_epoch(state, hyperparams, rows),
                lambda state: (state, streaming_metrics.Losses.empty()),
                state,
            )

        return over_members(one, states, hyperparams, active)

    def judge(params, batch_stats, weights, keys, rows, due):
        val_rows, bound_rows = rows

        def pass_over(params, batch_stats, weights, key):
            total = validate(params, batch_stats, weights, np.float32(0.5), key, val_rows)[0]
            if likelihood_bound is None:
                return total, jnp.zeros(())
            return total, likelihood_bound(params, batch_stats, key, bound_rows)

        def one(params, batch_stats, weights, key, due):
            like = jax.eval_shape(pass_over, params, batch_stats, weights, key)
            return jax.lax.cond(
                due,
                pass_over,
                lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like),
                *(params, batch_stats, weights, key),
            )

        return over_members(one, params, batch_stats, weights, keys, due)

    share = functools.partial(
        jax.shard_map,
        mesh=mesh,
        out_specs=_MEMBERS,
        check_vma=False,  # the members' code is unaware of the mesh
    )
    return (
        jax.jit(share(train, in_specs=(_MEMBERS, _MEMBERS, _WHOLE, _MEMBERS)), donate_argnums=0),
        jax.jit(share(judge, in_specs=(*[_MEMBERS] * 4, _WHOLE, _MEMBERS))),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _place(stacked, chosen, member):
    return jax.tree.map(lambda old, new: _where(chosen, new[None], old), stacked, member)


@functools.partial(jax.jit, donate_argnums=0)
def _keep(best, now, improved):
    return jax.tree.map(lambda old, new: _where(improved, new, old), best, now)


def _where(chosen: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Selects slots of `new` where chosen `[slots]`, else of `old`, without communication."""
    return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)
