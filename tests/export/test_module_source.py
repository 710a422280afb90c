"""The exported `model.py` in real torch: the same numbers as the model, and the same prior."""

import subprocess
import sys

import numpy as np
import pytest

from jaxvae.export.torch.module_source import module_source
from tests.conftest import ROOT
from tests.helpers.documents import python_block
from tests.helpers.exports import check_torch, opened
from tests.helpers.networks import ARCHITECTURES, DEEPER, TAXONOMY, VARIED, make_run

pytestmark = pytest.mark.ecosystem


@pytest.mark.parametrize("architecture", VARIED)
def test_torch_computes_what_the_model_computes(architecture, torch, tmp_path):
    check_torch(make_run(*architecture, tmp_path), torch, tmp_path)


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp", "flow"])
def test_its_samples_have_the_models_rates_and_are_never_empty(prior, torch, tmp_path):
    run = make_run(prior, True, False, tmp_path)
    model = opened(run, tmp_path / "out").load()
    sets = model.sample(6000, generator=torch.Generator().manual_seed(1))
    assert sets.dtype == torch.bool
    assert bool(sets.any(dim=1).all())
    theirs = sets.numpy().mean(axis=0)
    ours = run.sample_sets(6000, seed=0).multi_hot.mean(axis=0)
    error = np.sqrt((theirs * (1 - theirs) + ours * (1 - ours)) / 6000)
    assert (np.abs(theirs - ours) < 4.5 * error).all()
    x = model.rows([["jazz", "a,b"], []])
    assert model.names(x) == [["jazz", "a,b"], []]


def test_samples_of_a_model_that_yields_nothing_end(torch, tmp_path):
    run = make_run("normal", False, False, tmp_path)
    model = opened(run, tmp_path / "out").load()
    torch.nn.init.constant_(model.fc4.bias, -100.0)
    assert not bool(model.sample(3).any())


def test_the_file_is_formatted_and_has_no_unused_line(tmp_path):
    runs = [make_run(*architecture, tmp_path) for architecture in ARCHITECTURES]
    runs += [make_run(*each, tmp_path, hidden_dims=DEEPER) for each in ARCHITECTURES[:4]]
    for number, network in enumerate(run.network for run in runs):
        source = module_source(network, name="small one", tags=TAXONOMY.tags)
        assert "jaxvae" not in source
        assert len(source.splitlines()) < 200
        (tmp_path / f"model_{number}.py").write_text(source)
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--config", ROOT / "pyproject.toml"]
        done = subprocess.run(
            [*command, "--no-cache", tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ['"""\nimport os\n"""', "a\\", "{x}", "naïve ♫"])
def test_a_name_is_only_a_name(name, torch, tmp_path):
    run = make_run("normal", False, False, tmp_path)
    run.config["model_name"] = name
    module = opened(run, tmp_path / "out")
    assert not hasattr(module, "os")
    assert module.load() is not None


def test_the_documented_lines_run_with_torch_alone(run, torch, tmp_path):
    run.export(tmp_path / "vae_torch", format="torch_module")
    code = python_block("export.md", "torch_module") + (
        "\nimport sys\nassert not {'jaxvae', 'jax'} & sys.modules.keys()\n"
        "print(tuple(sets.shape), tuple(log_prior.shape), float(probabilities.max()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path / "vae_torch",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    expected = run.probabilities(run.encode([["jazz"]])).max()
    assert lines[-1].startswith("(20, 224) (5,) ")
    assert abs(float(lines[-1].split()[-1]) - expected) < 1e-5
