"""Figures of a file whose rows are sorted: what is computed over some rows takes them from all over.

Half of the rows are of one kind of music, and the others, behind them, of another.
"""

import numpy as np
import pytest

from jaxvae.evaluation import evaluate_run, latents, split_metrics
from jaxvae.inference import queries
from jaxvae.inference.load import load
from jaxvae.reports.explorer import make_page
from jaxvae.storage.epoch_metrics import read_epochs
from tests.helpers.training import run, write_clips

MOST = 10


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = write_clips(tmp_path_factory.mktemp("sorted"))
    (folder / "clips.csv").write_text(
        "clip,aspect_list\n"
        + "".join(f"{n},\"['jazz', 'calm', 'piano']\"\n" for n in range(35))
        + "".join(f"{n},\"['rock', 'dark', 'drums']\"\n" for n in range(35, 70))
    )
    return folder


@pytest.fixture
def kinds(monkeypatch):
    """Kinds of music among the rows of each question to the encoder that takes so few of them."""
    found = []

    def posterior(network, rows, *, asked=queries.posterior):
        if len(rows) <= MOST:
            found.append(set(np.asarray(rows)[:, 0].tolist()))
        return asked(network, rows)

    monkeypatch.setattr(split_metrics, "INFORMATION_ROWS", MOST)
    monkeypatch.setattr(split_metrics, "SILHOUETTE_ROWS", MOST)
    monkeypatch.setattr(queries, "posterior", posterior)
    return found


def test_silhouette_of_a_sorted_file():
    rows = np.repeat([[0], [1]], 3000, axis=0)
    mean = np.where(rows == 0, -1.0, 1.0)
    assert split_metrics.silhouette(mean, rows) == 1.0  # None among the first 2,000


def test_information_of_a_sorted_file():
    mean = np.repeat([[-50.0], [50.0]], 6000, axis=0)
    nats = split_metrics.aggregate_mutual_information(mean, np.zeros((12_000, 1)))
    # Which of two kinds a row is; nothing among the first 5,000.
    assert nats == pytest.approx(np.log(2.0), abs=0.01)


def test_a_run_and_its_evaluation_see_both_kinds(clips, kinds, monkeypatch):
    labelled, named = [], []

    def split_values(total, mean, rows, *, compute=split_metrics.split_metrics):
        assert len(mean) == len(rows)
        labelled.append(set(rows[:, 0].tolist()))
        return compute(total, mean, rows)

    def name_dimensions(network, mean, sets, kl, *, name=latents.name_dimensions, **texts):
        named.append(set(sets.argmax(axis=1).tolist()))
        return name(network, mean, sets, kl, **texts)

    monkeypatch.setattr(split_metrics, "split_metrics", split_values)
    monkeypatch.setattr(latents, "name_dimensions", name_dimensions)
    metrics, folder = run(clips, trainer__max_epochs=1, data__batch_size=21)
    trained = load(folder)
    evaluate_run.evaluate_run(trained, split="test", num_importance_samples=2, seed=0)
    evaluate_run.name_dimensions(trained)
    make_page(trained)
    assert kinds == 3 * [{0, 1}]  # the run's last evaluation, `evaluate` and its names
    assert labelled == 3 * [{0, 1}]  # an epoch, and the validation and test at the end
    assert named == 2 * [{0, 1}]
    # An epoch's means are those of its rows, as the last evaluation's are.
    (epoch,) = read_epochs(folder)
    assert epoch["val/silhouette_score"] == pytest.approx(
        metrics["val"]["val/silhouette_score"], abs=1e-5
    )
