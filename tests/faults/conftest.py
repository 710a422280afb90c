"""Real faults done to real processes. Not part of the default run: `pytest -m faults`."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvae.config import parsing
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.storage import manifest
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train import model_setup
from jaxvae.train.train_state import eval_params
from tests.conftest import ROOT
from tests.helpers import warm_start
from tests.helpers.training import logged, write_clips

TIMINGS = ("seconds", "seconds_eval", "examples_per_second")
EPOCHS = 24


@pytest.fixture(scope="session", autouse=True)
def _compiling_as_users_do():
    """Here processes are what is tested; what was asked of XLA for this one stands."""
    jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
        yield


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.faults)
            item.add_marker(pytest.mark.filterwarnings("default"))


def arguments(clips: Path, **overrides) -> list[str]:
    """A small run with a checkpoint every epoch, as a user's command line."""
    values = {
        "data.dataset_name": clips / "clips.csv",
        "data.taxonomy_path": clips / "words.json",
        "data.val_fraction": 0.2,
        "data.test_fraction": 0.2,
        "data.batch_size": 16,
        "model.hidden_dim": 64,
        "trainer.max_epochs": EPOCHS,
        "trainer.checkpoint_every_seconds": 0.0,
        "inference.num_samples": 50,
        **overrides,
    }
    return [
        f"--config={ROOT}/configs/small.py",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def write_anew(path: Path, data: bytes) -> None:
    """Writes a file in another's place: a disk makes who overwrites one wait for it."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def start(*command, cwd, popen=warm_start.Popen, **environment) -> subprocess.Popen:
    """launch.py as a process of its own."""
    return popen(
        [sys.executable, str(ROOT / "launch.py"), *map(str, command)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", **environment},
    )


def finish(process: subprocess.Popen, *, expect: int = 0, timeout: float = 120) -> str:
    """Waits; the exit code must be the expected one. Returns standard error."""
    try:
        _, error = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == expect, error
    assert "Traceback" not in error
    return error


def steps_in(folder: Path) -> list[int]:
    path = folder / "checkpoints"
    return [int(p.name) for p in path.glob("*") if p.name.isdigit()] if path.exists() else []


def wait_for(condition, process, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)


def whole_steps_in(folder: Path) -> list[int]:
    """The checkpoints that were written to their end."""
    steps = steps_in(folder)
    return [step for step in steps if manifest.is_sealed(folder / "checkpoints" / str(step))]


def state_of(folder: Path):
    """(tree of the last whole checkpoint, its facts)."""
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.update(json.loads((folder / "config.json").read_text()))
    taxonomy = Taxonomy.load(folder / "taxonomy.json")
    # Only the structure is wanted: no row has a say in it.
    rows = np.zeros((1, 1), np.uint8)
    state = model_setup.build_model(config, taxonomy, len(rows)).initial(config, rows)
    with Checkpoints(folder / "checkpoints", taxonomy_digest=taxonomy.digest) as checkpoints:
        found, passed_over = checkpoints.restore({"state": state, "best": eval_params(state)})
    whole = max(whole_steps_in(folder))
    assert len(passed_over) == sum(step > whole for step in steps_in(folder))
    return found.tree, found.facts


def leaves(tree) -> list[bytes]:
    state = dataclasses.replace(tree["state"], key=jax.random.key_data(tree["state"].key))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((state, tree["best"]))]


def outcome(folder: Path) -> dict:
    """Everything of a finished run that must not depend on how often it was stopped."""
    tree, facts = state_of(folder)
    lines = read_epochs(folder)
    return {
        "state": leaves(tree),
        "facts": facts,
        "lines": [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines],
        "shown": {name: logged(folder, name) for name in ("train/loss", "val/kld")},
        "metrics": json.loads((folder / "metrics.json").read_text()),
        **{
            name: (folder / name).read_bytes()
            for name in ("model.pth", "model.safetensors", "samples.json", "rows.npz")
        },
    }


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def whole(clips, tmp_path_factory) -> dict:
    """What an uninterrupted run comes to: the control of every fault."""
    folder = tmp_path_factory.mktemp("whole")
    finish(start(*arguments(clips), "--workdir=run", cwd=folder, popen=subprocess.Popen))
    return outcome(folder / "run")


def pytest_terminal_summary(terminalreporter):
    """The suite's figures, added up where they are counts of the same thing."""
    figures: dict[str, list] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            figures.setdefault(name, []).append(value)
    for name, values in sorted(figures.items()):
        total = sum(values) if all(isinstance(value, int) for value in values) else max(values)
        terminalreporter.write_line(f"{name}: {total}")
