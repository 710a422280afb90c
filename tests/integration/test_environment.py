"""Variables that people have set for other programs: a command gives its result, or one line."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers import optimization
from tests.helpers.model_hub import TOKEN, ModelHub
from tests.helpers.training import run, write_clips

VARIABLES = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # what notebooks hand on
    "JAX_ENABLE_X64": "1",
    "JAX_DEBUG_NANS": "1",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "PYTHONIOENCODING": "ascii",
    "LC_ALL": "C",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "COLUMNS": "1",
    "HOME": "",
    "OMP_NUM_THREADS": "x",
    "SLURM_JOB_ID": "1",
}
KINDS = {
    "none": (),
    "numbers": ("JAX_ENABLE_X64", "JAX_DEBUG_NANS", "JAX_DEFAULT_MATMUL_PRECISION"),
    "terminal": ("PYTHONIOENCODING", "LC_ALL", "NO_COLOR", "TERM", "COLUMNS"),
    "place": ("MPLBACKEND", "HOME", "OMP_NUM_THREADS", "SLURM_JOB_ID"),
}
"""Variables by what they change; none of a kind can hide what another does."""
SMALL = [
    *(f"--config={ROOT}/configs/small.py", "--config.trainer.max_epochs=1"),
    *("--config.data.dataset_name=clips.csv", "--config.data.taxonomy_path=words.json"),
    *("--config.data.val_fraction=0.2", "--config.data.test_fraction=0.2"),
    *("--config.model.hidden_dim=8", "--config.model.latent_dim=2", "--config.logger.name=()"),
]
COMMANDS = [
    ["train", *SMALL, "--workdir=new"],
    ["data", *SMALL],
    ["verify", "run"],
    ["sample", "run", "--num", "2"],
    ["complete", "run", "--with", "jazz"],
    ["generate", "run", "--num", "2", "--output", "sets.csv"],
    ["traverse", "run", "--around", "jazz", "--dim", "0"],
    ["encode", "run", "--input", "clips.csv", "--column", "aspect_list", "--output", "latents.csv"],
    ["evaluate", "run", "--num-importance-samples", "5"],
    ["report", "run", "--num-importance-samples", "5"],
    ["explore", "run", "--no-open"],
    ["compare", "run", "new"],
    ["export", "run", "--output", "model.pth"],
    ["import", "model.pth", "--taxonomy", "words.json", "--output", "imported"],
    ["seeds", *SMALL, "--num", "2", "--workdir=seeds"],
    ["frontier", *SMALL, "--kld_weights", "0.5,1", "--workdir=frontier"],
    ["push", "run", "someone/tags", "--folder", "published"],
    ["push", "run", "someone/tags"],
]
if importlib.util.find_spec("optuna"):
    COMMANDS.append(["search", *SMALL, "--space=space.py", "--trials", "2", "--workdir=search"])
SPACE = """
def get_space(s):
    s.log("trainer.optimizer.lr", 1e-4, 1e-2)
"""
# In one process, since starting one takes longer than most of them.
CHILD = """
import json, sys
from jaxvae.cli import main
codes = {}
for command in json.loads(sys.argv[1]):
    codes[" ".join(command)] = main.main(command)
with open("codes.json", "w") as file:
    json.dump(codes, file)
"""


@pytest.fixture
def hub():
    """What a process must know to reach a Hub on the loopback interface, and nothing else."""
    hub = ModelHub()
    yield {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
           "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}  # fmt: skip
    hub.close()


def codes_of(commands, place, **variables):
    """The exit code of each command, and what all of them said."""
    write_clips(place)
    (place / "space.py").write_text(SPACE)
    run(place, trainer__max_epochs=1)
    kept = {name: value for name, value in os.environ.items() if not re.match("HF_", name)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands)],
        cwd=place,
        env={**kept, "XLA_FLAGS": optimization.LITTLE_OPTIMIZED, **optimization.NOT_OPTIMIZED,
             "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads((place / "codes.json").read_text()), done.stderr


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_works_with_the_variables_of_a_kind(kind, hub, tmp_path):
    variables = {name: VARIABLES[name] for name in KINDS[kind]}
    codes, said = codes_of(COMMANDS, tmp_path, **hub, **variables)
    assert set(codes.values()) == {0}, (codes, said)
    for name in ("run/report.html", "run/explore.html", "published/README.md"):
        assert (tmp_path / name).is_file()


def test_every_variable_is_of_one_kind():
    assert sorted(name for names in KINDS.values() for name in names) == sorted(VARIABLES)


def test_a_platform_that_is_not_here_is_one_line(tmp_path):
    commands = [["sample", "run", "--num", "1"], ["verify", "run"], ["train", *SMALL]]
    codes, said = codes_of(commands, tmp_path, JAX_PLATFORMS="cuda")
    assert set(codes.values()) == {2}
    lines = said.splitlines()
    assert len(lines) == len(commands)
    for line in lines:
        assert line.startswith("jaxvae: JAX can't start on JAX_PLATFORMS=cuda: ")


@pytest.mark.parametrize(
    ("name", "value"), [("JAX_DEFAULT_MATMUL_PRECISION", "silly"), ("JAX_DEBUG_NANS", "perhaps")]
)
def test_a_value_that_jax_does_not_know_is_one_line(name, value, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxvae", "verify", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, name: value},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"jaxvae: {name}={value}: JAX knows no such value; unset {name}\n"
