"""The tags to balance and their shares of the sets."""

from collections.abc import Hashable, Iterable, Mapping, Sized
from typing import TypeVar

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError, did_you_mean
from jaxvae.inference.generation.constraints import Constraints, Range

_Name = TypeVar("_Name", bound=Hashable)
Balance = str | Iterable[str] | Mapping[str, float]
"""A concept or a list of tags, of equal shares; or the share of each tag."""


def shares_of(constraints: Constraints, balance: Balance) -> dict[int, float]:
    """Returns the share of each tag, by its column; there are two at least and they sum to 1.

    Raises:
      InputError: a name is unknown, sets have no tag of the concept, or the shares are not positive
        numbers that sum to 1.
    """
    taxonomy = constraints.taxonomy
    columns = (
        _columns_of(constraints, balance)
        if isinstance(balance, str)
        else list(map(taxonomy.column, balance))
    )
    _check_once(taxonomy, columns)
    if isinstance(balance, Mapping):
        shares = dict(zip(columns, map(float, balance.values()), strict=True))
    else:
        shares = dict.fromkeys(sorted(columns), 1.0 / max(1, len(columns)))
    for column in shares:
        tag, concept = quote_tag(taxonomy.spellings[column]), taxonomy.concept_of(column)
        if constraints.count.get(concept, Range(1, 1)).most == 0:
            raise InputError(f"balance, {tag}: by count {concept}=0, sets have no tag of {concept}")
        if column in constraints.absent:
            raise InputError(f"balance, {tag}: the tag must be absent")
    if len(shares) < 2:
        raise InputError(f"balance: {len(shares)} tags to balance; there must be two or more")
    if isinstance(balance, Mapping):
        _check_sum(balance, shares)
    return shares


def may_have_several(constraints: Constraints, columns: Iterable[int]) -> bool:
    """Tells whether tags are of one concept whose count is given and may be other than 1."""
    names = {constraints.taxonomy.concept_of(column) for column in columns}
    spans = [constraints.count.get(name, Range(1, 1)) for name in names]
    return len(spans) == 1 and spans[0] != Range(1, 1)


def divide(num: int, shares: Mapping[_Name, float]) -> dict[_Name, int]:
    """Divides a number of sets by shares, as exactly as whole numbers can; by largest remainders.

    Of equal remainders the first ones get what is left.
    """
    total = sum(shares.values())
    exact = {name: num * share / total for name, share in shares.items()}
    numbers = {name: int(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: round(numbers[name] - exact[name], 9))
    for name in by_remainder[: num - sum(numbers.values())]:
        numbers[name] += 1
    return numbers


def divide_within(
    num: int, shares: Mapping[int, float], splits: Mapping[str, float]
) -> dict[int, dict[str, int]]:
    """Divides a number of sets by tags and by splits, so that both have their shares.

    The numbers of each tag, and those of each split, are those of `divide`. A tag's number in a
    split is the product of the shares, rounded down, and perhaps one more: the splits that lack
    most get these from the tags in turn. So of equal shares the numbers differ by one at most.

    Returns:
      By tag, then by split.
    """
    of_tags, of_splits = divide(num, shares), divide(num, splits)
    all_tags, all_splits = sum(shares.values()), sum(splits.values())
    numbers: dict[int, dict[str, int]] = {}
    lacking = dict(of_splits)
    for tag, share in shares.items():
        left, numbers[tag] = of_tags[tag], {}
        for split, part in splits.items():
            exact = num * (share / all_tags) * (part / all_splits)
            number = min(int(exact + 1e-9), left, lacking[split])
            numbers[tag][split] = number
            left -= number
            lacking[split] -= number
    for tag, of_tag in numbers.items():
        more = of_tags[tag] - sum(of_tag.values())
        # With columns that lack most first, a table with these sums is found if there is one
        # (Gale 1957, Ryser 1957).
        order = sorted(lacking, key=lambda split: -lacking[split])
        while more and any(lacking.values()):
            for split in order:
                if more and lacking[split]:
                    of_tag[split] += 1
                    lacking[split] -= 1
                    more -= 1
    return numbers


def _columns_of(constraints: Constraints, concept: str) -> list[int]:
    concepts = dict(constraints.taxonomy.concepts)
    if concept not in concepts and constraints.taxonomy.knows(concept):
        raise InputError(
            f"balance {quote_tag(concept)}: one tag alone can't be balanced; give two or more, "
            f"or a concept: {', '.join(concepts)}"
        )
    if concept not in concepts:
        raise InputError(
            f"balance: unknown concept {concept[:80]!r}{did_you_mean(concept, concepts)}; "
            f"the concepts are {', '.join(concepts)}"
        )
    if constraints.count.get(concept, Range(1, 1)).most == 0:
        raise InputError(f"balance {concept}: by count, sets have no tag of it")
    return [column for column in concepts[concept] if column not in constraints.absent]


def check_enough(num: int, shares: Sized) -> None:
    """Raises InputError unless there is a set for each tag."""
    if num < len(shares):
        raise InputError(f"num {num}: fewer than the {len(shares)} tags to balance")


def _check_once(taxonomy: Taxonomy, columns: list[int]) -> None:
    if twice := [column for column in {*columns} if columns.count(column) > 1]:
        name = quote_tag(taxonomy.spellings[min(twice)])
        raise InputError(f"balance, {name}: the tag comes twice")


def _check_sum(balance: Mapping[str, float], shares: Mapping[int, float]) -> None:
    for tag, share in balance.items():
        if not 0.0 < share <= 1.0:
            raise InputError(f"balance {tag}={share:g}: a share is above 0 and at most 1")
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        text = ", ".join(f"{tag}={share:g}" for tag, share in balance.items())
        raise InputError(f"balance {text}: shares sum to 1, not {sum(shares.values()):g}")
