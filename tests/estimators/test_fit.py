"""Training on rows in memory: the same as on a file, whatever holds the rows."""

import json

import numpy as np
import pandas
import pytest
from scipy import sparse
from sklearn.preprocessing import MultiLabelBinarizer

import jaxvae
from jaxvae.data.dataset import InMemory, load_from_config
from jaxvae.data.readers.memory import of_memory
from jaxvae.errors import InputError
from jaxvae.estimators.fit import make_config
from jaxvae.train.trainer import train_and_evaluate

NAMES = ["rock", "jazz", "dub", "upright bass", "dark"]
ROWS = [["rock"], ["jazz", "upright bass"], ["dub", "dark"], ["jazz", "dark", "rock"]] * 20
TINY = {
    "model.latent_dim": 2,
    "model.hidden_dim": 4,
    "trainer.max_epochs": 2,
    "data.batch_size": 16,
    "inference.num_samples": 20,
    "logger.name": (),
}


def fit(tags, folder, **options):
    options = {"config": "small", "models_dir": folder / "models", "silent": True, **options}
    return jaxvae.fit(tags, workdir=folder / "run", **options, **TINY)


def loaded(rows, names=None, **overrides):
    config = make_config("small", {"data.taxonomy_path": "from_data", **overrides})
    return load_from_config(config, rows=InMemory(of_memory(rows, names)))


def test_the_same_rows_from_a_file_train_the_same_bits(tmp_path):
    run = fit(ROWS, tmp_path / "memory")
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps({"tags": row}) + "\n" for row in ROWS))
    fields = {"data.dataset_name": str(path), "data.taxonomy_path": "from_data"}
    folder = tmp_path / "file" / "run"
    train_and_evaluate(make_config("small", TINY | fields), folder, models_dir=tmp_path / "m")
    first, second = (at / "model.safetensors" for at in (run.folder, folder))
    assert first.read_bytes() == second.read_bytes()
    config = json.loads((run.folder / "config.json").read_text())
    assert config["data"]["dataset_name"] == "memory"
    assert set(run.taxonomy.tags) == set(NAMES)
    longer = jaxvae.fit(
        ROWS,
        config="small",
        workdir=run.folder,
        models_dir=tmp_path / "m",
        silent=True,
        **TINY | {"trainer.max_epochs": 3},
    )
    assert longer.facts["epoch"] in (1, 2, 3)
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 3


HOT = MultiLabelBinarizer(classes=NAMES).fit_transform(ROWS)


def test_every_holder_of_rows_gives_the_same_rows():
    import datasets
    import pyarrow

    expected = loaded(ROWS)
    holders = {
        "tuples": [tuple(row) for row in ROWS],
        "texts": ["; ".join(row) for row in ROWS],
        "series": pandas.Series(ROWS),
        "frame": pandas.DataFrame({"id": range(len(ROWS)), "tags": ROWS}),
        "arrow": pyarrow.chunked_array([ROWS[:30], ROWS[30:]]),
        "dataset": datasets.Dataset.from_dict({"tags": ROWS, "id": list(range(len(ROWS)))}),
    }
    matrices = {
        "boolean": HOT.astype(bool),
        "numbers": HOT.astype(np.float32),
        "sparse": sparse.csr_matrix(HOT),
        "coo": sparse.coo_array(HOT),
    }
    for holder, rows in holders.items():
        assert loaded(rows).fingerprint == expected.fingerprint, holder
    for holder, matrix in matrices.items():
        assert loaded(matrix, NAMES).fingerprint == expected.fingerprint, holder


def test_named_classes_of_a_data_set_are_read_by_name():
    import datasets

    labels = datasets.ClassLabel(names=NAMES)
    features = datasets.Features({"tags": datasets.List(labels)})
    numbers = [[NAMES.index(tag) for tag in row] for row in ROWS]
    data = datasets.Dataset.from_dict({"tags": numbers}, features=features)
    assert loaded(data).fingerprint == loaded(ROWS).fingerprint
    single = datasets.Dataset.from_dict(
        {"label": [0, 1, -1] * 20}, features=datasets.Features({"label": labels})
    )
    report = loaded(single).report
    assert (
        report["coverage"]["rows_per_tag"] == {"jazz": 20, "rock": 20} or report["rows_kept"] == 40
    )


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        ("rock, jazz", None, "expected a list of lists of tags"),
        (7, None, "found int"),
        (HOT, None, "a matrix of 5 columns needs their names"),
        (HOT, NAMES[:4], "4 names for 5 columns"),
        (HOT + 1, NAMES, r"row 0 \(counted from 0\): 2 in column 'rock'"),
        (HOT * np.nan, NAMES, "nan in column 'rock'"),
        (ROWS, NAMES, "they are for a matrix"),
        ([["rock", 3]] * 40, None, "item 2 of the list is a number"),
    ],
)
def test_rows_that_are_refused(rows, names, message):
    with pytest.raises(InputError, match=message):
        loaded(rows, names)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("smal", {}, "no such file"),
        ("small", {"trainer.max_epoch": 3}, "did you mean 'trainer.max_epochs'"),
        ("small", {"trainer.max_epochs": "3"}, "expected a value of type int, such as 250"),
    ],
)
def test_configs_that_are_refused(config, overrides, message):
    with pytest.raises(InputError, match=message):
        make_config(config, overrides)


def test_a_taxonomy_may_be_given(tmp_path):
    config = make_config("small:trainer=quick_test", {"loss.kld_weight": 2})
    assert (config.trainer.max_epochs, config.loss.kld_weight) == (10, 2.0)
    run = fit(ROWS, tmp_path, taxonomy={"genre": ["jazz", "rock"], "mood": ["dark", "sad"]})
    assert run.taxonomy.to_mapping() == {"genre": ["jazz", "rock"], "mood": ["dark", "sad"]}


def test_nothing_is_imported_for_it():
    import subprocess
    import sys

    code = (
        "import sys, jaxvae; jaxvae.fit\n"
        "print([name for name in ('pandas', 'polars', 'datasets', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
