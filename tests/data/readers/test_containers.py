"""Packed files, folders and patterns read as the file inside them."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from jaxvae.data.readers import containers
from jaxvae.data.readers.tables import open_table
from jaxvae.errors import InputError
from tests.helpers.tables import read_column

CSV = b"id,tags\n" + b"1,rock\n2,jazz\n" * 40
LINES = b"".join(json.dumps({"tags": tag}).encode() + b"\n" for tag in ["rock", "jazz"] * 40)
TAGS = ["rock", "jazz"] * 40


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
}


def cells(path, column="tags"):
    return [cell for _, cell in read_column(path, column)]


def refusal(path):
    with pytest.raises(InputError) as caught:
        list(open_table(path, ["tags"]).rows(["tags"]))
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("suffix", "content"), [(".csv", CSV), (".jsonl", LINES)])
@pytest.mark.parametrize("packer", PACKERS)
def test_packed_text(tmp_path, packer, suffix, content):
    path = tmp_path / f"clips{suffix}{packer}"
    packed = PACKERS[packer](content)
    path.write_bytes(packed)
    assert cells(path) == TAGS
    path.write_bytes(packed[: len(packed) // 2])
    assert f"not a whole {packer} file" in refusal(path)
    path.write_bytes(content)
    assert f"not a whole {packer} file" in refusal(path)


def test_archives_of_one_file(tmp_path):
    path = tmp_path / "clips.zip"
    path.write_bytes(zipped({"data/clips.csv": CSV, "__MACOSX/._clips.csv": b"x"}))
    assert cells(path) == TAGS
    path.write_bytes(zipped({"a.csv": CSV, "b.csv": CSV}))
    assert "an archive of 2 files where one is read: 'a.csv', 'b.csv'" in refusal(path)
    path.write_bytes(zipped({}))
    assert "an archive of 0 files" in refusal(path)
    path.write_bytes(zipped({"a.doc": CSV}))
    assert "is a file of '.doc' in a .zip, which is not read" in refusal(path)
    path.write_bytes(zipped({"a.csv": CSV})[:60])
    assert "not a readable .zip file" in refusal(path)


def test_what_unpacks_to_far_more_than_a_table_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MIN_SUSPICIOUS", 10_000)
    path = tmp_path / "clips.csv.gz"
    path.write_bytes(gzip.compress(b"tags\n" + b"rock\n" * 1_000_000))
    message = refusal(path)
    assert "unpacks to more than" in message
    assert "200 times its own size" in message
    path.write_bytes(gzip.compress(CSV))
    assert cells(path) == TAGS


def test_a_line_of_a_packed_file_is_named(tmp_path):
    path = tmp_path / "clips.csv.gz"
    path.write_bytes(gzip.compress(CSV + b"1,caf\xe9\n"))
    assert "line 82: not UTF-8 text" in refusal(path)


def test_parts(tmp_path):
    folder = tmp_path / "parts"
    (folder / "_temporary").mkdir(parents=True)
    for number in (2, 0, 1):
        table = pyarrow.table({"tags": [[f"tag {number}"]]})
        pyarrow.parquet.write_table(table, folder / f"part-{number}.parquet")
    pyarrow.parquet.write_table(table, folder / "_temporary" / "part-9.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "notes.csv").write_bytes(CSV)
    for path in (folder, folder / "part-*.parquet"):
        arrays = [part.to_pylist() for part in read_column(path, "tags")]
        assert arrays == [[["tag 0"]], [["tag 1"]], [["tag 2"]]]
        kind = "3 Parquet files, part-0.parquet to part-2.parquet"
        assert open_table(path, []).kind == kind + " (not read: notes.csv)" * (path == folder)
    pyarrow.parquet.write_table(pyarrow.table({"other": [1]}), folder / "part-3.parquet")
    with pytest.raises(InputError, match=r"part-3\.parquet: no column 'tags'"):
        list(read_column(folder, "tags"))
    assert "no file is called" in refusal(tmp_path / "none-*.parquet")
    (tmp_path / "a.csv").write_bytes(CSV)
    assert "which is no .parquet file" in refusal(tmp_path / "*.csv")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "a folder without Parquet files" in refusal(empty)


def test_arrow_files(tmp_path):
    table = pyarrow.table({"tags": [["rock"], ["jazz", None]]})
    pyarrow.feather.write_feather(table, tmp_path / "a.feather")
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("a.feather", "a.arrow"):
        (array,) = read_column(tmp_path / name, "tags")
        assert array.to_pylist() == [["rock"], ["jazz", None]]
        path = tmp_path / f"cut-{name}"
        path.write_bytes((tmp_path / name).read_bytes()[:100])
        assert "not a readable Arrow file" in refusal(path)
    old = tmp_path / "old.feather"
    old.write_bytes(b"FEA1" + b"\0" * 40)
    assert "version 1" in refusal(old)


def test_workbooks(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [["id", "tags"], [1, "rock"], [None, None], [2, "['jazz', 'dub']"], [3]]:
        book.active.append(row)
    book.create_sheet("empty")
    path = tmp_path / "clips.xlsx"
    book.save(path)
    assert list(read_column(path, "tags")) == [(2, "rock"), (4, "['jazz', 'dub']"), (5, None)]
    book["empty"].append(["x"])
    book.save(path)
    assert "2 sheets hold cells, 'Sheet', 'empty'" in refusal(path)
    path.write_bytes(path.read_bytes()[:100])
    assert "not a readable Excel workbook" in refusal(path)
