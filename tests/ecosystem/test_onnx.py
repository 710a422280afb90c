"""Exported ONNX graphs in ONNX Runtime, which shares no code with what wrote them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from jaxvae.inference import queries
from jaxvae.models import trained
from tests.conftest import lacking
from tests.helpers.commands import tool
from tests.helpers.documents import python_block
from tests.helpers.networks import ARCHITECTURES, DEEPER, TAXONOMY, make_run, rows

pytestmark = pytest.mark.ecosystem


@pytest.fixture(scope="session")
def ort():
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        lacking("onnx and onnxruntime are not installed")
    return onnxruntime


def sessions(ort, folder, stem="model"):
    return {
        part: ort.InferenceSession(folder / f"{stem}.{part}.onnx")
        for part in ("encoder", "decoder", "prior")
    }


def check_close(found, expected):
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_real_rows_have_the_models_logits(ort, run, folder, tmp_path):
    tool("export", folder, "--output", "model.onnx", cwd=tmp_path)
    found = sessions(ort, tmp_path)
    x = run.sets("test").astype(np.float32)
    mean, logvar = found["encoder"].run(["mean", "logvar"], {"x": x})
    expected = queries.posterior(run.network, run.rows("test"))
    check_close(mean, expected[0])
    check_close(logvar, expected[1])
    (logits,) = found["decoder"].run(["logits"], {"z": mean})
    check_close(logits, trained.reconstruction_logits(run.network, x))
    for size in (1, 7):
        check_close(found["encoder"].run(["mean"], {"x": x[:size]})[0], mean[:size])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(ort, architecture, tmp_path):
    check_onnx(ort, make_run(*architecture, tmp_path), tmp_path)


def test_three_hidden_layers(ort, tmp_path):
    check_onnx(ort, make_run("vamp", True, True, tmp_path, hidden_dims=DEEPER), tmp_path)


def check_onnx(ort, run, tmp_path):
    files, difference = run.export(tmp_path / "model.onnx")
    assert len(files) == 3
    assert difference < 1e-5
    found = sessions(ort, tmp_path)
    x = rows(TAXONOMY.num_tags)
    (mean,) = found["encoder"].run(["mean"], {"x": x})
    (logits,) = found["decoder"].run(["logits"], {"z": mean})
    check_close(logits, trained.reconstruction_logits(run.network, x))

    learned = run.network.prior in ("mixture", "vamp")
    names = [each.name for each in found["prior"].get_inputs()]
    assert names == (["noise", "uniform"] if learned else ["noise"])
    rng = np.random.default_rng(0)
    given = {"noise": rng.standard_normal((4000, 4)), "uniform": rng.random(4000)}
    given = {name: given[name].astype(np.float32) for name in names}
    z = found["prior"].run(["z"], given)[0].astype(np.float64)
    ours = queries.draw_prior(run.network, 4000, seed=0)
    for function in (lambda z: z, np.abs, np.square, np.tanh):
        a, b = function(z), function(ours)
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 4000)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.5 * error).all()


def test_a_mixture_of_one_and_every_edge_of_its_choice(ort, tmp_path):
    for components in (1, 3):
        run = make_run("mixture", False, False, tmp_path, components=components)
        run.export(tmp_path / f"m{components}.onnx")
        prior = sessions(ort, tmp_path, f"m{components}")["prior"]
        mean, _, log_weight = trained.prior_components(run.network)
        below = np.nextafter(np.float32(1.0), np.float32(0.0))
        inside = np.cumsum(np.exp(log_weight)) - 0.5 * np.exp(log_weight)
        uniform = np.array([0.0, *inside, below], np.float32)
        noise = np.zeros((len(uniform), 4), np.float32)
        (z,) = prior.run(["z"], {"noise": noise, "uniform": uniform})
        at = [0, *range(components), components - 1]
        np.testing.assert_allclose(z, mean[at], rtol=1e-6)


def test_the_metadata_says_what_the_columns_are(ort, tmp_path):
    run = make_run("normal", False, False, tmp_path)
    run.export(tmp_path / "model.onnx")
    for session in sessions(ort, tmp_path).values():
        found = session.get_modelmeta().custom_metadata_map
        assert json.loads(found["tags"]) == list(TAXONOMY.tags)
        assert json.loads(found["taxonomy"]) == TAXONOMY.to_mapping()
        assert found["taxonomy_digest"] == TAXONOMY.digest
        assert (found["model_name"], found["checkpoint"], found["epoch"]) == (
            "small one",
            "best",
            "3",
        )


def test_the_same_run_gives_the_same_bytes(ort, tmp_path):
    run = make_run("flow", True, True, tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run.export(tmp_path / name / "model.onnx")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_what_is_too_large_is_refused(ort, tmp_path, monkeypatch):
    from jaxvae.errors import InputError
    from jaxvae.export import onnx_graphs

    monkeypatch.setattr(onnx_graphs, "_MAX_BYTES", 100)
    run = make_run("normal", False, False, tmp_path)
    with pytest.raises(InputError, match="over 2 GiB"):
        run.export(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_documented_lines_run(ort, run, tmp_path):
    run.export(tmp_path / "model.onnx")
    code = python_block("export.md", "onnx") + "\nprint(sets.shape, float(np.abs(mean).sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, _, total = done.stdout.rpartition(" ")
    assert shape == "(20, 224)"
    assert abs(float(total) - np.abs(run.encode([["jazz"]])).sum()) < 1e-4
