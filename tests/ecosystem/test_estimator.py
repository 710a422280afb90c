"""`TagVAE` among scikit-learn's own checks, and in a pipeline."""

import json

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import jaxvae
from jaxvae.errors import InputError

TINY = {
    "model.latent_dim": 2,
    "model.hidden_dim": 4,
    "inference.num_samples": 5,
    "logger.name": (),
    "data.batch_size": 8,
}


@parametrize_with_checks([jaxvae.TagVAE("small", max_epochs=1, overrides=TINY)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


ROWS = [["jazz", "bass"], ["rock", "drums"], ["jazz"], ["rock"]] * 20
NAMES = ["bass", "drums", "jazz", "rock"]
HOT = np.array([[name in row for name in NAMES] for row in ROWS])


def estimator(**options):
    return jaxvae.TagVAE("small", max_epochs=2, overrides=TINY, **options)


def test_rows_and_matrices_give_the_same_latents(tmp_path):
    first = estimator(workdir=tmp_path / "run").fit(HOT)
    assert first.run_.folder == tmp_path / "run"
    latents = first.transform(HOT)
    assert latents.shape == (80, 2)
    for same in (sparse.csr_matrix(HOT), HOT.astype(np.float64) * 7.0):
        assert np.array_equal(first.transform(same), latents)
    names = [first.run_.taxonomy.spellings.index(str(n)) for n in range(4)]
    assert names == [0, 1, 2, 3]
    np.testing.assert_allclose(
        first.run_.encode([[str(n) for n in np.flatnonzero(row)] for row in HOT[:4]]), latents[:4]
    )
    listed = estimator().fit(ROWS)
    assert set(listed.run_.taxonomy.tags) == set(NAMES)
    assert listed.transform([["jazz", "polka"]]).tolist() == listed.transform([["jazz"]]).tolist()


def test_it_stands_in_a_pipeline():
    pipeline = make_pipeline(estimator(random_state=3), LogisticRegression())
    pipeline.fit(HOT, HOT[:, 2])
    assert pipeline.score(HOT, HOT[:, 2]) > 0.4
    config = json.loads((pipeline[0].run_.folder / "config.json").read_text())
    assert (config["seed"], config["trainer"]["max_epochs"]) == (3, 2)


def test_a_matrix_of_other_numbers_is_refused_where_one_asks_for_it():
    with pytest.raises(InputError, match="0 and 1 alone"):
        estimator(binarize=None).fit(HOT * 3)
    folder = estimator(binarize=None).fit(HOT).run_.folder
    assert not folder.exists()  # it went with the estimator
