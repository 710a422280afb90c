"""Objectives of a user's own files: `loss.objective=file.py:name`."""

import json
import shutil

import numpy as np
import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.export.hub_files import without_paths
from jaxvae.storage.epoch_metrics import read_epochs
from tests.conftest import ROOT
from tests.helpers.training import parameters, same, timeless, write_clips

OWN = """
import jax.numpy as jnp

def elbo(terms, weights, num_rows):
    return weights.bce_weight * terms.reconstruction[0] + weights.kld_weight * terms.rate

def dip(terms, weights, num_rows):
    real = terms.mask[:, None]
    count = jnp.maximum(jnp.sum(terms.mask.astype(jnp.float32)), 1.0)
    centre = jnp.sum(jnp.where(real, terms.mean, 0.0), axis=0) / count
    away = jnp.where(real, terms.mean - centre[None, :], 0.0)
    penalty = jnp.sum(jnp.square(away.T @ away / count - jnp.eye(away.shape[1])))
    return elbo(terms, weights, num_rows) + weights.dip_weight * penalty

def scalar(terms, weights, num_rows):
    return jnp.sum(terms.rate)

def broken(terms, weights, num_rows):
    return terms.rate + weights.missing

def two(terms, weights):
    return terms.rate
"""
CONFIG = """
from configs import base

def get_config(presets=""):
    c = base.get_config(presets)
    c.loss.dip_weight = 0.0  # weight of the covariance term
    return c
"""


@pytest.fixture
def clips(tmp_path, monkeypatch):
    write_clips(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "mine.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(clips, *more, config=f"{ROOT}/configs/small.py"):
    fields = {"data.dataset_name": clips / "clips.csv", "data.taxonomy_path": clips / "words.json",
              "data.val_fraction": 0.2, "data.test_fraction": 0.2, "data.batch_size": 14,
              "model.hidden_dim": 8, "model.latent_dim": 2, "logger.name": "()",
              "trainer.max_epochs": 2}  # fmt: skip
    return [f"--config={config}", *(f"--config.{f}={v}" for f, v in fields.items()), *more]


@pytest.mark.long
def test_the_elbo_written_anew_trains_the_same_bits(clips):
    assert main.main(["train", *arguments(clips, "--workdir=builtin")]) == 0
    own = "--config.loss.objective=own.py:elbo"
    assert main.main(["train", *arguments(clips, own, "--workdir=own")]) == 0
    assert [line["val/loss"] for line in read_epochs(clips / "own")] == [
        line["val/loss"] for line in read_epochs(clips / "builtin")
    ]
    assert same(parameters(clips / "own"), parameters(clips / "builtin"))
    (copy,) = (clips / "own" / "extensions").iterdir()
    assert copy.read_text() == OWN
    # The run is enough by itself.
    (clips / "own.py").unlink()
    assert len(jaxvae.load("own").sample(2)) == 2


@pytest.mark.long
def test_a_number_of_its_own_is_a_field_of_a_config_file(clips):
    losses = []
    for weight in (0.0, 5.0):
        more = ("--config.loss.objective=own.py:dip", f"--config.loss.dip_weight={weight}")
        command = arguments(clips, *more, f"--workdir=dip{weight}", config="mine.py")
        assert main.main(["train", *command]) == 0
        losses.append(read_epochs(clips / f"dip{weight}")[-1])
    assert losses[0]["val/loss"] == pytest.approx(losses[0]["val/bce"] + losses[0]["val/kld"])
    assert losses[1]["val/loss"] > losses[0]["val/loss"]


@pytest.mark.long
def test_it_resumes_with_its_own_content_alone(clips, capsys):
    own = "--config.loss.objective=own.py:elbo"
    for epochs in (2, 4):
        command = arguments(clips, own, f"--config.trainer.max_epochs={epochs}", "--workdir=a")
        assert main.main(["train", *command]) == 0
    whole = arguments(clips, own, "--config.trainer.max_epochs=4", "--workdir=b")
    assert main.main(["train", *whole]) == 0
    assert timeless(clips / "a") == timeless(clips / "b")
    capsys.readouterr()
    longer = arguments(clips, own, "--config.trainer.max_epochs=5", "--workdir=a")
    (clips / "own.py").write_text(OWN + "\n")
    assert main.main(["train", *longer]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "another content of own.py" in error
    (clips / "own.py").unlink()  # then the run's copy is taken
    assert main.main(["train", *longer]) == 0
    assert len(read_epochs(clips / "a")) == 5
    other = arguments(clips, "--config.trainer.max_epochs=6", "--workdir=a")
    assert main.main(["train", *other]) == 2
    assert "loss.objective (was own.py:elbo, now elbo)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "scalar",
            "own.py:scalar: of 5 rows it returns float32[], and must return a loss for each",
        ),
        (
            "broken",
            "own.py:broken, line 19: it fails on a batch of 5 rows: AttributeError: 'loss' object",
        ),
        ("two", "it is called with (terms, weights, num_rows), and that does not fit"),
        ("elb", "own.py has no 'elb' (did you mean 'elbo'?)"),
    ],
)
def test_what_is_wrong_is_said_before_rows_are_read(clips, capsys, name, says):
    shutil.move("clips.csv", "elsewhere.csv")
    command = arguments(clips, f"--config.loss.objective=own.py:{name}", "--workdir=run")
    assert main.main(["train", *command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (clips / "run").exists()


@pytest.mark.long
def test_seeds_train_it_and_keep_it(clips, capsys):
    own = "--config.loss.objective=own.py:elbo"
    assert main.main(["seeds", *arguments(clips, own), "--num=2", "--workdir=seeds"]) == 0
    found = json.loads((clips / "seeds" / "seeds.json").read_text())
    assert len(found["test"]["test/loss"]["values"]) == 2
    assert all((path / "extensions").is_dir() for path in (clips / "seeds").glob("seed_*"))
    assert np.isfinite(found["test"]["test/loss"]["mean"])


@pytest.mark.long
def test_many_runs_are_of_one_objective(clips, capsys):
    own = "--config.loss.objective=own.py:elbo"
    seeds = ["seeds", *arguments(clips, own), "--workdir=seeds"]
    assert main.main([*seeds, "--num=1"]) == 0
    (clips / "own.py").write_text(OWN.replace("weights.kld_weight * ", "2.0 * "))
    capsys.readouterr()
    assert main.main([*seeds, "--num=2"]) == 2
    assert "another content of own.py" in capsys.readouterr().err


@pytest.mark.long
def test_a_search_is_of_one_objective_and_writes_its_numbers(clips, capsys):
    pytest.importorskip("optuna")
    (clips / "space.py").write_text(
        'def get_space(s):\n    s.uniform("loss.dip_weight", 0.1, 0.5)\n'
    )
    own = "--config.loss.objective=own.py:dip"
    search = ["search", *arguments(clips, own, config="mine.py"), "--workdir=study"]
    assert main.main([*search, "--space=space.py", "--trials=2"]) == 0
    assert "c.loss.dip_weight = 0." in (clips / "study" / "best.py").read_text()
    best = ["train", "--config=study/best.py", "--workdir=again"]
    assert main.main(best) == 0
    (clips / "own.py").write_text(OWN + "\n")
    capsys.readouterr()
    assert main.main(["search", "--resume", "study", "--trials=3"]) == 2
    assert "loss.objective" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "import numpy; c.loss.dip_weight = numpy.float32(1)",
            "must be a number, a text or a tuple",
        ),
        (
            "c.loss.objective = 'own.py:rows5'",
            "own.py:rows5, line 25: it fails on a batch of 14 rows",
        ),
        (
            "c.loss.objective = 'own.py:leave'",
            "own.py:leave, line 28: it fails on a batch of 5 rows",
        ),
        (
            "c.trainer.callbacks = ('own.py:call',)",
            "the file of --config.loss.objective has the same name",
        ),
    ],
)
def test_what_is_wrong_with_a_config_is_one_line(clips, capsys, change, says):
    (clips / "own.py").write_text(
        OWN + "\ndef rows5(terms, weights, num_rows):\n    return terms.rate + jnp.ones(5)\n"
        "\ndef leave(terms, weights, num_rows):\n    raise SystemExit\n"
        "\ndef call(epoch, metrics, state):\n    pass\n"
    )
    text = CONFIG.replace("    return c", f"    {change}\n    return c")
    (clips / "mine.py").write_text(text.replace("dip_weight = 0.0", "objective = 'own.py:elbo'"))
    assert main.main(["train", *arguments(clips, "--workdir=run", config="mine.py")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (clips / "run").exists()


@pytest.mark.long
def test_a_number_added_since_is_a_difference(clips, capsys):
    command = ["train", *arguments(clips, "--workdir=run", config="mine.py")]
    assert main.main(command) == 0
    (clips / "mine.py").write_text(
        CONFIG.replace("    return c", "    c.loss.b = 0.5\n    return c")
    )
    capsys.readouterr()
    assert main.main(command) == 2
    assert "loss.b (was None, now 0.5)" in capsys.readouterr().err


def test_what_is_published_names_no_folder():
    config = {"loss": {"objective": "/home/me/own.py:elbo"},
              "trainer": {"callbacks": ["/home/me/a.py:b", "c.py:d"]}}  # fmt: skip
    published = without_paths(config)
    assert published["loss"]["objective"] == "own.py:elbo"
    assert published["trainer"]["callbacks"] == ["a.py:b", "c.py:d"]
    plain = {"loss": {"objective": "elbo"}, "trainer": {"callbacks": []}}
    assert without_paths(plain) == plain
