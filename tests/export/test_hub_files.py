"""Files of a published model, here and not on the Hub."""

import numpy as np
import pytest

from jaxvae.errors import InputError
from jaxvae.export import hub_files
from tests.helpers.networks import make_run


@pytest.fixture
def published(tmp_path):
    run = make_run("normal", True, False, tmp_path)
    hub_files.write_model_files(
        tmp_path, run.network, taxonomy=run.taxonomy, config=run.config, facts=run.facts
    )
    return run, tmp_path


def test_weights_are_those_of_the_config(published):
    run, folder = published
    network, taxonomy, _, facts = hub_files.read_model_files(folder, "hf://me/tags")
    np.testing.assert_array_equal(
        network.params["fc1"]["kernel"], run.network.params["fc1"]["kernel"]
    )
    assert (taxonomy, facts) == (run.taxonomy, run.facts)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1  # a bit of the last number: as a file it is as good as before
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"hf://me/tags: .*model\.safetensors: damaged"):
        hub_files.read_model_files(folder, "hf://me/tags")


@pytest.mark.parametrize("field", ["dataset_name", "val_from", "test_from"])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/home/me/clips.csv", "clips.csv"),
        ("~/clips.csv", "clips.csv"),
        ("secret/clips.parquet", "clips.parquet"),
        ("/home/me/rows.py:clips", "rows.py:clips"),
        ("google/MusicCaps", "google/MusicCaps"),
        ("embedded", "embedded"),
        ("validation", "validation"),
        ("", ""),
    ],
)
def test_of_a_path_its_name_alone_is_published(field, source, expected):
    config = {"data": {field: source}, "model_name": "vae"}
    assert hub_files.without_paths(config)["data"] == {field: expected}
    assert config["data"][field] == source


def test_no_folder_of_a_taxonomy_is_published():
    config = {"data": {"taxonomy_path": "/home/me/words.json"}}
    assert hub_files.without_paths(config)["data"] == {"taxonomy_path": "words.json"}
