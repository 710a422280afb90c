"""Windows is refused in one line by whatever comes first: a command, a script or an import."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

LINE = "jaxvae runs on Linux and macOS; on Windows, in WSL (Windows Subsystem for Linux)"


@pytest.fixture
def start(tmp_path):
    """Starts Python on `arguments` as if on a platform."""

    def call(*arguments, platform="win32"):
        # Read by Python before anything of ours.
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.platform = {platform!r}\n")
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        )  # fmt: skip

    return call


SCRIPT = "import sys; sys.argv[0] = {!r}; from jaxvae.__main__ import main; main()"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "jaxvae", "sample", "runs/a"),
        (str(ROOT / "launch.py"), "--config=configs/small.py"),
        ("-c", SCRIPT.format(r"C:\Scripts\jaxvae.exe")),
    ],
    ids=["module", "launch.py", "script"],
)
def test_a_command_is_refused_in_one_line(arguments, start):
    done = start(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{LINE}\n")


@pytest.mark.parametrize("what", ["jaxvae", "jaxvae.storage.lock", "jaxvae.config.parsing"])
def test_an_import_is_refused_in_one_line(what, start):
    code = f"try:\n    import {what}\nexcept ImportError as error:\n    print(error)"
    done = start("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{LINE}\n", "")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_control_where_it_runs(platform, start):
    done = start("-c", "import jaxvae.storage.lock; print(jaxvae.__version__)", platform=platform)
    assert done.returncode == 0, done.stderr
