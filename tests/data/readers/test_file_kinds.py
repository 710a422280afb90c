"""Files that are no table in spite of their names are named in one line."""

import gzip
import io
import zipfile

import pytest

from jaxvae.data.readers.tables import SUFFIXES
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from tests.helpers.tables import read_column

TABLE = "id,tags\n1,rock\n2,jazz\n"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
AUDIOSET = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"
"""


def zipped(name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    return content.getvalue()


def cells(path, content, column="tags"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [cell for _, cell in read_column(path, column)]


def refusal(path, content, column="tags"):
    with pytest.raises(InputError) as caught:
        cells(path, content, column)
    message = str(caught.value)
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv.gz", ""])
@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (b"SQLite format 3\0" + b"\0" * 80, "an SQLite database", "save it as CSV"),
        (LFS, "a Git LFS pointer", "git lfs pull"),
        ("/annex/objects/SHA256E-s12--ab.csv\n", "a git-annex pointer", "git annex get"),
        ("<!DOCTYPE html>\n<html><body>Log in</body></html>\n", "an HTML page", "download"),
        ("\n  <html lang=en>\n", "an HTML page", "download"),
    ],
)
def test_what_is_no_table_is_named_by_any_name(tmp_path, suffix, content, kind, remedy):
    message = refusal(tmp_path / f"clips{suffix}", content)
    assert message.startswith(f" is {kind}")
    assert remedy in message


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".parquet", ".arff", ""])
@pytest.mark.parametrize(
    ("content", "kind", "remedy"),
    [
        (gzip.compress(TABLE.encode(), mtime=0), "compressed by gzip", "ends in .csv.gz"),
        (zipped("clips.csv"), "a zip archive", "ends in .zip"),
        (zipped("[Content_Types].xml"), "an Excel workbook", "save it as CSV"),
    ],
)
def test_what_is_packed_says_the_name_to_give_it(tmp_path, suffix, content, kind, remedy):
    message = refusal(tmp_path / f"clips{suffix}", content)
    assert message.startswith(f" is {kind}")
    assert remedy in message


def test_parquet_by_another_name_is_named_and_by_its_own_is_read(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "clips.parquet"
    parquet.write_table(pyarrow.table({"tags": [["rock"]]}), path)
    assert [part.to_pylist() for part in read_column(path, "tags")] == [[["rock"]]]
    assert "a Parquet file; give it a name" in refusal(tmp_path / "a.csv", path.read_bytes())


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("a.csv", "id\ttags, all\ttags\n", ["separated by tabs"]),
        ("a.csv", "id\ttag\n1\trock\n", ["no column 'tags'", "'id'"]),
        ("a.csv", "sep=;\nid;tags\n1;rock\n", ["'sep=;' is for Excel", "delete", "with commas"]),
        ("a.csv", "sep=,\n" + TABLE, ["'sep=,' is for Excel", "delete that line"]),
        ("a.csv", "sep=\t\n" + TABLE.replace(",", "\t"), ["for Excel", "ends in .tsv"]),
        ("a.csv", "# made by hand\n" + TABLE, ["line 1 is a comment and no column names"]),
        ("a.csv", "# a\n# b\n" + TABLE, ["lines 1 to 2 are comments and no column names"]),
        ("a.csv", "# id, tags\n1,rock\n", ["line 1: a '#' before the column names"]),
        ("a.csv", "# a\n#id,tags\n1,rock\n", ["line 1 is a comment; delete", "in line 2 the '#'"]),
    ],
)
def test_a_first_line_that_is_no_header_is_named(tmp_path, name, content, parts):
    message = refusal(tmp_path / name, content)
    for part in parts:
        assert part in message, message


def test_audiosets_header_is_named(tmp_path):
    message = refusal(tmp_path / "eval_segments.csv", AUDIOSET, "positive_labels")
    assert "lines 1 to 2 are comments; delete them, and in line 3 the '#' and the spaces" in message
    # So it is read.
    mended = AUDIOSET.split("\n", 2)[2].lstrip("# ").replace(", ", ",")
    assert cells(tmp_path / "a.csv", mended, "positive_labels") == [
        "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"
    ]


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("a.csv", TABLE, ["rock", "jazz"]),
        ("a.tsv", TABLE.replace(",", "\t"), ["rock", "jazz"]),
        *(("a.csv", TABLE.replace(",", mark), ["rock", "jazz"]) for mark in "\t;|"),
        ("a.tsv", TABLE, ["rock", "jazz"]),
        ("a.csv", "#id,tags\n1,rock\n", ["rock"]),  # the column is there
        ("a.csv", "tags\n<html>\n", ["<html>"]),
        ("a.csv", "tags;more,tags\nx,rock\n", ["rock"]),
        ("a.csv", "tags\nversion https://git-lfs.github.com/spec/v1\n", [LFS.splitlines()[0]]),
    ],
)
def test_tables_are_read_as_before(tmp_path, name, content, read):
    assert cells(tmp_path / name, content) == read


def test_a_wrong_column_of_a_right_table_is_still_said(tmp_path):
    assert "no column 'tag' (did you mean 'tags'?)" in refusal(tmp_path / "a.csv", TABLE, "tag")


def test_a_taxonomy_may_be_a_pointer_too(tmp_path):
    path = tmp_path / "taxonomy.json"
    path.write_text(LFS)
    with pytest.raises(InputError, match=r"taxonomy\.json is a Git LFS pointer"):
        Taxonomy.load(path)
    path.write_text("{")
    with pytest.raises(InputError, match="not a taxonomy in UTF-8 JSON"):
        Taxonomy.load(path)
