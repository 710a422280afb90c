"""Coverage-guided fuzzing of the parsers that read what strangers wrote."""

import importlib.util
import os
import platform
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT, lacking

RUNS = 10_000
PLANTED = {
    "memory": "too hungry",
    "time": "too slow",
    "code": "it ran something: exec",
    "exception": "KeyError: 'planted'",
    "lines": "more than one line",
}


@pytest.fixture(autouse=True)
def atheris():
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("atheris has no wheel for this machine")
    if importlib.util.find_spec("atheris") is None:
        lacking("atheris is not installed")


def fuzz(target, cwd):
    return subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", target, str(RUNS)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("target", ["cells", "taxonomies", "pth"])
def test_a_parser_refuses_what_it_can_not_read(target, tmp_path, record_property):
    done = fuzz(target, tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    runs = int(re.search(r"^Done (\d+) runs", done.stdout, re.MULTILINE)[1])
    assert runs == RUNS
    # Guided: it found branches that the seeds do not take.
    first, last = (
        int(re.search(rf"{when}\s+cov: (\d+)", done.stdout)[1]) for when in ("INITED", "DONE")
    )
    assert last > first
    assert os.listdir(tmp_path) == ["corpus"]  # Nothing was written, and no input was kept.
    record_property(f"guided {target}", runs)


@pytest.mark.parametrize("fault", PLANTED)
def test_the_harness_notices(fault, tmp_path):
    done = fuzz(f"planted {fault}", tmp_path)
    assert done.returncode == 77
    assert PLANTED[fault] in done.stdout
    (kept,) = tmp_path.glob("crash-*")
    assert kept.read_bytes()[:3] == b"<!>"


def test_the_harness_minds_nothing_else(tmp_path):
    done = fuzz("planted nothing", tmp_path)
    assert done.returncode == 0
    assert f"Done {RUNS} runs" in done.stdout
