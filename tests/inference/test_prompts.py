"""Texts of drawn sets by a template, which is refused before anything is drawn if it is wrong."""

import csv
import json
import re
import sys

import pytest

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference.generation.tables.prompts import Prompts
from tests.helpers.commands import refused, shell
from tests.helpers.networks import VARIED, make_run

TAXONOMY = Taxonomy.from_mapping(
    {"genre": ["jazz", "Rock"], "mood/theme": ["calm", "sad"], "tempo": ["fast"]}, source="test"
)
JAZZ, ROCK, CALM, SAD, FAST = range(5)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("A {{ tempo }} {{ genre }} song", "A fast jazz, Rock song"),
        ("{{ tags['mood/theme'] }}", "calm, sad"),
        ("{{ tags }}", "jazz, Rock, calm, sad, fast"),
        ("{{ tags.genre[0] }} & {{ tags[-1] }}", "jazz & fast"),
        ("{{ genre|upper }}", "JAZZ, ROCK"),
        ("{{ genre|map('lower')|join(' and ') }}", "jazz and rock"),
        # A list or a generator that a filter makes is printed as the others are.
        ("{{ genre|sort(reverse=true) }}; {{ genre|map('lower') }}; {{ tags[1:3] }}", "Rock, jazz; jazz, rock; Rock, calm"),
        ("{% for tag in tags if tag != 'sad' %}{{ loop.index }}{{ tag }} {% endfor %}", "1jazz 2Rock 3calm 4fast "),
        ("{% set n = genre|length %}{{ range(n)|list }}", "0, 1"),
        ("{% if tempo %}{{ tempo }}{% else %}any tempo{% endif %}\n", "fast"),
        ('"{{ genre }}" <b>', '"jazz, Rock" <b>'),
    ],
)  # fmt: skip
def test_a_template_prints_a_sets_tags(template, text):
    assert Prompts(template, TAXONOMY).text_of([JAZZ, ROCK, CALM, SAD, FAST]) == text


def test_a_text_has_an_end():
    assert len(Prompts("{{ 'x' * 10**5 }}", TAXONOMY).text_of([JAZZ])) == 10**5
    with pytest.raises(InputError, match=r"100,001 characters, of the set .*at most 100,000"):
        Prompts("{{ 'x' * 100_001 }}", TAXONOMY)


def test_a_concept_without_a_tag_is_an_empty_list():
    prompts = Prompts("[{{ genre }}] {% if not tempo %}any tempo{% endif %}", TAXONOMY)
    assert prompts.text_of([CALM]) == "[] any tempo"
    assert prompts.text_of([FAST, ROCK]) == "[Rock] "


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("song\n{{ genr }}", "template, line 2: unknown name 'genr' (did you mean 'genre'?); the names are genre, mood/theme, tempo, tags"),
        ("{% if genr is defined %}x{% endif %}", "line 1: unknown name 'genr'"),
        ("{{ tags['mood'] }}", "line 1: unknown concept 'mood'"),
        ("{{ tags.tempi }}", "line 1: unknown concept 'tempi' (did you mean 'tempo'?)"),
        ("\n\n{{ genre", "line 3: unexpected end of template"),
        ("{{ genre|uper }}", "line 1: No filter named 'uper'"),
        ("{{ genre.first }}", "line 1, of the set jazz, Rock, calm, sad, fast: a list of tags has no attribute 'first'"),
        ("\n{{ 1 / 0 }}", "line 2, of the set jazz, Rock, calm, sad, fast: ZeroDivisionError"),
        ("{% include 'other' %}", "line 1: other templates can't be loaded"),
        ("{% extends 'other' %}", "line 1: other templates can't be loaded"),
        ("{{ " + "(" * 5000 + "}}", "nested too deeply"),
        # Chance that no seed fixes.
        ("{{ genre|random }}", "No filter named 'random'"),
        ("{{ lipsum() }}", "unknown name 'lipsum'"),
        # What the sandbox keeps in.
        ("{{ genre.__class__.__mro__ }}", "is unsafe"),
        ("{{ tags.append.__globals__ }}", "is unsafe"),
        ("{{ genre.append('x') }}", "is unsafe"),
        ("{{ ''.__class__ }}", "is unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        # A file's name is told from a text.
        ("promts/caption.j2", "template 'promts/caption.j2': no such file, and no template"),
        ("A song", "'A song': no such file, and no template, which has names in braces"),
    ],
)  # fmt: skip
def test_a_wrong_template_is_a_line(template, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Prompts(template, TAXONOMY)


def test_a_concept_whose_name_is_no_word_is_written_for_whom_did_not_know():
    taxonomy = Taxonomy.from_mapping({"mood/theme": ["sad"], "genre": ["jazz"]}, source="test")
    with pytest.raises(InputError, match=r"for the concept mood/theme write tags\['mood/theme'\]"):
        Prompts("{{ mood/theme }}", taxonomy)
    with pytest.raises(InputError, match=r"unknown name 'genr' \(did you mean 'genre'"):
        Prompts("{{ genr }}", taxonomy)


def test_a_set_for_which_there_is_no_text_is_named():
    prompts = Prompts("{{ genre[0] }}", TAXONOMY)
    assert prompts.text_of([ROCK, SAD]) == "Rock"
    with pytest.raises(InputError, match=r"line 1, of the set sad, fast: a list of tags has no el"):
        prompts.text_of([SAD, FAST])


def test_a_template_may_be_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "caption.j2"
    file.write_text("{{ genre }} – ♫\n", encoding="utf-8")
    for name in ("caption.j2", str(file), file):
        assert Prompts(name, TAXONOMY).text_of([JAZZ]) == "jazz – ♫"
    for content, message in (
        (b"A song\n", "has no names in braces"),
        (b"\xff{{ genre }}", "not UTF-8"),
        (b"{{ genre }}" + b" " * 2**20, "larger than 1 MiB"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            Prompts(file, TAXONOMY)
    with pytest.raises(InputError, match="No such file"):
        Prompts(tmp_path / "none.j2", TAXONOMY)


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"needs the package jinja2 \(pip install jinja2\)"):
        Prompts("{{ tags }}", TAXONOMY)


@pytest.mark.long
def test_a_table_has_a_column_of_texts(capsys, folder, tmp_path):
    out, template = tmp_path / "t.csv", "A {{ genre }} song\nat {{ tempo }}"
    command = ("generate", folder, "--num", 20, "--output", out, "--no-figures", "--template")
    shell(capsys, *command, template)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == "text"
    for row in rows:
        genre, tempo = (", ".join(json.loads(row[f"{name}_tags"])) for name in ("genre", "tempo"))
        assert row["text"] == f"A {genre} song\nat {tempo}"
    record = tmp_path / "t.csv.json"
    assert json.loads(record.read_text())["template"] == template
    for path in (out, record):
        path.unlink()
    assert "unknown name 'genr' (did you mean 'genre'?)" in refused(capsys, *command, "{{ genr }}")
    assert "has no element 0" in refused(capsys, *command, "{{ tempo[0] }}", "--tags", "1..2")
    assert not list(tmp_path.iterdir())


def test_sets_in_memory_have_texts_too(tmp_path):
    run = make_run(*VARIED[0], tmp_path)
    drawn = run.generate(30, template="{{ genre|join('+') }}/{{ tags['mood'] }}")
    genres = set(run.taxonomy.spellings[:4])
    assert drawn.labels["text"] == [
        "+".join(tag for tag in tags if tag in genres)
        + "/"
        + ", ".join(tag for tag in tags if tag not in genres)
        for tags in drawn.sets
    ]
    assert "text" not in run.generate(3).labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"presnt": ["jazz"]}, "presnt: generate has no such option (did you mean 'present'?)"),
        ({"train_rows": None}, "train_rows: generate has no such option"),
        ({"present": "jazz"}, "present: expected a list of tags, found text"),
        ({"count": 3}, "count: expected counts by concept, {'genre': 1}, found a number"),
        ({"temperature": "hot"}, "temperature: expected a number, or a list of them, found text"),
        ({"temperature": None}, "temperature: expected a number, or a list of them, found null"),
        ({"balance": {"jazz": "most"}}, "balance: expected a concept, a list of tags, or"),
        ({"pairs": ["jazz"]}, "pairs: expected a tag, found a list"),
        ({"like": 3}, "like: expected a file or tag sets, found a number"),
        ({"between": 3}, "between: expected two tag sets"),
        ({"distinct": "no"}, "distinct: expected a truth value"),
        ({"unseen": 1.5}, "unseen: expected a truth value or a whole number"),
        ({"distance": 0.5}, "distance goes with like, which is not given"),
        ({"column": "tags"}, "column goes with like, which is not given"),
        ({"steps": 3}, "steps goes with between, which is not given"),
        ({"template": 3}, "template: expected a template or its file"),
    ],
)  # fmt: skip
def test_a_wrong_option_in_python_is_a_line(options, message, tmp_path):
    run = make_run(*VARIED[0], tmp_path)
    for ask in (run.generate, lambda num, **given: run.generate_file(num, tmp_path / "t.csv", **given)):  # fmt: skip
        with pytest.raises(InputError) as caught:
            ask(3, **options)
        assert message in str(caught.value)
    assert not (tmp_path / "t.csv").exists()


def test_what_is_wrong_about_a_table_is_a_line(tmp_path):
    run = make_run(*VARIED[0], tmp_path)
    with pytest.raises(
        InputError, match=r"judgee: .* \(did you mean 'judge'\?\); it has .*, judge,"
    ):
        run.generate_file(3, tmp_path / "t.csv", judgee=print)
    with pytest.raises(InputError, match=r"num .*t\.csv: must be a whole number"):
        run.generate_file(tmp_path / "t.csv", 3)
    with pytest.raises(InputError, match="output: expected a file's path, found a number"):
        run.generate_file(3, 3)
    assert not (tmp_path / "t.csv").exists()


def test_none_is_no_option(tmp_path):
    run = make_run(*VARIED[0], tmp_path)
    nothing = dict.fromkeys(("present", "absent", "count", "tags", "balance", "like", "template"))
    assert run.generate(5, **nothing).sets == run.generate(5).sets
