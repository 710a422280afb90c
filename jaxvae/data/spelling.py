"""Spells tags: as they are compared, as they are shown, and as messages quote them."""

import re
import unicodedata

# A wrong file can hold a "tag" of megabytes, too long for a message and for difflib.
MAX_QUOTED = 80

_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


def normalize(tag: str) -> str:
    """Returns the canonical spelling under which variants of a tag are compared.

    Compatibility forms are composed (NFKC), invisible characters dropped, case folded, white space
    collapsed and stripped. Normalising twice changes nothing.

    Args:
        tag: any text.
    """
    while True:
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", tag))
        text = " ".join(text.casefold().split())
        # After case folding or dropping a joiner, characters may compose anew.
        if text == tag:
            return text
        tag = text


def clean_spelling(raw: str, tag: str) -> str:
    """Returns a tag as it was written, on one line and without invisible characters.

    Args:
        raw: the tag as written.
        tag: the same, normalised.
    """
    spelling = " ".join(_INVISIBLE.sub("", raw).split())
    # The spelling must normalise back to the tag; without joiners, some accents would compose.
    return spelling if normalize(spelling) == tag else tag


def quote(text: str) -> str:
    """Quotes a user's text on one line, truncated if very long."""
    return repr(cut(text))


def cut(text: str, most: int = MAX_QUOTED) -> str:
    """Shortens a text that is too long for a message."""
    return text if len(text) <= most else text[:most] + "…"
