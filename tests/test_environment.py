"""Variables that people have set for other programs: a command gives its result, or one line."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.test_train import run, write_clips

REPORT = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "JAX_ENABLE_X64": "1"}
CASES = [
    ({}, ["verify", "run"]),  # the control
    (REPORT, ["report", "run", "--num-importance-samples", "5"]),
    ({"JAX_DEBUG_NANS": "1"}, ["complete", "run", "--with", "jazz"]),
    (
        {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "NO_COLOR": "1"},
        ["sample", "run", "--num", "2"],
    ),
    ({"TERM": "dumb", "COLUMNS": "1"}, ["compare", "run"]),
    ({"COLUMNS": "x", "OMP_NUM_THREADS": "x"}, ["encode", "run"]),
    ({"LC_ALL": "C", "HOME": ""}, ["verify", "run"]),
    ({"JAX_PLATFORMS": "cuda"}, ["sample", "run", "--num", "1"]),
    ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"}, ["explore", "run", "--no-open"]),
]
LONGER = [
    ({"JAX_ENABLE_X64": "1"}, ["evaluate", "run", "--num-importance-samples", "5"]),
    ({"JAX_ENABLE_X64": "1", "MPLBACKEND": "nowhere"}, ["train", "new"]),
]
REFUSED = {"cuda"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    place = write_clips(tmp_path_factory.mktemp("environment"))
    run(place, trainer__max_epochs=1)
    return place


@pytest.mark.parametrize(
    ("variables", "command"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.faults) for case in LONGER)],
    ids=lambda case: " ".join(case),
)
def test_variables_break_no_command(variables, command, clips):
    if command == ["train", "new"]:
        command = [
            *("train", f"--config={ROOT}/configs/small.py", "--config.trainer.max_epochs=1"),
            *("--config.data.dataset_name=clips.csv", "--config.data.taxonomy_path=words.json"),
            *("--config.data.val_fraction=0.2", "--config.data.test_fraction=0.2"),
            *("--config.model.hidden_dim=8", "--config.model.latent_dim=2", "--workdir=new"),
        ]
    if command[0] == "encode":
        command = [*command, "--input", "clips.csv", "--output", "latents.csv"]
    done = subprocess.run(
        [sys.executable, "-m", "jaxvae", *command],
        cwd=clips,
        env={**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
             "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    if REFUSED & set(variables.values()):
        assert done.returncode == 2
        assert done.stderr.startswith("jaxvae: JAX can't start on JAX_PLATFORMS=cuda: ")
        assert done.stderr.count("\n") == 1
        return
    assert done.returncode == 0, done.stderr
