"""SIGTERM and SIGINT: one verified checkpoint, a documented exit code, and how to go on."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxvae.storage import manifest
from tests.conftest import ROOT
from tests.faults.conftest import EPOCHS, arguments, finish, outcome, start, steps_in, wait_for
from tests.helpers import warm_start
from tests.helpers.ports import free_port

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.mark.parametrize("signum", CODES)
@pytest.mark.parametrize("when", ["starting", "compiling", "training", "judging"])
def test_a_signal_ends_a_run_in_good_order(signum, when, clips, whole, tmp_path):
    folder = tmp_path / "run"
    # Compiled anew, so that there is something to interrupt.
    cold = {"JAX_ENABLE_COMPILATION_CACHE": "0"} if when == "compiling" else {}
    process = start(*arguments(clips), "--workdir=run", cwd=tmp_path, **cold)
    if when == "starting":
        wait_for((folder / ".lock").exists, process)
    elif when == "compiling":
        wait_for((folder / "config.json").exists, process)
        time.sleep(0.3)
    elif when == "training":
        wait_for(lambda: max(steps_in(folder), default=0) >= 5, process)
    else:
        wait_for(lambda: EPOCHS in steps_in(folder), process)
        wait_for(lambda: manifest.is_sealed(folder / "checkpoints" / str(EPOCHS)), process)
    process.send_signal(signum)
    last = finish(process, expect=CODES[signum]).splitlines()[-1]
    assert last.startswith(f"jaxvae: stopped by {signal.Signals(signum).name}")
    if when == "starting":
        command = [*arguments(clips), "--workdir=run"]
    else:
        saved = steps_in(folder)
        assert saved
        assert all(manifest.is_sealed(folder / "checkpoints" / str(step)) for step in saved)
        program, launch, *command = shlex.split(last.split("; resume with: ")[1])
        # Python by its path where the shell would find another one.
        assert program == "python" or program == sys.executable
        assert launch == str(ROOT / "launch.py")
    if when in ("compiling", "training"):
        assert re.search(rf"epoch {max(saved)} of {EPOCHS} is saved", last)
    finish(start(*command, cwd=tmp_path))
    assert outcome(folder) == whole


@pytest.mark.parametrize("signum", CODES)
def test_a_signal_during_the_start_is_heard(signum, clips, tmp_path, record_property):
    """While libraries are imported, too, which may swallow an exception or crash of it."""
    random = np.random.default_rng(signum)
    for _ in range(12):
        process = start(*arguments(clips), "--workdir=run", cwd=tmp_path, popen=subprocess.Popen)
        time.sleep(random.uniform(0.2, 1.5))
        process.send_signal(signum)
        error = finish(process, expect=CODES[signum])
        assert f"jaxvae: stopped by {signum.name}" in error
        if not (tmp_path / "run" / "config.json").exists():
            assert not (tmp_path / "run").exists()
    record_property("starts ended by a signal", 12)


def test_medium_is_saved_within_five_seconds(tmp_path, record_property):
    process = start(f"--config={ROOT}/configs/medium.py", "--workdir=run", cwd=tmp_path)
    log = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 3, process)
    began = time.monotonic()
    process.terminate()
    finish(process, expect=143)
    record_property("seconds from SIGTERM to the end of medium", round(time.monotonic() - began, 2))
    assert steps_in(tmp_path / "run")


def test_the_second_signal_does_not_wait(clips, tmp_path):
    process = start(
        *arguments(clips, **{"model.hidden_dim": 4096, "data.batch_size": 1}),
        "--workdir=run",
        cwd=tmp_path,
    )
    wait_for((tmp_path / "run" / "config.json").exists, process)
    time.sleep(0.5)
    process.terminate()
    time.sleep(0.1)
    process.terminate()
    assert "stopped at once" in finish(process, expect=143, timeout=20)


def test_a_second_start_names_the_first_before_it_loads_anything(clips, tmp_path, record_property):
    command = [*arguments(clips, **{"trainer.max_epochs": 100_000}), "--workdir=run"]
    first = start(*command, cwd=tmp_path)
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, first)
    began = time.monotonic()
    error = finish(start(*command, cwd=tmp_path, popen=subprocess.Popen), expect=2)
    record_property("seconds until the second starter ends", round(time.monotonic() - began, 2))
    assert re.fullmatch(rf"jaxvae: \S+/run: in use by process {first.pid} on .*\n", error)
    first.terminate()
    finish(first, expect=143)


UNDER_A_CLUSTER = """
import sys
import jax
from jaxvae.config import parsing
from jaxvae.runtime.signals import Interrupted
from jaxvae.train.choices import CHOICES
from jaxvae.train.trainer import train_and_evaluate

jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", num_processes=1, process_id=0)
config = parsing.parse(sys.argv[1:], define=lambda flags: None, choices=CHOICES)[0]
try:
    train_and_evaluate(config, "run")
except Interrupted as stopped:
    print(stopped.outcome, flush=True)
"""


def test_a_clusters_preemption_is_heard(clips, tmp_path):
    values = {"trainer.max_epochs": 100_000, "trainer.checkpoint_every_seconds": 1e6}
    process = warm_start.Popen(
        [sys.executable, "-c", UNDER_A_CLUSTER, str(free_port()), *arguments(clips, **values)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
    )
    log = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") >= 20, process)
    process.terminate()
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    last = max(steps_in(tmp_path / "run"))
    assert out == f"epoch {last} of 100000 is saved\n"
    assert last >= 20
