"""Which separator a column has: certain, or asked."""

import pytest

from jaxvae.data.cells.tag_parser import parse_tags
from jaxvae.data.layouts.separators import find_separator
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

TAXONOMY = Taxonomy.from_mapping(
    {"all": ["rock", "jazz", "upright bass", "Funk / Soul", "Folk, World"]}, source="test"
)
JOINED = {
    "|": ["rock|jazz", "jazz|upright bass", "rock"],
    ";": ["rock; jazz", "jazz ;upright bass", "rock"],
    "/": ["rock / jazz", "jazz/upright bass", "rock"],
    "\n": ["rock\njazz", "jazz\nupright bass", "rock"],
    "#": ["#rock #jazz", "#jazz #upright bass", "#rock"],
    "，": ["rock，jazz", "jazz，upright bass", "rock"],
    "、": ["rock、jazz", "jazz、upright bass", "rock"],
    "،": ["rock، jazz", "jazz، upright bass", "rock"],
    ",": ["rock, jazz", "jazz,upright bass", "rock"],
}


@pytest.mark.parametrize("taxonomy", [TAXONOMY, None])
@pytest.mark.parametrize("mark", JOINED)
def test_the_separator_that_explains_the_cells_is_found_and_cuts_them(mark, taxonomy):
    assert find_separator(JOINED[mark], taxonomy, "clips.csv") == mark
    cells = [[tag.strip() for tag in parse_tags(cell, taxonomy, mark)] for cell in JOINED[mark]]
    assert cells == [["rock", "jazz"], ["jazz", "upright bass"], ["rock"]]


@pytest.mark.parametrize(
    ("cells", "taxonomy", "found"),
    [
        (["Funk / Soul", "rock", "Funk / Soul, jazz"], TAXONOMY, ","),
        (["Funk / Soul", "rock", "Funk / Soul"], None, ","),  # the two are always together
        (["Funk / Soul, jazz", "rock, jazz", "Soul, rock"], None, ","),
        (["AC/DC", "soul/funk", "soul", "funk", "AC/DC"] * 9, None, ","),  # one of them is one tag
        (["http://x.org/rock", "http://x.org/pop", "x.org"] * 9, None, ","),
        (["rock/pop", *["rock", "pop", "jazz"] * 9], None, ","),  # few hold it
        (["rock", "jazz"], None, ","),
        ([["rock"], ["jazz|rock"]], None, ","),
        (["['rock', 'jazz']", "rock|jazz", "rock|jazz"], None, "|"),  # known from a list
        (["a|b", "c|d"], None, ","),  # nothing comes again
        ([], None, ","),
        ([None, 3, "nan", ""], TAXONOMY, ","),
        (["x|y", "z|w"], TAXONOMY, ","),  # no known tag either way
        (["see C#", "rock #jazz"], TAXONOMY, ","),
        (["rock|Folk, World", "jazz|rock"], TAXONOMY, "|"),
    ],
)
def test_other_marks_are_part_of_a_tag(cells, taxonomy, found):
    assert find_separator(cells, taxonomy, "clips.csv") == found


@pytest.mark.parametrize(
    ("cells", "taxonomy"),
    [
        (["rock|jazz;dub", "rock|jazz;dub", "jazz;dub", "rock|jazz", "dub"], None),
        (["rock|jazz", "jazz|rock", "rock;jazz", "jazz;rock"], TAXONOMY),
    ],
)
def test_two_that_would_do_are_asked_for(cells, taxonomy):
    with pytest.raises(InputError) as caught:
        find_separator(cells, taxonomy, "clips.csv, column tags")
    message = str(caught.value)
    assert message.startswith("clips.csv, column tags: tags may be separated by '|' or ';'")
    assert "--config.data.separator=" in message


@pytest.mark.parametrize("taxonomy", [TAXONOMY, None])
@pytest.mark.parametrize("mark", ["|", ";", "/"])
def test_rows_with_another_separator_than_most_are_asked_for(mark, taxonomy):
    """Their tags would be lost, and a file with both may be read by both."""
    cells = ["rock, jazz", "jazz, upright bass", "rock"] * 20 + [f"rock{mark}jazz"] * 10
    with pytest.raises(InputError) as caught:
        find_separator(cells, taxonomy, "clips.csv")
    separator = f",{mark}"
    assert str(caught.value).endswith(f"or, where all do, ={separator!r}")
    for cell in ("rock, jazz", f"rock{mark}jazz"):
        assert [tag.strip() for tag in parse_tags(cell, taxonomy, separator)] == ["rock", "jazz"]
    assert parse_tags("['rock, jazz']", taxonomy, separator) == ["rock, jazz"]


def test_a_cell_of_very_many_tags_takes_no_memory_of_its_square():
    """Ten thousand tags in one cell once took gigabytes."""
    import tracemalloc

    cells = ["rock"] * 50 + [",".join(f"t{n}" for n in range(10_000))] + ["pop"] * 50
    tracemalloc.start()
    find_separator(cells, None, "clips.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20
