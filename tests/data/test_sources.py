"""What a data set's name may be, beside a file."""

import pyarrow
import pyarrow.parquet
import pytest

from jaxvae.data.dataset import load_dataset
from jaxvae.data.vocabulary import FromData
from jaxvae.errors import InputError


def load(name, **options):
    options = {"val_fraction": 0.1, "test_fraction": 0.1, **options}
    return load_dataset(taxonomy=FromData(1), dataset_name=str(name), **options)


READERS = """
def lists():
    yield from [["rock"], ("jazz", None), "rock, dub", None] * 10

def objects():
    for number in range(20):
        yield {"id": number, "genre": ["rock"], "mood": ["dark"] if number % 2 else None}

def breaks():
    yield ["rock"]
    raise KeyError("gone")

def nothing():
    return iter(())

def not_rows():
    return 7

value = 3
"""


@pytest.fixture
def reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_reader.py").write_text(READERS)
    return "my_reader.py:{}".format


def test_a_function_yields_rows(reader):
    data = load(reader("lists"))
    assert data.report["coverage"]["rows_per_tag"] == {"rock": 20, "jazz": 10, "dub": 10}
    assert (data.report["rows_read"], data.report["missing_tags"]) == (40, 10)
    assert data.report["read_as"] == "column tags of a function"
    columns = load(reader("objects"), aspect_column="genre,mood")
    assert columns.taxonomy.to_mapping() == {"genre": ["rock"], "mood": ["dark"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("breaks", "my_reader.py:breaks, line 11: failed at row 1 (counted from 0): KeyError"),
        ("not_rows", "failed at row 0 (counted from 0): TypeError"),
        ("nothing", "there are column names but no rows"),
        ("list", "has no 'list' (did you mean 'lists'?)"),
        ("value", "it is no function, but int"),
    ],
)
def test_a_function_that_fails_is_one_line(reader, name, message):
    with pytest.raises(InputError) as caught:
        load(reader(name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_patterns_of_parts(tmp_path):
    for number in range(3):
        table = pyarrow.table({"tags": [["rock", f"part {number}"]] * 10})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    whole = load(tmp_path)
    assert whole.report["read_as"] == "column tags of 3 Parquet files, 0.parquet to 2.parquet"
    assert len(whole.rows) == 30
    assert load(tmp_path / "[01].parquet").report["rows_read"] == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_config": "small"}, "only hub data sets have configurations"),
        ({"dataset_split": "test"}, "only hub data sets have splits"),
        ({"hub_streaming": True}, "only hub data sets stream"),
    ],
)
def test_fields_of_the_hub_alone(options, message):
    with pytest.raises(InputError, match=message):
        load("embedded", **options)
