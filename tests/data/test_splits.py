"""Rows that are drawn to stand for many."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.data.splits import subsample


@given(num_rows=st.integers(0, 300), most=st.integers(0, 300))
def test_distinct_positions_that_rise(num_rows, most):
    positions = subsample(num_rows, most)
    assert len(positions) == min(num_rows, most)
    assert (np.diff(positions) > 0).all()
    assert set(positions) <= set(range(num_rows))
    assert (positions == subsample(num_rows, most)).all()


def test_they_come_from_all_over_the_rows():
    tenths = np.bincount(subsample(10_000, 1000) // 1000, minlength=10)
    # Of 100 rows a tenth expected, with a standard deviation of 9.
    assert 60 < tenths.min() <= tenths.max() < 140
