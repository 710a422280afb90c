"""Rows from files: every format, every trap of a stranger's file, and sums that add up."""

import contextlib
import csv
import json
import logging
import os
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvae.cli import main
from jaxvae.data import summary, tagged_rows
from jaxvae.data.cells import tag_parser as cells_room
from jaxvae.data.cells.tag_parser import MAX_CELL, TagParseError, parse_tags
from jaxvae.data.dataset import Dataset, format_report, load_dataset
from jaxvae.data.splits import group_rows, split_rows
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from tests.conftest import ROOT
from tests.helpers.data_reports import check_sums

TAGS = ("rock", "jazz", "piano", "soft female vocal", "007", "na", "1980")
TAXONOMY = Taxonomy.from_mapping({"all": TAGS}, source="the test's taxonomy")


def load(path, **options) -> Dataset:
    options = {"val_fraction": 0.1, "test_fraction": 0.1} | options
    return load_dataset(taxonomy=TAXONOMY, dataset_name=path, **options)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def csv_text(cells, header="id,aspect_list") -> str:
    lines = [header]
    for number, cell in enumerate(cells):
        lines.append(f'{number},"' + cell.replace('"', '""') + '"')
    return "\n".join(lines) + "\n"


def rows_of(data: Dataset) -> list[list[str]]:
    return [[TAGS[v] for v in row if v < len(TAGS)] for row in data.rows]


# Cells


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        (["rock", "jazz"], ["rock", "jazz"]),
        (("rock",), ["rock"]),
        (np.array(["rock", "jazz"]), ["rock", "jazz"]),
        (np.array(["rock"], dtype=object), ["rock"]),
        (pyarrow.array(["rock", "jazz"]), ["rock", "jazz"]),
        (pyarrow.scalar(["rock", "jazz"]), ["rock", "jazz"]),
        ('["rock", "jazz"]', ["rock", "jazz"]),
        ('["\\u0072ock"]', ["rock"]),
        ("['rock', 'jazz']", ["rock", "jazz"]),
        ("('rock', 'jazz')", ["rock", "jazz"]),
        ("['rock', \"drum'n'bass\"]", ["rock", "drum'n'bass"]),
        ("['rock (live [2001 (remaster)])', 'a {b}']", ["rock (live [2001 (remaster)])", "a {b}"]),
        ("['it\\'s', 'jazz',]", ["it's", "jazz"]),
        ("[u'rock', u'jazz']", ["rock", "jazz"]),
        ("{'rock', 'jazz'}", ["jazz", "rock"]),
        ("'rock', 'jazz'", ["rock", "jazz"]),
        ('"rock"', ["rock"]),
        ('"rock, jazz"', ["rock", " jazz"]),
        ("['rock, slow', 'jazz']", ["rock, slow", "jazz"]),
        ("rock, jazz", ["rock", " jazz"]),
        ("rock, , jazz,", ["rock", " jazz"]),
        ("jazz", ["jazz"]),
        ("007", ["007"]),
        ("1980, 1990", ["1980", " 1990"]),
        ("true", ["true"]),
        ("NA", ["NA"]),
        ("'90s rock, jazz", ["'90s rock", " jazz"]),
        ("['AC\\DC']", ["AC\\DC"]),
        ("['rock', '', ' ']", ["rock"]),
        (["rock", ""], ["rock"]),
    ],
)
def test_readable_cells(cell, tags):
    assert parse_tags(cell) == tags


@pytest.mark.parametrize(
    "cell",
    [
        None,
        float("nan"),
        np.float64("nan"),
        np.float32("nan"),
        "",
        " ",
        "nan",
        "NaN",
        "None",
        "null",
    ]
    + ["[]", "()", "['']", [], (), np.array([]), pyarrow.scalar(None, pyarrow.string())],
)
def test_cells_without_tags(cell):
    assert parse_tags(cell) == []


HOSTILE = [
    "['rock' 'jazz', 'dub']",  # Python would glue the first two.
    "['rock'\n 'jazz' ... 'dub']",
    "['rock''jazz']",
    "{'rock' 'jazz'}",
    "[rock, ...]",
    "[rock, jazz,, dub]",
    "[rock, jazz",
    "[rock, 7]",
    "{a: 1, b: 2}",
    '[{"name": "rock", "kind": "genre"}]',
    '[{"count": 3}]',
    "'rock' ['jazz']",
    "['''rock''']",
    "[b'rock']",
    "[f'rock']",
    "['rock', 1]",
    "[['rock', 'jazz']]",
    "[[['rock']]]",
    "{'rock': 1}",
    '{"tags": ["rock"]}',
    "{[]}",
    "rock(live), jazz",
    "rock (live, jazz)",
    "rock [live], jazz",
    "['rock'",
    "'rock']",
    "['rock]",
    "[,]",
    "__import__('os').system('touch marker')",
    "[x for x in ()]",
    "(lambda: 0)()",
    "['rock'].pop()",
    "['rock'] + ['jazz']",
    "[" * 10_000,
    "[" + "-" * 10_000 + "1]",
    "[" + "1+" * 20_000 + "1j]",
    "[" + "9" * 5_000 + "]",
    "['\\ud800']",
    "'rock'('jazz')",
    "rock\0jazz",
    "['\\x00', '\0']",
    "x" * (MAX_CELL + 1),
    ["x" * (MAX_CELL + 1)],
    ["rock", 1.0],
    [["rock"]],
    ["\udfff"],
    {"rock": 1},
    b"rock",
    7,
    True,
    range(3),
]


@pytest.mark.parametrize("cell", HOSTILE, ids=lambda cell: repr(cell)[:30])
def test_unreadable_cells_have_a_reason_and_run_nothing(cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TagParseError) as caught:
            parse_tags(cell)
    reason = str(caught.value)
    assert reason
    assert reason.isprintable()
    assert len(reason) < 200
    assert not list(tmp_path.iterdir())


def test_nesting_is_refused_before_parsing():
    with pytest.raises(TagParseError, match="nested more than 2 deep"):
        parse_tags("[[['rock']]]")


@pytest.mark.parametrize("start", ["x", "[", "['", "(", "1+", "-", "'\\", '["a",'])
def test_a_hostile_megabyte_is_rejected_at_once(start):
    cell = start * (2**20 // len(start))
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        with pytest.raises(TagParseError):
            parse_tags(cell)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.010


@pytest.mark.parametrize("start", ["['\\'", "'\\", '["\\', "['a',", "[()," * 2, "u", "' "])
def test_the_longest_cell_that_is_parsed_costs_little(start):
    begin = time.perf_counter()
    with contextlib.suppress(TagParseError):
        parse_tags((start * MAX_CELL)[:MAX_CELL])
    assert time.perf_counter() - begin < 2.0


cells = st.one_of(
    st.text(),
    st.text(alphabet="[](){}'\",\\ abu\n:0"),
    st.binary(max_size=20),
    st.none() | st.booleans() | st.integers() | st.floats(),
    st.lists(st.text() | st.none() | st.integers() | st.lists(st.text(), max_size=2), max_size=5),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@settings(max_examples=500, deadline=None)
@given(cell=cells)
def test_any_cell_is_read_or_refused(cell):
    try:
        tags, reason = parse_tags(cell), ""
    except TagParseError as error:
        tags, reason = [], str(error)
    assert all(isinstance(tag, str) and tag.strip() for tag in tags)
    assert reason.isprintable()


@settings(max_examples=300, deadline=None)
@given(tags=st.lists(st.text(min_size=1).filter(lambda tag: tag.strip() and "\0" not in tag)))
def test_written_lists_are_read_back(tags):
    assert parse_tags(tags) == tags
    assert parse_tags(repr(tags)) == tags
    assert parse_tags(json.dumps(tags)) == tags
    assert parse_tags(json.dumps(tags, ensure_ascii=False)) == tags


LIST_TEXTS = st.lists(st.text("ab'\"\\,[] \t\nü", max_size=4), max_size=4)


@settings(max_examples=300)
@given(
    text=st.builds(lambda write, tags: write(tags), st.sampled_from([repr, json.dumps]), LIST_TEXTS)
    | st.text("a'\",[] \\", max_size=12).map("['{}']".format)
)
def test_the_short_way_reads_what_the_parser_does(text):
    def read():
        try:
            return parse_tags(text)
        except TagParseError:
            return None

    short = read()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells_room, "_PLAIN_LIST", re.compile("(?!)"))
        assert short == read()


# Files


ROWS = [["rock"], ["jazz", "rock"], [], ["unknown"], ["piano", "na"], ["007", "1980"]] + [
    ["soft female vocal"]
] * 20


def write_table(path: Path, cells: list) -> Path:
    """Writes cells, lists or texts or None, in the format of the path's suffix."""
    if path.suffix == ".parquet":
        table = pyarrow.table({"id": list(range(len(cells))), "aspect_list": cells})
        pyarrow.parquet.write_table(table, path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(["id", "aspect_list"])
            writer.writerows(enumerate(cells))
    else:
        records = [{"id": i, "aspect_list": cell} for i, cell in enumerate(cells)]
        lines = "\n".join(json.dumps(record) for record in records)
        write(path, json.dumps(records, indent=1) if path.suffix == ".json" else lines)
    return path


FORMATS = [".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".CSV"]
SPELLINGS = {
    "lists": lambda tags: tags,
    "python": lambda tags: repr(tags),
    "json": lambda tags: json.dumps(tags),
    "commas": lambda tags: ", ".join(tags),
    "none if empty": lambda tags: tags or None,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_and_spelling_gives_the_same_rows(tmp_path, suffix, spelling):
    path = write_table(tmp_path / f"clips{suffix}", [SPELLINGS[spelling](tags) for tags in ROWS])
    data = load(path)
    assert rows_of(data)[:4] == [["rock"], ["rock", "jazz"], ["piano", "na"], ["007", "1980"]]
    assert data.source_row.tolist() == [0, 1, 4, 5, *range(6, 26)]
    assert data.source_row.dtype == np.int64
    assert data.rows.dtype == np.uint8
    assert data.report["rows_without_known_tag"] == 2
    assert data.report["unknown_tags"] == [{"tag": "unknown", "count": 1, "nearest": []}]
    assert data.fingerprint == load(write_table(tmp_path / "same.jsonl", ROWS)).fingerprint
    check_sums(data.report)


def test_parquet_with_dictionary_and_large_list_types(tmp_path):
    texts = pyarrow.array([", ".join(tags) for tags in ROWS]).dictionary_encode()
    lists = pyarrow.array(ROWS, pyarrow.large_list(pyarrow.large_string()))
    pyarrow.parquet.write_table(pyarrow.table({"a": texts, "b": lists}), tmp_path / "t.parquet")
    first, second = (load(tmp_path / "t.parquet", aspect_column=column) for column in "ab")
    assert first.fingerprint == second.fingerprint


def test_nothing_is_left_behind_or_said(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    path = write_table(tmp_path / "clips.csv", ROWS)
    with caplog.at_level(logging.INFO):
        load(path)
    assert os.listdir(tmp_path) == ["clips.csv"]
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


FILLING = "\n9,jazz" * 30 + "\n"


@pytest.mark.parametrize(
    ("content", "first", "read"),
    [
        ("id,aspect_list\n1,'NA'" + FILLING, ["na"], 31),
        ("id,aspect_list\n1,NA" + FILLING, ["na"], 31),
        ("id,aspect_list\n1,007" + FILLING, ["007"], 31),
        ("\ufeffaspect_list,id\nrock,1" + FILLING.replace("9,jazz", "jazz,9"), ["rock"], 31),
        ("id,aspect_list\n1,\"['rock',\n 'jazz']\"" + FILLING, ["rock", "jazz"], 31),
        ('id,aspect_list\r\n1,"rock, jazz"' + FILLING.replace("\n", "\r\n"), ["rock", "jazz"], 31),
        ("id,aspect_list\n\n1,rock\n\n" + FILLING + "\n\n", ["rock"], 31),
        ("id,aspect_list\n1,rock" + FILLING.rstrip("\n"), ["rock"], 31),
        ("id,aspect_list,id\n1,rock,2" + FILLING.replace("jazz", "jazz,3"), ["rock"], 31),
        ("aspect_list\nrock\n1980" + "\njazz" * 28, ["rock"], 30),
        ('id,aspect_list\n1,"[""rock"", ""jazz""]"' + FILLING, ["rock", "jazz"], 31),
        ("id,aspect_list\n1,ＲＯＣＫ " + FILLING, ["rock"], 31),
        (f'id,aspect_list\n"{"x" * 300_000}",rock' + FILLING, ["rock"], 31),
    ],
)
def test_csv_that_can_be_read(tmp_path, content, first, read):
    data = load(write(tmp_path / "clips.csv", content))
    assert rows_of(data)[0] == first
    assert data.report["rows_read"] == data.report["rows_kept"] == read
    assert csv.field_size_limit() == 131_072  # Python's own, as it was


@pytest.mark.parametrize(
    ("name", "content", "needles"),
    [
        ("a.csv", "", ["is empty"]),
        ("a.csv", "\n\n", ["is empty"]),
        ("a.csv", "id,aspect_list\n", ["no rows"]),
        ("a.csv", "id,aspect_list\n1,rock\n2,jazz,piano\n", ["line 3", "3 fields", "has 2"]),
        ("a.csv", 'id,aspect_list\n1,"a\nb"\n2\n', ["line 4", "1 fields", "has 2"]),
        ("a.csv", 'id,aspect_list\n1,rock\n2,"jazz\n3,x\n', ["line 3", "malformed CSV"]),
        ("a.csv", 'id,aspect_list\n1,"ro"ck\n', ["line 2", "malformed CSV"]),
        ("a.csv", "id,aspect_list\n1,rock\n2,caf\xe9\n".encode("latin-1"), ["line 3", "UTF-8"]),
        ("a.csv", "id,aspect_list\n1,rock\n".encode("utf-16"), ["line 1", "UTF-8"]),
        ("a.csv", "id,aspect_list,aspect_list\n1,a,b\n", ["2 columns", "'aspect_list'"]),
        ("a.csv", "id,aspects\n1,rock\n", ["'aspect_list'", "did you mean 'aspects'", "'id'"]),
        ("a.csv", "id,x,aspects\n1,2,3\n", ["its columns are 'aspects', 'id', 'x'"]),
        ("a.csv", "id;aspects\n1;rock\n", ["no column 'aspect_list'", "'id'"]),
        ("a.jsonl", "", ["is empty"]),
        ("a.jsonl", '{"aspect_list": "rock"}\n{"aspect_list": \n', ["line 2", "not JSON"]),
        ("a.jsonl", '{"aspect_list": "rock"}\n["rock"]\n', ["line 2", "object"]),
        ("a.jsonl", '{"aspect_list": "rock", "aspect_list": "x"}\n', ["line 1", "twice"]),
        ("a.jsonl", '{"aspects": "rock"}\n', ["'aspect_list'", "did you mean 'aspects'"]),
        ("a.jsonl", b'{"aspect_list": "caf\xe9"}\n', ["line 1", "UTF-8"]),
        ("a.jsonl", '{"aspect_list": ' + "[" * 100_000 + "\n", ["line 1"]),
        ("a.jsonl", '{"aspect_list": ' + "9" * 5_000 + "}\n", ["line 1"]),
        ("a.json", "[]", ["is empty"]),
        ("a.json", "", ["is empty"]),
        ("a.json", '[{"aspect_list": "rock"}, 3]', ["item 1", "object"]),
        ("a.json", '[\n{"aspect_list": "rock"},\nx]', ["line 3", "not JSON"]),
        ("a.json", '[{"mood": "rock", "tag": "x", "tags": "y"}]', ["'aspect_list'", "'mood'"]),
        ("a.parquet", "", ["Parquet"]),
        ("a.parquet", "PAR1 but not really", ["Parquet"]),
        ("a.txt", "rock\n", ["three whole numbers", "'rock'"]),
        ("a.doc", "rock\n", ["'.doc'", ".csv .tsv .json .jsonl .ndjson .parquet"]),
        ("a", "rock\n", ["without a suffix", ".parquet"]),
    ],
)
def test_files_that_cannot_be_read_are_one_line(tmp_path, name, content, needles):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path / name, content))
    message = str(caught.value)
    assert "\n" not in message
    for needle in [name, *needles]:
        assert needle in message


def test_missing_files_and_names_of_no_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clips.csv", "aspect_list\nrock\n")
    (tmp_path / "someone" / "clips").mkdir(parents=True)
    for name, needle in {
        "clip.csv": "did you mean 'clips.csv'",
        "nowhere/clips.csv": "cannot be read",
        "someone/clips": "is a folder",
        "embeded": "did you mean 'embedded'",
        "musiccaps": "nor a hub id",
        "a\0b.csv": "neither",
        "https://example.org/clips.csv": "a URL is not read; download the file",
        "": "is empty",
        "x" * 5_000 + ".csv": "",
        "x" * 5_000: "neither",
    }.items():
        with pytest.raises(InputError) as caught:
            load(name)
        assert needle in str(caught.value), name
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="dataset_split"):
        load("clips.csv", dataset_split="test")


def test_unreadable_rows_are_counted_located_and_limited(tmp_path):
    good = ["rock", "['jazz']"] * 150
    hostile = ["['rock' 'jazz', 'dub']", "x" * 70_000, "[1]"]
    path = write(tmp_path / "clips.csv", csv_text(good[:10] + hostile + good[10:]))
    data = load(path)
    check_sums(data.report)
    assert data.report["rows_unreadable"] == 3
    entries = data.report["unreadable"]
    assert [(entry["row"], entry["line"]) for entry in entries] == [(10, 12), (11, 13), (12, 14)]
    assert "comma" in entries[0]["reason"]
    assert "65,536" in entries[1]["reason"]
    assert data.source_row[10] == 13
    text = format_report(data.report)
    assert "data row 10 (counted from 0), line 12 of the file" in text
    path = write(tmp_path / "clips.csv", csv_text(hostile + ["[2]"] + good))
    with pytest.raises(InputError) as caught:
        load(path)
    for needle in ("4 of 304", "1.00%", "data row 0", "line 2", "comma between"):
        assert needle in str(caught.value)
    assert str(caught.value).endswith("allow more by --config.data.max_unreadable_fraction=0.02")
    assert load(path, max_unreadable_fraction=0.02).report["rows_unreadable"] == 4
    assert load(path, max_unreadable_fraction=0.5).report["rows_unreadable"] == 4


def test_the_config_says_how_many_rows_may_be_unreadable(tmp_path, capsys):
    path = write_table(tmp_path / "clips.jsonl", [["rock"]] * 58 + [[1]] * 2)
    arguments = ["data", f"--config={ROOT}/configs/small.py", f"--config.data.dataset_name={path}"]
    assert main.main(arguments) == 2
    option = capsys.readouterr().err.split()[-1]
    assert option == "--config.data.max_unreadable_fraction=0.04"
    assert main.main([*arguments, option]) == 0
    assert re.search(r"rows kept +58\n", capsys.readouterr().out)
    assert main.main([*arguments, "--config.data.max_unreadable_fraction=0.03"]) == 2


def test_only_the_first_unreadable_rows_are_listed(tmp_path):
    path = write_table(tmp_path / "clips.jsonl", [["rock"]] * 50 + [[1]] * 50)
    report = load(path, max_unreadable_fraction=0.5).report
    assert report["rows_unreadable"] == 50
    assert len(report["unreadable"]) == 20


def test_no_known_tag_names_the_tags_met(tmp_path):
    path = write_table(tmp_path / "clips.csv", [["polka", "waltz"], ["polka"], []])
    with pytest.raises(InputError, match=r"none of 3 rows .*'polka' \(2\), 'waltz' \(1\)"):
        load(path)


def test_tags_are_matched_as_the_taxonomy_does(tmp_path):
    path = write_table(tmp_path / "clips.jsonl", [[" Soft  FEMALE vocal", "ROCK", "rock"]] * 20)
    assert rows_of(load(path))[0] == ["rock", "soft female vocal"]


def test_unknown_tags_are_ranked_across_spellings_with_neighbours(tmp_path):
    cells = [["Rocks", "zither"], ["rocks", "rock"], ["\u200b"]] + [["jazz"]] * 20
    report = load(write_table(tmp_path / "clips.jsonl", cells)).report
    assert report["unknown_tags"] == [
        {"tag": "rocks", "count": 2, "nearest": ["rock"]},
        {"tag": "zither", "count": 1, "nearest": []},
    ]
    assert report["num_unknown_tags"] == 2
    assert report["coverage"]["never_seen"] == ["piano", "soft female vocal", "007", "na", "1980"]
    assert report["coverage"]["rows_per_tag"]["jazz"] == 20


@pytest.mark.parametrize(("num_tags", "dtype"), [(255, "u1"), (256, "u2"), (65_536, "u4")])
def test_the_narrowest_type_that_holds_the_padding(tmp_path, num_tags, dtype):
    wide = Taxonomy.from_mapping({"a": [f"t{i}" for i in range(num_tags)]}, source="test")
    path = write_table(tmp_path / "c.jsonl", [["t0"], ["t1", f"t{num_tags - 1}"]] * 20)
    data = load_dataset(taxonomy=wide, dataset_name=path)
    assert data.rows.dtype == np.dtype(dtype)
    assert data.rows[:2].tolist() == [[0, num_tags], [1, num_tags - 1]]


def test_rows_too_wide_to_pad_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tagged_rows, "MAX_ROWS_BYTES", 100)
    narrow = [[tag] for tag in TAGS[:4]] * 30
    assert len(load(write_table(tmp_path / "narrow.csv", narrow)).rows) == 120
    # One row makes all of them wider: more than four times what the tags need.
    with pytest.raises(InputError, match="121 rows padded to the longest, 5 tags"):
        load(write_table(tmp_path / "wide.csv", [*narrow, TAGS[:5]]))


def test_a_row_that_makes_all_others_wide_is_said(tmp_path, monkeypatch):
    narrow = [[tag] for tag in TAGS[:4]] * 30
    report = load(write_table(tmp_path / "wide.csv", [*narrow, TAGS[:5]])).report
    assert "leave out" not in format_report(report)
    monkeypatch.setattr(summary, "_MUCH", 600)
    monkeypatch.setattr(summary, "_LONG", 4)
    assert "  every row takes the place of 5 tags, 605 in all: leave out" in format_report(report)
    monkeypatch.setattr(summary, "_LONG", 5)
    assert "leave out" not in format_report(report)


def test_fingerprint_follows_rows_and_taxonomy(tmp_path):
    path = write_table(tmp_path / "clips.csv", ROWS)
    other = write_table(tmp_path / "other.csv", [["jazz"], *ROWS[1:]])
    turned = Taxonomy.from_mapping({"all": [*TAGS, "new"]}, source="test")
    prints = {load(path).fingerprint, load(other).fingerprint}
    prints.add(load_dataset(taxonomy=turned, dataset_name=path).fingerprint)
    assert len(prints) == 3
    assert load(path, split_seed=7).fingerprint == load(path).fingerprint


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(listed=st.lists(cells.filter(lambda c: not isinstance(c, bytes)), max_size=8))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_fuzzed_files_never_end_in_a_traceback_and_add_up(tmp_path, suffix, listed):
    try:
        path = write_table(tmp_path / f"f{suffix}", listed + [["rock"]] * 20)
    except UnicodeEncodeError:
        return
    report = load(path, max_unreadable_fraction=1.0).report
    assert report["rows_read"] == len(listed) + 20
    check_sums(report)
    text = format_report(report)
    assert all(line.isprintable() and len(line) <= 100 for line in text.splitlines())


# Real data


def test_musiccaps(shared_data):
    taxonomy = Taxonomy.load(shared_data / "concepts_to_tags.json")
    path = shared_data / "musiccaps-public.csv"
    begin = time.perf_counter()
    data = load_dataset(taxonomy=taxonomy, dataset_name=path)
    seconds = time.perf_counter() - begin
    report = data.report
    check_sums(report)
    numbers = ("rows_read", "rows_kept", "rows_without_known_tag", "rows_unreadable")
    assert [report[name] for name in numbers] == [5521, 5046, 475, 0]
    assert report["repeated_sets"]["distinct"] == 3764
    assert report["split_sizes"] == {"train": 4542, "val": 252, "test": 252}
    assert report["mean_tags_per_row"] == pytest.approx(3.65, abs=0.005)
    assert data.rows.shape == (5046, 14)
    assert data.rows.dtype == np.uint8
    assert report["repeated_sets"]["val_rows_with_a_twin_in_train"] > 0
    assert seconds < 4
    apart = load_dataset(taxonomy=taxonomy, dataset_name=path, split_by="set")
    assert apart.report["repeated_sets"]["val_rows_with_a_twin_in_train"] == 0
    assert apart.report["repeated_sets"]["test_rows_with_a_twin_in_train"] == 0
    assert apart.report["split_sizes"] == report["split_sizes"]
    assert apart.fingerprint == data.fingerprint
    with path.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    for position in (0, 1, 2500, 5045):
        cell = records[data.source_row[position]]["aspect_list"]
        columns = [v for v in data.rows[position].tolist() if v < taxonomy.num_tags]
        assert columns == taxonomy.columns(parse_tags(cell), "ignore")


def test_embedded_corpus():
    data = load_dataset(taxonomy=Taxonomy.load())
    check_sums(data.report)
    assert data.report["rows_read"] == 5500
    assert data.report["rows_unreadable"] == 0
    assert data.report["rows_kept"] > 5000
    assert data.source == "the embedded corpus"
    assert data.fingerprint == load_dataset(taxonomy=Taxonomy.load()).fingerprint
    assert len(format_report(data.report)) > 500


def test_the_embedded_corpus_has_as_many_rows_as_its_name_says():
    taxonomy = Taxonomy.load()
    whole, half, double = (
        load_dataset(dataset_name=name, taxonomy=taxonomy)
        for name in ("embedded", "embedded:2750", "embedded:11_000")
    )
    assert (
        load_dataset(dataset_name="embedded:5500", taxonomy=taxonomy).fingerprint
        == whole.fingerprint
    )
    assert [data.report["rows_read"] for data in (half, double)] == [2750, 11_000]
    kept = len(half.rows)
    np.testing.assert_array_equal(half.source_row, whole.source_row[:kept])
    for data in (half, double):
        shared = min(len(data.rows), len(whole.rows))
        columns = [set(row.tolist()) - {taxonomy.num_tags} for row in data.rows[:shared]]
        assert columns == [set(row.tolist()) - {taxonomy.num_tags} for row in whole.rows[:shared]]
        assert data.generator is not None


@pytest.mark.parametrize("number", ["", "0", "-5", "1e3", "many", "1000000001", "²"])
def test_a_number_of_rows_that_the_embedded_corpus_can_t_have_is_refused(number):
    with pytest.raises(InputError, match="a number of rows from 1 to 1,000,000,000"):
        load_dataset(dataset_name=f"embedded:{number}", taxonomy=Taxonomy.load())


# Splits


def random_rows(number: int, distinct: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.sort(rng.integers(0, 200, (distinct, 3)), axis=1).astype(np.uint8)[
        rng.integers(0, distinct, number)
    ]


@settings(max_examples=150, deadline=None)
@given(
    number=st.integers(20, 300),
    distinct=st.integers(1, 300),
    val=st.integers(5, 40),
    test=st.integers(5, 40),
    by=st.sampled_from(["row", "set"]),
    seed=st.integers(0, 2**32),
)
def test_splits_are_disjoint_covering_stable_and_sized(number, distinct, val, test, by, seed):
    rows = random_rows(number, distinct)
    options = {"val_fraction": val / 100, "test_fraction": test / 100}
    options |= {"split_by": by, "seed": seed}
    groups = group_rows(rows)
    sizes = np.bincount(groups)
    try:
        splits = split_rows(rows, **options)
    except InputError:
        splits = None
    if splits is None:  # Only whole groups can be too big to share out.
        assert by == "set"
        assert sizes.max() > 1
        return
    again = split_rows(rows, **options)
    for name, part in splits.items():
        assert np.array_equal(part, again[name])
        assert np.all(np.diff(part) > 0)
        assert part.dtype == np.int64
    everything = np.sort(np.concatenate(list(splits.values())))
    assert np.array_equal(everything, np.arange(number))
    wanted = {"val": number * val // 100, "test": number * test // 100}
    if by == "row":
        assert all(len(splits[name]) == size for name, size in wanted.items())
        return
    owner = np.empty(number, int)
    for position, part in enumerate(splits.values()):
        owner[part] = position
    for group in range(len(sizes)):
        assert len(set(owner[groups == group])) == 1
    for name, size in wanted.items():
        assert abs(len(splits[name]) - size) < max(sizes.max(), 1)
        if sizes.max() == 1:
            assert len(splits[name]) == size


def test_another_seed_gives_another_split():
    rows = random_rows(500, 400)
    for by in ("row", "set"):
        options = {"val_fraction": 0.1, "test_fraction": 0.1, "split_by": by}
        first, second = (split_rows(rows, seed=seed, **options) for seed in (1, 2))
        assert not np.array_equal(first["test"], second["test"])


def test_sizes_are_rounded_down_but_not_by_float_error():
    rows = random_rows(100, 100)
    splits = split_rows(rows, val_fraction=0.29, test_fraction=0.055, split_by="row", seed=0)
    assert {name: len(part) for name, part in splits.items()} == {"train": 66, "val": 29, "test": 5}


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ({"val_fraction": 0.0}, "no row is left for val: 10 rows"),
        ({"val_fraction": 0.05, "test_fraction": 0.05}, "val and test"),
        ({"val_fraction": 0.6, "test_fraction": 0.6}, "no row is left for train"),
        ({"val_fraction": 1.0}, "val_fraction must be"),
        ({"test_fraction": -0.1}, "test_fraction must be"),
        ({"test_fraction": float("nan")}, "test_fraction must be"),
        ({"split_by": "rows"}, "split_by must be"),
    ],
)
def test_impossible_splits(options, needle):
    options = {"val_fraction": 0.2, "test_fraction": 0.2, "split_by": "row", "seed": 0} | options
    with pytest.raises(InputError, match=needle):
        split_rows(random_rows(10, 10), **options)


def test_whole_sets_may_exceed_a_size_where_that_is_nearer():
    rows = np.repeat(np.arange(10, dtype=np.uint8), 10)[:, None]
    for fraction, size in ((0.09, 10), (0.14, 10), (0.16, 20), (0.06, 10)):
        options = {"val_fraction": fraction, "test_fraction": 0.1, "split_by": "set", "seed": 0}
        assert len(split_rows(rows, **options)["val"]) == size
    with pytest.raises(InputError, match="no row is left for val"):
        split_rows(rows, val_fraction=0.04, test_fraction=0.1, split_by="set", seed=0)


def test_one_set_cannot_be_split_by_set():
    with pytest.raises(InputError, match="split_by 'set'"):
        split_rows(random_rows(100, 1), val_fraction=0.1, test_fraction=0.1, split_by="set", seed=0)


@pytest.mark.parametrize(("dtype", "width"), [("u1", 1), ("u1", 14), ("u2", 3), ("u4", 5)])
def test_groups_agree_with_a_plain_count(dtype, width):
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 3, (400, width)).astype(dtype)
    _, expected = np.unique(rows, axis=0, return_inverse=True)
    groups = group_rows(rows)
    assert (
        len(set(zip(groups.tolist(), expected.ravel().tolist(), strict=True))) == groups.max() + 1
    )
    assert groups.max() == expected.max()


def test_rows_that_share_a_sort_key_are_told_apart():
    """Two rows whose 64-bit keys agree, alternating: sorted by the key alone they would mix."""

    def state(word: int) -> int:
        mixed = word * 0x9E3779B97F4A7C15 % 2**64
        return mixed ^ (mixed >> 32)

    first, second, tail = 11, 22, 33
    words = [(first, tail), (second, state(first) ^ state(second) ^ tail)] * 50
    rows = np.array(words, np.uint64).view(np.uint8)
    groups = group_rows(rows)
    assert len(set(groups[::2])) == len(set(groups[1::2])) == 1
    assert set(groups) == {0, 1}


# The report's text


def test_report_is_readable_and_cannot_steer_a_terminal(tmp_path):
    cells = [["\x1b[31mred", "x" * 500, "日本"], *ROWS]
    report = load(write_table(tmp_path / "clips.jsonl", cells)).report
    for each in (report, json.loads(json.dumps(report))):
        text = format_report(each)
        assert "\x1b" not in text
        assert "\\x1b[31mred" in text
        assert max(map(len, text.splitlines())) <= 100
    assert f"{report['rows_read']}" in text
