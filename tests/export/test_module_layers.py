"""The exported `model.py` as text: its layers' sizes, where PyTorch is not at hand."""

import re

from jaxvae.export.torch.module_source import module_source
from tests.helpers.networks import DEEPER, TAXONOMY, make_run


def test_its_layers_have_the_sizes_of_the_parameters(tmp_path):
    run = make_run("normal", False, False, tmp_path, hidden_dims=DEEPER)
    source = module_source(run.network, name="deep", tags=TAXONOMY.tags)
    sizes = {
        name: int(value) for name, value in re.findall(r"^([A-Z_0-9]+) = (\d+)$", source, re.M)
    }
    sizes.setdefault("NUM_TAGS", TAXONOMY.num_tags)
    layers = re.findall(r"self\.(\w+) = nn\.Linear\((\w+), (\w+)\)", source)
    assert len(layers) == 9  # three hidden ones each way, two heads, the last
    for layer, fan_in, features in layers:
        assert run.network.params[layer]["kernel"].shape == (sizes[fan_in], sizes[features])
