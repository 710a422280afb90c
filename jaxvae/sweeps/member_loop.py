"""The host loop of many runs at once: every member of every population, an epoch at a time."""

import dataclasses
import math
import time
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from jaxvae.config import monitor
from jaxvae.runtime import signals
from jaxvae.sweeps.population import Population
from jaxvae.train.loop import training_line
from jaxvae.train.plan.hyperparams import Hyperparams
from jaxvae.train.plan.progress import RunPlan, RunProgress
from jaxvae.train.train_state import TrainState


@dataclasses.dataclass
class Member:
    """One of many runs that train together.

    Attributes:
      name: the caller's identifier.
      shape: members of equal shape share a program.
      fresh: makes the state before the first step.
      hyperparams: the member's hyperparameters.
      plan: the run's length, and how often it is validated.
      progress: the run's counters.
      lines: the lines of metrics.jsonl, one per epoch, without the silhouette: it is not compiled,
        and so many would take longer than the training.
      pruned: set by a callback to stop the member.
    """

    name: Any
    shape: Hashable
    fresh: Callable[[], TrainState]
    hyperparams: Hyperparams
    plan: RunPlan
    progress: RunProgress = dataclasses.field(default_factory=RunProgress)
    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    pruned: bool = False

    @property
    def failed(self) -> bool:
        """True if the member's loss stopped being finite."""
        return self.progress.nonfinite_step >= 0

    @property
    def ended(self) -> bool:
        """True if the member trains no further."""
        finished = self.progress.epoch >= self.plan.max_epochs
        return finished or self.progress.stopped_early or self.failed or self.pruned


class MemberCallbacks(NamedTuple):
    """Callbacks of `train_members`.

    Attributes:
      epoch: called with every member that finished an epoch, after its line was added.
      end: called with a member that ended and its trees `{"state", "best"}`.
      round: called after each round with the number of members in training.
    """

    epoch: Callable[[Member], None]
    end: Callable[[Member, dict[str, Any]], None]
    round: Callable[[int], None] = lambda running: None


def train_members(
    ask: Callable[[], Member | None],
    population: Callable[[Hashable], Population],
    *,
    at_once: int,
    watch: MemberCallbacks,
    requests: signals.StopRequest,
) -> None:
    """Trains members until no more come; a slot that falls free takes the next one.

    Args:
      ask: returns the next member, or None if there is none.
      population: makes the slots, at least `at_once`, for members of a shape; called once per
        shape.
      at_once: most members in training.
      watch: the callbacks.
      requests: signals that ask the training to stop.

    Raises:
      Interrupted: SIGINT or SIGTERM was received; the round in training was finished.
    """
    populations: dict[Hashable, Population] = {}
    running: dict[Hashable, dict[int, Member]] = {}
    while True:
        while sum(map(len, running.values())) < at_once:
            member = ask()
            if member is None:
                break
            if member.shape not in populations:
                populations[member.shape] = population(member.shape)
            slot = populations[member.shape].admit(member.fresh(), member.hyperparams)
            running.setdefault(member.shape, {})[slot] = member
        if not any(running.values()):
            return
        for shape, members in running.items():
            if members:
                _advance(populations[shape], members, watch)
        watch.round(sum(map(len, running.values())))
        if requests.signum:
            raise signals.Interrupted(requests.signum)


def _advance(slots: Population, members: dict[int, Member], watch: MemberCallbacks) -> None:
    """Trains a population for an epoch, and frees the slots of members that ended."""
    started = time.perf_counter()
    sums, steps, bad_steps = slots.train()
    seconds = (time.perf_counter() - started) / len(members)
    due = np.zeros(len(bad_steps), bool)
    for slot, member in members.items():
        losses = _of(sums, slot)
        if bad_steps[slot] >= 0:
            member.progress.fail(int(bad_steps[slot]), losses.compute())
            continue
        member.progress.epoch += 1
        epoch = member.progress.epoch
        member.lines.append(training_line(epoch, int(steps[slot]), losses, seconds))
        due[slot] = member.plan.validates(epoch)
    if due.any():
        _validate(slots, members, due)
    for slot, member in list(members.items()):
        if not member.failed:
            watch.epoch(member)
        if member.ended:
            watch.end(member, slots.member(slot))
            slots.release(slot)
            del members[slot]


def _validate(slots: Population, members: dict[int, Member], due: np.ndarray) -> None:
    started = time.perf_counter()
    totals, bounds = slots.validate(due)
    improved = np.zeros(len(due), bool)
    for slot, member in members.items():
        if not due[slot]:
            continue
        values = _of(totals, slot).compute()
        if not math.isfinite(values["loss"]):
            member.progress.fail(member.lines[-1]["step"], values)
            member.progress.epoch -= 1
            member.lines.pop()
            continue
        values |= monitor.added_values(member.plan.monitor, values, bound=bounds[slot])
        line = member.lines[-1]
        line |= {f"val/{name}": value for name, value in values.items()}
        improved[slot] = member.progress.observe(line[member.plan.monitor.name], member.plan)
    slots.keep(improved)
    seconds = (time.perf_counter() - started) / due.sum()
    for slot, member in members.items():
        if due[slot] and not member.failed:
            member.lines[-1]["seconds_eval"] = seconds


def _of(tree, slot: int):
    """Selects one member's entry of stacked sums."""
    import jax

    return jax.tree.map(lambda leaf: leaf[slot], tree)
