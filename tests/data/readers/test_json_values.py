"""JSON as people have it: indented, wrapped, one value after the other."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.data.readers.json_values import json_values
from jaxvae.errors import InputError
from tests.helpers.tables import read_column

ROWS = [{"id": n, "tags": [["dark"], ["rock", "jazz"]][n % 2]} for n in range(60)]
TAGS = [row["tags"] for row in ROWS]
WRITTEN = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "indented": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "both": "\n\n".join(json.dumps(row, indent=n % 3 or None) for n, row in enumerate(ROWS)),
    "list": json.dumps(ROWS),
    "list-indented": "\n" + json.dumps(ROWS, indent=4) + "\n",
    "windows": "\ufeff" + json.dumps(ROWS, indent=2).replace("\n", "\r\n"),
}
READ = 'rows are objects such as {"tags": ["a tag", "another"]}, a line each, one after the other'


def cells(path, text):
    path.write_bytes(text.encode())
    return [cell for _, cell in read_column(path, "tags")]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson"])
@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows_however_they_are_laid_out(tmp_path, name, suffix):
    assert cells(tmp_path / f"clips{suffix}", WRITTEN[name]) == TAGS


def test_lines_are_counted_across_indented_values(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_text('{"tags": []}\n\n{\n "tags": [\n  "a"\n ]\n}\n{"tags": 3}\n{\n"tags": 4}\n')
    assert list(read_column(path, "tags")) == [(1, []), (3, ["a"]), (8, 3), (9, 4)]


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.lists(st.tuples(VALUES, st.sampled_from([None, 0, 3])), max_size=8))
def test_values_come_one_by_one_with_their_lines(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "values.json"
    texts = [json.dumps(value, indent=indent) for value, indent in written]
    path.write_text("\n".join(texts), encoding="utf-8")
    lines = [1 + sum(text.count("\n") + 1 for text in texts[:n]) for n in range(len(texts))]
    pairs = zip(lines, (value for value, _ in written), strict=True)
    assert list(json_values(path)) == list(pairs)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("value", "shape", "way"),
    [
        ({"n": ROWS, "rows": ROWS}, "an object of 2 lists ('n', 'rows');", "each member"),
        ({"data": {"rows": ROWS}}, "an object whose 'data' is an object of 1 list ('rows');", ""),
        ({"a": ["x"], "b": [3], "c": []}, "an object of 3 lists ('a', 'b', ...);", "each member"),
        ({"a": {"tags": ["x"]}, "b": {}}, "an object of 2 objects ('a', 'b');", "each member"),
        (
            {"id": {"0": 7}, "tags": {"0": ["x"], "1": ["y"]}},
            "an object whose 'tags' is an object of 2 lists ('0', '1');",
            "orient='records'",
        ),
        ({"tags": [["x"], ["y"]], "n": [1]}, "whose 'tags' is a list of 2 lists;", "records"),
        ([["x"], ["y", "z"]], "item 0: a list of 1 text;", "make it an object"),
        (["x", "y"], "item 0: text;", "make it an object"),
        ("x", "line 1: text;", "make it an object"),
    ],
)
def test_a_shape_that_is_not_read_is_named(tmp_path, value, shape, way, indent, suffix):
    path = tmp_path / f"clips{suffix}"
    with pytest.raises(InputError) as caught:
        cells(path, json.dumps(value, indent=indent))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "not JSON" not in message
    for part in (shape, READ, way):
        assert part in message


def test_lines_of_lists_are_named(tmp_path):
    with pytest.raises(InputError, match="line 1: a list of 2 texts; rows are objects"):
        cells(tmp_path / "clips.jsonl", '["rock", "jazz"]\n["dark"]\n')


def test_one_row_is_a_table_and_a_wrong_column_is_still_said(tmp_path):
    for indent in (None, 2):
        assert cells(tmp_path / "a.json", json.dumps(ROWS[1], indent=indent)) == [["rock", "jazz"]]
        with pytest.raises(InputError, match=r"no column 'tags'.*'tag'"):
            cells(tmp_path / "a.json", json.dumps({"id": 3, "tag": ["rock"]}, indent=indent))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tags": [\n"a"\n', "line 2, column 4: not JSON"),
        ('{"tags": []}\n{"tags": [\n{"tags": []}\n{"tags": []}\n', "line 4, column 1: not JSON"),
        ('{\n"tags": [],\n"tags": []\n}\n', "line 1: a key appears twice"),
        ('{"tags": []} {"tags": []}\n', "line 1, column 14: not JSON: Extra data"),
        ('[\n{"tags": []},\n]\n', "line 3, column 1: not JSON|line 2, column 13: not JSON"),
        ("tags\nrock\n", "line 1, column 1: not JSON"),
    ],
)
def test_what_is_not_json_is_said_to_be_none(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        cells(tmp_path / "clips.jsonl", text)


def test_an_indented_file_is_not_read_as_often_as_it_has_lines(tmp_path, monkeypatch):
    """Each try takes twice as many lines; a try at each line would read 20,000 lines 20,000 times."""
    from jaxvae.data.readers import json_values as module

    path = tmp_path / "clips.json"
    path.write_text(json.dumps({str(n): 1 for n in range(20_000)}, indent=1))
    sizes = []
    whole = module._decode

    def counted(text, *arguments, **options):
        sizes.append(len(text))
        return whole(text, *arguments, **options)

    monkeypatch.setattr(module, "_decode", counted)
    ((line, value),) = json_values(path)
    assert (line, len(value)) == (1, 20_000)
    assert sum(sizes) < 4 * path.stat().st_size
