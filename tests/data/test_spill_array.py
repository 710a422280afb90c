"""Arrays that grow: the same numbers in memory and in a file."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxvae.data import spill_array
from jaxvae.data.dataset import load_dataset
from jaxvae.data.spill_array import SpillArray
from jaxvae.data.taxonomy import Taxonomy
from tests.conftest import ROOT


def files() -> int:
    """Open files and maps of deleted ones, of this process."""
    gc.collect()
    with open("/proc/self/maps") as maps:
        mapped = sum("(deleted)" in line for line in maps)
    return mapped + len(os.listdir("/proc/self/fd"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=20)),
    most=st.integers(0, 200),
    dtype=st.sampled_from([np.uint8, np.uint32, np.int64]),
)
def test_it_holds_what_was_added(parts, most, dtype, monkeypatch):
    monkeypatch.setattr(spill_array, "IN_MEMORY", most)
    parts = [np.array(part, np.int64).astype(dtype) for part in parts]
    grown = SpillArray(dtype)
    for part in parts:
        grown.extend(part)
    expected = np.concatenate([*parts, np.zeros(0, dtype)])
    found = grown.array()
    assert found.dtype == dtype
    assert found.tolist() == expected.tolist()


@pytest.mark.usefixtures("quick_collection")
def test_a_file_goes_with_its_array(monkeypatch, tmp_path):
    monkeypatch.setattr(spill_array, "IN_MEMORY", 100)
    monkeypatch.setattr(spill_array.tempfile, "tempdir", str(tmp_path))
    before = files()
    grown = SpillArray(np.int64)
    grown.extend(np.arange(6).reshape(2, 3))
    assert files() == before
    grown.extend(np.arange(600))
    found = grown.array()
    assert files() > before
    assert os.listdir(tmp_path) == []
    assert found[6:].tolist() == list(range(600))
    del grown, found
    assert files() == before


def test_data_are_the_same_in_memory_and_in_files(monkeypatch):
    options = {"taxonomy": Taxonomy.load(), "split_by": "set"}
    one = load_dataset(**options)
    monkeypatch.setattr(spill_array, "IN_MEMORY", 1000)
    other = load_dataset(**options)
    assert not other.rows.flags.writeable
    assert one.fingerprint == other.fingerprint
    assert one.report == other.report
    for name in ("train", "val", "test"):
        np.testing.assert_array_equal(one.splits[name], other.splits[name])


FULL = """
import resource, signal, sys
sys.path.insert(0, {root!r})
import numpy as np
from jaxvae.data import spill_array
spill_array.IN_MEMORY = 1000
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an error like that of a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
grown = spill_array.SpillArray(np.uint8)
for part in range(100):
    grown.extend(np.zeros(1000, np.uint8))
print(len(grown.array()))
"""


@pytest.mark.parametrize("limit", [10**6, 50_000])
def test_a_disk_that_is_full(limit, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL.format(root=str(ROOT), limit=limit)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if limit == 10**6:  # the control
        assert (done.returncode, done.stdout) == (0, "100000\n")
        return
    assert "ignored" not in done.stderr  # nothing fails once more at the end
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"jaxvae.errors.InputError: {tmp_path}: File too large; arrays of more")
    assert last.endswith("set TMPDIR to a folder with more room")
