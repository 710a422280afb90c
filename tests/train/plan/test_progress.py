"""Best epoch and patience, by hand."""

import math

import pytest

from jaxvae.config.monitor import MODES, Monitor
from jaxvae.train.plan.progress import RunPlan, RunProgress


def plan(**options):
    return RunPlan(
        **{
            "max_epochs": 10,
            "max_steps": 0,
            "warmup_epochs": 0.0,
            "check_val_every_n_epoch": 1,
            "patience": 0,
            "min_delta": 0.0,
            "checkpoint_every_seconds": 0.0,
            **options,
        }
    )


def watch(values, **options):
    progress, best = RunProgress(), []
    for number, loss in enumerate(values, start=1):
        progress.epoch = number
        best.append(progress.observe(loss, plan(**options)))
        if progress.stopped_early:
            break
    return progress, best


def test_the_best_is_the_lowest():
    progress, best = watch([3.0, 1.0, 2.0, 1.0])
    assert best == [True, True, False, False]
    assert (progress.best_epoch, progress.best_value) == (2, 1.0)
    assert not progress.stopped_early


def test_patience_counts_validations_without_a_gain():
    progress, _ = watch([3.0, 2.0, 2.5, 2.0, 1.0], patience=2)
    assert progress.stopped_early
    assert progress.epoch == 4


def test_patience_waits_for_the_final_weights():
    progress = RunProgress()
    for number in range(1, 8):
        progress.epoch = number
        progress.observe(2.0, plan(patience=2, warmup_epochs=5.0))
        assert progress.stopped_early == (number >= 6)
    control = RunProgress()
    for number in range(1, 4):
        control.epoch = number
        control.observe(2.0, plan(patience=2))
    assert control.stopped_early


def test_a_gain_starts_the_count_again():
    progress, _ = watch([3.0, 3.5, 2.0, 2.5, 1.0], patience=2)
    assert not progress.stopped_early


def test_a_gain_too_small_to_count_is_still_the_best():
    progress, best = watch([3.0, 2.9, 2.8], patience=2, min_delta=0.5)
    assert best == [True, True, True]
    assert progress.stopped_early
    assert progress.best_value == 2.8


def test_the_last_epoch_is_always_validated():
    assert [n for n in range(1, 11) if plan(check_val_every_n_epoch=4).validates(n)] == [4, 8, 10]


def test_a_failure_names_the_term_that_overflowed():
    progress = RunProgress()
    progress.fail(7, {"bce": 1.0, "kld": float("inf")})
    assert progress.nonfinite_step == 7
    assert "KL" in progress.nonfinite_terms
    assert "reconstruction" not in progress.nonfinite_terms


@pytest.mark.parametrize(("mode", "epoch", "value"), [("min", 2, 1.0), ("max", 1, 3.0)])
def test_the_monitor_says_which_way_is_better(mode, epoch, value):
    progress, best = watch([3.0, 1.0, 2.0], monitor=Monitor("val/x", mode))
    assert (progress.best_epoch, progress.best_value) == (epoch, value)
    assert best[0]  # whatever it is, nothing was better before


def test_patience_goes_by_the_monitor():
    rising = [0.1, 0.2, 0.3, 0.4]
    assert not watch(rising, patience=2, monitor=Monitor("val/x", "max"))[0].stopped_early
    assert watch(rising, patience=2, monitor=Monitor("val/x", "min"))[0].epoch == 3


def test_what_is_no_number_is_never_better():
    assert watch([math.nan, 2.0, math.nan, 1.0])[1] == [False, True, False, True]


def test_counters_of_a_checkpoint_from_before_monitors_are_read():
    old = {"epoch": 5, "best_epoch": 3, "best_loss": 1.5}
    new = {"epoch": 5, "best_epoch": 3, "best_value": 1.5}
    assert RunProgress.from_facts(old) == RunProgress.from_facts(new)
    assert RunProgress.from_facts(old).best_value == 1.5
    assert set(MODES.values()) == {"min", "max"}
