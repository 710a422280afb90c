"""A mixture of runs, against sums over every set."""

import json

import numpy as np
import pytest

import jaxvae
from jaxvae.config import parsing
from jaxvae.errors import InputError
from jaxvae.inference import completion
from jaxvae.inference.ensemble import Ensemble, evaluate_ensemble
from jaxvae.train.trainer import train_and_evaluate
from tests.conftest import ROOT
from tests.helpers.commands import refused, shell
from tests.helpers.exact_likelihood import exact, network

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("optimized")]


def test_completion_is_the_mixtures():
    """Members that the evidence makes unlike probable: one has tag 0 often, the other seldom."""
    nets = [network(1, seed=3), network(1, seed=5, scale=8.0)]
    sets, first = exact(nets[0], 20_001)
    _, second = exact(nets[1], 20_001)
    mixture = 0.5 * (first + second)
    consistent = sets[:, 0] & ~sets[:, 2]
    evidence = mixture[consistent].sum()
    shares = [each[consistent].sum() / (2.0 * evidence) for each in (first, second)]
    assert abs(shares[0] - 0.5) > 0.1  # or an even mixture would pass
    found = completion.complete(nets, [0], [2], num=4, seed=0)
    assert found.log_evidence == pytest.approx(np.log(evidence), abs=0.02)
    expected = mixture[consistent] @ sets[consistent] / evidence
    np.testing.assert_allclose(found.marginals, expected, atol=0.01)
    for row, probability in zip(found.sets, found.probability, strict=True):
        (at,) = np.flatnonzero((sets == row).all(axis=1))
        assert probability == pytest.approx(mixture[at] / evidence, abs=0.01)


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """A folder of three short runs that differ by their seed."""
    place = tmp_path_factory.mktemp("members")
    for seed in range(3):
        config = parsing.load_config(f"{ROOT}/configs/small.py")
        config.seed, config.trainer.max_epochs, config.logger.name = seed, 1 + seed, ()
        config.data.test_fraction = 0.8  # so that few rows train
        train_and_evaluate(config, place / f"seed_{seed}", models_dir=place / "models")
    return place


def test_a_folder_of_runs_is_an_ensemble(members):
    ensemble = jaxvae.load_many(members)
    assert isinstance(ensemble, Ensemble)
    assert [run.folder.name for run in ensemble.runs] == ["seed_0", "seed_1", "seed_2"]
    listed = jaxvae.load_many([members / "seed_2", members / "seed_0"])
    assert [run.folder.name for run in listed.runs] == ["seed_2", "seed_0"]
    assert isinstance(jaxvae.load_many(members / "seed_0"), jaxvae.inference.run.Run)


def test_its_likelihood_is_the_mean_of_its_members(members):
    ensemble = jaxvae.load_many(members)
    sets = [["jazz"], ["rock", "electric guitar"]]
    each = [run.log_likelihood(sets, num_importance_samples=50, seed=3) for run in ensemble.runs]
    mixed = ensemble.log_likelihood(sets, num_importance_samples=50, seed=3)
    np.testing.assert_allclose(mixed, np.log(np.exp(each).mean(axis=0)), rtol=1e-10)
    judged = evaluate_ensemble(ensemble, split="val", num_importance_samples=50)
    assert judged["members/nll_iw"] == pytest.approx(
        [-run.row_likelihood(run.rows("val"), 50, 0).log_likelihood.mean() for run in ensemble.runs]
    )
    assert judged["nll_iw"] <= np.mean(judged["members/nll_iw"])
    assert judged["gain/members"] == pytest.approx(
        np.mean(judged["members/nll_iw"]) - judged["nll_iw"]
    )


def test_its_samples_are_its_members(members):
    ensemble = jaxvae.load_many(members)
    drawn = ensemble.sample_sets(6000, seed=1)
    assert drawn.multi_hot.shape == (6000, ensemble.taxonomy.num_tags)
    assert drawn.multi_hot.any(axis=1).all()
    own = [run.sample_sets(4000, seed=7).multi_hot.mean(axis=0) for run in ensemble.runs]
    error = np.abs(drawn.multi_hot.mean(axis=0) - np.mean(own, axis=0)).max()
    assert error < 0.03
    # The members differ by more than that, so one alone would not do.
    assert max(np.abs(each - np.mean(own, axis=0)).max() for each in own) > 0.06
    again = ensemble.sample_sets(6000, seed=1)
    assert (again.multi_hot == drawn.multi_hot).all()


def test_its_export_is_a_file_for_each_member(members, tmp_path):
    ensemble = jaxvae.load_many(members)
    paths = ensemble.export(tmp_path / "model.pth")
    assert [path.name for path in paths] == ["model_0.pth", "model_1.pth", "model_2.pth"]
    for path, run in zip(paths, ensemble.runs, strict=True):
        assert path.read_bytes() == (run.folder / "model.pth").read_bytes()


def test_runs_that_do_not_mix(members, tmp_path):
    with pytest.raises(InputError, match="at least two"):
        jaxvae.load_many([members / "seed_0"])
    taxonomy = tmp_path / "taxonomy.json"
    taxonomy.write_text(json.dumps({"genre": ["jazz", "rock"], "mood": ["sad", "happy"]}))
    rows = "".join(f'"jazz, sad"\n"rock, happy"\n"jazz{" " * n}"\n' for n in range(40))
    (tmp_path / "clips.csv").write_text("tags\n" + rows)
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.trainer.max_epochs, config.logger.name = 1, ()
    config.data.dataset_name = str(tmp_path / "clips.csv")
    config.data.taxonomy_path, config.data.aspect_column = str(taxonomy), "tags"
    train_and_evaluate(config, tmp_path / "other", models_dir=tmp_path / "models")
    with pytest.raises(InputError, match="other taxonomies"):
        jaxvae.load_many([members / "seed_0", tmp_path / "other"])
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.trainer.max_epochs, config.logger.name, config.data.split_seed = 1, (), 7
    config.data.test_fraction = 0.8
    train_and_evaluate(config, tmp_path / "split", models_dir=tmp_path / "models")
    ensemble = jaxvae.load_many([members / "seed_0", tmp_path / "split"])
    assert len({run.rows("test").shape for run in ensemble.runs}) == 1  # as many, but not the same
    with pytest.raises(InputError, match="other test rows"):
        evaluate_ensemble(ensemble, split="test")


def test_the_commands_take_a_folder_of_runs(members, capsys):
    arguments = ("--num-importance-samples", 20)
    judged = json.loads(shell(capsys, "evaluate", members, "--json", *arguments))
    assert judged["members"] == 3
    text = shell(capsys, "evaluate", members, *arguments)
    assert f"{judged['nll_iw']:.3f}" in text
    assert "seed_2" in text
    assert len(shell(capsys, "sample", members, "--num", 7).splitlines()) == 7
    assert "jazz" in shell(capsys, "complete", members, "--with", "jazz")
    assert "holds 3 runs" in refused(capsys, "encode", members, "--input", "x", "--output", "y.npz")
