"""Dimensions of the latent space, described in tags."""

import numpy as np
import pytest

from jaxvae.evaluation.latents import name_dimensions
from jaxvae.inference import queries
from tests.helpers import exact_likelihood

TAGS = tuple("abcdefghijkl")


def test_tags_rise_and_fall_as_the_decoder_says():
    network = exact_likelihood.network(2, num_tags=12)
    mean = np.array([[0.5, -1.0], [0.0, 2.0]], np.float32)
    sets = np.eye(12, dtype=bool)[:2]
    concepts = {"first": range(6), "second": range(6, 12)}
    second, first = name_dimensions(
        network, mean, sets, np.array([0.1, 0.4]), tags=TAGS, concepts=concepts
    )
    assert [(each["dim"], each["kl"]) for each in (second, first)] == [(1, 0.4), (0, 0.1)]
    # From -2 to 2 in one dimension, with the rows' own values in the other.
    low = queries.probabilities(network, np.array([[0.5, -2.0], [0.0, -2.0]], np.float32))
    high = queries.probabilities(network, np.array([[0.5, 2.0], [0.0, 2.0]], np.float32))
    change = (high - low).mean(axis=0)
    order = [TAGS[v] for v in np.argsort(change)]
    shown = len(second["rises"])
    assert change.max() > 0.0 > change.min()
    assert [tag for tag, _ in second["rises"]] == order[::-1][:shown]
    assert [tag for tag, _ in second["falls"]] == order[:shown]
    assert second["rises"][0][1] == pytest.approx(change.max())
    assert second["falls"][0][1] == pytest.approx(change.min())
