"""What a trial tells its study, without any training."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxvae.inference.likelihood import RowLikelihood
from jaxvae.sweeps import search
from jaxvae.sweeps.trials import validation_measures


def line(epoch, **values):
    """A line of metrics.jsonl."""
    return {"epoch": epoch, **{f"val/{name}": value for name, value in values.items()}}


@pytest.mark.parametrize(
    ("metric", "reported"), [("val/nll_iw", 7.5), ("val/jaccard_index", 0.25), ("val/loss", 9.0)]
)
def test_a_trial_reports_its_metric_or_else_the_bound(metric, reported):
    told = []
    study = SimpleNamespace(report=lambda *values: told.append(values) or True)
    loop = search._TrialLoop(None, study, None, None, 1, metric, None)
    member = SimpleNamespace(
        name=4,
        plan=SimpleNamespace(max_epochs=3),
        ended=False,
        lines=[line(1, loss=9.0, bce=5.0, kld=2.5, jaccard_index=0.25)],
    )
    loop.report_epoch(member)
    assert told == [(4, 1, reported)]
    assert member.pruned
    member.lines.append({"epoch": 2})  # not validated
    loop.report_epoch(member)
    assert len(told) == 1


def test_a_trials_measures_are_those_of_its_best_epoch():
    member = SimpleNamespace(
        lines=[line(1, loss=3.0), line(2, loss=1.0), line(3, loss=2.0)],
        progress=SimpleNamespace(best_epoch=2),
    )
    found = RowLikelihood(
        log_likelihood=np.array([-1.0, -3.0]),
        variance=np.zeros(2),
        distortion=np.array([1.0, 2.0]),
        rate=np.array([0.0, 1.0]),
        kl_per_dimension=np.array([[0.0, 1.0], [0.0, 3.0]]),
    )
    assert validation_measures(member, found) == {
        "val/loss": 1.0,
        "val/nll_iw": 2.0,
        "val/nll_iw_stderr": 1.0,
        "val/rate": 0.5,
        "val/distortion": 1.5,
        "val/active_units": 1,
    }
