"""Commands as a shell starts them, and in this process."""

import os
import re
import sys

from jaxvae.cli import main
from tests.conftest import ROOT
from tests.helpers import optimization, warm_start


def command(*arguments, cwd, expect=0, popen=warm_start.Popen, **environment):
    """Runs a command; its exit code must be the expected one, and a failure is one line."""
    done = warm_start.run(
        [sys.executable, *map(str, arguments)],
        popen=popen,
        cwd=cwd,
        env={
            **os.environ,
            "XLA_FLAGS": optimization.LITTLE_OPTIMIZED,
            "PYTHONPATH": str(ROOT),
            **environment,
        },
    )
    assert done.returncode == expect, done.stderr
    if expect == 2:
        assert re.fullmatch(r"jaxvae: [^\n]+\n", done.stderr), done.stderr
        assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done


def tool(*arguments, **options):
    return command("-m", "jaxvae", *arguments, **options)


def shell(capsys, *arguments):
    code = main.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, *arguments):
    assert main.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxvae: ")
    assert err.count("\n") == 1
    return err
