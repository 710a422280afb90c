"""Metrics of a split, each against a brute-force or hand-made twin."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.metrics import silhouette_score

from jaxvae.data import encoding
from jaxvae.data.splits import subsample
from jaxvae.evaluation import split_metrics
from jaxvae.evaluation.sets import tag_sets


def random_sets(count=50, tags=7, seed=0):
    return np.random.default_rng(seed).random((count, tags)) < 0.3


def test_rows_become_multi_hot():
    rows = np.array([[0, 2, 3], [1, 3, 3]], np.uint8)
    expected = [[True, False, True], [False, True, False]]
    assert encoding.to_multi_hot(rows, 3).tolist() == expected


def test_tags_are_counted_in_parts_too(monkeypatch):
    rows = np.array([[0, 2, 3], [1, 3, 3], [3, 3, 3], [2, 3, 3]], np.uint8)
    assert encoding.tag_counts(rows, 3).tolist() == [1, 1, 2]
    monkeypatch.setattr(encoding, "_COUNTED", 9)
    assert encoding.tag_counts(rows, 3).tolist() == [1, 1, 2]
    four = np.array([3, 1, 2, 3])
    assert encoding.tag_counts(rows, 3, positions=four).tolist() == [0, 1, 2]


def test_rows_become_a_sparse_incidence():
    rows = np.array([[0, 2, 3], [1, 3, 3], [3, 3, 3]], np.uint8)
    found = encoding.to_csr(rows, 3)
    assert np.array_equal(found.toarray(), encoding.to_multi_hot(rows, 3))


@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.05, 0.9))
def test_sparse_collections_are_judged_as_boolean_ones(seed, count, share):
    rng = np.random.default_rng(seed)
    sets, reference = rng.random((count, 6)) < share, rng.random((20, 6)) < 0.4
    rows = [np.where(hot, np.arange(6), 6) for hot in (sets, reference)]
    sparse = [encoding.to_csr(np.sort(each, axis=1), 6) for each in rows]
    assert tag_sets.diversity(sparse[0]) == tag_sets.diversity(sets)
    assert tag_sets.cooccurrence(*sparse) == tag_sets.cooccurrence(sets, reference)
    every = np.arange(20)
    assert split_metrics.independent_nll(rows[1], every, sparse[0]) == pytest.approx(
        split_metrics.independent_nll(rows[1], every, sets)
    )


def test_diversity_by_hand():
    # Three distinct sets, seen 1, 1 and 2 times.
    sets = np.array([[1, 0], [1, 0], [0, 1], [1, 1]], bool)
    values = tag_sets.diversity(sets)
    assert values["diversity_unique_combinations"] == 3
    assert values["diversity_pct_unique_combinations"] == 75.0
    assert values["diversity_entropy"] == pytest.approx(1.5 * math.log(2))
    # 2 (1*.25 + 2*.25 + 3*.5) / 3 - 4/3
    assert values["diversity_gini_coefficient"] == pytest.approx(1 / 6)


def test_one_set_alone_has_no_diversity():
    values = tag_sets.diversity(np.zeros((9, 4), bool))
    assert values["diversity_unique_combinations"] == 1
    assert values["diversity_entropy"] == 0.0
    assert values["diversity_gini_coefficient"] == pytest.approx(0.0)


def brute_cooccurrence(sets):
    tags = sets.shape[1]
    counts = np.zeros((tags, tags))
    for row in sets:
        for i in range(tags):
            for j in range(tags):
                counts[i, j] += row[i] and row[j]
    return counts.ravel()


def test_cooccurrence_against_loops():
    sets, reference = random_sets(seed=1), random_sets(seed=2)
    q, p = brute_cooccurrence(sets), brute_cooccurrence(reference)
    assert (p > 0).all()
    assert (q > 0).all()
    values = tag_sets.cooccurrence(sets, reference)
    assert values["cooccurrence_pearson_correlation"] == pytest.approx(np.corrcoef(p, q)[0, 1])
    p, q = p / p.sum(), q / q.sum()
    cosine = (p * q).sum() / math.sqrt((p**2).sum() * (q**2).sum())
    assert values["cooccurrence_cosine_similarity"] == pytest.approx(cosine)
    hellinger = math.sqrt(1.0 - np.sqrt(p * q).sum())
    assert values["cooccurrence_hellinger_distance"] == pytest.approx(hellinger)
    # From the data to the samples; the floor of 1e-10 under a cell does not show.
    kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert values["cooccurrence_kl_divergence"] == pytest.approx(kl, rel=1e-6)


def test_a_pair_that_never_occurs_costs_no_more_than_the_floor():
    values = tag_sets.cooccurrence(np.array([[1, 0]], bool), np.array([[0, 1]], bool))
    assert values["cooccurrence_kl_divergence"] == pytest.approx(math.log(1e10), rel=1e-6)
    assert values["cooccurrence_cosine_similarity"] == 0.0
    assert values["cooccurrence_hellinger_distance"] == pytest.approx(1.0)


def test_a_constant_matrix_correlates_with_nothing():
    values = tag_sets.cooccurrence(np.ones((3, 2), bool), random_sets(tags=2))
    assert values["cooccurrence_pearson_correlation"] is None
    assert 0.0 < values["cooccurrence_cosine_similarity"] < 1.0


def test_a_collection_is_no_distance_from_itself():
    sets = random_sets()
    values = tag_sets.cooccurrence(sets, sets)
    assert list(values.values()) == pytest.approx([1.0, 0.0, 0.0, 1.0], abs=1e-7)


def test_nothing_can_be_compared_with_empty_sets():
    values = tag_sets.cooccurrence(np.zeros((5, 7), bool), random_sets())
    assert set(values.values()) == {None}


def test_pairs_that_would_not_fit_are_not_counted(monkeypatch):
    sets = random_sets()
    monkeypatch.setattr(tag_sets, "_MOST_PAIRS", 49)
    assert None not in tag_sets.cooccurrence(sets, sets).values()
    monkeypatch.setattr(tag_sets, "_MOST_PAIRS", 48)
    assert set(tag_sets.cooccurrence(sets, sets).values()) == {None}


def test_independent_tags_by_hand():
    rows = np.array([[0, 2], [1, 2], [0, 2], [0, 1]])
    test = np.array([[1, 0]], bool)
    # Frequencies 3.5/4 and 1.5/4.
    by_hand = -math.log(3.5 / 4) - math.log(1 - 1.5 / 4)
    assert split_metrics.independent_nll(rows, np.array([0, 2, 3]), test) == pytest.approx(by_hand)


def test_silhouette_is_the_mean_of_textbook_values():
    mean = np.array([[0.0], [1.0], [10.0], [12.0]])
    rows = np.array([[0], [0], [1], [1]], np.uint8)
    # a: distance within the label; b: mean distance to the other label.
    textbook = [1 - 1 / 11, 1 - 1 / 10, 1 - 2 / 9.5, 1 - 2 / 11.5]
    assert split_metrics.silhouette(mean, rows) == pytest.approx(np.mean(textbook))


def test_silhouette_is_scikit_learns_over_2000_rows():
    rng = np.random.default_rng(0)
    mean, rows = rng.normal(size=(2100, 3)), rng.integers(0, 4, (2100, 2)).astype(np.uint8)
    mean[:, 0] += rows[:, 0]
    asked = subsample(2100, 2000)
    expected = silhouette_score(mean[asked], rows[asked, 0])
    assert split_metrics.silhouette(mean, rows) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), number=st.integers(3, 40), labels=st.integers(2, 12))
def test_silhouette_is_scikit_learns_with_twins_and_labels_of_one_row(seed, number, labels):
    rng = np.random.default_rng(seed)
    mean = rng.integers(-1, 2, (number, 3)).astype(np.float32)
    rows = rng.integers(0, labels, (number, 1))
    if 2 <= len(np.unique(rows)) < number:
        expected = silhouette_score(mean, rows[:, 0])
        assert split_metrics.silhouette(mean, rows) == pytest.approx(expected, abs=1e-6)


def test_silhouette_is_none_for_a_diverged_model():
    rows = np.array([[0], [0], [1]], np.uint8)
    assert split_metrics.silhouette(np.array([[0.0], [np.nan], [1.0]]), rows) is None


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]])
def test_silhouette_is_none_where_it_is_undefined(labels):
    rows = np.array(labels, np.uint8)[:, None]
    assert split_metrics.silhouette(np.arange(3.0)[:, None], rows) is None


def test_information_against_plain_densities():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(0, 2, (600, 2)), rng.normal(-1, 0.3, (600, 2))
    z = mean + np.exp(0.5 * logvar) * np.random.default_rng(0).standard_normal(mean.shape)
    log_q = np.stack(
        [norm.logpdf(z, m, np.exp(0.5 * v)).sum(axis=1) for m, v in zip(mean, logvar, strict=True)],
        axis=1,
    )
    expected = np.mean(np.diag(log_q) - logsumexp(log_q, axis=1) + math.log(600))
    assert split_metrics.aggregate_mutual_information(mean, logvar) == pytest.approx(
        expected, rel=1e-9
    )


def test_separate_posteriors_carry_the_logarithm_of_their_number():
    mean = 100.0 * np.arange(50.0)[:, None]
    assert split_metrics.aggregate_mutual_information(mean, np.zeros((50, 1))) == pytest.approx(
        math.log(50), rel=1e-6
    )


@pytest.mark.parametrize("logvar", [-12.0, -40.0, -80.0, -800.0])
@pytest.mark.parametrize("latent_dim", [3, 128])
def test_posteriors_of_any_width_that_are_few_carry_the_logarithm_of_their_number(
    logvar, latent_dim
):
    """Of a model that training has blown up: squared distances are differences of huge numbers."""
    mean = np.zeros((2, latent_dim))
    mean[:, 0], mean[:, 1], mean[:, 3:] = 1e3, (-5.0, 7.0), 70.0
    nats = split_metrics.aggregate_mutual_information(
        mean.repeat(200, axis=0), np.full((400, latent_dim), logvar)
    )
    assert nats == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("far", [0.0, 1e4, 1e6])
def test_a_row_far_away_leaves_the_others_information(far):
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(300, 1)) + 2.0
    mean[0] = far
    deviation = 1e-3
    z = mean + deviation * np.random.default_rng(0).standard_normal(mean.shape)
    log_q = norm.logpdf(z, mean.T, deviation)
    expected = np.mean(np.diag(log_q) - logsumexp(log_q, axis=1) + math.log(300))
    nats = split_metrics.aggregate_mutual_information(
        mean, np.full((300, 1), 2.0 * math.log(deviation))
    )
    assert nats == pytest.approx(expected, abs=0.02)


def test_one_posterior_for_all_carries_nothing():
    assert split_metrics.aggregate_mutual_information(
        np.ones((50, 3)), np.zeros((50, 3))
    ) == pytest.approx(0.0, abs=1e-9)


def test_information_of_far_and_narrow_posteriors():
    """The distances are multiplied out, which must not cost the digits."""
    mean = 5.0 * np.random.default_rng(0).normal(size=(200, 8))
    nats = split_metrics.aggregate_mutual_information(mean, np.full((200, 8), -12.0))
    assert nats == pytest.approx(math.log(200), rel=1e-6)


def test_a_collapsed_latent_is_called_so_where_beta_is_high():
    message = split_metrics.collapse_message(0.2, kld_weight=4.0)
    assert message.startswith("The model has collapsed: z carries 0.20 nats")
    assert "lower --config.loss.kld_weight (now 4)" in message
    assert "train longer" not in message


def test_elsewhere_the_model_may_only_be_untrained():
    message = split_metrics.collapse_message(0.2, kld_weight=1.0)
    assert "has not learned yet" in message
    assert "train longer" in message


def test_one_nat_is_no_collapse():
    assert split_metrics.collapse_message(1.0, kld_weight=4.0) is None
    assert split_metrics.collapse_message(0.999, kld_weight=4.0) is not None
