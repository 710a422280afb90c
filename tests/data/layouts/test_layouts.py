"""Where a table has its tags: every layout gives the rows that the same tags give as lists."""

import json

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.datasets import dump_svmlight_file
from sklearn.preprocessing import MultiLabelBinarizer

from jaxvae.data.dataset import load_dataset
from jaxvae.data.layouts import columns as columns_layout
from jaxvae.data.layouts import long_table, one_hot
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.vocabulary import FromData
from jaxvae.errors import InputError

NAMES = ["rock", "jazz", "dub", "upright bass", "dark"]
KNOWN = Taxonomy.from_mapping({"all": NAMES}, source="test")
ROWS = [["rock"], ["jazz", "upright bass"], ["dub", "dark"], ["jazz", "dark", "rock"], []] * 12
EXPECTED = [sorted(NAMES.index(tag) for tag in row) for row in ROWS if row]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def load(path, **options):
    options = {"taxonomy": KNOWN, "val_fraction": 0.1, "test_fraction": 0.1, **options}
    return load_dataset(dataset_name=path, **options)


def rows_of(data):
    return [[v for v in row if v < data.taxonomy.num_tags] for row in data.rows.tolist()]


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert str(path) in message or "--config.data." in message
    return message


def one_hot_text(separator=",", one="1", zero="0"):
    lines = [separator.join(["clip id", *NAMES, "path"])]
    for number, row in enumerate(ROWS):
        cells = [one if name in row else zero for name in NAMES]
        lines.append(separator.join([str(number), *cells, f"{number}.mp3"]))
    return "\n".join(lines) + "\n"


def long_text():
    """The taggings of all rows, those of each item far apart; of the empty rows, one gap each."""
    taggings = [(n, tag) for n, row in enumerate(ROWS) for tag in row or [""]]
    order = np.random.default_rng(0).permutation(len(taggings))
    first = {n: min(np.flatnonzero([taggings[i][0] == n for i in order])) for n in range(len(ROWS))}
    items = sorted(first, key=first.get)
    text = "item,tag\n" + "".join(f"i{taggings[i][0]},{taggings[i][1]}\n" for i in order)
    return text, [EXPECTED_OF[n] for n in items if ROWS[n]]


EXPECTED_OF = {n: sorted(NAMES.index(tag) for tag in row) for n, row in enumerate(ROWS)}


def test_trailing_columns(tmp_path):
    lines = ["id\tpath\tTAGS"] + [f"{n}\ta.mp3\t" + "\t".join(row) for n, row in enumerate(ROWS)]
    path = write(tmp_path / "clips.tsv", "\n".join(lines) + "\n")
    data = load(path)
    assert rows_of(data) == EXPECTED
    assert data.report["read_as"] == "the fields from column TAGS on, a tag each"
    assert data.report["rows_read"] == len(ROWS)
    commas = write(tmp_path / "clips.csv", path.read_text().replace("\t", ","))
    assert "--config.data.layout=trailing" in refusal(commas)
    assert rows_of(load(commas, layout="trailing")) == EXPECTED
    short = write(tmp_path / "short.tsv", path.read_text() + "7\n")
    assert f"line {len(ROWS) + 2}: 1 fields where the header has 3" in refusal(short)
    assert "not the last one, which is 'TAGS'" in refusal(
        path, layout="trailing", aspect_column="path"
    )


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_one_hot_tables_and_their_other_columns(tmp_path, separator):
    names = [*NAMES, *"abcdefgh"]  # so that nearly all columns are 0 or 1
    hot = MultiLabelBinarizer(classes=names).fit_transform(ROWS)
    lines = [separator.join(["clip id", *names, "path"])]
    lines += [separator.join([str(n + 7), *map(str, row), f"{n}.mp3"]) for n, row in enumerate(hot)]
    path = write(tmp_path / "clips.csv", "\n".join(lines) + "\n")
    data = load(path)
    assert rows_of(data) == EXPECTED
    assert data.report["read_as"].startswith("13 columns of 0 and 1, a tag each; not read: clip id")


@pytest.mark.parametrize("one_zero", ["1 0", "1.0 0.0", "True False", "true false", "TRUE FALSE"])
def test_one_hot_values(tmp_path, one_zero):
    path = write(tmp_path / "clips.csv", one_hot_text(",", *one_zero.split()))
    data = load(path, layout="one_hot")
    assert rows_of(data) == EXPECTED
    assert "not read: clip id, path" in data.report["read_as"]
    assert rows_of(load(path, layout="one_hot", aspect_column="rock,dark")) == [
        row for row in ([v for v in full if v in (0, 4)] for full in EXPECTED) if row
    ]


@pytest.mark.parametrize("wrong", ["2", "", "x", "nan"])
@pytest.mark.parametrize("block", [2**23, 200])
def test_a_value_that_is_neither_0_nor_1_has_its_line_and_column(
    tmp_path, wrong, block, monkeypatch
):
    monkeypatch.setattr(one_hot, "_CSV_BLOCK", block)  # also after blocks that were read
    lines = one_hot_text().splitlines()
    fields = lines[40].split(",")
    fields[3] = wrong
    lines[40] = ",".join(fields)
    path = write(tmp_path / "clips.csv", "\n".join(lines) + "\n")
    message = refusal(path, layout="one_hot")
    assert f"line 41: {wrong!r} in column 'dub', where 0 or 1 is expected" in message
    lines[40] = "1," + lines[40]
    path = write(tmp_path / "clips.csv", "\n".join(lines) + "\n")
    assert "line 41: 8 fields where the header has 7" in refusal(path, layout="one_hot")


def test_typed_one_hot_tables(tmp_path):
    hot = MultiLabelBinarizer(classes=NAMES).fit_transform(ROWS)
    table = pyarrow.table({name: hot[:, n] for n, name in enumerate(NAMES)})
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    booleans = pyarrow.table({name: hot[:, n] == 1 for n, name in enumerate(NAMES)})
    pyarrow.feather.write_feather(booleans, tmp_path / "clips.feather")
    for name in ("clips.parquet", "clips.feather"):
        assert rows_of(load(tmp_path / name)) == EXPECTED
    table = table.set_column(0, "rock", pyarrow.array([0, 3] * 30))
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    message = refusal(tmp_path / "clips.parquet", layout="one_hot", aspect_column="rock,jazz")
    assert "row 1 (counted from 0): '3' in column 'rock'" in message


def test_long_tables(tmp_path):
    text, expected = long_text()
    data = load(write(tmp_path / "taggings.csv", text), group_by="item")
    assert rows_of(data) == expected
    assert data.report["rows_read"] == len(ROWS)
    assert data.report["missing_tags"] == 12
    assert "a row for each tag, in column tag, of the items in item" in data.report["read_as"]
    lists = load(write(tmp_path / "taggings.csv", text))
    assert "rows have one tag" in lists.report["hints"][0]
    table = pyarrow.csv.read_csv(tmp_path / "taggings.csv")
    pyarrow.parquet.write_table(table, tmp_path / "taggings.parquet")
    assert rows_of(load(tmp_path / "taggings.parquet", group_by="item")) == expected


def test_many_items_make_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(long_table, "BLOCK", 7)
    text, expected = long_text()
    assert rows_of(load(write(tmp_path / "taggings.csv", text), group_by="item")) == expected


def test_weights_of_long_tables(tmp_path):
    text = "item,tag,weight\n" + "".join(
        f"{n},{tag},{100 - 30 * k}\n" for n, row in enumerate(ROWS) for k, tag in enumerate(row)
    )
    path = write(tmp_path / "taggings.csv", text)
    data = load(path, group_by="item", min_weight=70.0)
    assert rows_of(data) == [sorted(NAMES.index(tag) for tag in row[:2]) for row in ROWS if row]
    assert "of weight 70 or more in weight" in data.report["read_as"]
    renamed = write(tmp_path / "other.csv", text.replace("weight", "plays"))
    assert "needs the column of weights" in refusal(renamed, group_by="item", min_weight=1.0)
    same = load(renamed, group_by="item", min_weight=70.0, weight_column="plays")
    assert rows_of(same) == rows_of(data)
    wrong = write(tmp_path / "wrong.csv", text + "x,rock,much\n")
    message = refusal(wrong, group_by="item", min_weight=50.0)
    assert f"line {text.count(chr(10)) + 1}: no weight in column 'weight', found 'much'" in message
    assert "without" in refusal(path, group_by="item", weight_column="weight")


def test_what_long_tables_refuse(tmp_path):
    path = write(tmp_path / "a.csv", "item,tag\n1,rock\n,jazz\n")
    assert "line 3: no value in column 'item'" in refusal(path, group_by="item")
    assert "no column 'itm' (did you mean 'item'?)" in refusal(path, group_by="itm")
    assert "needs the column that says which rows" in refusal(path, layout="long")
    assert "does nothing where the layout is 'column'" in refusal(path, min_weight=2.0)
    typed = write(tmp_path / "a.jsonl", '{"item": 1, "tag": ["rock"]}\n')
    assert "expected one tag in column 'tag', found a list" in refusal(typed, group_by="item")


def test_several_columns_are_a_concept_each(tmp_path):
    genres = [[tag for tag in row if tag in NAMES[:3]] for row in ROWS]
    others = [[tag for tag in row if tag not in NAMES[:3]] for row in ROWS]
    fields = {"aspect_column": "genre_tags,mood_list"}
    texts = ["genre_tags,mood_list"]
    texts += [
        f'"{a}","{json.dumps(b)}"'.replace('"["', '"[""')
        .replace('", "', '"", ""')
        .replace('"]"', '""]"')
        for a, b in zip(genres, others, strict=True)
    ]
    path = write(tmp_path / "clips.csv", "\n".join(texts) + "\n")
    table = pyarrow.table({"genre_tags": genres, "mood_list": others})
    pyarrow.parquet.write_table(table, tmp_path / "clips.parquet")
    for data in (load(path, **fields), load(tmp_path / "clips.parquet", **fields)):
        assert rows_of(data) == EXPECTED
        assert "columns genre_tags, mood_list, a concept each" in data.report["read_as"]
    made = load(path, taxonomy=FromData(5), **fields)
    concepts = {name: set(tags) for name, tags in made.taxonomy.to_mapping().items()}
    assert concepts == {"genre": set(NAMES[:3]), "mood": set(NAMES[3:])}
    assert "no column 'mood'" in refusal(path, aspect_column="genre_tags,mood")
    assert "given twice" in refusal(path, aspect_column="genre_tags,genre_tags")


def test_a_row_with_one_unreadable_column_is_unreadable(tmp_path):
    lines = [{"a": ["rock"], "b": ["dark"]}] * 30
    lines[7] = {"a": ["rock"], "b": [3]}
    path = write(tmp_path / "clips.jsonl", "\n".join(map(json.dumps, lines)))
    data = load(path, aspect_column="a,b", max_unreadable_fraction=0.1)
    assert (data.report["rows_unreadable"], data.report["rows_kept"]) == (1, 29)
    assert data.report["unreadable"][0]["line"] == 8


@settings(max_examples=50)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from(NAMES), max_size=3)] * 2), min_size=1))
def test_typed_columns_read_as_their_cells_do(cells):
    options = {"marks": [",", ","], "concepts": ["one", "two"]}
    batch = pyarrow.RecordBatch.from_pydict(
        {"a": [a for a, _ in cells], "b": [b for _, b in cells]},
        schema=pyarrow.schema([(name, pyarrow.list_(pyarrow.string())) for name in "ab"]),
    )

    def tagged(rows):
        (block,) = columns_layout.read_blocks(iter(rows), **options)
        pairs = [(block.concepts[n], block.words[n]) for n in block.word]
        return sorted(zip(block.row.tolist(), pairs, strict=True))

    assert tagged([batch]) == tagged([(None, list(row)) for row in cells])


def test_label_lines(tmp_path):
    numbers = [[NAMES.index(tag) for tag in row] for row in ROWS]
    hot = MultiLabelBinarizer().fit_transform(numbers)
    path = tmp_path / "clips.svm"
    dump_svmlight_file(csr_matrix(np.ones((len(ROWS), 2))), hot, str(path), multilabel=True)
    taxonomy = Taxonomy.from_mapping({"all": list("01234")}, source="test")
    assert rows_of(load(path, taxonomy=taxonomy)) == EXPECTED
    first = f"{len(ROWS)} 2 5\n"
    text = write(tmp_path / "clips.txt", first + path.read_text())
    assert rows_of(load(text, taxonomy=taxonomy)) == EXPECTED
    write(text, f"{len(ROWS) + 1} 2 5\n" + path.read_text())
    assert "60 rows where line 1 says 61" in refusal(text, taxonomy=taxonomy)
    write(text, f"{len(ROWS)} 2 4\n" + path.read_text())
    assert "line 4: label 4 where line 1 says 4" in refusal(text, taxonomy=taxonomy)
    write(path, "1,x 0:1\n")
    assert "malformed lines of labels" in refusal(path, taxonomy=taxonomy)


@pytest.mark.parametrize("sparse", [True, False])
def test_arff(tmp_path, sparse):
    head = ["% a comment", "@relation clips", "@attribute 'loud\\'ness' numeric"]
    head += [f"@attribute '{name}' {{0,1}}" for name in NAMES] + ["@data"]
    body = []
    for row in ROWS:
        hot = [int(name in row) for name in NAMES]
        if sparse:
            on = "".join(f",{n + 1} 1" for n, value in enumerate(hot) if value)
            body.append("{0 3.5" + on + "}")
        else:
            body.append(",".join(map(str, [3.5, *hot])))
    path = write(tmp_path / "clips.arff", "\n".join([*head, *body]) + "\n")
    data = load(path)
    assert rows_of(data) == EXPECTED
    assert data.report["read_as"] == "5 columns of 0 and 1, a tag each; not read: loud'ness of ARFF"
    line = len(head) + 3
    body[2] = "{9 1}" if sparse else "1,0"
    write(path, "\n".join([*head, *body]) + "\n")
    message = refusal(path)
    assert f"line {line}: " in message
    assert ("0 to 5" if sparse else "2 values where there are 6 attributes") in message
    assert "no @data" in refusal(write(path, "\n".join(head[:-1])))
    assert "not an attribute" in refusal(write(path, "@attribute\n@data\n"))


def test_a_column_that_is_called_tags_is_found(tmp_path):
    path = write(tmp_path / "a.csv", "id,Tags\n" + "1,rock\n2,jazz\n" * 10)
    data = load(path)
    assert rows_of(data) == [[0], [1]] * 10
    assert data.report["read_as"] == "column Tags"
    two = write(tmp_path / "b.csv", "tags,labels\nrock,jazz\n")
    assert "no column 'aspect_list'" in refusal(two)
    named = refusal(path, aspect_column="tag")
    assert "no column 'tag'" in named
    assert "layout=one_hot" in named


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"layout": "one_hot", "separator": "|"}, "separator=|: does nothing"),
        ({"layout": "trailing", "group_by": "id"}, "group_by=id: does nothing"),
        ({"layout": "column", "group_by": "id"}, "group_by=id: does nothing"),
        ({"group_by": "id", "separator": "|"}, "separator=|: does nothing"),
    ],
)
def test_a_field_that_would_do_nothing_is_refused(tmp_path, fields, part):
    path = write(tmp_path / "a.csv", "id,tags\n1,rock\n")
    assert part in refusal(path, **fields)


def test_the_separator_may_be_given(tmp_path):
    rows = "rock|jazz;dub\n" * 20 + "rock;dub\n" * 20 + "jazz|dub\njazz\n" * 10
    path = write(tmp_path / "a.csv", "tags\n" + rows)
    assert "--config.data.separator=" in refusal(path, taxonomy=FromData(1))
    for mark, tags in (
        ("|", {"rock", "jazz;dub", "rock;dub", "jazz", "dub"}),
        (";", {"rock|jazz", "dub", "rock", "jazz", "jazz|dub"}),
    ):
        assert set(load(path, taxonomy=FromData(1), separator=mark).taxonomy.tags) == tags
    lines = write(tmp_path / "b.csv", "tags\n" + '"rock\njazz"\n' * 20)
    assert set(load(lines, taxonomy=FromData(1), separator="\\n").taxonomy.tags) == {"rock", "jazz"}


def test_a_label_of_0_and_1_among_others_is_a_column_of_many(tmp_path):
    names = [f"tag {n}" for n in range(9)]
    row = ",".join("01"[n % 2] for n in range(9))
    path = write(tmp_path / "a.csv", f"id,{','.join(names)},label\n" + f"7,{row},1\n" * 30)
    data = load(path, taxonomy=FromData(1))
    assert data.report["read_as"] == "10 columns of 0 and 1, a tag each; not read: id"
    few = write(tmp_path / "b.csv", "id,a,b,label,name\n" + "7,0,1,1,x\n" * 30)
    assert "column 'label' holds 0 and 1, as 2 others do" in refusal(few, taxonomy=FromData(1))
    every = write(tmp_path / "c.csv", "rock,jazz\n" + "1,0\n0,1\n" * 15)
    assert rows_of(load(every)) == [[0], [1]] * 15
    known = write(tmp_path / "d.csv", "id,name,x,rock,jazz\n" + "7,a,b,1,0\n8,a,c,0,1\n" * 15)
    assert rows_of(load(known)) == [[0], [1]] * 15  # the columns are tags of the taxonomy
    assert "name the column of tags" in refusal(known, taxonomy=FromData(1))


def test_two_columns_of_one_name_are_not_left_out(tmp_path):
    path = write(tmp_path / "a.csv", "id,rock,rock,dub\n" + "7,1,0,1\n" * 30)
    assert "2 columns are called 'rock'" in refusal(path, layout="one_hot")


def test_tags_that_weigh_too_little_or_came_with_a_number_are_counted(tmp_path):
    text = "item,tag,weight\n" + "".join(f"{n},rock,9\n{n},jazz,1\n" for n in range(30))
    report = load(write(tmp_path / "a.csv", text), group_by="item", min_weight=2.0).report
    assert report["tags_below_min_weight"] == 30
    objects = [{"tags": [{"name": "rock", "count": 3}, {"name": "jazz", "count": 0}]}] * 30
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, objects)))
    assert "60 tags came in an object with a number" in load(path).report["hints"][0]
    plain = [{"tags": [{"name": "rock"}, "jazz"]}] * 30
    path = write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, plain)))
    assert load(path).report["hints"] == []


def test_nearly_all_rows_with_one_tag_are_remarked(tmp_path):
    path = write(tmp_path / "a.csv", "tags\n" + "rock\n" * 28 + '"rock,jazz"\n' * 2)
    assert "28 of 30 rows have one tag" in load(path).report["hints"][0]
    path = write(tmp_path / "b.csv", "tags\n" + "rock\n" * 26 + '"rock,jazz"\n' * 4)
    assert load(path).report["hints"] == []


def test_brackets_of_tags_between_separators(tmp_path):
    rows = "Drama|Comedy\n(no genres listed)\n[rec]|Comedy\nDrama|(untitled)\nComedy\n" * 9
    data = load(write(tmp_path / "a.csv", "tags\n" + rows), taxonomy=FromData(1))
    assert data.report["rows_unreadable"] == 0
    tags = {"Drama", "Comedy", "(no genres listed)", "[rec]", "(untitled)"}
    assert set(data.taxonomy.spellings) == tags
