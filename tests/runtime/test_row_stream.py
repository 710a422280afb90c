"""Rows that come an epoch's share at a time: which, in what order, and what is trained by them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxvae.errors import InputError
from jaxvae.runtime.row_stream import RowStream
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train.plan import hyperparams
from tests.helpers.training import parameters, run, same, small, timeless, write_clips


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path)


def stream(num_rows, per_epoch, *, shuffle=True, seed=0, place=lambda rows: rows):
    """Of a data set whose every second row is in the split; row n holds the number n."""
    rows = np.arange(2 * num_rows)[:, None]
    return RowStream(
        np.arange(0, 2 * num_rows, 2),
        per_epoch=per_epoch,
        shuffle=shuffle,
        seed=seed,
        place=lambda positions: place(rows[positions]),
    )


@given(data=st.data(), num_rows=st.integers(1, 30), shuffle=st.booleans())
def test_every_row_comes_once_before_any_comes_again(data, num_rows, shuffle):
    per_epoch = data.draw(st.integers(1, num_rows))
    rows = stream(num_rows, per_epoch, shuffle=shuffle)
    drawn = np.concatenate([rows.positions(epoch) for epoch in range(3 * num_rows)])
    passes = drawn.reshape(-1, num_rows)
    assert (np.sort(passes, axis=1) == np.arange(0, 2 * num_rows, 2)).all()
    assert len(passes) == 3 * per_epoch


def test_passes_and_seeds_have_orders_of_their_own():
    first, second = stream(50, 50).positions(0), stream(50, 50).positions(1)
    other = stream(50, 50, seed=1).positions(0)
    orders = [first, second, other, stream(50, 50, shuffle=False).positions(0)]
    assert len({tuple(order) for order in orders}) == 4
    assert (orders[3] == np.arange(0, 100, 2)).all()


def test_an_epoch_asked_for_alone_is_the_one_that_comes_in_turn():
    in_turn = stream(10, 4)
    epochs = [in_turn(epoch)[:, 0].tolist() for epoch in range(8)]
    alone = stream(10, 4)
    assert epochs[6] == alone(6)[:, 0].tolist()
    assert epochs[6] != epochs[5]
    assert epochs[3] == alone(3)[:, 0].tolist()  # not the one that was to come next
    assert [n for epoch in epochs[:5] for n in epoch] == [
        *stream(10, 10).positions(0),
        *stream(10, 10).positions(1),
    ]


def test_the_next_share_is_placed_while_this_one_is_used():
    placed = []

    def place(rows):
        placed.append(rows[:, 0].tolist())
        return rows

    rows = stream(10, 4, shuffle=False, place=place)
    rows(0)
    rows._worker.shutdown()  # waits for what was begun
    assert placed == [[0, 2, 4, 6], [8, 10, 12, 14]]


def test_what_fails_on_the_way_is_raised_where_the_rows_are_asked_for():
    def place(rows):
        if rows[0, 0] > 0:
            raise MemoryError("full")
        return rows

    rows = stream(10, 4, shuffle=False, place=place)
    rows(0)
    with pytest.raises(MemoryError, match="full"):
        rows(1)


def test_an_epoch_of_more_rows_than_there_are_is_refused(clips):
    with pytest.raises(InputError, match=r"rows_per_epoch=43: there are 42 training rows"):
        run(clips, data__rows_per_epoch=43)
    assert not (clips / "run" / "config.json").exists()
    run(clips, data__rows_per_epoch=42, trainer__max_epochs=1)


IN_ORDER = {"data__shuffle": False, "data__batch_size": 7}


@pytest.mark.long
def test_short_epochs_train_what_one_long_one_does(clips):
    """42 rows in batches of 7: three epochs of 14 rows take the steps of one of 42."""
    _, whole = run(clips, "whole", **IN_ORDER, trainer__max_epochs=2)
    _, parts = run(
        clips,
        "parts",
        **IN_ORDER,
        data__rows_per_epoch=14,
        trainer__max_epochs=6,
        trainer__check_val_every_n_epoch=3,
    )
    assert same(parameters(parts), parameters(whole))
    lines = timeless(parts)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    for line, of in zip(timeless(whole), (lines[:3], lines[3:]), strict=True):
        assert line["val/loss"] == of[2]["val/loss"]
        mean = np.mean([part["train/loss"] for part in of])
        assert line["train/loss"] == pytest.approx(mean, rel=1e-6)
    _, shuffled = run(clips, "shuffled", **IN_ORDER | {"data__shuffle": True})
    assert not same(parameters(shuffled), parameters(whole))


def test_two_devices_share_a_stream(clips):
    options = {"data__rows_per_epoch": 17, "trainer__max_epochs": 4}
    _, one = run(clips, "one", **options)
    _, two = run(clips, "two", **options, trainer__devices=2)
    for ours, theirs in zip(timeless(one), timeless(two), strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5)


@pytest.mark.long
def test_training_ends_at_a_step_within_an_epoch(clips):
    """The four steps of max_steps=4 are those of an epoch of four batches."""
    _, four = run(clips, "four", **IN_ORDER, data__rows_per_epoch=28, trainer__max_epochs=1)
    _, limited = run(clips, "limited", **IN_ORDER, trainer__max_steps=4, trainer__max_epochs=9)
    assert timeless(limited) == timeless(four)
    assert same(parameters(limited), parameters(four))
    _, later = run(clips, "later", **IN_ORDER, trainer__max_steps=8)
    assert [line["step"] for line in read_epochs(later)] == [6, 8]
    _, never = run(clips, "never", **IN_ORDER, trainer__max_steps=1000)
    _, epochs = run(clips, "epochs", **IN_ORDER)
    assert timeless(never) == timeless(epochs)


def test_a_run_that_ended_at_a_step_is_left_as_it_is(clips, capsys):
    _, folder = run(clips, **IN_ORDER, trainer__max_steps=4)
    before = (folder / "model.pth").stat().st_mtime_ns
    run(clips, **IN_ORDER, trainer__max_steps=4)
    said = capsys.readouterr().err
    assert "is finished and whole" in said
    assert "max_epochs" not in said
    assert (folder / "model.pth").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"max_steps \(was 4, now 5\)"):
        run(clips, **IN_ORDER, trainer__max_steps=5)
    # More epochs would not let it go on.
    with pytest.raises(InputError, match=r"max_epochs \(was 2, now 3\)"):
        run(clips, **IN_ORDER, trainer__max_steps=4, trainer__max_epochs=3)


def test_schedules_end_with_the_last_step(clips):
    options = {
        "trainer__lr_scheduler__name": "cosine",
        "loss__kld_schedule": "linear",
        "loss__kld_warmup": 0.5,
        "trainer__max_epochs": 4,
    }
    long, short = small(clips, **options), small(clips, **options, trainer__max_steps=8)
    for config, steps, epochs in ((long, 24, 4), (short, 8, 2)):
        numbers = hyperparams.hyperparams_from_config(config, steps=6)
        assert float(numbers.lengths.decay) == steps
        assert float(numbers.lengths.kld_warmup) == steps / 2
        plan = hyperparams.run_plan_from_config(config, steps=6)
        assert plan.max_epochs == epochs
        assert plan.warmup_epochs == pytest.approx(steps / 2 / 6)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"trainer__lr_scheduler__warmup_epochs": 1.5}, "trainer.lr_scheduler.warmup_epochs"),
        ({"loss__kld_schedule": "linear", "loss__kld_warmup": 1.5}, "loss.kld_warmup"),
    ],
)
def test_a_warm_up_that_would_never_end_is_refused(clips, options, field):
    """Of 1.5 epochs of three steps, 4.5."""
    with pytest.raises(InputError, match=rf"{field}: a warm-up of 4 steps .*max_steps=4"):
        run(clips, **options, trainer__max_steps=4)
    assert not (clips / "run" / "config.json").exists()
    config = small(clips, **options, trainer__max_steps=5)
    assert hyperparams.hyperparams_from_config(config, steps=3) is not None
