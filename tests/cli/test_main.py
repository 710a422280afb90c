"""Words of a command line that no command knows."""

import pytest

from tests.helpers.commands import refused


@pytest.mark.parametrize(
    "arguments", [("verify", "run"), ("evaluate", "run"), ("sample", "run", "--num", "3")]
)
def test_an_argument_that_a_command_does_not_know_is_refused(capsys, tmp_path, arguments):
    known, *rest = arguments
    said = refused(capsys, known, *rest, "--everything")
    assert f"unknown argument '--everything'; see jaxvae {known} --help" in said
    assert "unknown argument" not in refused(capsys, "verify", tmp_path)  # a folder, but no run
