"""Processes of the tests that are forks: what differs from new ones is what they have imported."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers import warm_shell, warm_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are of Linux")

CODE = """
import os, pathlib, signal, sys
print(sys.argv, sys.path[0], os.getcwd(), __name__, os.environ["COLOUR"], os.getppid())
print(sys.stdin.read(), signal.getsignal(signal.SIGINT), sorted(os.environ), os.getsid(0) == os.getpid())
print(len(list(pathlib.Path("/proc/self/fd").iterdir())), [name for name in dir() if name[0] != "_"])
print("to be heard", file=sys.stderr)
sys.exit(7)
"""
IMPORTED = "import sys; print([name in sys.modules for name in ('jax', 'orbax', 'jaxvae')])"
BOTH = pytest.mark.parametrize("popen", [subprocess.Popen, warm_start.Popen])


def outcome(popen, *command, given="", **options):
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with popen([sys.executable, *command], text=True, **streams, **options) as process:
        output, error = process.communicate(given, timeout=60)
    return process.returncode, output, error


@pytest.mark.parametrize("kind", ["script", "module", "code"])
@pytest.mark.parametrize("new_session", [False, True])
def test_a_fork_does_what_a_new_process_does(kind, new_session, tmp_path):
    (tmp_path / "told.py").write_text(CODE)
    command = {"script": ["told.py"], "module": ["-m", "told"], "code": ["-c", CODE]}[kind]
    options = {"cwd": tmp_path, "env": {**os.environ, "COLOUR": "red"}, "given": "words"}
    options["start_new_session"] = new_session
    new, _, fork = (
        outcome(popen, *command, "-x", "two words", **options)
        for popen in (subprocess.Popen, warm_start.Popen, warm_start.Popen)
    )
    assert new[0] == 7
    assert f"red {os.getpid()}\nwords" in new[1]
    assert fork == new


@BOTH
def test_its_libraries_are_there_and_the_package_is_not(popen):
    forked = popen is warm_start.Popen
    outcome(popen, "-c", "")
    assert outcome(popen, "-c", IMPORTED)[1] == f"{[forked, forked, False]}\n"


@pytest.mark.long
def test_variables_that_are_read_at_the_start_are_those_of_each():
    code = "import jax, sys; print(jax.config.jax_enable_x64, 'flax' in sys.modules)"
    seen = [
        outcome(warm_start.Popen, "-c", code, env={**os.environ, "JAX_ENABLE_X64": value})[1]
        for value in ("1", "1", "0", "0", "1")
    ]
    assert seen == [
        f"{line}\n"
        for line in ("True False", "True True", "False False", "False True", "True True")
    ]


def test_where_the_libraries_can_not_be_imported_each_says_so_itself():
    variables = {**os.environ, "JAX_ENABLE_X64": "perhaps"}
    for _ in range(3):
        code, _, error = outcome(warm_start.Popen, "-c", "import jax", env=variables)
        assert code == 1
        assert "perhaps" in error


def test_what_a_fork_can_not_have_makes_it_a_new_process():
    for _ in range(3):
        assert (
            outcome(warm_start.Popen, "-c", IMPORTED, pass_fds=(0,))[1] == "[False, False, False]\n"
        )


@BOTH
def test_it_is_killed_and_waited_for(popen):
    process = popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert process.poll() is None
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not os.path.exists(f"/proc/{process.pid}")


@BOTH
def test_what_is_raised_ends_it(popen):
    code, _, error = outcome(popen, "-c", "import threading; 1 / 0")
    assert code == 1
    assert error.endswith("ZeroDivisionError: division by zero\n")


@BOTH
def test_a_folder_that_is_not_there(popen, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        popen([sys.executable, "-c", "1"], cwd=tmp_path / "gone")


def test_a_shells_programs(tmp_path):
    script = "echo words | python -c 'import sys; print(sys.stdin.read(), sys.argv)' a | tr a b\n"
    script += "python -c 'import shutil; print(shutil.which(\"python\"))'\n"
    script += 'jaxvae --version\njaxvae nothing 2>&1 || echo $?\npython -c "$0"'
    path = os.pathsep.join([str(tmp_path), os.path.dirname(sys.executable), os.environ["PATH"]])
    with warm_shell.programs(tmp_path):
        done = subprocess.run(
            ["bash", "-c", script, IMPORTED], capture_output=True, text=True,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:2] == ["words", " ['-c', 'b']"]
    assert lines[2] == os.path.join(os.path.dirname(sys.executable), "python")
    assert lines[3].startswith("jaxvae ")
    assert lines[4].startswith("jaxvae: ")
    assert lines[5:] == ["2", "[True, True, False]"]
    assert done.stderr == ""


def test_a_shells_program_hears_signals(tmp_path):
    code = "import signal, time; signal.signal(15, lambda *_: exit(5)); print(flush=True); time.sleep(60)"
    script = (
        'python -c "$0" > started & while [ ! -s started ]; do sleep 0.02; done; kill $!; wait $!'
    )
    with warm_shell.programs(tmp_path):
        done = subprocess.run(
            ["bash", "-c", script, code],
            cwd=tmp_path, timeout=30, check=False,
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        )  # fmt: skip
    assert done.returncode == 5
