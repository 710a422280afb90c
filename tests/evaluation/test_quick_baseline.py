"""Baselines at a run's end: the quick mixture, against exact likelihoods of a small model, and tags
that are independent.
"""

import numpy as np
import pytest

from jaxvae.evaluation import quick_baseline
from jaxvae.evaluation.baselines import Mixture
from jaxvae.inference.load import load
from jaxvae.train.loggers.run_summary import summarize_run
from tests.helpers import exact_likelihood
from tests.helpers.training import run, write_clips

TAGS = exact_likelihood.TAGS


@pytest.fixture(scope="module")
def network():
    return exact_likelihood.network(1)


def draw_rows(number, seed):
    """Rows `[number, TAGS]` of column numbers, padded."""
    sets = np.random.default_rng(seed).random((number, TAGS)) < 0.4
    return np.sort(np.where(sets, np.arange(TAGS), TAGS), axis=1).astype(np.uint8)


def to_sets(rows):
    return (rows[:, :, None] == np.arange(TAGS)).any(axis=1)


def test_both_likelihoods_of_the_same_rows(network):
    train, val, test = (draw_rows(number, seed) for seed, number in enumerate((300, 40, 60)))
    found = quick_baseline.compare_with_quick_mixture(network, train=train, val=val, test=test)

    sets, probability = exact_likelihood.exact(network, 400)
    by_set = {row.tobytes(): np.log(p) for row, p in zip(sets, probability, strict=True)}
    model = np.array([by_set[row.tobytes()] for row in to_sets(test)])
    mixture, _ = Mixture.fit(to_sets(train), to_sets(val), components=80, smoothing=0.1, seed=0)
    gain = model - mixture.log_likelihood(to_sets(test))
    assert found["quick_mixture_nll"] == pytest.approx(
        -mixture.log_likelihood(to_sets(test)).mean()
    )
    # The model's is a bound by 100 draws.
    assert found["quick_mixture_gain"] == pytest.approx(gain.mean(), abs=0.05)
    error = gain.std(ddof=1) / np.sqrt(60)
    assert found["quick_mixture_gain_stderr"] == pytest.approx(error, rel=0.2)
    assert found["quick_mixture_rows"] == 60


def test_2000_training_rows_from_all_over_the_split_are_asked(network, monkeypatch):
    fitted = []

    def fit(train, val, *, whole=Mixture.fit, **options):
        fitted.append(train)
        return whole(train, val, **options)

    monkeypatch.setattr(Mixture, "fit", fit)
    val, test = draw_rows(40, 1), draw_rows(60, 2)
    first, last = (np.full((2000, TAGS), TAGS, np.uint8) for _ in range(2))
    first[:, 0], last[:, 0] = 0, 1  # rows of one tag each, as in a file that is sorted
    train = np.concatenate([first, last])
    quick_baseline.compare_with_quick_mixture(network, train=train, val=val, test=test)
    assert fitted[0].shape == (2000, TAGS)
    assert 900 < fitted[0][:, 0].sum() < 1100
    assert fitted[0].sum() == 2000
    quick_baseline.compare_with_quick_mixture(network, train=train[:300], val=val, test=test)
    assert len(fitted[1]) == 300


def test_few_rows_and_none(network):
    one, none = draw_rows(1, 0), draw_rows(0, 0)
    found = quick_baseline.compare_with_quick_mixture(network, train=one, val=one, test=one)
    assert found["quick_mixture_gain_stderr"] == 0.0
    for empty in ("train", "val", "test"):
        splits = {"train": one, "val": one, "test": one, empty: none}
        assert quick_baseline.compare_with_quick_mixture(network, **splits) == {}


def test_a_run_has_it_where_it_is_asked(tmp_path):
    clips = write_clips(tmp_path)
    asked = {"inference__quick_baseline": True, "inference__enabled": False}
    metrics, _ = run(clips, "asked", **asked)
    assert metrics["test"]["test/quick_mixture_nll"] > 0.0
    others = (
        run(clips, "other"),
        run(clips, "squared", loss__use_binary_cross_entropy=False, **asked),
    )
    for metrics, _ in others:
        assert not [name for name in metrics["test"] if "quick" in name]


@pytest.mark.parametrize(
    ("gain", "stands"), [(0.3, "ahead (+0.300"), (-0.3, "behind (-0.300"), (0.1, "level with it")]
)
def test_the_summary_says_where_the_model_stands(tmp_path, gain, stands):
    test = {f"test/{name}": 1.0 for name in ("loss", "bce", "kld", "jaccard_index", "hamming_loss")}
    test |= {"test/active_units_num_active_units": 3, "test/active_units_total_units": 4}
    summary = {
        "config": {
            "trainer": {"monitor": "val/loss", "monitor_mode": "min"},
            "model": {"architecture": "mlp"},
        },
        "best_epoch": 1,
        "epochs": 2,
        "largest_logit_difference": 0.0,
    }
    assert "quick mixture" not in summarize_run(tmp_path, {"test": test}, summary, "")
    test |= {
        "test/quick_mixture_gain": gain,
        "test/quick_mixture_gain_stderr": 0.1,
        "test/quick_mixture_nll": 9.0,
        "test/quick_mixture_rows": 200,
    }
    row = summarize_run(tmp_path, {"test": test}, summary, "")["quick mixture"]
    assert stands in row
    assert "tuned" in row


def test_independent_tags_are_as_frequent_as_in_training(tmp_path):
    metrics, folder = run(write_clips(tmp_path), trainer__max_epochs=1, inference__enabled=False)
    trained = load(folder)
    train, test = trained.sets("train"), trained.sets("test")
    frequency = (train.sum(axis=0) + 0.5) / (len(train) + 1.0)
    by_hand = -(test * np.log(frequency) + ~test * np.log1p(-frequency)).sum(axis=1).mean()
    assert metrics["test"]["test/independent_nll"] == pytest.approx(by_hand)
