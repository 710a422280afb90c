"""Parses what is typed of an order for tag sets: counts, ranges, shares, numbers."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaxvae.data.cells.tag_lists import parse_tags
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.taxonomy import Taxonomy

_RANGE = r"\d*\s*\.\.\s*\d*|\d+"
_NAMED = r'\s*(?:"((?:[^"]|"")+)"|([^"=][^=]*?))\s*=\s*(%s)\s*(?:,|\Z)'
_COUNT = re.compile(_NAMED % _RANGE)
_SHARE = re.compile(_NAMED % r"-?\d*\.?\d+")


def parse_counts(text: str) -> dict[str, tuple[int | None, int | None]]:
    """Parses `--count`: concepts, each with a number or a range, between commas."""
    form = "a concept and its number of tags, as in genre=1..2, tempo=1"
    return {
        concept: parse_range(f"--count {concept}", span)
        for concept, span in _assignments("--count", text, _COUNT, form)
    }


def parse_balance(
    text: str | None, taxonomy: "Taxonomy"
) -> str | list[str] | dict[str, float] | None:
    """Parses `--balance`: a concept, tags between commas, or tags with their shares."""
    if text is None or text in dict(taxonomy.concepts):
        return text
    if (name := unquoted(text, taxonomy, option="--balance")) is not None:
        return name
    if _SHARE.search(text) and not taxonomy.knows(text):
        form = "tags with their shares, as in jazz=0.7, rock=0.3"
        return {tag: float(share) for tag, share in _assignments("--balance", text, _SHARE, form)}
    return parse_tags(text, taxonomy, option="--balance") if "," in text else text


def unquoted(text: str, taxonomy: "Taxonomy", *, option: str) -> str | None:
    """Returns the one name that a text is, perhaps in double quotes; None for a list."""
    names = parse_tags(text, taxonomy, option=option)
    return names[0] if len(names) == 1 and "=" not in names[0] else None


def parse_range(option: str, text: str) -> tuple[int | None, int | None]:
    """Parses a number or a range, as 3..12, 3.. or ..3."""
    if not re.fullmatch(_RANGE, text.strip()):
        raise InputError(f"{option} {text[:80]!r}: expected a number, or a range as 3..12 or 3..")
    lowest, dots, highest = (end.strip() for end in text.partition(".."))
    if any(len(end) > 9 for end in (lowest, highest)):
        raise InputError(f"{option} {text[:80]!r}: the number is too large")
    ends = (int(lowest) if lowest else None, int(highest) if highest else None)
    return ends if dots else (ends[0], ends[0])


def parse_numbers(option: str, text: str, expected: str) -> tuple[float, ...]:
    """Parses numbers between commas; `expected` says what they are, for the message."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text[:80]!r}: expected {expected}") from None


def _assignments(
    option: str, text: str, pattern: re.Pattern, form: str
) -> Iterator[tuple[str, str]]:
    """Yields the names and values of a list such as `genre=1..2, tempo=1`."""
    position, names = 0, set()
    while text[position:].strip():
        match = pattern.match(text, position)
        if match is None:
            raise InputError(f"{option} {text[position:].strip()[:80]!r}: expected {form}")
        name = match[1].replace('""', '"') if match[1] else match[2]
        if name in names:
            raise InputError(f"{option}: {name} is given twice")
        names.add(name)
        yield name, match[3]
        position = match.end()
