"""Every prior with every norm, of which the rest of the suite sees a part."""

import pytest

from tests.networks import ARCHITECTURES, VARIED
from tests.test_stablehlo import check_stablehlo
from tests.test_torch_module import check_torch

pytestmark = pytest.mark.ecosystem
OTHERS = [each for each in ARCHITECTURES if each not in VARIED]


@pytest.mark.parametrize("architecture", OTHERS)
def test_torch(architecture, torch, tmp_path):
    check_torch(architecture, torch, tmp_path)


@pytest.mark.parametrize("architecture", OTHERS)
def test_stablehlo(architecture, tmp_path):
    check_stablehlo(architecture, tmp_path)
