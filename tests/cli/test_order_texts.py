"""Orders of tag sets, as they are typed."""

import pytest

from jaxvae.cli import order_texts
from jaxvae.errors import InputError
from tests.helpers.networks import TAXONOMY


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", {}),
        ("genre=1..2, tempo=1", {"genre": (1, 2), "tempo": (1, 1)}),
        ("genre = 1.. ,mood=..3,", {"genre": (1, None), "mood": (None, 3)}),
        ('mood/theme=2, voice, solo=1, "a=b ""c"""=0', {"mood/theme": (2, 2), "voice, solo": (1, 1), 'a=b "c"': (0, 0)}),
        ("genre", None),
        ("genre=", None),
        ("genre=x", None),
        ("genre=1.5", None),
        ("genre=-1", None),
        ("genre=1, genre=2", None),
        ("genre=99999999999", None),
    ],
)  # fmt: skip
def test_counts_are_read_as_they_are_typed(text, counts):
    if counts is None:
        with pytest.raises(InputError, match="--count"):
            order_texts.parse_counts(text)
    else:
        assert order_texts.parse_counts(text) == counts


@pytest.mark.parametrize(
    ("text", "balance"),
    [
        (None, None),
        ("genre", "genre"),
        ("jazz", "jazz"),
        ("jazz, calm", ["jazz", "calm"]),
        ("jazz=0.7, calm=.3", {"jazz": 0.7, "calm": 0.3}),
        ('"a,b"=0.5,r&b = 0.5', {"a,b": 0.5, "r&b": 0.5}),
        ('"genre"', "genre"),
        ('"jazz", "calm"', ["jazz", "calm"]),
        ("jazz=0.5, calm", "expected tags with their shares"),
        ("jazz=0.5, jazz=0.5", "jazz is given twice"),
    ],
)
def test_balances_are_read_as_they_are_typed(text, balance):
    if isinstance(balance, str) and " " in balance:
        with pytest.raises(InputError, match=balance):
            order_texts.parse_balance(text, TAXONOMY)
    else:
        assert order_texts.parse_balance(text, TAXONOMY) == balance
