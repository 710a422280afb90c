"""Damaged tables of every shape: read, or refused in one line; nothing else, and not slowly."""

import bz2
import functools
import gzip
import io
import json
import lzma
import random
import time
import zipfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from jaxvae.data.dataset import Dataset, load_dataset
from jaxvae.data.vocabulary import FromData
from jaxvae.errors import InputError
from tests.faults.conftest import write_anew
from tests.faults.damage import damaged
from tests.helpers.data_reports import check_sums

RUNS = 5_000
MOST_SECONDS = 2.0
CSV = (
    "id,a_tags,b_tags,split\n"
    + "1,\"['rock', 'jazz']\",dark,train\n2,rock,,val\n3,rock,dark,test\n" * 4
)
LONG = "item,tag,weight\n" + "".join(
    f"{n % 12},{'rock' if n % 3 else 'jazz'},{n}\n" for n in range(40)
)
HOT = "id,rock,jazz,dub,dark,calm\n" + "".join(f"{n + 2},0,1,{n % 2},0,1\n" for n in range(20))
TRAILING = "id\tpath\tTAGS\n" + "1\ta\tgenre---rock\n2\tb\tgenre---rock\tmood---dark\n" * 8
NOTATIONS = "tags\n" + '[\'a\' \'b\']\n"{a,""b c""}"\n"[a, b]"\na|b\na (b)\n' * 3
LINES = "\n".join(json.dumps({"tags": ["rock", {"name": "jazz"}, None]}) for _ in range(12))
COLUMNS = json.dumps({"tags": {str(n): ["rock", "jazz"] for n in range(12)}}, indent=1)
BY_ROW = json.dumps({f"track {n}": ["rock", "jazz"] for n in range(12)})
ARFF = "@relation x\n@attribute 'a b' numeric\n" + "@attribute t{0} {{0,1}}\n" * 3 + "@data\n"
ARFF = ARFF.replace("t{0}", "t1", 1).replace("t{0}", "t2", 1).replace("t{0}", "t3", 1)
ARFF = ARFF.replace("{{", "{").replace("}}", "}") + "3.5,0,1,1\n{0 2, 3 1}\n{1 1}\n" * 6
LABELS = "1,2 0:1 1:0.5\n3 0:1\n 0:2\n" * 6


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("clips.csv", content)
    return file.getvalue()


def typed(write):
    file = io.BytesIO()
    write(pyarrow.table({"tags": [["rock"], ["jazz", None]] * 20, "other": list(range(40))}), file)
    return file.getvalue()


SHAPES = {
    "columns": (".csv", CSV, {"aspect_column": "a_tags,b_tags", "split_column": "split"}),
    "long": (".csv", LONG, {"group_by": "item", "min_weight": 2.0}),
    "one-hot": (".csv", HOT, {"layout": "one_hot"}),
    "trailing": (".tsv", TRAILING, {"layout": "trailing"}),
    "notations": (".csv", NOTATIONS, {}),
    "lines": (".jsonl", LINES, {}),
    "by column": (".json", COLUMNS, {}),
    "by row": (".json", BY_ROW, {}),
    "arff": (".arff", ARFF, {}),
    "libsvm": (".svm", LABELS, {}),
    "extreme": (".txt", "18 2 4\n" + LABELS, {}),
    "gz": (".csv.gz", HOT, {"layout": "one_hot"}),
    "bz2": (".csv.bz2", HOT, {"layout": "one_hot"}),
    "xz": (".csv.xz", HOT, {"layout": "one_hot"}),
    "zst": (".csv.zst", HOT, {"layout": "one_hot"}),
    "zip": (".zip", HOT, {"layout": "one_hot"}),
    "feather": (".feather", typed(pyarrow.feather.write_feather), {}),
    "parquet": (".parquet", typed(pyarrow.parquet.write_table), {}),
}


def load(path, fields):
    return load_dataset(
        taxonomy=FromData(1),
        dataset_name=path,
        val_fraction=0.1,
        test_fraction=0.1,
        max_unreadable_fraction=0.5,
        **fields,
    )


PACKERS = {
    "gz": functools.partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": functools.partial(lzma.compress, preset=0),
    "zst": functools.partial(pyarrow.compress, codec="zstd", asbytes=True),
    "zip": zipped,
}


def damaged_table(content, rng, pack=None):
    """Where it is packed, mostly the content is damaged, which else would hardly be reached."""
    if pack is None:
        return damaged(content, rng)
    if rng.random() < 0.2:
        return damaged(pack(content), rng)
    return pack(damaged(content, rng))


def attempt(path, fields):
    """Returns what was read, or whatever was raised."""
    try:
        return load(path, fields)
    except BaseException as error:
        return error


@pytest.mark.parametrize("shape", SHAPES)
def test_a_damaged_table_is_read_or_refused_in_one_line(shape, tmp_path, record_property):
    suffix, content, fields = SHAPES[shape]
    content, pack = content if isinstance(content, bytes) else content.encode(), PACKERS.get(shape)
    whole = pack(content) if pack else content
    path = tmp_path / f"clips{suffix}"
    path.write_bytes(whole)
    assert isinstance(load(path, fields), Dataset)  # the control
    rng = random.Random(shape)
    read = refused = 0
    for _ in range(RUNS):
        broken = damaged_table(content, rng, pack)
        write_anew(path, broken)
        started = time.process_time()  # whatever else the machine does
        outcome = attempt(path, fields)
        assert time.process_time() - started < MOST_SECONDS, broken
        if isinstance(outcome, InputError):
            assert "\n" not in str(outcome)
            assert len(str(outcome)) < 2000, broken
            refused += 1
        else:
            assert isinstance(outcome, Dataset), (outcome, broken)
            check_sums(outcome.report)
            read += broken != whole
    assert read > 0
    assert refused > 0
    record_property("read", read)
