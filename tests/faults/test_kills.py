"""Killed at any moment and started again, a run ends as if nothing had happened."""

import dataclasses
import random
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import pytest

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.storage.checkpoints import Checkpoints
from tests.faults.conftest import (
    EPOCHS,
    arguments,
    finish,
    leaves,
    outcome,
    start,
    state_of,
    steps_in,
    wait_for,
)

KILLS_PER_RUN = 4


@pytest.mark.parametrize("seed", range(6))
def test_a_run_killed_again_and_again(seed, clips, whole, tmp_path, record_property):
    rng = random.Random(seed)
    folder = tmp_path / "run"
    killed = 0
    for number in range(KILLS_PER_RUN):
        process = start(*arguments(clips), "--workdir=run", cwd=tmp_path)
        if number == 0 and seed % 2:
            # Start-up, reading, compiling; a fast machine is through with them sooner.
            at = time.monotonic() + rng.uniform(0.2, 6.0)
            wait_for(
                lambda at=at: time.monotonic() > at or max(steps_in(folder), default=0) >= 5,
                process,
            )
        else:
            # While training and saving: a save takes most of an epoch here.
            more = max(steps_in(folder), default=0) + rng.randrange(1, 6)
            wait_for(lambda more=more: max(steps_in(folder), default=0) >= more, process)
            time.sleep(rng.uniform(0.0, 0.2))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    finish(start(*arguments(clips), "--workdir=run", cwd=tmp_path))
    assert outcome(folder) == whole
    assert killed == KILLS_PER_RUN
    record_property("kills survived", killed)


def test_a_run_killed_while_it_judges_samples_and_exports(clips, whole, tmp_path, record_property):
    folder = tmp_path / "run"
    for name in ("final", "model.pth", "SHA256SUMS"):
        process = start(*arguments(clips), "--workdir=run", cwd=tmp_path)
        wait_for(lambda name=name: (folder / name).exists(), process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(*arguments(clips), "--workdir=run", cwd=tmp_path))
    assert outcome(folder) == whole
    record_property("kills survived", 3)


@pytest.fixture(scope="module")
def half(clips, tmp_path_factory):
    """A run stopped in the middle, in good order."""
    place = tmp_path_factory.mktemp("half")
    process = start(*arguments(clips), "--workdir=run", cwd=place)
    wait_for(lambda: max(steps_in(place / "run"), default=0) >= 10, process)
    process.terminate()
    finish(process, expect=143)
    return place / "run"


def fresh_optimizer(state):
    return dataclasses.replace(state, opt_state=jax.tree.map(jnp.zeros_like, state.opt_state))


def another_key(state):
    return dataclasses.replace(state, key=jax.random.key(99))


def data_off_by_one(state):
    return dataclasses.replace(state, step=state.step + 1)


def epoch_again(state):
    return dataclasses.replace(state, step=state.step - state.step // 10)


CHANGES = {
    "nothing": lambda state: state,
    "fresh optimizer": fresh_optimizer,
    "another key": another_key,
    "data off by one batch": data_off_by_one,
    "an epoch restarted": epoch_again,
}


REFUSED = {"data off by one batch", "an epoch restarted"}  # step and epoch do not agree


@pytest.mark.parametrize("change", CHANGES)
def test_the_comparison_would_show_a_wrong_resume(change, half, clips, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(half, folder)
    tree, facts = state_of(folder)
    shutil.rmtree(folder / "checkpoints")
    state = CHANGES[change](jax.tree.map(jnp.asarray, tree["state"]))
    digest = Taxonomy.load(folder / "taxonomy.json").digest
    with Checkpoints(folder / "checkpoints", taxonomy_digest=digest) as saved:
        saved.save(facts["epoch"], {**tree, "state": state}, facts)
    assert facts["epoch"] < EPOCHS
    refused = change in REFUSED
    process = start(*arguments(clips), "--workdir=run", cwd=tmp_path)
    error = finish(process, expect=2 if refused else 0)
    assert ("steps behind it" in error) == refused
    ended, _ = state_of(folder)
    assert (leaves(ended) == whole["state"]) == (change == "nothing")
