"""Descriptions of sampled sets, worked out by hand, and a two-sample test with planted causes."""

import json
import math

import numpy as np
import pytest

from jaxvae.evaluation.sets import sample_quality
from jaxvae.evaluation.sets.sample_quality import compare_samples, describe_sets, two_sample_test

TAGS = ("a", "b", "c", "d")


def sets_of(text):
    """Boolean rows over four tags, from words of their letters; `-` is the empty set."""
    return np.array([[tag in word for tag in TAGS] for word in text.split()])


def independent_sets(rows, tags=12, seed=0):
    return np.random.default_rng(seed).random((rows, tags)) < 0.3


def test_sizes_tags_and_distinct_sets_by_hand():
    values = describe_sets(sets_of("ab a - a"), sets_of("ab ac"), sets_of("abc"), tags=TAGS)
    assert values["tags_per_set_mean"] == 1.0
    assert values["tags_per_set_sd"] == pytest.approx(math.sqrt(0.5))
    assert values["empty_fraction"] == 0.25
    assert values["tags_per_set_mean_held_out"] == 2.0
    assert values["tags_per_set_sd_held_out"] == 0.0
    assert values["empty_fraction_held_out"] == 0.0
    assert values["distinct_fraction"] == 0.75
    # Rates .75 .25 0 0 against 1 .5 .5 0: differences .25 .25 .5 0.
    assert values["marginal_mae"] == 0.25
    assert values["marginal_total_variation"] == 0.5
    expected = np.corrcoef([0.75, 0.25, 0, 0], [1, 0.5, 0.5, 0])[0, 1]
    assert values["marginal_pearson"] == pytest.approx(expected)
    json.dumps(values, allow_nan=False)


def test_cooccurrence_pearson_by_hand():
    # Pairs ab ac ad bc bd cd: 2 1 0 1 0 0 against 1 1 0 0 0 1.
    values = describe_sets(sets_of("abc ab d"), sets_of("ab ac cd"), sets_of("a"), tags=TAGS)
    expected = np.corrcoef([2, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1])[0, 1]
    assert values["cooccurrence_pearson"] == pytest.approx(expected)


def test_lift_by_hand():
    # Only ab is in 5 held-out rows, or expected in 5; it's in 6 of 10, a and b in 8 and 7.
    held_out = sets_of("ab " * 6 + "a a b c")
    # In a twice as large collection: ab in 4 of 20, a and b in 10 each.
    sets = sets_of("ab " * 4 + "a " * 6 + "b " * 6 + "c " * 4)
    values = describe_sets(sets, held_out, sets_of("a"), tags=TAGS)
    data = math.log((0.6 + 0.05) / (0.8 * 0.7 + 0.05))
    sampled = math.log((0.2 + 0.05) / (0.5 * 0.5 + 0.05))
    assert values["lift_error"] == pytest.approx(data - sampled)
    (pair,) = values["worst_pairs"]
    assert pair["tags"] == ["a", "b"]
    assert pair["log_lift_samples"] == pytest.approx(sampled)
    assert pair["log_lift_data"] == pytest.approx(data)
    assert (pair["count_samples"], pair["count_data"]) == (4, 6)


def test_a_pair_that_was_expected_but_never_held_out_counts_too():
    held_out = sets_of("a " * 10 + "b " * 10)  # Expected 5 times if independent.
    values = describe_sets(sets_of("ab a"), held_out, held_out, tags=TAGS)
    assert [pair["tags"] for pair in values["worst_pairs"]] == [["a", "b"]]
    data = math.log(0.025 / (0.25 + 0.025))
    assert values["worst_pairs"][0]["log_lift_data"] == pytest.approx(data)


def test_repeated_held_out_rows_have_no_error():
    held_out = independent_sets(60, tags=4)
    values = describe_sets(np.tile(held_out, (7, 1)), held_out, held_out, tags=TAGS)
    assert values["worst_pairs"]
    assert values["lift_error"] == pytest.approx(0.0, abs=1e-6)
    assert values["cooccurrence_pearson"] == pytest.approx(1.0)
    assert values["marginal_mae"] == pytest.approx(0.0, abs=1e-12)


def test_worst_pairs_come_worst_first_and_are_ten():
    held_out, sets = independent_sets(400, seed=1), independent_sets(400, seed=2)
    sets[:, 1] = sets[:, 0]
    names = [f"t{k}" for k in range(12)]
    worst = describe_sets(sets, held_out, held_out, tags=names)["worst_pairs"]
    errors = [abs(pair["log_lift_samples"] - pair["log_lift_data"]) for pair in worst]
    assert worst[0]["tags"] == ["t0", "t1"]
    assert len(worst) == 10
    assert errors == sorted(errors, reverse=True)


def test_impossible_pairs_are_named_both_ways():
    train = sets_of("ab " * 6 + "cd " * 5 + "ad " * 4)
    held_out = sets_of("bd")
    # Sampled pairs ac, bc, bd, ad: the data have neither ac nor bc; bd was held out.
    sets = sets_of("ac ac ac bc bd ad")
    values = describe_sets(sets, held_out, train, tags=TAGS)
    assert values["pairs_never_in_data"] == {
        "count": 2,
        "share": 0.5,
        "top": [{"tags": ["a", "c"], "count": 3}, {"tags": ["b", "c"], "count": 1}],
    }
    # ab and cd are in 5 training rows or more, and no set has them; ad is in 4.
    assert values["pairs_never_sampled"] == {
        "count": 2,
        "share": 1.0,
        "top": [{"tags": ["a", "b"], "count": 6}, {"tags": ["c", "d"], "count": 5}],
    }


def test_pairs_of_rare_tags_are_not_held_against_the_sets():
    train = sets_of("a " * 9 + "c " * 4)  # With four rows, c isn't common.
    values = describe_sets(sets_of("ac"), sets_of("a"), train, tags=TAGS)
    assert values["pairs_never_in_data"] == {"count": 0, "share": None, "top": []}
    assert values["pairs_never_sampled"]["share"] is None


def test_copies_of_training_rows_are_recognised():
    train = independent_sets(50)
    sets = train[[3, 3, 8]]
    names = list("abcdefghijkl")
    values = describe_sets(sets, ~train[:5], train, tags=names)
    assert values["unseen_fraction"] == 0.0
    assert values["copies_fraction"] == 1.0
    assert values["nearest_train_distance"] == 0.0
    assert values["copies_fraction_held_out"] == 0.0
    assert values["unseen_fraction_held_out"] == 1.0
    far = [min((row != other).sum() for other in train) for row in ~train[:5]]
    assert values["nearest_train_distance_held_out"] == pytest.approx(np.mean(far))


@pytest.mark.parametrize("at_once", [3, 1000])
def test_nearest_distances_against_loops(monkeypatch, at_once):
    monkeypatch.setattr(sample_quality, "_ROWS_AT_ONCE", at_once)
    sets, train = independent_sets(20, seed=3), independent_sets(31, seed=4)
    values = describe_sets(sets, sets, train, tags=list("abcdefghijkl"))
    far = [min((row != other).sum() for other in train) for row in sets]
    assert values["nearest_train_distance"] == pytest.approx(np.mean(far))
    assert values["nearest_train_distance"] > 0
    counts = sets.astype(int).T @ sets.astype(int)
    assert sample_quality._pair_counts(sets).tolist() == counts.tolist()


def test_copies_of_thinned_out_training_rows_are_still_copies(monkeypatch):
    monkeypatch.setattr(sample_quality, "_TRAIN_ROWS", 5)
    train = np.unique(independent_sets(100), axis=0)
    values = describe_sets(train, ~train, train, tags=list("abcdefghijkl"))
    assert values["unseen_fraction"] == 0.0
    assert values["nearest_train_distance"] == 0.0
    assert values["nearest_train_distance_held_out"] > 1.0


def test_what_is_undefined_is_none():
    empty = sets_of("- -")
    values = describe_sets(empty, empty, empty, tags=TAGS)
    for name in ("marginal_pearson", "cooccurrence_pearson", "lift_error"):
        assert values[name] is None
    assert values["worst_pairs"] == []
    json.dumps(values, allow_nan=False)


def test_concepts_add_their_tags_per_set():
    concepts = (("low", range(0, 2)), ("high", range(2, 4)))
    values = describe_sets(
        sets_of("ab acd"), sets_of("a"), sets_of("a"), tags=TAGS, concepts=concepts
    )
    assert values["tags_per_set_of_concept"] == {"low": 1.5, "high": 1.0}


def test_two_draws_cannot_be_told_apart():
    values = two_sample_test(independent_sets(300, seed=1), independent_sets(900, seed=2), seed=0)
    assert values["size"] == 300
    for name in ("auc_boosting", "auc_logistic"):
        assert abs(values[name] - 0.5) < 3 * values[f"{name}_stderr"]
        assert 0 < values[f"{name}_stderr"] < 0.06


def planted_pairs(rows, seed):
    """Half the rows have both of the first two tags, half neither."""
    sets = np.random.default_rng(seed).random((rows, 4)) < 0.5
    sets[:, 1] = sets[:, 0]
    return sets


def test_dependence_with_equal_marginals_is_found():
    loose = np.random.default_rng(5).random((400, 4)) < 0.5
    values = two_sample_test(planted_pairs(300, seed=6), loose, seed=0)
    # Half the loose rows have one of the two: at best, an area of 0.75.
    assert 0.7 < values["auc_logistic"] < 0.8
    assert 0.7 < values["auc_boosting"] < 0.8


def test_two_sample_test_caps_rows_and_is_fixed_by_its_seed(monkeypatch):
    monkeypatch.setattr(sample_quality, "_TEST_ROWS", 60)
    sides = independent_sets(100, seed=1), independent_sets(80, seed=2)
    first = two_sample_test(*sides, seed=3)
    assert first["size"] == 60
    assert two_sample_test(*sides, seed=3) == first
    assert two_sample_test(*sides, seed=4) != first


def test_too_few_rows_have_no_area():
    values = two_sample_test(independent_sets(9), independent_sets(50), seed=0)
    assert values == {
        "auc_boosting": None,
        "auc_boosting_stderr": None,
        "auc_logistic": None,
        "auc_logistic_stderr": None,
        "size": 9,
    }


def test_samples_are_compared_beside_memory_and_independence():
    train, held_out = planted_pairs(200, seed=1), planted_pairs(60, seed=2)
    samples = planted_pairs(150, seed=3)
    loose = np.random.default_rng(4).random((120, 4)) < 0.5
    found = compare_samples(samples, held_out, train, loose, tags=TAGS, seed=7)
    assert list(found) == ["samples", "train_rows", "independent"]
    assert found["samples"] == describe_sets(samples, held_out, train, tags=TAGS) | two_sample_test(
        samples, held_out, seed=7
    )
    assert found["train_rows"]["unseen_fraction"] == 0.0
    assert found["train_rows"]["lift_error"] < 0.3 < found["independent"]["lift_error"]
    assert found["independent"]["auc_logistic"] > 0.65
    json.dumps(found, allow_nan=False)


def test_pairs_of_a_wide_vocabulary_are_those_of_its_commonest_tags(monkeypatch):
    rare = np.zeros((300, 2), bool)
    rare[:3] = True
    sides = [np.insert(planted_pairs(300, seed=seed), [1], rare, axis=1) for seed in (1, 2, 3)]
    tags = [TAGS[0], "x", "y", *TAGS[1:]]
    few = np.array([0, 3, 4, 5])
    narrow = describe_sets(*(side[:, few] for side in sides), tags=TAGS)
    everything = describe_sets(*sides, tags=tags)
    monkeypatch.setattr(sample_quality, "_PAIRED_TAGS", 4)
    wide = describe_sets(*sides, tags=tags)
    pairs = ("cooccurrence_pearson", "lift_error", "worst_pairs")
    pairs += ("pairs_never_in_data", "pairs_never_sampled")
    assert {name: wide[name] for name in pairs} == {name: narrow[name] for name in pairs}
    assert everything["cooccurrence_pearson"] != wide["cooccurrence_pearson"]
    for name in set(wide) - set(pairs):
        assert wide[name] == everything[name]
