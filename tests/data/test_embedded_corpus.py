"""The embedded corpus against brute force on a corpus small enough to list, and as shipped."""

import functools
import itertools

import numpy as np
import pytest

from jaxvae.data.embedded_corpus import (
    MOODS,
    OUTSIDE_ONLY,
    OUTSIDE_TOO,
    STYLES,
    Corpus,
    build_corpus,
)
from jaxvae.data.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_mapping({"genre": ["a", "b", "c"], "mood": ["d", "e"]}, source="tiny")
PRIOR = np.array([0.1, 0.2, 0.0, 0.15, 0.25, 0.3])
TAG_PROBS = np.random.default_rng(7).uniform(0.05, 0.9, (6, 5))


def tiny(max_tags: int = 3) -> Corpus:
    factors = {"style": ("x", "y"), "pace": ("slow", "medium", "fast")}
    with np.errstate(divide="ignore"):
        return Corpus(TAXONOMY, factors, np.log(PRIOR), TAG_PROBS, max_tags=max_tags)


def subsets() -> list[tuple[int, ...]]:
    return [s for size in range(6) for s in itertools.combinations(range(5), size)]


def pad(rows, width: int, num_tags: int) -> np.ndarray:
    return np.array([[*row, *[num_tags] * (width - len(row))] for row in rows])


def by_hand() -> np.ndarray:
    """p(x, state) of every subset, written as the definition says, [32, 6]."""
    return np.array(
        [
            [
                PRIOR[s] * np.prod([p if v in x else 1 - p for v, p in enumerate(TAG_PROBS[s])])
                for s in range(6)
            ]
            for x in subsets()
        ]
    )


@functools.cache
def shipped():
    """The shipped corpus' default draw, and those of its rows that keep a column, padded."""
    corpus = build_corpus()
    draw = corpus.draw()
    keeps = np.array([bool(row) for row in draw.columns])
    rows = pad([row for row in draw.columns if row], corpus.max_tags, corpus.taxonomy.num_tags)
    return corpus, draw, keeps, rows


def test_likelihood_is_the_sum_over_factor_states():
    found = tiny().log_likelihood(pad(subsets(), 5, 5))
    np.testing.assert_allclose(found, np.log(by_hand().sum(axis=1)), rtol=1e-12)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)


def test_likelihood_given_an_allowed_size_is_the_share_among_those_rows():
    corpus = tiny()
    size = np.array([len(x) for x in subsets()])
    allowed = (size >= 1) & (size <= 3)
    total = by_hand()[allowed].sum()
    assert corpus.log_prob_allowed() == pytest.approx(np.log(total), rel=1e-12)
    found = corpus.log_likelihood_given_allowed(pad(subsets(), 5, 5))
    assert np.all(found[~allowed] == -np.inf)
    np.testing.assert_allclose(found[allowed], np.log(by_hand()[allowed].sum(1) / total))
    for k in range(4):
        assert corpus.size_probs[k] == pytest.approx(by_hand()[size == k].sum(), rel=1e-12)


def test_posterior_is_bayes_rule():
    joint = by_hand().reshape(32, 2, 3)
    posterior = tiny().posterior(pad(subsets(), 5, 5))
    evidence = joint.sum(axis=(1, 2))[:, None]
    np.testing.assert_allclose(posterior["style"], joint.sum(axis=2) / evidence)
    np.testing.assert_allclose(posterior["pace"], joint.sum(axis=1) / evidence)


def test_rows_may_be_narrow_integers_in_any_order_and_padded_anywhere():
    corpus = tiny()
    plain = corpus.log_likelihood(np.array([[0, 3]]))
    assert corpus.log_likelihood(np.array([[5, 3, 5, 0, 3]], np.uint8)) == plain
    assert corpus.log_likelihood(np.zeros((0, 2), np.int64)).shape == (0,)
    assert corpus.posterior(np.zeros((0, 2), np.int64))["pace"].shape == (0, 3)
    none = corpus.log_likelihood(np.full((1, 4), 5))
    assert none == corpus.log_likelihood(np.zeros((1, 0), np.int64))


def test_more_rows_than_one_batch_score_as_each_alone(monkeypatch):
    rows = pad(subsets(), 5, 5)
    whole = tiny().log_likelihood(rows)
    monkeypatch.setattr("jaxvae.data.embedded_corpus._SCORED_AT_ONCE", 7)
    np.testing.assert_allclose(tiny().log_likelihood(rows), whole, rtol=1e-14)


def test_drawn_rows_have_the_frequencies_of_the_model():
    corpus = tiny()
    draw = corpus.draw(20_000, seed=3)
    size = np.array([len(x) for x in subsets()])
    allowed = (size >= 1) & (size <= 3)
    joint = np.where(allowed[:, None], by_hand(), 0)
    joint /= joint.sum()
    seen = {x: i for i, x in enumerate(subsets())}
    rows = [(i, seen[tuple(row)]) for i, row in enumerate(draw.columns) if row]
    state = np.ravel_multi_index([draw.factors["style"], draw.factors["pace"]], (2, 3))
    counts = np.zeros((32, 6))
    np.add.at(counts, ([x for _, x in rows], state[[i for i, _ in rows]]), 1)
    error = np.sqrt(joint * (1 - joint) / len(rows))
    assert np.all(np.abs(counts / len(rows) - joint) <= 5 * error)


def test_a_draw_is_fixed_by_its_seed_and_starts_as_a_shorter_one():
    corpus, draw, _, _ = shipped()
    again = corpus.draw()
    assert again.tags == draw.tags
    assert again.columns == draw.columns
    short = corpus.draw(50)
    assert short.tags == draw.tags[:50]
    assert all(np.array_equal(short.factors[f], draw.factors[f][:50]) for f in draw.factors)
    assert corpus.draw(50, seed=1).tags != short.tags
    assert len(set(map(tuple, corpus.draw(5000).columns[:50]))) > 20


def test_tags_are_the_columns_and_a_few_words_from_outside():
    corpus, draw, keeps, _ = shipped()
    outside = set(corpus.outside_tags)
    has_outside = np.array([not outside.isdisjoint(row) for row in draw.tags])
    for row, columns in zip(draw.tags, draw.columns, strict=True):
        assert len(row) == len(set(row)) >= 1
        assert sorted(corpus.taxonomy.columns(set(row) - outside)) == columns
        assert len(columns) <= corpus.max_tags
    n = len(draw.tags)
    assert n == 5500
    for share, expected in (
        ((~keeps).mean(), OUTSIDE_ONLY),
        ((keeps & has_outside).mean(), OUTSIDE_TOO),
    ):
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
    in_order = [
        corpus.taxonomy.columns(t) == [corpus.taxonomy.column(x) for x in t]
        for t, out in zip(draw.tags, has_outside, strict=True)
        if not out and len(t) == 2
    ]
    assert 0.4 < np.mean(in_order) < 0.6


def test_shipped_rows_look_like_described_music():
    corpus, draw, keeps, rows = shipped()
    v = corpus.taxonomy.num_tags
    sizes = np.array([len(row) for row in draw.columns])[keeps]
    assert 3.5 <= sizes.mean() <= 4.5
    shares = np.bincount(np.minimum(sizes, 9), minlength=10)[1:] / len(sizes)
    musiccaps = np.array([789, 973, 938, 832, 584, 402, 261, 126, 141]) / 5046
    assert np.abs(shares - musiccaps).sum() / 2 < 0.1  # Total variation.
    counts = np.bincount(rows.ravel(), minlength=v + 1)[:v]
    assert np.count_nonzero(counts) >= 190
    assert 0.05 < counts.max() / len(rows) < 0.2


def test_shipped_tag_frequencies_are_the_exact_marginals():
    corpus, _, keeps, rows = shipped()
    v = corpus.taxonomy.num_tags
    # A present tag makes the size at least 1; sizes beyond 14 are rarer than 1 in 10,000.
    assert 1 - corpus.size_probs.sum() < 1e-4
    exact = np.exp(corpus.log_prior) @ corpus.tag_probs / np.exp(corpus.log_prob_allowed())
    found = np.bincount(rows.ravel(), minlength=v + 1)[:v] / keeps.sum()
    assert np.all(np.abs(found - exact) < 5 * np.sqrt(exact * (1 - exact) / keeps.sum()) + 1e-4)
    sizes = np.bincount((rows < v).sum(axis=1), minlength=15) / len(rows)
    share = np.append(0, corpus.size_probs[1:] / corpus.size_probs[1:].sum())
    assert np.all(np.abs(sizes - share) < 5 * np.sqrt(share / len(rows)) + 1e-3)


def test_independent_tags_lose_three_nats_a_row():
    corpus, _, _, rows = shipped()
    v = corpus.taxonomy.num_tags
    counts = np.bincount(rows.ravel(), minlength=v + 1)[:v]
    fitted = (counts[None] + 0.5) / (len(rows) + 1)
    independent = Corpus(corpus.taxonomy, {"none": ("only",)}, np.zeros(1), fitted)
    rows = rows[:2000]
    gap = corpus.log_likelihood(rows) - independent.log_likelihood(rows)
    assert gap.mean() - 2 * gap.std() / np.sqrt(len(gap)) > 2.8
    assert gap.mean() > 3.0


def test_factors_show_in_the_tags():
    corpus, draw, keeps, rows = shipped()
    posterior = corpus.posterior(rows[:1000])
    for name, p in posterior.items():
        np.testing.assert_allclose(p.sum(axis=1), 1)
        truth = draw.factors[name][keeps][:1000]
        # Calibrated: the mean probability of the best guess is how often it is right.
        right = p.argmax(axis=1) == truth
        assert abs(p.max(axis=1).mean() - right.mean()) < 5 * 0.5 / np.sqrt(len(truth))
    assert (posterior["style"].argmax(1) == draw.factors["style"][keeps][:1000]).mean() > 0.6


def test_an_example_row_is_read_as_a_listener_would():
    corpus = build_corpus()
    row = corpus.taxonomy.columns(["jazz", "mellow", "upright bass", "piano", "slow tempo"])
    found = {
        name: corpus.factors[name][p[0].argmax()]
        for name, p in corpus.posterior(np.array([row])).items()
    }
    assert (found["style"], found["mood"], found["tempo"]) == ("jazz", "calm", "slow")


def test_every_table_speaks_the_shipped_taxonomy_and_every_tag_has_a_cause():
    corpus = build_corpus()
    assert corpus.factors["style"] == tuple(STYLES)
    assert corpus.factors["mood"] == tuple(MOODS)
    for table in (STYLES, MOODS):
        for name, entries in table.items():
            tags = [entry.rsplit(maxsplit=1)[0] for entry in entries.split(",")]
            assert len(tags) == len(corpus.taxonomy.columns(tags)), f"{name} repeats a tag"
    # No tag depends on stray mentions alone.
    assert np.all(corpus.tag_probs.max(axis=0) > 0.01)
    assert build_corpus() is corpus


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"log_prior": np.log(np.full(5, 0.2))}, "log_prior has shape"),
        ({"log_prior": np.log(np.full(6, 0.2))}, "sum to 1"),
        ({"tag_probs": TAG_PROBS[:, :4]}, "tag_probs has shape"),
        ({"tag_probs": np.where(TAG_PROBS > 0.5, 1.0, TAG_PROBS)}, "strictly between"),
        ({"outside_tags": ("noisy", " A")}, r"\['a'\] are in the taxonomy"),
    ],
)
def test_a_corpus_that_is_no_distribution_is_refused(change, match):
    arrays = {"log_prior": np.log(np.full(6, 1 / 6)), "tag_probs": TAG_PROBS}
    factors = {"style": ("x", "y"), "pace": ("slow", "medium", "fast")}
    with pytest.raises(ValueError, match=match):
        Corpus(TAXONOMY, factors, **(arrays | change))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.array([0, 1]), "N, K"),
        (np.array([[0.0]]), "integers"),
        (np.array([[6]]), r"beyond 0\.\.5"),
        (np.array([[-1]]), r"beyond 0\.\.5"),
    ],
)
def test_rows_that_are_no_columns_are_refused(rows, match):
    with pytest.raises(ValueError, match=match):
        tiny().log_likelihood(rows)


def test_draws_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="num_rows"):
        tiny().draw(0)
    silent = Corpus(TAXONOMY, {"none": ("only",)}, np.zeros(1), np.full((1, 5), 1e-12))
    with pytest.raises(ValueError, match="under one row"):
        silent.draw(1)
