"""The tags to balance and their shares of the sets."""

from collections.abc import Iterable, Mapping

from jaxvae.errors import InputError, did_you_mean
from jaxvae.inference.generation.constraints import Constraints, Range

Balance = str | Iterable[str] | Mapping[str, float]
"""A concept or a list of tags, of equal shares; or the share of each tag."""


def shares_of(constraints: Constraints, balance: Balance) -> dict[int, float]:
    """Returns the share of each tag, by its column; there are two at least and they sum to 1.

    Raises:
      InputError: a name is unknown, sets have no tag of the concept, or the shares are not positive
        numbers that sum to 1.
    """
    taxonomy = constraints.taxonomy
    if isinstance(balance, Mapping):
        shares = {taxonomy.column(tag): float(share) for tag, share in balance.items()}
        _check_sum(balance, shares)
    else:
        columns = (
            _columns_of(constraints, balance)
            if isinstance(balance, str)
            else taxonomy.columns(balance)
        )
        shares = dict.fromkeys(columns, 1.0 / max(1, len(columns)))
    if len(shares) < 2:
        raise InputError(f"balance: {len(shares)} tags to balance; there must be two or more")
    return shares


def may_have_several(constraints: Constraints, columns: Iterable[int]) -> bool:
    """Tells whether tags are of one concept whose count is given and may be other than 1."""
    names = {constraints.taxonomy.concept_of(column) for column in columns}
    spans = [constraints.count.get(name, Range(1, 1)) for name in names]
    return len(spans) == 1 and spans[0] != Range(1, 1)


def divide(num: int, shares: Mapping[int, float]) -> dict[int, int]:
    """Divides a number of sets by shares, as exactly as whole numbers can; by largest remainders.

    Of equal remainders the first ones get what is left.
    """
    exact = {column: num * share for column, share in shares.items()}
    numbers = {column: int(value + 1e-9) for column, value in exact.items()}
    by_remainder = sorted(exact, key=lambda column: round(numbers[column] - exact[column], 9))
    for column in by_remainder[: num - sum(numbers.values())]:
        numbers[column] += 1
    return numbers


def _columns_of(constraints: Constraints, concept: str) -> list[int]:
    concepts = dict(constraints.taxonomy.concepts)
    if concept not in concepts:
        raise InputError(
            f"balance: unknown concept {concept[:80]!r}{did_you_mean(concept, concepts)}; "
            f"the concepts are {', '.join(concepts)}"
        )
    if constraints.count.get(concept, Range(1, 1)).most == 0:
        raise InputError(f"balance {concept}: by count, sets have no tag of it")
    return [column for column in concepts[concept] if column not in constraints.absent]


def _check_sum(balance: Mapping[str, float], shares: Mapping[int, float]) -> None:
    if len(shares) < len(balance):
        raise InputError(f"balance {', '.join(balance)}: a tag comes twice")
    for tag, share in balance.items():
        if not 0.0 < share <= 1.0:
            raise InputError(f"balance {tag}={share:g}: a share is above 0 and at most 1")
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        text = ", ".join(f"{tag}={share:g}" for tag, share in balance.items())
        raise InputError(f"balance {text}: shares sum to 1, not {sum(shares.values()):g}")
