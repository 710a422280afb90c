"""Best epoch and patience, by hand."""

from jaxvae.progress import Plan, Progress


def plan(**options):
    return Plan(
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
    progress, best = Progress(), []
    for number, loss in enumerate(values, start=1):
        progress.epoch = number
        best.append(progress.observe(loss, plan(**options)))
        if progress.stopped_early:
            break
    return progress, best


def test_the_best_is_the_lowest():
    progress, best = watch([3.0, 1.0, 2.0, 1.0])
    assert best == [True, True, False, False]
    assert (progress.best_epoch, progress.best_loss) == (2, 1.0)
    assert not progress.stopped_early


def test_patience_counts_validations_without_a_gain():
    progress, _ = watch([3.0, 2.0, 2.5, 2.0, 1.0], patience=2)
    assert progress.stopped_early
    assert progress.epoch == 4


def test_patience_waits_for_the_final_weights():
    progress = Progress()
    for number in range(1, 8):
        progress.epoch = number
        progress.observe(2.0, plan(patience=2, warmup_epochs=5.0))
        assert progress.stopped_early == (number >= 6)
    control = Progress()
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
    assert progress.best_loss == 2.8


def test_the_last_epoch_is_always_validated():
    assert [n for n in range(1, 11) if plan(check_val_every_n_epoch=4).validates(n)] == [4, 8, 10]


def test_a_failure_names_the_term_that_overflowed():
    progress = Progress()
    progress.fail(7, {"bce": 1.0, "kld": float("inf")})
    assert progress.nonfinite_step == 7
    assert "KL" in progress.nonfinite_terms
    assert "reconstruction" not in progress.nonfinite_terms
