"""A study's own bookkeeping, without any training."""

import pytest

from jaxvae.sweeps.optuna_study import Study
from jaxvae.sweeps.search_space import Dimension

pytest.importorskip("optuna", reason="search needs the extra optuna")


@pytest.fixture
def study(tmp_path):
    """Opens the same study, as each process of a search does."""

    def open_study(**options):
        usual = {"worker": "one", "maximise": False, "sampler": "random", "pruner": "none"}
        return Study(
            name="study",
            storage=f"journal:///{tmp_path}/journal.log",
            seed=0,
            **{**usual, **options},
        )

    return open_study


@pytest.mark.parametrize(("maximise", "best"), [(False, 1), (True, 2)])
def test_the_best_trial_is_the_least_or_the_greatest(study, maximise, best):
    opened = study(maximise=maximise)
    assert opened.best() is None
    for value in (2.0, 1.0, 3.0):
        number, _ = opened.ask(5)
        opened.finish(number, value, {})
    number, _ = opened.ask(5)
    opened.fail(number, "overflow")
    assert opened.best().number == best


def test_a_worker_goes_on_with_its_own_trials_and_no_others(study):
    learning_rate = Dimension("log", (1e-4, 1e-1))
    drawn = []
    for worker in ("one", "other"):
        number, draw = study(worker=worker).ask(9)
        drawn.append((number, draw("lr", learning_rate)))
    assert [number for number, _ in drawn] == [0, 1]
    for worker, expected in zip(("one", "other"), drawn, strict=True):
        number, draw = study(worker=worker).ask(9)  # it was killed, and begins again
        assert (number, draw("lr", learning_rate)) == expected
    number, _ = study(worker="third").ask(9)
    assert number == 2
