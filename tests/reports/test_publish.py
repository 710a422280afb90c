"""What of a run is published."""

import pytest

from jaxvae.evaluation.saved_evaluation import question, save_evaluation
from jaxvae.reports import model_card, publish
from tests.helpers.networks import make_run


@pytest.mark.parametrize("is_its_own", [True, False])
def test_results_are_published_with_the_parameters_they_are_of(is_its_own, tmp_path):
    run = make_run("normal", False, False, tmp_path)
    parameters = question(run, split="val", num_importance_samples=1, seed=0)["parameters"]
    other = parameters[::-1]
    assert other != parameters
    judged = {name: 1.0 for name in model_card._NEEDED}
    judged |= {"checkpoint": "best", "epoch": 3, "parameters": parameters if is_its_own else other}
    save_evaluation(tmp_path, "val", judged)
    published = publish.judged_of(run)
    if is_its_own:
        assert published is not None
        assert judged.items() <= published.items()
    else:
        assert published is None
