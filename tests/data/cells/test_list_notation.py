"""Lists of tags as other programs print them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.data.cells.tag_parser import TagParseError, parse_cell, parse_tags
from jaxvae.data.taxonomy import Taxonomy


@pytest.mark.parametrize(
    ("cell", "tags", "gaps"),
    [
        ("['rock' 'upright bass' 'dark']", ["rock", "upright bass", "dark"], 0),  # NumPy
        ("['rock' 'upright bass'\n 'dark']", ["rock", "upright bass", "dark"], 0),
        ("[\"children's\" 'a\\\\b']", ["children's", "a\\b"], 0),
        ('{rock,jazz,"upright bass"}', ["rock", "jazz", "upright bass"], 0),  # PostgreSQL
        ('{"a \\"b\\"","c\\\\d",NULL}', ['a "b"', "c\\d"], 1),
        ("{}", [], 0),
        ("{NULL}", [], 1),
        ("{a}", ["a"], 0),
        ("[rock, upright bass, dark]", ["rock", "upright bass", "dark"], 0),  # DuckDB
        ("[rock, NULL, 'r&b, soul']", ["rock", "r&b, soul"], 1),
        ("[children's music, 90s]", ["children's music", "90s"], 0),
        ('["rock", null]', ["rock"], 1),
        ("['rock', nan, None]", ["rock"], 2),
        ("[‘rock’, ‘hip hop’]", ["rock", "hip hop"], 0),
        ("[“rock”, “hip hop”]", ["rock", "hip hop"], 0),
        ('[{"name": "rock", "count": 3}, {"name": "jazz"}]', ["rock", "jazz"], 0),
        ('["rock", {"name": "jazz"}, null]', ["rock", "jazz"], 1),
        ("rock (alternative), jazz", ["rock (alternative)", "jazz"], 0),
        ([None, "rock", float("nan")], ["rock"], 2),
        ({"rock"}, ["rock"], 0),
        ("set()", [], 0),
        ("(untitled)", ["(untitled)"], 0),
        ([{"id": 3, "tag": "rock"}], ["rock"], 0),
    ],
)
def test_notations(cell, tags, gaps):
    assert [tag.strip() for tag in parse_cell(cell).tags] == tags
    assert parse_cell(cell).num_gaps == gaps


def test_numpy_cuts_a_long_list_and_says_so():
    tags = np.array([f"tag {number}" for number in range(2000)])
    assert "..." in str(tags)
    with pytest.raises(TagParseError, match=r"cut short by '\.\.\.'"):
        parse_tags(str(tags))
    assert parse_tags(str(tags[:9])) == tags[:9].tolist()


PLAIN = st.text(st.characters(categories=("L", "N", "Zs", "P", "S")), min_size=1, max_size=9)
TAGS = st.lists(PLAIN.filter(lambda tag: tag.strip() and tag.isprintable()), min_size=2, max_size=6)


@given(TAGS)
def test_what_numpy_prints_is_read_back(tags):
    with np.printoptions(linewidth=30):
        assert parse_tags(str(np.array(tags))) == tags


@given(TAGS)
def test_what_postgresql_prints_is_read_back(tags):
    quoted = [json.dumps(tag, ensure_ascii=False) for tag in tags]
    assert set(parse_tags("{" + ",".join(quoted) + "}")) == set(tags)


@given(st.lists(st.from_regex(r"[a-z][a-z0-9' &-]{1,8}[a-z]", fullmatch=True), min_size=1))
def test_what_duckdb_prints_is_read_back(tags):
    tags = [tag for tag in tags if tag not in ("nan", "none", "null")] or ["aa"]
    assert parse_tags("[" + ", ".join(tags) + "]") == tags


def test_a_known_tag_in_brackets_stays_one_and_a_list_stays_a_list():
    taxonomy = Taxonomy.from_mapping({"all": ["[live]", "live", "jazz"]}, source="test")
    assert parse_tags("[live]", taxonomy) == ["live"]  # a list of a known tag
    only = Taxonomy.from_mapping({"all": ["[live]", "jazz"]}, source="test")
    assert parse_tags("[live]", only) == ["[live]"]
    assert parse_tags("[jazz]", only) == ["jazz"]
