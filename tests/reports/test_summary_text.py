"""An evaluation in words."""

import pytest

from jaxvae.reports.summary_text import verdict

JUDGED = {
    "information": 3.0,
    "collapsed": False,
    "active_units": 5,
    "latent_dim": 8,
    "rows": 100,
    "split": "test",
    "kld_weight": 1.0,
}


@pytest.mark.parametrize(
    ("gain", "error", "word"),
    [
        (0.5, 0.2, "better than"),
        (-0.5, 0.2, "worse than"),
        (0.3, 0.2, "not distinguishable from"),  # within two standard errors: noise
        (-0.3, 0.2, "not distinguishable from"),
        (0.5, None, "not distinguishable from"),  # a single row has no error
    ],
)
def test_a_difference_counts_from_two_standard_errors(gain, error, word):
    against = {"gain/mixture": gain, "gain/mixture_stderr": error}
    _, comparison, _ = verdict(JUDGED | against)
    assert comparison == f"On 100 test rows it is {word} mixture of Bernoullis ({gain:+.2f} nats)."


def test_each_baseline_is_compared_by_itself():
    gains = {"gain/independent": 2.0, "gain/independent_stderr": 0.1,
             "gain/chow_liu": 0.1, "gain/chow_liu_stderr": 0.1,
             "gain/mixture": -1.0, "gain/mixture_stderr": 0.1}  # fmt: skip
    _, comparison, advice = verdict(JUDGED | gains)
    assert comparison == (
        "On 100 test rows it is better than independent tags (+2.00 nats); not distinguishable from "
        "Chow-Liu tree (+0.10 nats); worse than mixture of Bernoullis (-1.00 nats)."
    )
    assert "trainer=tuned" in advice
