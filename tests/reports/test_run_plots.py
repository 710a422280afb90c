"""`run.plot`: what its figures show, read back from the figures."""

from xml.etree import ElementTree

import numpy as np
import pytest

import jaxvae
from jaxvae.errors import InputError
from jaxvae.evaluation import latents
from jaxvae.reports import figures
from jaxvae.storage.epoch_metrics import read_epochs


def points(axis):
    return np.concatenate([np.asarray(each.get_offsets()) for each in axis.collections])


def test_curves_are_the_epochs(run):
    loss, kl = run.plot.curves().axes
    lines = {line.get_label(): line.get_xydata() for line in (*loss.lines, *kl.lines)}
    epochs = read_epochs(run.folder)
    for label, name in (("train (with dropout)", "train/loss"), ("validation", "val/loss"),
                        ("validation KL", "val/kld")):  # fmt: skip
        assert lines[label].tolist() == [[each["epoch"], each[name]] for each in epochs]


def test_kl_is_every_dimensions_largest_first(run):
    mean, logvar = run.posterior(run.sets("test"))
    expected = (0.5 * (np.square(mean) + np.exp(logvar) - 1.0 - logvar)).mean(axis=0)
    heights = [bar.get_height() for bar in run.plot.kl().axes[0].patches]
    np.testing.assert_allclose(heights, np.sort(expected)[::-1], rtol=1e-4, atol=1e-6)


def test_the_map_has_a_point_for_every_row(run):
    (axis,) = run.plot.latent_map("val").axes
    shown, _ = latents.two_dimensions(run.encode(run.sets("val")))
    found = points(axis)
    assert len(found) == len(run.rows("val"))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(shown, axis=0), rtol=1e-4)
    named = {text.get_text() for text in axis.get_legend().get_texts()}
    assert named <= {name for name, _ in run.taxonomy.concepts}


def test_cooccurrence_of_the_data_is_counted(run):
    data, _ = run.plot.cooccurrence(num_samples=100, num_tags=4).axes
    tags = [label.get_text() for label in data.get_xticklabels()]
    sets = run.sets("train")[:, [run.taxonomy.tags.index(tag) for tag in tags]]
    assert (np.diff(sets.sum(axis=0)) <= 0).all()
    together = np.array([[(sets[:, i] & sets[:, j]).mean() for j in range(4)] for i in range(4)])
    np.fill_diagonal(together, 0.0)
    shown = np.asarray(data.images[0].get_array()) ** 2  # by the root, and of the largest
    np.testing.assert_allclose(shown / shown.max(), together / together.max(), atol=1e-6)


def test_calibration_is_a_share_against_a_probability(run):
    (axis,) = run.plot.calibration("test").axes
    predicted, observed = axis.lines[1].get_data()
    assert (np.diff(predicted) > 0).all()
    assert ((observed >= 0) & (observed <= 1)).all()


def test_a_traversal_is_of_one_dimension(run):
    figure = run.plot.traversal(3, around=["jazz"])
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert len(lines) == 6
    z = np.repeat(run.encode([["jazz"]]), 7, axis=0)
    z[:, 3] = np.arange(-3, 4)
    expected = run.probabilities(z)
    for tag, line in lines.items():
        np.testing.assert_allclose(line[:, 0], np.arange(-3, 4))
        at = run.taxonomy.tags.index(tag)
        np.testing.assert_allclose(line[:, 1], expected[:, at], rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="dim 99: must be between 0 and 31"):
        run.plot.traversal(99)


def test_a_figure_shows_itself_in_a_notebook(run):
    assert run.plot.kl()._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_has_no_data_says_so(folder):
    exported = jaxvae.load(folder / "model.pth")
    for draw in (exported.plot.curves, exported.plot.kl, exported.plot.cooccurrence):
        with pytest.raises(InputError):
            draw()
    assert exported.plot.traversal(0, around=["jazz"]).axes


ODD = ["$uicideboy$", r"$\frac$", "a$ap", "_hidden", '🎷 <sax> & "more"']


def odd_figures():
    matrix, rows = np.eye(len(ODD)), np.random.default_rng(0).random((5, len(ODD)))
    yield figures.cooccurrence(matrix, matrix, ODD)
    yield figures.traversal((-2.0, -1.0, 0.0, 1.0, 2.0), rows, ODD, 0)
    yield figures.latent_map(rows[:, :2], ODD, "PCA")


def test_tags_are_shown_as_they_are_written():
    """Two $ are no formula, a leading _ hides nothing, and letters without a font no trouble."""
    for figure in odd_figures():
        assert figures.to_png(figure).startswith(b"\x89PNG")
        svg = ElementTree.fromstring(figures.to_svg(figure))
        texts = {
            "".join(each.itertext()).strip() for each in svg.iter() if each.tag.endswith("text")
        }
        assert set(ODD) <= texts


def test_numbers_of_calibrations_bins_do_not_lie_on_each_other():
    predicted = np.array([0.001, 0.002, 0.01, 0.3, 0.6])
    (axis,) = figures.calibration(predicted, predicted, np.array([5000, 400, 30, 2, 1])).axes
    assert [text.get_text() for text in axis.texts] == ["1", "2", "30"]


def test_epochs_are_whole_numbers():
    lines = [{"epoch": epoch, "val/loss": 20.0 - epoch, "val/kld": 1.0} for epoch in (1, 2)]
    for axis in figures.curves(lines).axes:
        assert all(float(tick).is_integer() for tick in axis.get_xticks())
