"""Every prior with every norm, of which the rest of the suite sees a part."""

import pytest

from tests.helpers.exports import check_stablehlo, check_torch
from tests.helpers.networks import ARCHITECTURES, DEEPER, VARIED, make_run

pytestmark = pytest.mark.ecosystem
OTHERS = [each for each in ARCHITECTURES if each not in VARIED]


@pytest.mark.parametrize("architecture", OTHERS)
def test_torch(architecture, torch, tmp_path):
    check_torch(make_run(*architecture, tmp_path), torch, tmp_path)


def test_torch_of_three_hidden_layers(torch, tmp_path):
    check_torch(make_run("vamp", True, True, tmp_path, hidden_dims=DEEPER), torch, tmp_path)


@pytest.mark.parametrize("architecture", OTHERS)
def test_stablehlo(architecture, tmp_path):
    check_stablehlo(make_run(*architecture, tmp_path), tmp_path)


def test_stablehlo_of_three_hidden_layers(tmp_path):
    check_stablehlo(make_run("vamp", True, True, tmp_path, hidden_dims=DEEPER), tmp_path)
