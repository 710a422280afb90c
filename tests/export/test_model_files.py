"""Files of a model: they hold it, replace no other file, and are refused where they do not fit."""

import json

import numpy as np
import pytest

import jaxvae
from jaxvae.errors import InputError
from jaxvae.export import model_files
from jaxvae.export.torch.state_dict import cut_wrappers
from jaxvae.inference.load import import_model
from tests.helpers.networks import TAXONOMY, VARIED, make_run, rows


@pytest.fixture
def run(tmp_path):
    return make_run(*VARIED[0], tmp_path)


@pytest.mark.parametrize("architecture", VARIED)
def test_a_pth_is_the_model_whatever_its_prior(architecture, tmp_path):
    run = make_run(*architecture, tmp_path)
    run.export(tmp_path / "m.pth")
    back = jaxvae.load(tmp_path / "m.pth").network
    assert back.prior == architecture[0]
    assert back.params.keys() == run.network.params.keys()
    for layer, arrays in run.network.params.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(back.params[layer][name], array)


def test_another_file_is_not_replaced(run, tmp_path):
    run.export(tmp_path / "m.pth")
    run.export(tmp_path / "m.pth")  # the same
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"m\.pth: exists already and is another"):
        make_run(*VARIED[1], tmp_path).export(tmp_path / "m.pth")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_with_anything_in_it_is_not_imported_into(run, tmp_path):
    run.export(tmp_path / "m.pth")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file"):
        with pytest.raises(InputError, match=rf"{name}: exists already; name a new folder"):
            import_model(tmp_path / "m.pth", taxonomy_path=None, output=tmp_path / name)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    import_model(tmp_path / "m.pth", taxonomy_path=None, output=tmp_path / "empty")


def test_wrappers_of_a_model_of_ones_own_are_cut_one_after_the_other():
    tensors = {"module.model.net.embed.weight": 1, "module.model.net.head.bias": 2}
    assert cut_wrappers(tensors) == {"embed.weight": 1, "head.bias": 2}
    mixed = {"module.model.embed.weight": 1, "module.head.bias": 2}
    assert cut_wrappers(mixed) == {"model.embed.weight": 1, "head.bias": 2}


@pytest.mark.parametrize("change", [-1, 1])
def test_a_taxonomy_of_another_width_is_refused(run, tmp_path, change):
    run.export(tmp_path / "m.pth")
    tags = [f"tag {number}" for number in range(TAXONOMY.num_tags + change)]
    (tmp_path / "tags.json").write_text(json.dumps({"all": tags}))
    with pytest.raises(InputError, match=rf"has 7 columns, .*tags\.json has {7 + change} tags"):
        model_files.read_model(tmp_path / "m.pth", str(tmp_path / "tags.json"))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.01])
def test_logits_that_are_not_the_models_are_refused(tmp_path, wrong):
    expected = rows(7)
    assert model_files.check_logits(tmp_path / "m.pth", expected.copy(), expected) == 0.0
    found = expected.copy()
    found[3, 2] += wrong
    with pytest.raises(InputError, match=r"m\.pth: written, but its logits differ"):
        model_files.check_logits(tmp_path / "m.pth", found, expected)
