"""Scores of codes whose relation to the factors was made by hand."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from jaxvae.evaluation import disentanglement
from jaxvae.evaluation.disentanglement import (
    dci,
    dci_scores,
    mig,
    mutual_information,
    mutual_information_with_sets,
    sap,
)


def grid(*sizes, repeats=1):
    """All combinations of factor values, `[N, F]`, and the same by name."""
    rows = np.array(list(itertools.product(*map(range, sizes))) * repeats)
    return rows, {f"f{k}": rows[:, k] for k in range(len(sizes))}


def test_mutual_information_against_scikit_learn():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(400, 5))
    labels = rng.integers(-1, 3, size=400) * 7
    codes[:, 2] += labels
    expected = []
    for code in codes.T:
        edges = np.histogram(code, 20)[1][:-1]
        expected.append(mutual_info_score(np.digitize(code, edges), labels))
    assert mutual_information(codes, labels) == pytest.approx(expected)
    assert max(expected) > 2 * min(expected)


def test_a_balanced_factor_tells_its_entropy_and_a_constant_code_nothing():
    rows, _ = grid(4, 3)
    codes = np.column_stack([rows[:, 0], np.full(12, 3.7), rows[:, 1]])
    expected = [math.log(4), 0.0, 0.0]
    assert mutual_information(codes, rows[:, 0]) == pytest.approx(expected, abs=1e-12)


def test_codes_that_differ_by_rounding_alone_are_binned():
    codes = np.array([[1.0], [np.nextafter(1.0, 2.0)], [1.0], [1.0]])
    assert np.isfinite(mutual_information(codes, np.array([0, 1, 0, 0]))).all()


def test_codes_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        mutual_information(np.array([[1.0], [np.nan]]), np.array([0, 1]))


def test_miller_madow_correction_by_hand():
    codes, labels = np.array([[0.0]] * 5 + [[1.0]] * 5), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    plain = mutual_information(codes, labels, bins=2)[0]
    # Four occupied cells, two bins, two labels, ten rows: (4 - 2 - 2 + 1) / 20.
    assert mutual_information(codes, labels, bins=2, corrected=True)[0] == pytest.approx(
        plain - 1 / 20
    )


def test_the_correction_takes_off_the_bias_and_stops_at_zero():
    rng = np.random.default_rng(1)
    codes, labels = rng.random((500, 40)), rng.integers(0, 10, 500)
    corrected = mutual_information(codes, labels, corrected=True)
    assert mutual_information(codes, labels).mean() > 0.15
    assert corrected.mean() < 0.05
    assert corrected.min() == 0.0


@pytest.mark.parametrize("corrected", [False, True])
def test_information_with_sets_is_that_with_each_tag(corrected):
    rng = np.random.default_rng(2)
    codes, sets = rng.normal(size=(300, 19)), rng.random((300, 6)) < 0.3
    sets[:, 1] = codes[:, 17] > 0
    sets[:, 2] = False
    found = mutual_information_with_sets(codes, sets, bins=7, corrected=corrected)
    expected = [mutual_information(codes, tag, bins=7, corrected=corrected) for tag in sets.T]
    assert found.shape == (19, 6)
    assert found == pytest.approx(np.transpose(expected), abs=1e-6)
    assert found[17, 1] > 0.4
    assert (found[:, 2] == 0).all()


def test_a_code_for_each_factor_has_the_whole_gap():
    rows, factors = grid(4, 3, 2)
    found = mig(rows, factors)
    assert found["mig"] == pytest.approx(1.0)
    assert found["mig_per_factor"] == pytest.approx({"f0": 1.0, "f1": 1.0, "f2": 1.0})


def test_a_duplicated_code_has_no_gap():
    rows, factors = grid(4, 3)
    assert mig(np.concatenate([rows, rows], axis=1), factors)["mig"] == 0.0


def test_rotated_codes_have_little_gap():
    rows, factors = grid(4, 4)
    rotated = rows @ np.array([[1.0, 1.0], [1.0, -1.0]])
    assert mig(rotated, factors)["mig"] == pytest.approx(0.0, abs=1e-9)


def test_a_lone_code_is_compared_with_nothing():
    # One of two binary factors is told exactly, the other not at all.
    rows, factors = grid(2, 2, repeats=30)
    assert mig(rows[:, :1], factors)["mig_per_factor"] == pytest.approx({"f0": 1.0, "f1": 0.0})
    found = sap(rows[:, :1], factors)["sap_per_factor"]
    assert found["f0"] == 1.0
    assert 0.3 < found["f1"] < 0.7


def test_a_code_for_each_factor_predicts_it_better_than_chance_does():
    rows, factors = grid(2, 2, 2, repeats=60)
    codes = rows + np.random.default_rng(0).normal(scale=0.05, size=rows.shape)
    assert sap(codes, factors)["sap"] == pytest.approx(0.5, abs=0.1)
    assert sap(np.repeat(codes, 2, axis=1), factors)["sap"] == 0.0


def test_sap_is_tested_on_rows_that_were_not_fitted():
    rng = np.random.default_rng(3)
    labels = {"noise": rng.integers(0, 2, 30)}
    codes = rng.normal(size=(30, 1))
    # Another split gives another accuracy of a code that knows nothing, always of ten rows.
    tenths = [10 * sap(codes, labels, seed=seed)["sap"] for seed in range(8)]
    assert tenths == pytest.approx(np.round(tenths))
    assert len(set(tenths)) > 1


def test_a_code_for_each_factor_is_disentangled_and_complete():
    rows, factors = grid(3, 3, 3, repeats=20)
    found = dci(rows, factors)
    assert found["dci_disentanglement"] > 0.95
    assert found["dci_completeness"] > 0.95
    assert found["dci_informativeness"] == 1.0


def test_all_factors_in_one_code_are_complete_but_not_disentangled():
    rows, factors = grid(3, 3, repeats=40)
    codes = np.column_stack([3 * rows[:, 0] + rows[:, 1], np.zeros(len(rows))])
    found = dci(codes, factors)
    assert found["dci_disentanglement"] == pytest.approx(0.0, abs=1e-9)
    assert found["dci_completeness"] == 1.0
    assert found["dci_informativeness"] == 1.0


def test_codes_that_know_nothing_inform_of_no_row_that_was_not_fitted():
    rng = np.random.default_rng(5)
    codes, labels = rng.normal(size=(300, 8)), {"coin": rng.integers(0, 2, 300)}
    assert dci(codes, labels)["dci_informativeness"] == pytest.approx(0.5, abs=0.15)
    # Fitted, a forest knows its rows by heart.
    again = np.concatenate([codes] * 9), {"coin": np.concatenate([labels["coin"]] * 9)}
    assert dci(*again)["dci_informativeness"] > 0.9


def test_dci_formulas_by_hand():
    importance = np.array([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    # Codes: 1 with weight 3/5, 0 with 2/5, and one that nothing needs.
    # Factors: shares 3/4 1/4 0 in base 3 with weight 4/5, and 1 with 1/5.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    assert dci_scores(importance) == pytest.approx((0.6, 0.8 * (1 - entropy) + 0.2))


def test_dci_of_one_code_one_factor_and_nothing():
    assert dci_scores(np.array([[1.0, 3.0]]))[1] == 1.0
    assert dci_scores(np.array([[1.0], [3.0]]))[0] == 1.0
    assert dci_scores(np.zeros((3, 2))) == (0.0, 0.0)
    assert dci_scores(np.ones((3, 2))) == pytest.approx((0.0, 0.0))


def test_all_scores_at_once():
    rows, factors = grid(2, 3, repeats=20)
    found = disentanglement.disentanglement(rows, factors, seed=1)
    assert found == {
        "mig": mig(rows, factors)["mig"],
        "sap": sap(rows, factors, seed=1)["sap"],
        **dci(rows, factors, seed=1),
    }
    assert list(found) == [
        *("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness")
    ]


def test_constant_codes_score_nothing():
    _, factors = grid(2, 3, repeats=20)
    found = disentanglement.disentanglement(np.ones((120, 3)), factors)
    assert found["mig"] == 0.0
    assert found["sap"] == 0.0
    assert found["dci_disentanglement"] == 0.0
    assert found["dci_informativeness"] < 0.7


def test_a_lone_code_of_a_lone_factor():
    rows, factors = grid(2, repeats=40)
    assert disentanglement.disentanglement(rows, factors) == dict.fromkeys(
        ("mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"), 1.0
    )


def test_a_constant_factor_is_left_out():
    rows, factors = grid(2, 2, repeats=20)
    with_constant = {**factors, "always": np.full(len(rows), 5)}
    scores = disentanglement.disentanglement
    assert scores(rows, with_constant) == scores(rows, factors)
    assert mig(rows, with_constant)["mig_per_factor"]["always"] is None
    only = {"always": with_constant["always"]}
    assert set(scores(rows, only).values()) == {None}
