"""Configs as a command line gives them."""

import pytest
from absl import flags

from jaxvae.config import parsing
from jaxvae.errors import InputError
from jaxvae.train.choices import CHOICES
from tests.conftest import ROOT

CONFIGS = sorted(
    path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base")
)


MEDIUM = f"--config={ROOT}/configs/medium.py"


def parse(*arguments):
    def define(values):
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        flags.DEFINE_bool("print_config", False, "", flag_values=values)

    return parsing.parse(["launch.py", *arguments], define=define, choices=CHOICES)


def refusal(*arguments) -> str:
    with pytest.raises(InputError) as caught:
        parse(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message
