"""Finds likely variants of one tag: `hip hop`, `hip-hop` and `hiphop`, plurals, typing errors."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from jaxvae.data.spelling import normalize

_LETTERS = re.compile(r"[\W_]+")
_LEAST_LETTERS = 6
"""Shorter words that differ in one letter are rather two tags: `bass` and `brass`."""
_MUCH_COMMONER = 5
"""How much commoner a tag must be than its misspelling."""


def find_variants(counts: Iterable[tuple[str, int]]) -> dict[str, str]:
    """Maps less common variants of tags to the commonest.

    Args:
        counts: (tag, rows), all tags different.

    Returns:
        Pairs of a variant and the tag it is likely to be, neither of which is in another pair the
        other way round.
    """
    ranked = [tag for tag, _ in sorted(counts, key=lambda item: (-item[1], item[0]))]
    rows = dict(counts)
    variants: dict[str, str] = {}
    by_letters: dict[str, str] = {}
    for tag in ranked:
        letters = _LETTERS.sub("", normalize(tag))
        if not letters:
            continue
        earlier = next((by_letters[key] for key in _singulars(letters) if key in by_letters), None)
        if earlier is not None:
            variants[tag] = earlier
        else:
            by_letters[letters] = tag
    for letters, misspelt in _one_letter_apart(by_letters):
        tag, second = by_letters[letters], by_letters[misspelt]
        common, rare = sorted((tag, second), key=lambda name: -rows[name])
        if rows[common] >= _MUCH_COMMONER * max(1, rows[rare]) and rare not in variants:
            variants[rare] = common
    return {variant: _root(tag, variants) for variant, tag in variants.items()}


def _root(tag: str, variants: dict[str, str]) -> str:
    while tag in variants:
        tag = variants[tag]
    return tag


def _singulars(letters: str) -> Iterator[str]:
    """Yields a word, and the words of which it may be the plural, or which may be its plural."""
    yield letters
    yield letters + "s"
    yield letters + "es"
    if letters.endswith("y"):
        yield letters[:-1] + "ies"
    if letters.endswith("ies"):
        yield letters[:-3] + "y"
    if letters.endswith("es"):
        yield letters[:-2]
    if letters.endswith("s") and not letters.endswith("ss") and len(letters) > 3:
        yield letters[:-1]


def _one_letter_apart(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yields pairs of longer words that differ in one letter: another, one more, or two swapped.

    Numbers are never mistyped: `80s` and `90s` are two tags.
    """
    shortened: defaultdict[str, list[str]] = defaultdict(list)
    for word in words:
        if len(word) >= _LEAST_LETTERS and not any(map(str.isdigit, word)):
            for key in {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}:
                shortened[key].append(word)
    pairs = {
        (first, second)
        for group in shortened.values()
        for first in group
        for second in group
        if first < second and _differ_by_one(first, second)
    }
    yield from sorted(pairs)


def _differ_by_one(first: str, second: str) -> bool:
    if len(first) != len(second):
        long, short = sorted((first, second), key=len, reverse=True)
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    places = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    swapped = len(places) == 2 and places[1] == places[0] + 1
    return len(places) == 1 or (
        swapped and first[places[0]] == second[places[1]] and first[places[1]] == second[places[0]]
    )
