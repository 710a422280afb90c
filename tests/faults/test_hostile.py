"""Thousands of malformed inputs of each kind: a message or a result, never anything else.

Inputs are drawn by `random`: Hypothesis, which the parsers' own tests use, takes longer to think of one
than a parser to read it.
"""

import collections
import csv
import io
import json
import math
import random
import sys
import time
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest

from jaxvae.config import parsing, schema
from jaxvae.data.cells.tag_parser import TagParseError, parse_tags
from jaxvae.data.dataset import load_dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.train.choices import CHOICES
from tests.conftest import ROOT
from tests.faults.conftest import write_anew
from tests.faults.damage import damaged
from tests.helpers.data_reports import check_sums

EACH = 5000
MEASURED = 0.1
MOST_SECONDS = 1.0
MOST_BYTES = 100 << 20

BITS = ["[", "]", "{", "}", "(", ")", "'", '"', ",", "\\", "\0", "nan", "None", "1e999", "-" * 999]
BITS += ["\ufeff", "\u200b", "\ud800", "é", "e\u0301", "jazz", "rock", ":", "__import__('os')"]
BITS += ["9" * 5000, "[" * 500, "\r\n", "\u2028", "\t", " ", "true", "null", "#"]
NUMBERS = [0, 1, -1, 2**31, -(2**63), 2**64, 10**400, 0.5, -0.0, 5e-324, 1e308, 1e-9]
NUMBERS += [math.nan, math.inf, -math.inf]
PLANES = (128, 256, 0x3000, sys.maxunicode + 1)
TAXONOMY = Taxonomy.from_mapping({"genre": ["jazz", "rock"], "mood": ["calm"]}, source="test")


def characters(rng: random.Random, most: int) -> str:
    """Up to so many, of all that Unicode has, and half of them ASCII."""
    size = rng.randrange(most + 1)
    below = rng.choice(PLANES)
    return "".join(chr(rng.randrange(rng.choice((128, below)))) for _ in range(size))


def text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return characters(rng, 40)
    return "".join(rng.choices(BITS, k=rng.randrange(13)))


def number(rng: random.Random) -> int | float:
    ordinary = rng.gauss(0.0, 1e3)
    return rng.choice((round(ordinary), ordinary, rng.choice(NUMBERS), rng.getrandbits(80)))


def plain(rng: random.Random, depth: int = 3):
    """What JSON can hold: a value, or lists and dictionaries of some, one in another."""
    kind = rng.random()
    if kind < 0.35 and depth:
        inner = [plain(rng, depth - 1) for _ in range(rng.randrange(5))]
        return inner if kind < 0.2 else {characters(rng, 5): value for value in inner[:3]}
    return rng.choice((None, rng.random() < 0.5, number(rng), text(rng), text(rng)))


def try_all(make, check) -> None:
    """Checks what is made of each of many generators; a failure says of which, and what it was."""
    for seed in range(EACH):
        example = make(random.Random(seed))
        try:
            check(example)
        except BaseException as error:
            error.add_note(f"of seed {seed}: {example!r:.2000}")
            raise


class Watch:
    """Counts the examples and those that are read, and the longest and the hungriest of them.

    `expected` are so many.
    """

    def __init__(self):
        self.expected = EACH
        self.number, self.seconds, self.bytes, self.long_refusals = 0, 0.0, 0, 0
        self.tried, self.read = collections.Counter(), collections.Counter()

    def __call__(self, action, kind="all"):
        """Runs an action that may refuse with one line; returns its value, or None.

        Of each kind some must be read, or nothing was tried but one refusal.
        """
        self.number += 1
        self.tried[kind] += 1
        # Measuring memory is slow, so it is done for the last of them; and begun once, since some
        # Pythons crash where it ends while a library's thread allocates.
        if self.number == int((1.0 - MEASURED) * self.expected):
            tracemalloc.start()
        measured = tracemalloc.is_tracing()
        if measured:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
        began = time.process_time()  # whatever else the machine does
        try:
            value = action()
            self.read[kind] += value is not None
            return value
        except InputError as error:
            self.long_refusals += "\n" in str(error)
            return None
        finally:
            if measured:
                self.bytes = max(self.bytes, tracemalloc.get_traced_memory()[1] - before)
            else:
                self.seconds = max(self.seconds, time.process_time() - began)


@pytest.fixture
def watch(record_property, request):
    watching = Watch()
    yield watching
    tracemalloc.stop()
    assert watching.number >= watching.expected
    for kind, tried in watching.tried.items():
        assert watching.read[kind] > 0, (kind, tried)
    assert watching.read.total() < watching.number
    assert watching.bytes > 0
    assert watching.bytes < MOST_BYTES
    assert watching.long_refusals == 0
    # A hang, not a benchmark: the slowest of thousands takes milliseconds.
    assert watching.seconds < MOST_SECONDS
    kind = request.node.name.removeprefix("test_hostile_").replace("_", " ")
    record_property(f"hostile {kind}", watching.number)


def test_hostile_cells(watch):
    def parse(cell):
        try:
            return parse_tags(cell)
        except TagParseError:
            return None  # the row is counted as unreadable

    def check(cell):
        tags = watch(lambda: parse(cell))
        assert tags is None or all(isinstance(tag, str) for tag in tags)

    try_all(plain, check)


def test_hostile_taxonomies(watch, tmp_path):
    path = tmp_path / "t.json"
    valid = json.dumps(TAXONOMY.to_mapping()).encode()

    def tags(rng):
        return [text(rng) for _ in range(rng.randrange(5))] if rng.random() < 0.7 else plain(rng)

    def make(rng):
        if rng.random() < 0.6:
            foreign = rng.random() < 0.2
            return "damaged", rng.randbytes(rng.randrange(61)) if foreign else damaged(valid, rng)
        made = {text(rng): tags(rng) for _ in range(rng.randrange(4))}
        return "made", json.dumps(made).encode()

    def check(example):
        kind, data = example
        write_anew(path, data)
        loaded = watch(lambda: Taxonomy.load(path), kind)
        assert loaded is None or loaded.num_tags >= 1

    try_all(make, check)


def as_csv(values) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([["aspect_list"], *([str(value)] for value in values)])
    return out.getvalue().encode("utf-8", "surrogatepass")


def as_json_lines(values) -> bytes:
    return "".join(json.dumps({"aspect_list": value}) + "\n" for value in values).encode()


def as_parquet(values) -> bytes:
    cells = [None if value is None else str(value).encode("utf-8", "replace") for value in values]
    out = io.BytesIO()
    column = pyarrow.array([cell and cell.decode() for cell in cells], pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"aspect_list": column}), out)
    return out.getvalue()


ROWS = [["jazz"], ["rock", "calm"], ["jazz", "unknown"], None, ["calm"]] * 4
WRITERS = {".csv": as_csv, ".jsonl": as_json_lines, ".parquet": as_parquet}


def files(rows) -> dict[str, bytes]:
    """The same rows in each format."""
    return {suffix: write(rows) for suffix, write in WRITERS.items()}


def test_hostile_files(watch, tmp_path):
    watch.expected = EACH * len(WRITERS)
    valid = files(ROWS)

    def make(rng):
        if rng.random() < 0.5:
            return "made", files([*ROWS, *(plain(rng) for _ in range(rng.randrange(1, 7)))])
        return "damaged", {suffix: damaged(data, rng) for suffix, data in valid.items()}

    def check(example):
        kind, written = example
        for suffix, data in written.items():
            path = tmp_path / f"rows{suffix}"
            write_anew(path, data)
            dataset = watch(
                lambda path=path: load_dataset(
                    taxonomy=TAXONOMY,
                    dataset_name=str(path),
                    val_fraction=0.1,
                    test_fraction=0.1,
                    max_unreadable_fraction=1.0,
                ),
                f"{kind} {suffix}",
            )
            if dataset is not None:
                check_sums(dataset.report)

    try_all(make, check)


def test_hostile_settings(watch):
    base = f"--config={ROOT}/configs/small.py"
    known = list(dict(schema.flatten(parsing.load_config(f"{ROOT}/configs/small.py"))))

    def make(rng):
        pairs = []
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice((rng.choice(known), characters(rng, 12)))
            pairs.append(f"--config.{name}={rng.choice((text, number, plain))(rng)}")
        return pairs

    def parse(arguments):
        return parsing.parse(
            ["launch.py", base, *arguments], define=lambda flags: None, choices=CHOICES
        )

    try_all(make, lambda pairs: watch(lambda: parse(pairs)))
