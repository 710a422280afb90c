"""How well rows come back, and held-out tags asked for again: worked out by hand, and by loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.evaluation import retrieval


def some(seed, rows=30, tags=6):
    rng = np.random.default_rng(seed)
    return rng.random((rows, tags)).round(1), rng.random((rows, tags)) < 0.3


def test_scores_by_hand():
    sets = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    probabilities = np.array([[0.9, 0.2, 0.6, 0.1], [0.1, 0.1, 0.8, 0.5], [0.3, 0.3, 0.3, 0.3]])
    scores = retrieval.reconstruction_scores(probabilities, sets, threshold=0.5)
    # Decoded: {a, c}, {c}, {}; what equals the threshold does not exceed it.
    assert scores["hamming_loss"] == pytest.approx(2 / 12)
    assert scores["f1_micro"] == pytest.approx(2 * 2 / (3 + 3))
    assert scores["f1_macro"] == pytest.approx((1 + 0 + 2 / 3) / 3)  # no row has the last tag
    assert scores["jaccard_mean"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert scores["jaccard_pooled"] == pytest.approx(2 / 4)


def test_the_best_threshold_is_the_best_of_nineteen():
    sets = np.array([[1, 0, 0], [1, 1, 0]], bool)
    probabilities = np.array([[0.62, 0.42, 0.1], [0.9, 0.48, 0.44]])
    # From 0.45 to under 0.48 both rows come back whole.
    assert retrieval.best_threshold(probabilities, sets) == pytest.approx(0.45)


@given(seed=st.integers(0, 10**6))
def test_average_precision_is_that_of_its_definition(seed):
    probabilities, sets = some(seed)
    sets[0] = True
    precisions = []
    for p, there in zip(probabilities.T, sets.T, strict=True):
        cuts = sorted(set(p), reverse=True)
        found = [(there[p >= cut].sum(), (p >= cut).sum()) for cut in cuts]
        before = [0, *(hits for hits, _ in found)]
        gained = [
            (hits - last) / there.sum() * hits / size
            for (hits, size), last in zip(found, before, strict=False)
        ]
        precisions.append(sum(gained))
    assert retrieval.mean_average_precision(probabilities, sets) == pytest.approx(
        np.mean(precisions)
    )


def test_average_precision_is_of_tags_that_occur_the_commonest_first(monkeypatch):
    probabilities, sets = some(0)
    sets[:, [1, 4]] = False
    sets[0, 4] = True
    of_all = retrieval.mean_average_precision(probabilities, sets)
    without = [0, 2, 3, 4, 5]
    assert of_all == retrieval.mean_average_precision(probabilities[:, without], sets[:, without])
    monkeypatch.setattr(retrieval, "_RANKED_TAGS", 4)
    common = [0, 2, 3, 5]
    assert retrieval.mean_average_precision(probabilities, sets) == pytest.approx(
        retrieval.mean_average_precision(probabilities[:, common], sets[:, common])
    )


@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.0))
def test_tags_that_are_taken_leave_at_least_one(seed, share):
    sets = np.random.default_rng(seed).random((20, 7)) < share
    left, taken = retrieval.hold_out_tags(sets, seed=seed)
    kept = sets[sets.sum(axis=1) >= 2]
    assert ((left | taken) == kept).all()
    assert not (left & taken).any()
    assert left.any(axis=1).all()
    assert set(taken.sum(axis=1)) <= {1, 2, 3}


def test_recall_by_hand(monkeypatch):
    monkeypatch.setattr(retrieval, "RECALL_AT", (1, 2))
    left = np.array([[1, 0, 0, 0], [0, 0, 0, 1]], bool)
    taken = np.array([[0, 1, 0, 0], [1, 0, 1, 0]], bool)
    # The tag that was shown would be first, and is never recommended.
    scores = np.array([[0.9, 0.3, 0.5, 0.1], [0.4, 0.6, 0.1, 0.9]])
    found = retrieval.recall_at(scores, left, taken, {"first": range(2), "none": range(3, 4)})
    assert found["recall_at_1"] == 0.0
    assert found["recall_at_2"] == pytest.approx(2 / 3)
    assert found["recall_at_10/first"] == 1.0
    assert found["recall_at_10/none"] is None


def test_predictors_are_compared_on_one_task():
    _, sets = some(3)
    seen = []

    def predict(left):
        seen.append(left)
        return np.zeros(left.shape)

    found = retrieval.compare_recall({"a": predict, "b": predict}, sets, {}, seed=5)
    assert found["a"] == found["b"]
    np.testing.assert_array_equal(seen[0], seen[1])
    np.testing.assert_array_equal(seen[0], retrieval.hold_out_tags(sets, seed=5)[0])
    assert retrieval.compare_recall({"a": predict}, np.eye(4, dtype=bool), {}, seed=0) == {}


def test_calibration_by_hand():
    predicted = np.array([[0.01, 0.03, 0.9], [0.03, 0.95, 0.5]])
    left = np.array([[0, 0, 0], [0, 0, 1]], bool)
    taken = np.array([[0, 1, 1], [0, 0, 0]], bool)
    mean, present, count = retrieval.calibration(predicted, left, taken)
    np.testing.assert_allclose(mean, [0.01, 0.03, 0.925])
    np.testing.assert_allclose(present, [0.0, 0.5, 0.5])
    assert count.tolist() == [1, 2, 2]
