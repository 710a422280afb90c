"""Thousands of malformed inputs of each kind: a message or a result, never anything else."""

import csv
import io
import json
import time
import tracemalloc

import hypothesis
import hypothesis.strategies as st
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
from tests.helpers.data_reports import check_sums

EACH = 5000
MEASURED = 0.1
MOST_SECONDS = 1.0
MOST_BYTES = 100 << 20

many = hypothesis.settings(
    max_examples=EACH,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)

BITS = ["[", "]", "{", "}", "(", ")", "'", '"', ",", "\\", "\0", "nan", "None", "1e999", "-" * 999]
BITS += ["\ufeff", "\u200b", "\ud800", "é", "e\u0301", "jazz", "rock", ":", "__import__('os')"]
BITS += ["9" * 5000, "[" * 500, "\r\n", "\u2028", "\t", " ", "true", "null", "#"]
text = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(BITS), max_size=12).map("".join))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
TAXONOMY = Taxonomy.from_mapping({"genre": ["jazz", "rock"], "mood": ["calm"]}, source="test")


class Watch:
    """Counts the examples, and the longest and the hungriest of them; `expected` are so many."""

    def __init__(self):
        self.expected = EACH
        self.number, self.seconds, self.bytes, self.long_refusals = 0, 0.0, 0, 0

    def __call__(self, action):
        """Runs an action that may refuse with one line; returns its value, or None."""
        self.number += 1
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
            return action()
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

    @many
    @hypothesis.given(plain)
    def run(cell):
        tags = watch(lambda: parse(cell))
        assert tags is None or all(isinstance(tag, str) for tag in tags)

    run()


def mangle(valid: bytes, changes) -> bytes:
    """A few bytes of a valid file changed, cut out or doubled."""
    data = valid
    for at, cut, put in changes:
        at %= len(valid)
        data = data[:at] + put + data[at + cut :]
    return data


changes = st.lists(
    st.tuples(st.integers(0, 9999), st.integers(0, 6), st.binary(max_size=4)), max_size=4
)


def test_hostile_taxonomies(watch, tmp_path):
    path = tmp_path / "t.json"
    valid = json.dumps(TAXONOMY.to_mapping()).encode()
    mappings = st.dictionaries(text, plain, max_size=3)
    written = mappings.map(lambda value: json.dumps(value).encode())

    @many
    @hypothesis.given(
        st.one_of(st.binary(max_size=60), changes.map(lambda some: mangle(valid, some)), written)
    )
    def run(data):
        path.write_bytes(data)
        loaded = watch(lambda: Taxonomy.load(path))
        assert loaded is None or loaded.num_tags >= 1

    run()


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
    """Each example in all formats, since to think of one takes longer than to read it."""
    watch.expected = EACH * len(WRITERS)
    valid = files(ROWS)
    damaged = changes.map(
        lambda some: {suffix: mangle(data, some) for suffix, data in valid.items()}
    )
    listed = st.lists(plain, min_size=1, max_size=6).map(lambda some: files(ROWS + some))

    @many
    @hypothesis.given(st.one_of(damaged, listed))
    def run(example):
        for suffix, data in example.items():
            path = tmp_path / f"rows{suffix}"
            path.write_bytes(data)
            dataset = watch(
                lambda path=path: load_dataset(
                    taxonomy=TAXONOMY, dataset_name=str(path), max_unreadable_fraction=1.0
                )
            )
            if dataset is not None:
                check_sums(dataset.report)

    run()


def test_hostile_settings(watch):
    base = f"--config={ROOT}/configs/small.py"
    known = list(dict(schema.flatten(parsing.load_config(f"{ROOT}/configs/small.py"))))
    name = st.one_of(st.sampled_from(known), st.text(max_size=12))
    value = st.one_of(text, st.integers().map(str), st.floats().map(str), plain.map(str))

    def parse(arguments):
        return parsing.parse(
            ["launch.py", base, *arguments], define=lambda flags: None, choices=CHOICES
        )

    @many
    @hypothesis.given(st.lists(st.tuples(name, value), min_size=1, max_size=3))
    def run(pairs):
        watch(lambda: parse([f"--config.{name}={value}" for name, value in pairs]))

    run()
