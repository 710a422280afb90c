"""What a taxonomy is: normalised tags in order, in concepts, and every way a file can be wrong."""

import ast
import csv
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvae.data.spelling import normalize
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

SMALL = {"genre": ["jazz", "rock"], "mood": ["calm"], "tempo": ["slow tempo", "fast tempo"]}


def small() -> Taxonomy:
    return Taxonomy.from_mapping(SMALL, source="small")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Jazz", "jazz"),
        ("  slow \t\n tempo ", "slow tempo"),
        ("slow\u00a0tempo", "slow tempo"),
        ("ｒ＆ｂ", "r&b"),
        ("hip\u200b hop\ufeff", "hip hop"),
        ("bal\u00adlad", "ballad"),
        ("cafe\u0301", "caf\u00e9"),
        ("Straße", "strasse"),
        ("\u200d \u2060", ""),
    ],
)
def test_normalize_by_example(written, normal):
    assert normalize(written) == normal


@settings(deadline=None)
@given(st.text())
def test_normalize_twice_is_normalize_once(text):
    once = normalize(text)
    assert normalize(once) == once
    assert normalize(f" {text}\u200b ") == once


def test_columns_follow_the_order_of_the_file():
    taxonomy = small()
    assert taxonomy.tags == ("jazz", "rock", "calm", "slow tempo", "fast tempo")
    assert taxonomy.num_tags == 5
    assert taxonomy.concepts == (("genre", range(2)), ("mood", range(2, 3)), ("tempo", range(3, 5)))
    assert [taxonomy.concept_of(v) for v in range(5)] == [
        "genre", "genre", "mood", "tempo", "tempo",
    ]  # fmt: skip
    assert taxonomy.column(" ROCK") == 1
    assert taxonomy.columns(["Fast  Tempo", "jazz", "JAZZ"]) == [0, 4]
    assert taxonomy.columns([]) == []
    assert taxonomy.names([4, 0]) == ["fast tempo", "jazz"]
    assert hash(taxonomy) == hash(small())
    assert taxonomy == Taxonomy.from_mapping(SMALL, source="elsewhere")


def test_unknown_tags_are_an_error_with_the_nearest_or_ignored_on_request():
    taxonomy = small()
    with pytest.raises(InputError, match=r"'jaz'.*did you mean 'jazz'.*small"):
        taxonomy.column("jaz")
    with pytest.raises(InputError, match="'polka'"):
        taxonomy.columns(["jazz", "polka"])
    assert taxonomy.columns(["jazz", "polka"], on_unknown="ignore") == [0]
    assert taxonomy.nearest("Slow temp") == ["slow tempo", "fast tempo"]
    assert taxonomy.nearest("Slow temp", limit=1) == ["slow tempo"]
    assert taxonomy.nearest("xyzzy") == []


@pytest.mark.parametrize(
    ("misuse", "match"),
    [
        (lambda t: t.columns("jazz"), "list of tags.*'jazz'"),
        (lambda t: t.columns(["jazz", 3], on_unknown="ignore"), "must be text.*number"),
        (lambda t: t.columns(["jazz"], on_unknown="drop"), "'drop'"),
        (lambda t: t.column(None), "null"),
        (lambda t: t.names([0, 5]), r"column 5.*0\.\.4"),
        (lambda t: t.names([-1]), "column -1"),
        (lambda t: t.concept_of(5), "column 5"),
    ],
)
def test_misuse_is_refused(misuse, match):
    with pytest.raises(InputError, match=match):
        misuse(small())


def test_spellings_of_one_tag_in_one_concept_merge_and_are_listed():
    taxonomy = Taxonomy.from_mapping(
        {"a": ["Rock", "jazz", "rock ", "ROCK"], "b": ["x", "X"]}, source="s"
    )
    assert taxonomy.tags == ("rock", "jazz", "x")
    assert taxonomy.to_mapping() == {"a": ["Rock", "jazz"], "b": ["x"]}
    assert taxonomy.merged == ("rock ", "ROCK", "X")


def test_the_digest_is_that_of_concepts_and_ordered_tags():
    digest = small().digest
    text = json.dumps([[name, tags] for name, tags in SMALL.items()])
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    variants = [
        {"genre": ["rock", "jazz"], "mood": ["calm"], "tempo": ["slow tempo", "fast tempo"]},
        {"genre": ["jazz", "rock"], "tempo": ["slow tempo", "fast tempo"], "mood": ["calm"]},
        {"genre": ["jazz"], "mood": ["rock", "calm"], "tempo": ["slow tempo", "fast tempo"]},
        {"style": ["jazz", "rock"], "mood": ["calm"], "tempo": ["slow tempo", "fast tempo"]},
    ]
    digests = {Taxonomy.from_mapping(variant, source="v").digest for variant in variants}
    assert len(digests | {digest}) == 5


SPELLED = {"Way": ["Straße", "R&B"], "mood": ["Ünïcode  Rock", "hip\u200b Hop", "ｒｏｃｋ"]}
FOLDED = {"Way": ["strasse", "r&b"], "mood": ["ünïcode rock", "hip hop", "rock"]}


def test_a_tag_is_shown_as_it_is_spelled_and_compared_folded():
    taxonomy = Taxonomy.from_mapping(SPELLED, source="spelled")
    folded = Taxonomy.from_mapping(FOLDED, source="folded")
    assert taxonomy.spellings == ("Straße", "R&B", "Ünïcode Rock", "hip Hop", "ｒｏｃｋ")
    assert taxonomy.tags == folded.tags == folded.spellings
    assert taxonomy == folded
    assert hash(taxonomy) == hash(folded)
    assert taxonomy.digest == folded.digest
    assert taxonomy.to_mapping() != folded.to_mapping() == FOLDED
    for spelled in ("Straße", "strasse", "STRASSE"):
        assert taxonomy.column(spelled) == folded.column(spelled) == 0
    assert taxonomy.names([1, 0]) == ["R&B", "Straße"]
    assert taxonomy.nearest("STRASE") == ["Straße"]
    with pytest.raises(InputError, match=r"unknown tag 'strase' \(did you mean 'Straße'\?\)"):
        taxonomy.column("strase")
    twice = {"a": ["Straße"], "b": ["STRASSE"]}
    with pytest.raises(InputError, match="tag 'Straße' is in two concepts, 'a' and 'b'"):
        Taxonomy.from_mapping(twice, source="twice")
    # The concepts are spelled once: they are part of the digest.
    other = {"way": FOLDED["Way"], "mood": FOLDED["mood"]}
    assert Taxonomy.from_mapping(other, source="other").digest != taxonomy.digest


def test_a_spelling_that_would_read_back_as_another_tag_is_not_kept():
    written, without_joiner = "α\u0345\u200d\u0301", "α\u0345\u0301"
    assert normalize(written) != normalize(without_joiner)
    assert Taxonomy.from_mapping({"a": [written]}, source="s").spellings == (normalize(written),)
    kept = Taxonomy.from_mapping({"a": [without_joiner]}, source="s")
    assert kept.spellings == (without_joiner,)


names = st.text(min_size=1, max_size=8).filter(lambda text: normalize(text) != "")
names = names.filter(lambda text: text.isprintable())
listed_tags = st.lists(names, min_size=1, max_size=12, unique_by=normalize)


@settings(deadline=None)
@given(listed_tags, st.data())
def test_any_valid_mapping_round_trips(tags, data):
    cut = data.draw(st.integers(1, len(tags)))
    mapping = {"first": tags[:cut]} | ({"second": tags[cut:]} if tags[cut:] else {})
    taxonomy = Taxonomy.from_mapping(mapping, source="one")
    again = Taxonomy.from_mapping(taxonomy.to_mapping(), source="two")
    assert again == taxonomy
    assert again.digest == taxonomy.digest
    assert taxonomy.columns(tags) == list(range(len(tags)))
    assert [taxonomy.column(tag) for tag in taxonomy.names(range(len(tags)))] == list(
        range(len(tags))
    )


awkward = st.sampled_from("aAßſİıσςΣ ﬁＡ\t\n\u200b\u200d\u00ad\u0301\u0307\u0345ΐά①")
spelled = st.text(awkward | st.characters(exclude_categories=["Cs"]), max_size=8)
spelled = st.lists(spelled.filter(normalize), min_size=1, max_size=8)


@settings(deadline=None)
@given(spelled)
def test_what_is_written_has_the_same_tags_spellings_and_digest(tags):
    taxonomy = Taxonomy.from_mapping({"c": tags}, source="one")
    text = json.dumps(taxonomy.to_mapping())
    again = Taxonomy.from_mapping(json.loads(text), source="two")
    assert again.tags == taxonomy.tags
    assert again.spellings == taxonomy.spellings
    assert again.merged == ()
    # An older run's file, and an older version's reading of this one.
    folded = Taxonomy.from_mapping({"c": list(taxonomy.tags)}, source="three")
    assert folded.spellings == taxonomy.tags
    assert folded.digest == again.digest == taxonomy.digest
    # Of several spellings the first counts, and every one is found.
    firsts = {normalize(tag): tag for tag in reversed(tags)}
    assert {*map(normalize, taxonomy.spellings)} == {*firsts}
    for tag, spelling in zip(taxonomy.tags, taxonomy.spellings, strict=True):
        assert taxonomy.column(firsts[tag]) == taxonomy.column(spelling) == taxonomy.column(tag)
        if firsts[tag].isascii() and firsts[tag].isprintable():
            assert spelling == " ".join(firsts[tag].split())


@settings(deadline=None)
@given(listed_tags.filter(lambda tags: len(tags) > 1), st.randoms())
def test_reordering_changes_the_digest(tags, random):
    other = random.sample(tags, len(tags))
    same = Taxonomy.from_mapping({"c": tags}, source="s").digest
    assert (Taxonomy.from_mapping({"c": other}, source="s").digest == same) == (other == tags)


WRONG_FILES = {
    "empty file": (b"", "line 1"),
    "not JSON": (b'{"genre": ["jazz"],\n "mood": [calm]}', "line 2 column 11"),
    "not UTF-8": (b'{"genre": ["caf\xe9"]}', "UTF-8"),
    "root is a list": (b'["jazz"]', "found a list"),
    "root is null": (b"null", "found null"),
    "no concepts": (b"{}", "empty"),
    "concept without tags": (b'{"genre": ["jazz"], "mood": []}', "'mood' has no tags"),
    "concept is text": (b'{"mood": "calm"}', "'mood' must be a list of tags, found text"),
    "concept is an object": (b'{"mood": {"calm": 1}}', "'mood'.*found an object"),
    "blank concept": (b'{" ": ["jazz"]}', "concept ' ' is blank"),
    "concept repeated in other case": (
        b'{"Mood": ["a"], "mood ": ["b"]}',
        "'mood ' repeats 'Mood'",
    ),
    "nested list": (b'{"mood": ["calm", ["sad"]]}', "'mood', tag 2.*found a list"),
    "nested object": (b'{"mood": [{"calm": 1}]}', "'mood', tag 1.*found an object"),
    "number": (b'{"mood": ["calm", 7]}', "'mood', tag 2.*found a number"),
    "null": (b'{"mood": [null]}', "'mood', tag 1.*found null"),
    "truth value": (b'{"mood": [true]}', "'mood', tag 1.*found a truth value"),
    "blank tag": (b'{"mood": ["calm", " \\t"]}', "'mood', tag 2.*blank"),
    "invisible tag": (b'{"mood": ["\\u200b"]}', "'mood', tag 1.*blank"),
    "half a character": (b'{"mood": ["\\ud800"]}', "'mood', tag 1.*Unicode"),
    "repeated key": (b'{"mood": ["calm"], "mood": ["sad"]}', "'mood' appears twice"),
    "NaN": (b'{"mood": [NaN]}', "NaN is not JSON"),
    "infinity": (b'{"mood": -Infinity}', "-Infinity is not JSON"),
    "long number": (b'{"mood": [' + b"1" * 5000 + b"]}", "not a taxonomy"),
    "too deep": (b"[" * 100_000, "recursion"),
    "two concepts": (b'{"genre": ["jazz"], "mood": [" Jazz"]}', "'jazz'.*'genre' and 'mood'"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_named_with_what_is_wrong_on_one_line(case, tmp_path):
    content, match = WRONG_FILES[case]
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        Taxonomy.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"nowhere\.json: No such file"):
        Taxonomy.load(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="directory"):
        Taxonomy.load(str(tmp_path))
    with pytest.raises(InputError, match="cannot read"):
        Taxonomy.load("nul\0.json")
    path = tmp_path / "big.json"
    path.write_text(json.dumps({"mood": ["x" * 2000]}))
    monkeypatch.setattr("jaxvae.data.readers.taxonomy_file.MAX_FILE_BYTES", 1024)
    with pytest.raises(InputError, match=r"big\.json: larger than"):
        Taxonomy.load(path)


def test_messages_do_not_repeat_megabytes(tmp_path):
    with pytest.raises(InputError) as caught:
        small().column("x" * 10**6)
    assert len(str(caught.value)) < 300


def test_a_mapping_is_checked_like_a_file():
    for mapping in (["jazz"], {1: ["jazz"]}, {"genre": {"jazz"}}, {"genre": "jazz"}, {}):
        with pytest.raises(InputError, match="here: "):
            Taxonomy.from_mapping(mapping, source="here")


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "windows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SMALL).encode())
    assert Taxonomy.load(str(path)) == small()


def test_the_shipped_taxonomy():
    taxonomy = Taxonomy.load()
    assert [name for name, _ in taxonomy.concepts] == ["genre", "mood", "instrument", "tempo"]
    assert 190 <= taxonomy.num_tags <= 230
    assert all(normalize(tag) == tag for tag in taxonomy.tags)
    assert taxonomy.merged == ()


def test_the_shipped_taxonomy_fits_musiccaps(shared_data):
    taxonomy = Taxonomy.load()
    with open(shared_data / "musiccaps-public.csv", encoding="utf-8", newline="") as file:
        rows = [ast.literal_eval(row["aspect_list"]) for row in csv.DictReader(file)]
    assert len(rows) == 5521
    kept = [row for row in rows if taxonomy.columns(row, on_unknown="ignore")]
    assert len(kept) >= 4800
