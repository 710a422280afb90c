"""Splits of drawn sets by a digest of each set, so that equal sets of all files share a split.

Of pairs, whose sets are kept together, the digest is that of the set without the tag.
"""

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Sequence

from jaxvae.data.splits import SPLITS
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError

SHARES = (0.9, 0.05, 0.05)
"""Shares of the splits, as in training."""
_ID_BYTES = 8
_POINT_BYTES = 6


def check_shares(shares: Iterable[float]) -> None:
    """Raises InputError unless the shares of the splits are three that sum to 1."""
    shares = tuple(shares)
    text = ",".join(f"{share:g}" for share in shares)
    if len(shares) != len(SPLITS):
        raise InputError(f"splits {text}: give three shares, of {', '.join(SPLITS)}")
    if not all(0.0 <= share <= 1.0 for share in shares) or abs(sum(shares) - 1.0) > 1e-6:
        raise InputError(f"splits {text}: shares are from 0 to 1 and sum to 1, not {sum(shares):g}")


def identify(
    taxonomy: Taxonomy, columns: Iterable[int], shares: Sequence[float]
) -> tuple[str, str]:
    """Returns the id of a set and its split.

    The id is the beginning of the SHA-256 of the set's normalised tags, sorted, a line each; the
    split follows from the digits after it.

    Args:
      taxonomy: the tags.
      columns: columns of the set's tags.
      shares: shares of `SPLITS`, which sum to 1.
    """
    tags = sorted(taxonomy.tags[column] for column in columns)
    digest = hashlib.sha256("\n".join(tags).encode()).digest()
    digits = int.from_bytes(digest[_ID_BYTES : _ID_BYTES + _POINT_BYTES], "big")
    edges = list(itertools.accumulate(shares))
    point = digits / 2.0 ** (8 * _POINT_BYTES) * edges[-1]
    return digest[:_ID_BYTES].hex(), SPLITS[bisect.bisect_right(edges[:-1], point)]
