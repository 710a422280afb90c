"""Parses lists of tags typed on a command line, and formats them as commands print them.

A tag may hold a comma, as Discogs' "Folk, World, & Country" does, so a comma alone does not say
where a tag ends: the taxonomy does, or quotes do. `format_tags` writes what `parse_tags` reads, and
what `tag_parser.parse_tags` reads where the taxonomy is known.
"""

import functools
import json
import re
from collections.abc import Iterable, Sequence

from jaxvae.data.spelling import quote
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

NO_TAG = "(no tag)"


def parse_tags(text: str, taxonomy: Taxonomy, *, option: str) -> list[str]:
    """Parses a typed list of tags; every tag keeps its spelling.

    The list is a JSON list of texts, or tags between commas. Among commas a tag may stand in
    double quotes, as in CSV; without quotes the longest known tag wins, so a known tag may hold
    commas. Blank tags are left out, and `(no tag)` is the empty list.

    Args:
        text: the typed text.
        taxonomy: the known tags. Unknown ones are returned too.
        option: the option's name, for messages.

    Raises:
        InputError: the text is a JSON list with an item that is not text, or begins like a JSON
            list without being one, and does not begin with a known tag either.
    """
    if text.strip() == NO_TAG:
        return []
    fault = None
    if text.lstrip().startswith("["):
        try:
            return _from_json(json.loads(text), option)
        except (json.JSONDecodeError, RecursionError) as error:
            fault = getattr(error, "msg", "nested too deeply")
    tags = split_tags(text, taxonomy)
    if fault and not taxonomy.knows(tags[0]):
        raise InputError(
            f"{option} {quote(text)}: begins like a JSON list and is none ({fault}); "
            'write ["a tag", "another"], or tags between commas'
        )
    return tags


def format_tags(tags: Sequence[str], taxonomy: Taxonomy) -> str:
    """Writes a list of tags as one line of text, from which `parse_tags` makes the same list.

    Args:
        tags: tags, none of them blank.
        taxonomy: the known tags.
    """
    if not tags:
        return NO_TAG
    for text in (_joined(map(quote_tag, tags)), _joined(map(_in_quotes, tags))):
        if text.isprintable() and split_tags(text, taxonomy) == list(tags):
            return text
    return json.dumps(list(tags))


def quote_tag(tag: str) -> str:
    """Formats a tag for a comma-separated line, in double quotes if it needs them."""
    plain = not ("," in tag or '"' in tag or tag.startswith("[") or tag == NO_TAG)
    return tag if plain and tag == tag.strip() else _in_quotes(tag)


def _in_quotes(tag: str) -> str:
    return '"' + tag.replace('"', '""') + '"'


def _joined(items: Iterable[str]) -> str:
    return ", ".join(items)


def _from_json(items: list, option: str) -> list[str]:
    for position, item in enumerate(items, start=1):
        if not isinstance(item, str):
            raise InputError(
                f"{option}: item {position} of the list is {json.dumps(item):.80}, not text; "
                'write ["a tag", "another"]'
            )
    return [tag for tag in items if tag.strip()]


def split_tags(text: str, taxonomy: Taxonomy, separator: str = ",") -> list[str]:
    """Splits a text at its commas, except commas inside quotes or inside a known tag.

    Args:
        text: tags between commas, each perhaps in double quotes; the longest known tag wins.
        taxonomy: the known tags. Unknown ones end at the next comma.
        separator: what stands in place of the comma.
    """
    if not taxonomy.most(separator) and '"' not in text:
        return [tag.strip() for tag in text.split(separator) if tag.strip()]
    tags: list[str] = []
    position = 0
    while position < len(text):
        quoted = _quoted(separator).match(text, position)
        if quoted:
            tag, position = quoted[1].replace('""', '"'), quoted.end()
        else:
            tag, position = _plain_tag(text, position, taxonomy, separator)
        if tag.strip():
            tags.append(tag)
    return tags


@functools.cache
def _quoted(separator: str) -> re.Pattern[str]:
    """Returns a pattern of a tag in double quotes, a quote in it doubled, and what ends it."""
    return re.compile(rf'\s*+"((?:[^"]|"")*+)"\s*+(?:{re.escape(separator)}|\Z)')


def _plain_tag(text: str, start: int, taxonomy: Taxonomy, separator: str) -> tuple[str, int]:
    """Returns the longest known tag at a position, or else the text before the next separator."""
    stop = _next(text, start, separator)
    tag, end = text[start:stop].strip(), stop + len(separator)
    for _ in range(taxonomy.most(separator)):
        # A quoted text is a tag by itself.
        if stop == len(text) or _quoted(separator).match(text, stop + len(separator)):
            break
        stop = _next(text, stop + len(separator), separator)
        longer = text[start:stop].strip()
        if taxonomy.knows(longer):
            tag, end = longer, stop + len(separator)
    return tag, end


def _next(text: str, start: int, separator: str) -> int:
    """Returns the position of the next separator, or of the text's end."""
    return len(text) if (position := text.find(separator, start)) < 0 else position
