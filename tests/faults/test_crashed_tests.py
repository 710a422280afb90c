"""A test that takes its process down."""

import re
import shlex
import subprocess
import sys

from tests.conftest import ROOT

CRASH = """
import os, time, pytest

@pytest.mark.parametrize("number", range(3))
def test_one(number):
    time.sleep(0.1)
    if {crashes} and number == 1:
        os._exit(9)
"""


def outcome(folder):
    """The exit code and the output of the tests in a folder, run as the script runs ours."""
    script = (ROOT / "scripts" / "run_tests.sh").read_text()
    (options,) = re.findall(r'-m pytest (.*) "\$@"$', script, re.M)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *shlex.split(options), "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_it_ends_the_run_and_is_named(tmp_path):
    (tmp_path / "pytest.ini").touch()
    for number in range(6):
        (tmp_path / f"test_{number}.py").write_text(CRASH.format(crashes=number == 2))
    code, said = outcome(tmp_path)
    assert code == 1
    assert "crashed while running 'test_2.py::test_one[1]'" in said
    (tmp_path / "test_2.py").write_text(CRASH.format(crashes=False))
    code, said = outcome(tmp_path)
    assert code == 0
    assert "18 passed" in said
