"""Lists of tags that are typed and printed, where tags hold commas, quotes and brackets."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.cli import main
from jaxvae.data.cells import tag_parser
from jaxvae.data.cells.tag_lists import NO_TAG, format_tags, parse_tags, quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from tests.helpers.networks import make_run

FOLK = "folk, world, & country"
TAXONOMY = Taxonomy.from_mapping(
    {
        "genre": ["Folk, World, & Country", "Hip Hop", "Funk / Soul", "folk", "[live]"],
        "more": ['12" single', "world", "hip hop, world", '"heroes"'],
    },
    source="test",
)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", []),
        (" , ", []),
        (NO_TAG, []),
        ("[]", []),
        ("jazz, upright bass", ["jazz", "upright bass"]),  # unknown tags end at commas
        ("Folk, World, & Country", ["Folk, World, & Country"]),
        ("hip hop,Folk, World, & Country,folk", ["hip hop", "Folk, World, & Country", "folk"]),
        ("folk, world", ["folk", "world"]),
        ("hip hop, world, folk", ["hip hop, world", "folk"]),
        ('"hip hop", world', ["hip hop", "world"]),
        ('hip hop, "world"', ["hip hop", "world"]),
        ('"Folk, World, & Country", "hip hop"', ["Folk, World, & Country", "hip hop"]),
        ('["Folk, World, & Country", "hip hop", ""]', ["Folk, World, & Country", "hip hop"]),
        ('12" single, folk', ['12" single', "folk"]),
        ('"12"" single"', ['12" single']),
        ('"""heroes"""', ['"heroes"']),
        ("[live], folk", ["[live]", "folk"]),
        ('"weird al" yankovic, folk', ['"weird al" yankovic', "folk"]),
    ],
)
def test_a_typed_list_is_read_as_it_was_meant(text, tags):
    assert parse_tags(text, TAXONOMY, option="--with") == tags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["folk"', r"^--with '\[\"folk\"': begins like a JSON list and is none \(.*\); write"),
        ("['folk']", "begins like a JSON list and is none"),
        ('["folk", 3]', "^--with: item 2 of the list is 3, not text; write"),
        ('[["folk"]]', r"item 1 of the list is \[\"folk\"\], not text"),
        ("[" * 100_000, "begins like a JSON list and is none"),
    ],
)
def test_what_is_no_list_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_tags(text, TAXONOMY, option="--with")


TAGS = st.text(st.sampled_from(list("ab ,\"'[]()&\\\n\u00e9")), min_size=1, max_size=8).filter(
    str.strip
)


@given(st.lists(TAGS, max_size=5), st.lists(TAGS.map(str.strip), max_size=5))
def test_what_is_written_reads_back(tags, known):
    taxonomy = Taxonomy.from_mapping({"all": [*known, "a", *tags]}, source="test")
    text = format_tags(tags, taxonomy)
    assert "\n" not in text
    assert parse_tags(text, taxonomy, option="--with") == tags
    # A tag that is known elsewhere as part of a longer one, too.
    longer = Taxonomy.from_mapping({"all": [", ".join(tags) or "a"]}, source="test")
    assert parse_tags(format_tags(tags, longer), longer, option="--with") == tags


@given(st.lists(TAGS.map(str.strip), min_size=1, max_size=5), st.lists(TAGS, max_size=3))
def test_what_is_written_reads_back_from_a_cell(tags, known):
    taxonomy = Taxonomy.from_mapping({"all": [*known, *tags]}, source="test")
    assert tag_parser.parse_tags(format_tags(tags, taxonomy), taxonomy) == tags


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        (NO_TAG, []),
        ("Folk, World, & Country, jazz", ["Folk, World, & Country", "jazz"]),
        ('jazz, "Folk, World, & Country"', ["jazz", "Folk, World, & Country"]),
        ("[live]", ["[live]"]),
        ("['Folk, World, & Country', 'jazz']", ["Folk, World, & Country", "jazz"]),
        ('"folk, world"', ["folk", "world"]),  # a cell that is quoted as a whole
        ("folk, jazz", ["folk", "jazz"]),
    ],
)
def test_a_cell_may_hold_what_a_command_takes(cell, tags):
    assert tag_parser.parse_tags(cell, TAXONOMY) == tags


@pytest.mark.parametrize("tag", ["'single'", "null", "nan", "None", "''", "n", "'90s"])
def test_a_known_tag_that_looks_like_another_thing_is_that_tag(tag):
    taxonomy = Taxonomy.from_mapping({"all": [tag, "jazz"]}, source="test")
    for tags in ([tag], [tag, "jazz"], ["jazz", tag]):
        assert tag_parser.parse_tags(format_tags(tags, taxonomy), taxonomy) == tags
    assert tag_parser.parse_tags("null") == []


@pytest.mark.parametrize(
    "cell", ["[live], jazz", "folk(live)", "['folk' 'world', 'jazz']", "folk (uk"]
)
def test_brackets_of_no_known_tag_stay_refused(cell):
    with pytest.raises(tag_parser.TagParseError):
        tag_parser.parse_tags(cell, TAXONOMY)


def test_only_tags_that_need_quotes_have_them():
    assert format_tags(["hip hop", "rock'n'roll"], TAXONOMY) == "hip hop, rock'n'roll"
    assert format_tags([FOLK, "hip hop"], TAXONOMY) == f'"{FOLK}", hip hop'
    assert format_tags(["hip hop", "world"], TAXONOMY) == '"hip hop", "world"'
    assert quote_tag(FOLK) == f'"{FOLK}"'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported model whose tags hold a comma, quotes and an apostrophe."""
    path = tmp_path_factory.mktemp("model") / "model.pth"
    make_run("normal", False, False, None).export(path)
    return str(path)


def printed(capsys, *arguments):
    code = main.main(list(arguments))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


@pytest.mark.long
@pytest.mark.parametrize("text", ["jazz, a,b", 'jazz, "a,b"', '["jazz", "a,b"]', "A,B, jazz"])
def test_complete_takes_a_tag_with_a_comma_either_way(capsys, model, text):
    sets = json.loads(printed(capsys, "complete", model, "--with", text, "--format", "json"))
    assert sets
    assert all({"jazz", "a,b"} <= set(each["tags"]) for each in sets)
    sets = json.loads(printed(capsys, "complete", model, "--without", text, "--format", "json"))
    assert sets
    assert not any({"jazz", "a,b"} & set(each["tags"]) for each in sets)


def test_traverse_goes_round_a_tag_with_a_comma(capsys, model):
    text = printed(capsys, "traverse", model, "--around", "a,b, calm", "--dim", "0", "--top", "7")
    assert text.startswith('Dimension 0, around "a,b", calm (z = ')
    assert '"a,b" 0.' in text


def test_the_text_of_sample_and_complete_reads_back(capsys, model, tmp_path):
    run = make_run("normal", False, False, None)
    options = ("--num", "40", "--decode", "threshold")
    sets = json.loads(printed(capsys, "sample", model, *options, "--format", "json"))
    lines = printed(capsys, "sample", model, *options).splitlines()
    assert any("a,b" in tags for tags in sets)
    assert [parse_tags(line, run.taxonomy, option="--with") for line in lines] == sets

    rows = tmp_path / "rows.csv"
    with rows.open("w", newline="") as file:
        csv.writer(file).writerows([["aspect_list"], *([line] for line in lines)])
    told = printed(
        capsys, "encode", model, "--input", str(rows), "--output", str(tmp_path / "latents.csv")
    )
    assert "unknown" not in told
    with (tmp_path / "latents.csv").open(newline="") as file:
        means = [float(row["mean_0"]) for row in csv.DictReader(file)]
    expected = np.where([len(tags) > 0 for tags in sets], run.encode(sets)[:, 0], np.nan)
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-6)

    sets = json.loads(printed(capsys, "complete", model, "--with", "a,b", "--format", "json"))
    lines = printed(capsys, "complete", model, "--with", "a,b").splitlines()[1 : 1 + len(sets)]
    texts = [line.split(maxsplit=1)[1] for line in lines]
    assert [parse_tags(text, run.taxonomy, option="--with") for text in texts] == [
        each["tags"] for each in sets
    ]


def test_an_unknown_tag_of_a_list_is_named(capsys, model):
    assert main.main(["complete", model, "--with", "jazzz, a,b"]) == 2
    assert "unknown tag 'jazzz' (did you mean 'jazz'?)" in capsys.readouterr().err


def test_the_first_part_of_a_tag_with_commas_says_which_was_meant():
    with pytest.raises(InputError, match=r"unknown tag 'Folk' \(did you mean 'folk, world"):
        Taxonomy.from_mapping({"genre": [FOLK]}, source="test").column("Folk")
    with pytest.raises(InputError, match="unknown tag 'Polka': not in test"):
        Taxonomy.from_mapping({"genre": [FOLK]}, source="test").column("Polka")
