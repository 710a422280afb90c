"""What a run is told to try next, on runs made to be each of the cases."""

import json

import numpy as np
import pytest

from jaxvae.evaluation.evaluate_run import evaluate_run
from jaxvae.inference.load import load
from jaxvae.reports.advice import advise
from tests.helpers.training import run, write_clips

pytestmark = pytest.mark.long

JUDGED = {"collapsed": False, "kld_weight": 1.0, "split": "test"}


def advice(folder, **options):
    judged = evaluate_run(load(folder), split="test", num_importance_samples=20)
    json.dumps(judged, allow_nan=False)
    return judged, advise(judged | {"collapsed": False} | options, is_behind=False)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("advice"))


def with_course(folder, train, val):
    """Replaces the losses that a run has in its log."""
    lines = [
        {"epoch": epoch, "train/bce": a, "train/kld": 0.5, "val/bce": b, "val/kld": 0.5}
        for epoch, (a, b) in enumerate(zip(train, val, strict=True), start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def trained(clips):
    return run(clips, "trained")[1]


@pytest.fixture
def course(trained):
    before = (trained / "metrics.jsonl").read_bytes()
    yield lambda train, val: with_course(trained, train, val)
    (trained / "metrics.jsonl").write_bytes(before)


FALLING = np.linspace(8.0, 5.0, 20)
LEVEL = np.concatenate([FALLING, np.full(10, 5.0)])


def test_a_run_that_has_settled_is_told_to_try_other_seeds(trained, course):
    course(LEVEL - 0.5, LEVEL)
    judged, text = advice(trained)
    assert (judged["training/epochs"], judged["training/best_epoch"]) == (30, 20)
    assert judged["training/gap"] == pytest.approx(0.5)
    assert text.startswith("Try next: other seeds")


def test_a_run_that_still_falls_is_told_to_train_longer(trained, course):
    course(FALLING - 0.5, FALLING)
    judged, text = advice(trained)
    # Of twenty validations the last fifth is four.
    assert judged["training/fall_at_end"] == pytest.approx(FALLING[15] - FALLING[19])
    assert text.startswith("It under-fits: validation is best at the last epoch, 0.63 nats")
    assert "more --config.trainer.max_epochs" in text
    assert "hidden_dim" not in text
    assert "best.py" not in text
    behind = advise(advice(trained)[0] | {"collapsed": False}, is_behind=True)
    assert behind.startswith("It under-fits")
    assert "; or --config=configs/best.py" in behind


def test_a_run_whose_minutes_were_too_few_is_told_so(trained, course):
    course(FALLING - 0.5, FALLING)
    judged, text = advice(trained)
    assert judged["training/max_minutes"] == 0.0
    assert "minutes" not in text
    learned = judged | {"collapsed": False, "training/max_minutes": 0.5}
    told = "Try next: more --config.trainer.max_minutes (it was 0.5)."
    assert told in advise(learned, is_behind=False)
    nothing_yet = {"training/epochs": None, "training/max_minutes": 10.0, "collapsed": True}
    assert "max_minutes (it was 10)" in advise(judged | nothing_yet, is_behind=False)


def test_a_run_above_its_validation_is_told_to_be_wider(trained, course):
    course(FALLING + 0.5, FALLING)
    _, text = advice(trained)
    assert "below the training loss. Try next: a larger --config.model.hidden_dim" in text


def test_a_run_that_learns_rows_by_heart_is_told_so(trained, course):
    course(np.linspace(8.0, 3.0, 20), np.concatenate([FALLING[:10], FALLING[9::-1]]))
    _, text = advice(trained)
    assert text.startswith("It over-fits: validation is best at epoch 10 of 20 and then")
    assert "a higher --config.model.dropout_p" in text


def test_a_run_that_gets_worse_on_both_is_told_to_lower_its_rate(trained, course):
    shape = np.concatenate([FALLING[:5], FALLING[4] + np.linspace(0.2, 1.0, 15)])
    course(shape - 0.2, shape)
    _, text = advice(trained)
    assert text.startswith("The learning rate is too high: validation is best at epoch 5 of 20")
    assert "--config.trainer.optimizer.lr" in text


def test_a_loss_that_bounces_is_told_to_lower_its_rate(trained, course):
    bouncing = LEVEL + 0.3 * (np.arange(30) % 2)
    course(bouncing - 0.5, bouncing)
    judged, text = advice(trained)
    # The second half is epochs 16 to 30: of its fourteen changes seven are rises.
    rises = np.maximum(np.diff(bouncing[15:]), 0.0).sum()
    assert judged["training/bounce"] == pytest.approx(rises / 14)
    assert text.startswith("The learning rate is too high")
    course(LEVEL - 0.5, LEVEL)
    assert advice(trained)[0]["training/bounce"] == 0.0


def test_repeated_rows_are_told_and_rows_of_their_own_are_not(trained, clips):
    judged, text = advice(trained)
    run_ = load(trained)
    known = {tuple(row) for row in run_.rows("train").tolist()}
    repeated = np.mean([tuple(row) in known for row in run_.rows("test").tolist()])
    assert judged["training/repeated_fraction"] == pytest.approx(repeated)
    assert repeated > 0.33
    assert "--config.data.split_by=set" in text
    _, by_set = run(clips, "by_set", data__split_by="set")
    judged, text = advice(by_set)
    assert judged["training/repeated_fraction"] == 0.0
    assert "split_by" not in text


@pytest.mark.parametrize(("rows", "told"), [(4.5, True), (5.0, False)])
def test_few_rows_of_a_tag_are_told(rows, told):
    text = advise(JUDGED | {"training/rows_of_median_tag": rows}, is_behind=False)
    assert ("half of them are in 4.5 training rows or fewer" in text) == told


def test_collapse_comes_first_and_a_baseline_last():
    collapsed = JUDGED | {"collapsed": True}
    assert "more --config.trainer.max_epochs" in advise(collapsed, is_behind=True)
    assert "a lower --config.loss.kld_weight (it is 4" in advise(
        collapsed | {"kld_weight": 4.0}, is_behind=False
    )
    assert "--config=configs/best.py" in advise(JUDGED, is_behind=True)


def test_a_run_of_too_high_a_rate_is_told_so(clips):
    """The real thing: a rate at which Adam leaves what it has found."""
    _, folder = run(
        clips,
        "too_fast",
        model__hidden_dim=32,
        trainer__optimizer__lr=1.0,
        trainer__max_epochs=30,
    )
    judged, text = advice(folder)
    assert judged["training/rise_after_best"] > 0.1
    assert "learning rate is too high" in text


def test_a_run_that_has_only_begun_is_told_to_go_on(clips):
    _, folder = run(clips, "begun", trainer__max_epochs=5, trainer__optimizer__lr=3e-3)
    assert "It under-fits" in advice(folder)[1]


def test_a_wide_model_of_few_rows_is_told_that_it_over_fits(clips):
    _, folder = run(
        clips,
        "by_heart",
        model__hidden_dim=128,
        model__dropout_p=0.0,
        trainer__optimizer__lr=1e-2,
        trainer__max_epochs=150,
    )
    assert "It over-fits" in advice(folder)[1]
