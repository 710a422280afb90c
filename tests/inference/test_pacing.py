"""Coins that keep counts of tags near their shares, on sets drawn by hand."""

import numpy as np
import pytest

from jaxvae.inference.generation.balancing.pacing import Pace


def kept(shares, rates, *, num, seed=0, splits=("train",)):
    """Sets `[num, K]` with one or two tags, drawn by rates and kept by the coins, and the pace."""
    rng, pace = np.random.default_rng(seed), Pace(shares, seed)
    rows = []
    while len(rows) < num:
        row = np.zeros(len(rates), bool)
        row[rng.choice(len(rates), size=rng.integers(1, 3), replace=False, p=rates)] = True
        if pace.keeps(row, splits[int(rng.integers(len(splits)))], 1.0):
            rows.append(row)
    return np.array(rows), pace


def test_counts_stay_within_a_few_sets_of_their_shares_where_rates_are_wrong():
    shares = dict(enumerate([0.1, 0.2, 0.3, 0.4]))
    rates = np.array([0.15, 0.15, 0.35, 0.35])  # half as much again, and less
    rows, pace = kept(shares, rates, num=3000)
    counts = rows.sum(axis=0)
    assert counts == pytest.approx(counts.sum() * np.array(list(shares.values())), abs=10)
    assert pace.counts.tolist() == counts.tolist()
    assert pace.lagging() is None


def test_each_split_keeps_its_own_and_one_of_few_sets_is_nearly_exact():
    shares = dict.fromkeys(range(10), 0.1)
    _, pace = kept(shares, np.full(10, 0.1), num=1500, splits=("train", "train", "test"))
    for counts in pace._counts.values():
        assert counts == pytest.approx(np.full(10, counts.mean()), abs=5)
    _, pace = kept(shares, np.full(10, 0.1), num=100)
    assert pace.counts == pytest.approx(np.full(10, pace.counts.mean()), abs=3)


def test_how_many_tags_a_set_has_is_nearly_left_as_it_is():
    """No probability exceeds 1, so that sets of two tags that lag are a little too few."""
    shares = dict.fromkeys(range(40), 1 / 40)
    runs = [kept(shares, np.full(40, 1 / 40), num=600, seed=seed)[0] for seed in range(6)]
    with_two = np.mean([rows.sum(axis=1) == 2 for rows in runs])
    assert 0.465 < with_two < 0.505  # its standard deviation is 0.006


@pytest.mark.long
def test_a_tag_that_never_comes_lags_and_no_other_does():
    shares = dict.fromkeys((3, 5, 7), 1 / 3)
    _, pace = kept(shares, np.array([0.5, 0.5, 0.0]), num=60)
    lag = pace.lagging()
    assert (lag.column, lag.split, lag.found) == (7, "train", 0)
    assert lag.due == pytest.approx(pace.counts.sum() / 3)
