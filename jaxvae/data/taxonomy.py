"""The vocabulary: ordered tags in named concepts, and the mapping from tags to column numbers.

A taxonomy file is JSON, ``{concept: [tag, ...]}``, or with other names of its tags
``{"concepts": {concept: [tag, ...]}, "aliases": {other name: tag}}``. The order of the file is the
order of the columns, so two files with the same tags in another order are different vocabularies:
their digests differ, and a model trained with one must not be read with the other.

Tags are compared in the form that `normalize` returns, and displayed as the file spells them.
"""

import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxvae.config.paths import user_path
from jaxvae.data.readers.taxonomy_file import read_taxonomy_file
from jaxvae.data.spelling import MAX_QUOTED, clean_spelling, cut, normalize, quote
from jaxvae.errors import InputError, suggest, type_name

SHIPPED = Path(__file__).with_name("taxonomy.json")
_CONCEPTS, _ALIASES = "concepts", "aliases"


@dataclass(frozen=True)
class Taxonomy:
    """An ordered vocabulary of tags in concepts; column v of a row is ``tags[v]``.

    Create it by `load` or `from_mapping`, which validate. Two taxonomies are equal if their
    concepts and ordered tags are, regardless of their sources and spellings.

    Attributes:
        tags: the V tags, normalised, in column order; used for comparison.
        concepts: pairs of a concept's name and the range of its columns, in column order.
        spellings: the V tags as the taxonomy spells them, in column order; used for output. The
            first of several spellings of a tag counts; invisible characters and needless white
            space are dropped.
        source: the taxonomy's origin, for messages and run records.
        merged: tags, as written, that repeat an earlier tag of their concept and were left out.
        aliases: pairs of another name, as written, and the column of its tag.
    """

    tags: tuple[str, ...]
    concepts: tuple[tuple[str, range], ...]
    spellings: tuple[str, ...] = field(compare=False)
    source: str = field(default="memory", compare=False)
    merged: tuple[str, ...] = field(default=(), compare=False)
    aliases: tuple[tuple[str, int], ...] = field(default=(), compare=False)

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Taxonomy":
        """Reads a taxonomy file, or for None the one that is shipped with the package.

        Args:
            path: a UTF-8 JSON file of at most 64 MiB, in one of the two forms.

        Raises:
            InputError: the file cannot be read, or is not a valid taxonomy; the message is one line
                with the file and the line, concept or tag that is wrong.
        """
        if path is None:
            return cls.from_mapping(read_taxonomy_file(SHIPPED), source="the shipped taxonomy")
        return cls.from_mapping(read_taxonomy_file(user_path(path)), source=str(path))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Iterable[str]], *, source: str) -> "Taxonomy":
        """Validates a taxonomy in one of its two forms, and numbers its tags in order.

        Args:
            mapping: concepts in order, each a list or tuple of at least one tag; or an object of
                "concepts" and "aliases".
            source: the mapping's origin, for messages.

        Raises:
            InputError: as in `load`, for example for a tag listed under two concepts.
        """
        if not isinstance(mapping, Mapping):
            kind = type_name(mapping)
            raise InputError(f"{source}: expected an object {{concept: [tags]}}, found {kind}")
        if isinstance(mapping.get(_CONCEPTS), Mapping):
            return cls._from_sections(mapping, source)
        if not mapping:
            raise InputError(f"{source}: the taxonomy is empty; it needs at least one concept")
        owner: dict[str, str] = {}
        spellings: dict[str, str] = {}
        written_names: dict[str, str] = {}
        concepts: list[tuple[str, range]] = []
        merged: list[str] = []
        for key, listed in mapping.items():
            concept = _checked_concept(key, written_names, source)
            start = len(owner)
            where = f"{source}: concept {quote(concept)}"
            if not isinstance(listed, list | tuple):
                raise InputError(f"{where} must be a list of tags, found {type_name(listed)}")
            if not listed:
                raise InputError(f"{where} has no tags")
            for position, raw in enumerate(listed, start=1):
                tag = _checked_tag(raw, f"{where}, tag {position}")
                if tag not in owner:
                    owner[tag] = concept
                    spellings[tag] = clean_spelling(raw, tag)
                elif owner[tag] == concept:
                    merged.append(raw)
                else:
                    pair = f"{quote(owner[tag])} and {quote(concept)}"
                    name = quote(spellings[tag])
                    raise InputError(f"{source}: tag {name} is in two concepts, {pair}")
            concepts.append((concept, range(start, len(owner))))
        return cls(
            tags=tuple(spellings),
            concepts=tuple(concepts),
            spellings=tuple(spellings.values()),
            source=source,
            merged=tuple(merged),
        )

    @classmethod
    def _from_sections(cls, mapping: Mapping[str, Any], source: str) -> "Taxonomy":
        unknown = [key for key in mapping if key not in (_CONCEPTS, _ALIASES)]
        if unknown:
            raise InputError(
                f"{source}: unknown section {quote(str(unknown[0]))} beside 'concepts'; known is "
                f"'aliases'"
            )
        taxonomy = cls.from_mapping(mapping[_CONCEPTS], source=source)
        listed = mapping.get(_ALIASES, {})
        if not isinstance(listed, Mapping):
            raise InputError(
                f"{source}: 'aliases' must be an object {{other name: tag}}, found "
                f"{type_name(listed)}"
            )
        owner: dict[str, int] = {}
        for alias, tag in listed.items():
            where = f"{source}: alias {quote(str(alias))}"
            name = _checked_tag(alias, where)
            column = taxonomy._find(tag)
            if column is None:
                near = suggest(taxonomy.nearest(tag))
                raise InputError(f"{where} stands for {quote(tag)}, which is no tag{near}")
            if name in taxonomy._column_of:
                raise InputError(f"{where} is itself a tag; leave out one of the two")
            if owner.setdefault(name, column) != column:
                raise InputError(f"{where} stands for two tags, in two spellings")
        pairs = tuple((alias, taxonomy._column_of[normalize(tag)]) for alias, tag in listed.items())
        return dataclasses.replace(taxonomy, aliases=pairs)

    def to_file(self) -> dict[str, Any]:
        """Returns the contents of a taxonomy file: `to_mapping`, or two sections with aliases."""
        if not self.aliases:
            return self.to_mapping()
        aliases = {alias: self.spellings[column] for alias, column in self.aliases}
        return {_CONCEPTS: self.to_mapping(), _ALIASES: aliases}

    def to_mapping(self) -> dict[str, list[str]]:
        """Returns ``{concept: [tag, ...]}`` in the taxonomy's spellings.

        `from_mapping` turns this mapping into an equal taxonomy with the same spellings.
        """
        return self._by_concept(self.spellings)

    def _by_concept(self, names: tuple[str, ...]) -> dict[str, list[str]]:
        return {concept: [names[v] for v in columns] for concept, columns in self.concepts}

    @property
    def num_tags(self) -> int:
        """V, the number of columns."""
        return len(self.tags)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the concepts and their normalised tags, in order."""
        text = json.dumps(list(self._by_concept(self.tags).items()), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    @functools.cached_property
    def _column_of(self) -> dict[str, int]:
        by_alias = {name: v for alias, v in self.aliases for name in (alias, normalize(alias))}
        vocabularies = (self.spellings, self.tags)
        by_tag = {
            tag: column for vocabulary in vocabularies for column, tag in enumerate(vocabulary)
        }
        return by_alias | by_tag

    def most(self, separator: str) -> int:
        """Returns the greatest number of a separator, such as a comma, in one tag."""
        if separator not in self._most:
            names = (*self.tags, *(normalize(alias) for alias, _ in self.aliases))
            counts = (name.count(normalize(separator) or separator) for name in names)
            self._most[separator] = max(counts, default=0)
        return self._most[separator]

    @functools.cached_property
    def _most(self) -> dict[str, int]:
        return {}

    def knows(self, tag: str) -> bool:
        """Tests whether a tag, in any spelling, is in the taxonomy."""
        return self._find(tag) is not None

    def column(self, tag: str) -> int:
        """Returns the column of a tag in any spelling that normalises to it.

        Args:
            tag: a tag.

        Raises:
            InputError: the tag is not in the taxonomy; the message proposes the nearest tags.
        """
        column = self._find(tag)
        if column is None:
            near = self.nearest(tag)
            if not near:
                # Perhaps the text is the first part of a tag with commas, cut off by a list.
                start = normalize(tag)[:MAX_QUOTED] + ","
                longer = (v for v, candidate in enumerate(self.tags) if candidate.startswith(start))
                near = [cut(self.spellings[v]) for v in itertools.islice(longer, 1)]
            raise InputError(f"unknown tag {quote(tag)}{suggest(near)}: not in {self.source}")
        return column

    def columns(self, tags: Iterable[str], on_unknown: str = "error") -> list[int]:
        """Returns the distinct columns of several tags, in rising order.

        Args:
            tags: tags in any order and spelling, repeats allowed.
            on_unknown: the treatment of tags that are not in the taxonomy, "error" or "ignore".

        Raises:
            InputError: a tag is unknown and `on_unknown` is "error", or `tags` is one text rather
                than a list of texts.
        """
        if on_unknown not in ("error", "ignore"):
            raise InputError(f"on_unknown must be 'error' or 'ignore', not {on_unknown!r}")
        if isinstance(tags, str):
            raise InputError(f"expected a list of tags, found one text: {quote(tags)}")
        find = self.column if on_unknown == "error" else self._find
        return sorted({column for tag in tags if (column := find(tag)) is not None})

    def names(self, columns: Iterable[int]) -> list[str]:
        """Returns the tags of columns in the taxonomy's spelling, in the columns' order.

        Args:
            columns: column numbers, 0 to V - 1.

        Raises:
            InputError: a number is outside that range.
        """
        return [self.spellings[self._checked_column(column)] for column in columns]

    def concept_of(self, column: int) -> str:
        """Returns the name of a column's concept.

        Args:
            column: a column number, 0 to V - 1.

        Raises:
            InputError: the number is outside that range.
        """
        column = self._checked_column(column)
        return next(name for name, columns in self.concepts if column in columns)

    def nearest(self, tag: str, limit: int = 3) -> list[str]:
        """Returns the known tags most similar to a text, best first; possibly none.

        Args:
            tag: a text to compare, in any spelling.
            limit: the greatest number of tags to return.
        """
        near = difflib.get_close_matches(normalize(tag)[:MAX_QUOTED], self.tags, n=limit)
        return self.names(self._column_of[match] for match in near)

    def _find(self, tag: str) -> int | None:
        if not isinstance(tag, str):
            raise InputError(f"a tag must be text, found {type_name(tag)}")
        # Most tags are already spelt as in the taxonomy and need no normalisation.
        column = self._column_of.get(tag)
        return self._column_of.get(normalize(tag)) if column is None else column

    def _checked_column(self, column: int) -> int:
        number = operator.index(column)
        if not 0 <= number < self.num_tags:
            raise InputError(f"column {number} is outside 0..{self.num_tags - 1}")
        return number


def _checked_concept(key: object, seen: dict[str, str], source: str) -> str:
    """Returns a concept's name, stripped; `seen` maps normalised names to names as written."""
    if not isinstance(key, str):
        raise InputError(f"{source}: a concept's name must be text, found {type_name(key)}")
    folded = normalize(key)
    if not folded:
        raise InputError(f"{source}: the name of concept {quote(key)} is blank")
    if folded in seen:
        raise InputError(f"{source}: concept {quote(key)} repeats {quote(seen[folded])}")
    seen[folded] = key
    return key.strip()


def _checked_tag(raw: object, where: str) -> str:
    """Returns one tag, normalised, after checking that it is text and not blank."""
    if not isinstance(raw, str):
        raise InputError(f"{where}: must be text, found {type_name(raw)}")
    tag = normalize(raw)
    if not tag:
        raise InputError(f"{where}: {quote(raw)} is blank")
    if any("\ud800" <= character <= "\udfff" for character in tag):
        raise InputError(f"{where}: {quote(raw)} is not valid Unicode text")
    return tag
