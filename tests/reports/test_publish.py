"""What of a run is published."""

import json

import pytest

from jaxvae.reports import model_card, publish
from tests.helpers.networks import make_run


@pytest.mark.parametrize(
    ("checkpoint", "epoch", "is_its_own"),
    [("best", 3, True), ("best", 2, False), ("last", 3, False)],
)
def test_results_are_published_with_the_parameters_they_are_of(
    checkpoint, epoch, is_its_own, tmp_path
):
    run = make_run("normal", False, False, tmp_path)
    assert run.facts == {"checkpoint": "best", "epoch": 3}
    judged = {name: 1.0 for name in model_card._NEEDED}
    judged |= {"checkpoint": checkpoint, "epoch": epoch}
    (tmp_path / "evaluation_val.json").write_text(json.dumps(judged))
    assert publish.judged_of(run) == (judged if is_its_own else None)
