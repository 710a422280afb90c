"""Collects blocks of tags as rows of numbers, and counts every row that is dropped."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from jaxvae.data import encoding
from jaxvae.data.encoding import TagBlock
from jaxvae.data.spelling import clean_spelling, normalize
from jaxvae.data.spill_array import SpillArray
from jaxvae.data.summary import SHOWN, describe_unreadable
from jaxvae.errors import InputError

_MANY = 2**32


class CollectedRows:
    """Rows with a tag, one after the other, and counts of the others.

    Attributes:
        columns: the rows' numbers, rising, one row after the other.
        lengths: [N] number of tags of each row.
        source_row: [N] int64, each row's 0-based position among the source's rows.
        split: [N] uint8, positions in `splits.SPLITS`, where the source gives them; else None.
        num_read: rows of the source.
        num_unreadable: rows with an unreadable cell.
        num_gaps: missing tags among others.
        unreadable: the first of the unreadable rows.
        unknown: counts of the spellings without a number.
        num_known: tags that have a number, repeats counted.
        num_rated: tags that came with a number which is not used.
        num_light: tags left out for their weight.
        num_tagged: rows with a tag, known or not.
        num_single: rows with one tag, known or not.
    """

    def __init__(
        self, blocks: Iterable[TagBlock], column_of: Callable[[str], int], *, num_tags: int = 0
    ):
        """Reads all blocks.

        Args:
            blocks: the source's rows.
            column_of: maps a spelling to its number, -1 if it has none.
            num_tags: how many numbers there are; 0 if not known yet.
        """
        dtype = np.min_scalar_type(num_tags) if num_tags else np.dtype(np.uint32)
        flat, counts, positions = SpillArray(dtype), SpillArray(np.uint32), SpillArray(np.int64)
        split = SpillArray(np.uint8)
        self.unknown: Counter[str] = Counter()
        self.unreadable: list[dict] = []
        self.num_read = self.num_unreadable = self.num_gaps = self.num_known = 0
        self.num_rated = self.num_light = self.num_tagged = self.num_single = 0
        for block in blocks:
            columns, lengths, unknown = encoding.encode_block(block, column_of, num_tags or _MANY)
            self.unknown.update(unknown)
            for row, line, reason in block.unreadable[: SHOWN - len(self.unreadable)]:
                at_line = {} if line is None else {"line": line}
                self.unreadable.append({"row": self.num_read + row, **at_line, "reason": reason})
            nonempty = np.flatnonzero(lengths)
            flat.extend(columns.astype(dtype))
            counts.extend(lengths[nonempty].astype(np.uint32))
            positions.extend(self.num_read + nonempty)
            if block.split is not None:
                split.extend(block.split[nonempty])
            self.num_read += block.num_rows
            self.num_unreadable += len(block.unreadable)
            self.num_gaps += block.num_gaps
            self.num_known += len(block.word) - unknown.total()
            self.num_rated += block.num_rated
            self.num_light += block.num_light
            num_tags_of_row = np.bincount(block.row)
            self.num_tagged += int((num_tags_of_row > 0).sum())
            self.num_single += int((num_tags_of_row == 1).sum())
        self.columns, self.lengths = flat.array(), counts.array()
        self.source_row = positions.array()
        self.split = split.array() if len(split.array()) else None

    def check_readable(self, source: str, max_fraction: float) -> None:
        """Checks that there are rows, and that no more than a share of them are unreadable.

        Raises:
            InputError: there are none, or too many are unreadable.
        """
        if not self.num_read:
            raise InputError(f"{source}: there are column names but no rows")
        if self.num_unreadable > max_fraction * self.num_read:
            first = describe_unreadable(self.unreadable[0])
            enough = np.ceil(self.num_unreadable / self.num_read * 100.0) / 100.0
            raise InputError(
                f"{source}: {self.num_unreadable:,} of {self.num_read:,} rows are unreadable, more "
                f"than the {max_fraction:.2%} allowed; the first is {first}; mend them, or allow "
                f"more by --config.data.max_unreadable_fraction={float(enough)}"
            )


class Spellings:
    """Numbers tags as they come, whatever their spelling, and counts their spellings.

    Attributes:
        tags: the distinct normalised tags, by number.
    """

    def __init__(self) -> None:
        self.tags: list[str] = []
        self._number_of: dict[str, int] = {}
        self._as_written: dict[str, int] = {}
        self._spelled: Counter[str] = Counter()
        self._in_concept: Counter[tuple[int, str]] = Counter()

    def number(self, tag: str) -> int:
        """Returns the number of a tag in any spelling, -1 if it is blank."""
        number = self._as_written.get(tag)
        if number is None:
            normal = normalize(tag)
            number = self._number_of.setdefault(normal, len(self.tags)) if normal else -1
            if number == len(self.tags):
                self.tags.append(normal)
            self._as_written[tag] = number
        return number

    def counting(self, blocks: Iterable[TagBlock]) -> Iterable[TagBlock]:
        """Passes blocks on, and counts the spellings and the concepts of their tags."""
        for block in blocks:
            counts = np.bincount(block.word, minlength=len(block.words)).tolist()
            for index, word in enumerate(block.words):
                self._spelled[word] += counts[index]
                if block.concepts is not None:
                    key = self.number(word), block.concepts[index]
                    self._in_concept[key] += counts[index]
            yield block

    def commonest(self) -> list[str]:
        """Returns the commonest spelling of each tag, by number; of equals the first that came."""
        cleaned: Counter[tuple[int, str]] = Counter()
        for spelling, number in self._as_written.items():
            if number >= 0:
                spelled = clean_spelling(spelling, self.tags[number])
                cleaned[number, spelled] += self._spelled[spelling]
        best: list[tuple[int, str]] = [(-1, "")] * len(self.tags)
        for (number, spelled), count in cleaned.items():
            if count > best[number][0]:
                best[number] = count, spelled
        return [spelled for _, spelled in best]

    def concepts(self) -> list[str] | None:
        """Returns the concept in which each tag is commonest, by number; None if none is known."""
        if not self._in_concept:
            return None
        best: dict[int, tuple[int, str]] = {}
        for (number, concept), count in self._in_concept.items():
            if number >= 0 and count > best.get(number, (-1, ""))[0]:
                best[number] = count, concept
        return [best[number][1] for number in range(len(self.tags))]
