"""Damage to the bytes of a file."""

import random

TOKENS = ["\n", "\r\n", ",", "\t", '"', "'", "[", "]", "{", "}", "...", "nan", "null", "NULL", "0"]
TOKENS += ["1", "2", "-1", "1e999", "é", "\ufeff", "\0", "|", ";", "#", "x" * 70_000, "9" * 30]
TOKENS = [token.encode() for token in TOKENS] + [b"\xff", b"\xe9", b"@data", b"%"]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut off, or with a few bytes put in, in the place of others or between; never the same."""
    broken = content
    while broken == content:
        if rng.random() < 0.1:
            return content[: rng.randrange(len(content))]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(broken) + 1)
            cut = rng.choice((0, 0, 1, 5, 40))
            token = rng.choice(TOKENS) if rng.random() < 0.7 else bytes([rng.randrange(256)])
            broken = broken[:at] + token + broken[at + cut :]
    return broken
