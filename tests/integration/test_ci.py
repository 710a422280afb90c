"""The lanes of `.ci/run`, as told and as GitHub runs them, and how the scripts find a Python."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.conftest import ROOT

RUN = (ROOT / ".ci" / "run").read_text()
LANES = re.search(r"^LANES=\((.*)\)$", RUN, re.M)[1].split()


def test_the_workflow_runs_each_lane():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert job["strategy"]["matrix"] == {"lane": LANES}
    assert job["steps"][-1] == {"run": ".ci/run ${{ matrix.lane }}"}


def test_each_lane_is_told_and_made():
    assert re.findall(r"^#   ([a-z]+)  ", RUN, re.M) == LANES
    assert sorted(re.findall(r"^lane_([a-z]+)\(\)", RUN, re.M)) == sorted(LANES)


def start(*lanes, **environment):
    return subprocess.run(
        ["bash", ".ci/run", *lanes], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_an_unknown_lane_is_refused_before_any_runs():
    done = start("lint", "fautls")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f".ci/run: no lane 'fautls', but {' '.join(LANES)}\n"


def test_rows_that_must_be_there_are_not_skipped(tmp_path):
    done = start("lint", JAXVAE_SHARED=str(tmp_path / "gone"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f".ci/run: no folder {tmp_path}/gone\n"


def test_what_needs_torch_is_marked_so_and_skips_only_where_a_lane_may_lack_it():
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert not re.search(r"^[^#\n]*importorskip\(.torch", path.read_text(), re.M), path
    assert re.search(r"^    scripts/run_tests.sh -m .*\btorch\b", RUN, re.M)


def test_what_the_lowest_versions_run_is_there():
    files = re.search(r"^LOWEST=\((.*?)^\)$", RUN, re.M | re.S)[1].split()
    assert len(files) > 5
    assert all((ROOT / file).is_file() for file in files)


def test_what_they_do_not_run_stands_on_versions_that_are_colabs_too():
    lowest = dict(re.findall(r"^([\w-]+)>=(\S+)$", (ROOT / "requirements.txt").read_text(), re.M))
    colab = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci/colab.txt").read_text(), re.M))
    for name in ("jax", "flax", "optax", "orbax-checkpoint"):
        assert lowest[name] == colab[name]


def test_the_extra_all_is_every_other_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = sorted(set(extras) - {"all"})
    assert extras["all"] == [f"jaxvae[{','.join(others)}]"]


@pytest.fixture
def find(tmp_path):
    """`find_python` where `make` put these Pythons, and the system's tools are."""
    tools = os.pathsep.join(p for p in ("/usr/bin", "/bin") if os.path.isdir(p))

    def make(folder: str, name: str, *, says: str | None) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # As its check asks: a Python of the version that it says, or a shim that fails.
        body = "cat >/dev/null; exit 127" if says is None else f"cat >/dev/null; exit {says}"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def call(*versions, **environment):
        done = subprocess.run(
            ["bash", "-c", '. scripts/environment.sh; find_python "$@"', "test", *versions],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={"PATH": f"{tmp_path}/path{os.pathsep}{tools}", "HOME": str(tmp_path), **environment},
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else done

    call.make = make
    return call


def test_a_shim_that_fails_is_passed_over_for_pyenvs_own(find):
    for name in ("python3.14", "python3.13"):
        find.make("path", name, says=None)
    find.make(".pyenv/versions/3.12.9/bin", "python", says="0")
    find.make(".pyenv/versions/3.13.2/bin", "python", says="0")
    newest = find.make(".pyenv/versions/3.13.10/bin", "python", says="0")
    assert find() == newest


def test_a_python_that_is_not_usable_is_passed_over(find):
    find.make("path", "python3.14", says="1")  # a pre-release, say
    usable = find.make("path", "python3.13", says="0")
    assert find() == usable


def test_one_that_is_named_is_taken(find):
    find.make("path", "python3.13", says="0")
    own = find.make("elsewhere", "python", says="0")
    assert find(JAXVAE_PYTHON=own) == own
    refused = find(JAXVAE_PYTHON="/nowhere/python")
    assert refused.returncode == 2
    assert "JAXVAE_PYTHON=" in refused.stderr


def test_a_version_is_that_version_or_none(find):
    find.make("path", "python3.14", says="0")
    wanted = find.make("path", "python3.13", says="0")
    assert find("3.13") == wanted
    assert find("3.99").returncode == 2
