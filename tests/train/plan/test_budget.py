"""Training in the minutes given, by a clock that the test turns."""

import json
import math

import pytest

from jaxvae.errors import InputError
from jaxvae.inference.verify import verify
from jaxvae.train import loop
from jaxvae.train.plan import recipe
from jaxvae.train.plan.budget import LONGER, Budget
from jaxvae.train.trainer import train_and_evaluate
from tests.helpers.training import parameters, run, same, small, write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("budget"))


@pytest.fixture
def epochs_of(monkeypatch):
    """Makes each epoch last as long as one says, by its number in the process."""
    counted = []

    def last(seconds):
        trained = loop._train_one_epoch

        def timed(programs, state, progress):
            counted.append(programs.hyperparams)
            state, line = trained(programs, state, progress)
            return state, line | {"seconds": seconds(len(counted))}

        monkeypatch.setattr(loop, "_train_one_epoch", timed)
        return counted

    return last


def settle(durations, *, seconds=600.0, most=1000):
    budget = Budget(seconds, replan=lambda epochs: None, record=lambda epochs: None)
    for epoch, duration in enumerate(durations, start=1):
        if length := budget.settle(epoch, duration, most=most):
            return epoch, length
    return None


def test_length_by_hand():
    # The first compiles. Five seconds of timed epochs are enough: two of 2.5 s, so 600 / 2.5.
    assert settle([40.0, 2.5, 2.5, 2.5]) == (3, 240)
    assert settle([40.0, 2.5, 2.5], most=100) == (3, 100)
    # A twentieth of a short budget is enough.
    assert settle([40.0, 0.5, 0.5], seconds=10.0) == (2, 20)
    assert settle([40.0, 2.0, 1.0]) is None


def test_epochs_that_are_longer_than_the_budget_are_not_undone():
    assert settle([400.0, 400.0], seconds=60.0) == (2, 2)


@pytest.mark.long
@pytest.mark.parametrize("minutes", [0.1, 0.2])
def test_a_run_ends_on_time_and_its_schedules_with_it(clips, epochs_of, minutes):
    numbers = epochs_of(lambda number: 90.0 if number == 1 else 0.5)
    config = {
        "trainer__max_minutes": minutes,
        "trainer__max_epochs": 1000,
        "trainer__lr_scheduler__name": "cosine",
        "loss__kld_schedule": "linear",
        "loss__kld_warmup": 0.25,
    }
    _, folder = run(clips, f"minutes_{minutes}", **config)
    epochs = round(60 * minutes / 0.5)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == epochs
    assert json.loads((folder / "resolved.json").read_text()) == {"trainer.max_epochs": epochs}
    steps = lines[0]["step"]
    assert float(numbers[0].lengths.decay) == 1000 * steps
    assert float(numbers[-1].lengths.decay) == epochs * steps
    assert float(numbers[-1].lengths.kld_warmup) == 0.25 * epochs * steps
    assert json.loads((folder / "summary.json").read_text())["config"]["trainer"][
        "max_epochs"
    ] == epochs  # fmt: skip
    assert not verify(folder)[1]


def test_without_minutes_the_clock_has_no_say(clips, epochs_of):
    epochs_of(lambda number: 1e6)
    _, folder = run(clips, "no_budget", trainer__max_epochs=3)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert not (folder / "resolved.json").exists()


@pytest.mark.long
def test_a_resumed_run_goes_on_by_the_length_that_was_settled(clips, epochs_of):
    epochs_of(lambda number: 0.5)
    config = {"trainer__max_minutes": 0.1, "trainer__max_epochs": 1000,
              "trainer__lr_scheduler__name": "cosine"}  # fmt: skip
    _, whole = run(clips, "whole", **config)

    def stop(epoch, metrics, state):
        if epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, "stopped", hooks=[stop], trainer__checkpoint_every_seconds=0.0, **config)
    epochs_of(lambda number: 60.0)  # on a machine so slow that it would end at once
    _, resumed = run(clips, "stopped", **config)
    assert same(parameters(whole), parameters(resumed))
    assert len((resumed / "metrics.jsonl").read_text().splitlines()) == 12


def test_epochs_that_follow_the_data_fill_the_minutes_up_to_a_limit(clips, epochs_of, monkeypatch):
    values = recipe.rule(recipe.DataSize(42, 12, 3.0)) | {"trainer.max_epochs": 4}
    monkeypatch.setattr(recipe, "rule", lambda size: values)
    for number, (minutes, epochs) in enumerate([(0.05, 6), (10.0, 4 * LONGER)]):
        epochs_of(lambda number: 0.5)
        config = small(clips, trainer__max_epochs=0, trainer__max_minutes=minutes)
        folder = clips / f"following_{number}"
        train_and_evaluate(config, folder, models_dir=clips / "models")
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == epochs


@pytest.mark.parametrize("minutes", [-1.0, math.inf])
def test_minutes_that_can_t_be_are_refused(clips, minutes):
    with pytest.raises(InputError, match="max_minutes"):
        run(clips, "refused", trainer__max_minutes=minutes)
    assert not (clips / "refused").exists()
