"""Tables whose processes are killed at their worst moments, and that go on to the same bytes."""

import os
import signal
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers import warm_start
from tests.helpers.networks import VARIED, make_run

# A command of a user's, but with small parts, that kills itself after it called a function the
# given number of times.
CHILD = """
import importlib, os, signal, sys
from jaxvae.cli import main
from jaxvae.inference.generation.tables import table
table.CHUNK, table.PART = 64, 2
module, name, count, *command = sys.argv[1:]
if module:
    *path, last = name.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    call, left = getattr(owner, last), [int(count)]
    def counted(*args, **options):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **options)
    setattr(owner, last, counted)
sys.exit(main.main(command))
"""
MOMENTS = {
    "within a part": ("jaxvae.inference.generation.tables.table", "identify", 300),
    "between a part and its facts": ("jaxvae.inference.generation.tables.parts", "write_json", 3),
    "as parts are joined": ("jaxvae.inference.generation.tables.parts", "join_tables", 0),
    # The order, four parts with their facts, and then the table and its record.
    "before the table takes its name": ("jaxvae.storage.atomic_files", "os.replace", 9),
    "between the table and its record": ("jaxvae.storage.atomic_files", "os.replace", 10),
    "before parts are removed": ("jaxvae.inference.generation.tables.parts", "Parts.remove", 1),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    make_run(*VARIED[0], place).export(place / "model.pth")
    return place / "model.pth"


def generate(model, out, moment, *options):
    command = ["generate", model, "--num", "500", "--output", out, "--temperature", "1"]
    return warm_start.run(
        [sys.executable, "-c", CHILD, *map(str, moment), *map(str, command), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """What no one kills."""
    place = tmp_path_factory.mktemp("whole")
    done = generate(model, place / "t.csv", ("", "", 0))
    assert done.returncode == 0, done.stderr
    return (place / "t.csv").read_bytes()


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_table_goes_on_to_the_same_bytes(moment, model, whole, tmp_path):
    out = tmp_path / "t.csv"
    killed = generate(model, out, MOMENTS[moment])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "t.csv.partial" / "00000.csv").exists()
    joined = ("between the table and its record", "before parts are removed")
    assert out.exists() == (moment in joined)
    refused = generate(model, out, ("", "", 0))
    assert refused.returncode == 2
    assert "broken off; --resume" in refused.stderr
    done = generate(model, out, ("", "", 0), "--resume")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.csv.json"]
