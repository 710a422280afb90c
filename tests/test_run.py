"""A finished run, asked from Python and from the shell as its user would."""

import csv
import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest

import jaxvae
from jaxvae import cli, judge
from jaxvae.baselines import fit_baselines
from jaxvae.errors import InputError
from jaxvae.sample import calibrate, sample_prior
from jaxvae.settings import load_config
from jaxvae.train import train_and_evaluate
from tests.conftest import ROOT
from tests.test_likelihood import network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = load_config(str(ROOT / "configs" / "small.py"))
    config.trainer.max_epochs = 2
    config.logger.name = ()
    place = tmp_path_factory.mktemp("run")
    train_and_evaluate(config, place / "a", models_dir=place / "models")
    return place / "a"


@pytest.fixture(scope="module")
def run(folder):
    return jaxvae.load(folder)


def shell(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys, *arguments):
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxvae: ")
    assert err.count("\n") == 1
    return err


def test_encoding_is_deterministic_and_ignores_order_and_spelling(run):
    first = run.encode([["jazz", "slow tempo"], ["rock"]])
    assert first.shape == (2, 32)
    assert (first == run.encode([["Slow  Tempo", "JAZZ", "jazz"], ["rock"]])).all()
    mean, logvar = run.posterior([["rock"]])
    np.testing.assert_allclose(mean[0], first[1], atol=1e-6)
    assert logvar.shape == (1, 32)
    hot = np.zeros((1, run.taxonomy.num_tags), bool)
    hot[0, run.taxonomy.column("rock")] = True
    np.testing.assert_allclose(run.encode(hot), mean)


def test_unknown_tags_are_errors_with_the_nearest_or_skipped(run):
    with pytest.raises(InputError, match=r"jazzz.*did you mean 'jazz'"):
        run.encode([["jazzz"]])
    got = run.encode([["jazzz", "rock"]], on_unknown="ignore")
    np.testing.assert_allclose(got, run.encode([["rock"]]))


@pytest.mark.parametrize("decode", ["bernoulli", "threshold", "calibrated", "top_k"])
def test_every_decoding_samples_by_its_seed(run, decode):
    sets = run.sample(50, decode=decode, seed=3)
    assert len(sets) == 50
    assert sets == run.sample(50, decode=decode, seed=3)
    if decode != "threshold":
        assert all(sets)
    if decode == "top_k":
        assert len({len(tags) for tags in sets}) == 1


def test_calibrated_samples_have_tags_at_the_rates_asked_for():
    net = network(2)
    parts = (net.graphdef, net.params, net.batch_stats)
    rates = np.array([0.5, 0.05, 0.3, 0.6])
    cuts = calibrate(*parts, latent_dim=2, rates=rates)
    drawn = sample_prior(
        *parts, latent_dim=2, num_samples=20_000, decode="calibrated", threshold=cuts, seed=1
    ).multi_hot
    assert drawn.any(axis=1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), rates, atol=0.02)
    half = sample_prior(
        *parts, latent_dim=2, num_samples=20_000, decode="threshold", threshold=0.5, seed=1
    ).multi_hot
    assert np.abs(half.mean(axis=0) - rates).max() > 0.1


def test_a_pth_answers_as_its_run_does(run, folder):
    other = jaxvae.load(folder.parent / "models" / "vae_small.pth")
    np.testing.assert_allclose(other.encode([["jazz"]]), run.encode([["jazz"]]), atol=1e-6)
    assert other.sample(5, seed=1) == run.sample(5, seed=1)
    for refused_ in (
        lambda: other.rows("test"),
        lambda: other.sample(1, decode="calibrated"),
        lambda: other.sample(1, decode="top_k"),
    ):
        with pytest.raises(InputError, match="import"):
            refused_()


def test_completions_are_consistent_and_ranked(run):
    done = run.complete(present=["jazz"], absent=["fast tempo"], num=7)
    assert len(done.sets) == 7
    assert all("jazz" in tags and "fast tempo" not in tags for tags in done.sets)
    assert done.probability == sorted(done.probability, reverse=True)
    listed = [tag for ranked in done.tags.values() for tag, _ in ranked]
    assert len(listed) == run.taxonomy.num_tags - 2
    for ranked in done.tags.values():
        assert [p for _, p in ranked] == sorted((p for _, p in ranked), reverse=True)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda run: run.complete(["jazz"], ["JAZZ"]), "both present and absent: jazz"),
        (lambda run: run.complete([], []), "nothing to complete"),
        (lambda run: run.complete("jazz"), "list of tags"),
        (lambda run: run.complete(["jazz"], num=0), "num 0"),
        (lambda run: run.sample(0), "num 0"),
        (lambda run: run.sample(10**9), "num 1000000000"),
        (lambda run: run.sample(1, temperature=0.0), "temperature 0"),
        (lambda run: run.sample(1, temperature=float("nan")), "temperature nan"),
        (lambda run: run.sample(1, decode="topk"), "top_k"),
        (lambda run: run.sample(1, decode="top_k", top_k=999), "top_k 999"),
        (lambda run: run.sample(1, seed=-1), "seed -1"),
        (lambda run: run.encode([]), "no tag sets"),
        (lambda run: run.encode("jazz"), "one text"),
        (lambda run: run.encode(np.zeros((2, 3))), r"\[2, 3\]"),
        (lambda run: run.probabilities(np.zeros((2, 3))), r"\[2, 3\]"),
        (lambda run: run.reconstruct([["jazz"]], threshold=1.0), "threshold"),
        (lambda run: run.log_likelihood([["jazz"]], num_importance_samples=0), "importance"),
        (lambda run: run.rows("tset"), "did you mean 'test'"),
    ],
)
def test_what_makes_no_sense_is_refused(run, ask, says):
    with pytest.raises(InputError, match=says):
        ask(run)


def test_evaluate_prints_one_flat_object(capsys, folder, monkeypatch):
    few = functools.partial(fit_baselines, components=(20,), smoothings=(0.25,))
    monkeypatch.setattr(judge, "fit_baselines", few)
    out = shell(
        capsys, "evaluate", folder, "--json", "--split", "val", "--num-importance-samples", 20
    )
    judged = json.loads(out)
    assert {
        *("nll_iw", "nll_iw_stderr", "elbo", "rate", "distortion", "active_units"),
        *("baseline/independent", "baseline/chow_liu", "baseline/mixture", "baseline/generator"),
    } <= set(judged)
    assert not any(isinstance(value, dict) for name, value in judged.items() if "pairs" not in name)
    assert judged["elbo"] == pytest.approx(-judged["rate"] - judged["distortion"])
    assert judged["nll_iw"] < -judged["elbo"] + 0.05
    # No model can beat the generator by more than luck.
    best = min(judged[f"baseline/{name}"] for name in ("independent", "chow_liu", "mixture"))
    assert judged["baseline/generator"] < best
    assert 0.0 <= judged["disentanglement/mig"] <= 1.0
    # Fitted once: the next command reads them.
    assert judge.kept_baselines(jaxvae.load(folder), None, None).facts["mixture_components"] == 20


def test_the_report_is_one_page_without_a_network(capsys, folder):
    path = shell(capsys, "report", folder, "--num-importance-samples", 5).strip()
    page = Path(path).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "src=" not in page.replace('src="data:', "")
    assert page.count("<svg") >= 5
    assert "collapsed, or has not learned" in page or "The model learned" in page
    assert "mixture of Bernoullis" in page


def test_sample_speaks_three_formats(capsys, folder):
    sets = json.loads(shell(capsys, "sample", folder, "--num", 3, "--format", "json"))
    assert len(sets) == 3
    assert all(isinstance(tag, str) for tags in sets for tag in tags)
    text = shell(capsys, "sample", folder, "--num", 3)
    assert [line.split(", ") for line in text.splitlines()] == sets
    lines = list(
        csv.DictReader(io.StringIO(shell(capsys, "sample", folder, "--num", 3, "--format", "csv")))
    )
    assert [json.loads(line["tags"]) for line in lines] == sets


def test_complete_speaks_json(capsys, folder):
    out = shell(
        capsys, "complete", folder, "--with", "jazz, rock", "--without", "pop", "--num", 2,
        "--format", "json",
    )  # fmt: skip
    found = json.loads(out)
    assert len(found) == 2
    assert all({"jazz", "rock"} <= set(each["tags"]) for each in found)
    assert all(0.0 < each["probability"] < 1.0 for each in found)


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_encode_gives_a_row_for_each_row(capsys, folder, run, tmp_path, suffix):
    source, output = tmp_path / "clips.csv", tmp_path / f"out{suffix}"
    source.write_text("aspect_list\n\"['jazz', 'no such thing']\"\nnothing known\n\"['rock']\"\n")
    shell(capsys, "encode", folder, "--input", source, "--output", output)
    if suffix == ".npz":
        with np.load(output) as file:
            mean, row = file["mean"], file["row"]
    elif suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(output)
        mean, row = np.array(table["mean"].to_pylist()), np.array(table["row"].to_pylist())
    else:
        lines = list(csv.DictReader(io.StringIO(output.read_text())))
        mean = np.array([[float(line[f"mean_{d}"]) for d in range(32)] for line in lines])
        row = np.array([int(line["row"]) for line in lines])
    assert row.tolist() == [0, 1, 2]
    assert np.isnan(mean[1]).all()
    np.testing.assert_allclose(mean[[0, 2]], run.encode([["jazz"], ["rock"]]), atol=1e-5)


def test_traverse_moves_one_dimension(capsys, folder):
    steps = json.loads(
        shell(capsys, "traverse", folder, "--around", "jazz", "--dim", 3, "--format", "json")
    )
    assert [step["z"] for step in steps] == [-3, -2, -1, 0, 1, 2, 3]
    assert "z = +3" in shell(capsys, "traverse", folder, "--around", "jazz", "--dim", 3)


def test_compare_groups_seeds(capsys, folder, tmp_path):
    import shutil

    places = []
    for number, (seed, hidden) in enumerate([(0, 128), (1, 128), (0, 64)]):
        place = tmp_path / str(number)
        place.mkdir()
        for name in ("config.json", "metrics.json"):
            shutil.copy(folder / name, place / name)
        config = json.loads((place / "config.json").read_text())
        config["seed"], config["model"]["hidden_dim"] = seed, hidden
        (place / "config.json").write_text(json.dumps(config))
        metrics = json.loads((place / "metrics.json").read_text())
        metrics["test"]["test/jaccard_index"] = 0.1 * (number + 1)
        (place / "metrics.json").write_text(json.dumps(metrics))
        places.append(place)
    groups = json.loads(shell(capsys, "compare", *places, "--json"))
    assert [len(group["runs"]) for group in groups] == [2, 1]
    assert groups[0]["what"] == {"model.hidden_dim": 128}
    jaccard = groups[0]["measures"]["Jaccard"]
    assert jaccard["mean"] == pytest.approx(0.15)
    assert jaccard["sd"] == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert "0.150 ± 0.071" in shell(capsys, "compare", *places)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "nowhere"], "not a run's folder"),
        (["evaluate", "RUN", "--split", "tset"], "did you mean 'test'"),
        (["evaluate", "PTH"], "without data"),
        (["report", "PTH"], "without data"),
        (["sample", "RUN", "--num", "0"], "num 0"),
        (["sample", "RUN", "--num", "x"], "invalid int"),
        (["complete", "RUN"], "nothing to complete"),
        (["complete", "RUN", "--with", "jazz", "--without", "jazz"], "both present and absent"),
        (["complete", "RUN", "--with", "jazzz"], "did you mean 'jazz'"),
        (["traverse", "RUN", "--around", "jazz", "--dim", "32"], "between 0 and 31"),
        (["traverse", "RUN", "--around", ",", "--dim", "3"], "no tag"),
        (["encode", "RUN", "--input", "no.csv", "--output", "x.npz"], "no.csv"),
        (["encode", "RUN", "--input", "no.csv", "--output", "x.txt"], ".parquet"),
        (["compare", "nowhere"], "not a run's folder"),
    ],
)
def test_bad_commands_are_one_line(capsys, folder, arguments, says):
    places = {"RUN": folder, "PTH": folder / "model.pth"}
    assert says in refused(capsys, *(places.get(each, each) for each in arguments))


def test_a_half_written_run_is_refused(capsys, folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "half", ignore=shutil.ignore_patterns("final"))
    assert "did the run finish" in refused(capsys, "sample", tmp_path / "half")
    (tmp_path / "other").mkdir()
    shutil.copytree(folder, tmp_path / "other", dirs_exist_ok=True)
    mapping = json.loads((folder / "taxonomy.json").read_text())
    (tmp_path / "other" / "taxonomy.json").write_text(
        json.dumps({name: tags[::-1] for name, tags in mapping.items()})
    )
    assert "not the one the model was trained with" in refused(capsys, "sample", tmp_path / "other")
    assert shell(capsys, "sample", folder, "--num", 1)


def test_likelihood_of_the_export_by_torch(run, folder, torch):
    """PyTorch's own importance sampling from the .pth agrees within its error."""
    tensors = torch.load(folder / "model.pth", weights_only=True)
    hot = torch.tensor(run.sets("test")[:20].astype(np.float32))
    linear = torch.nn.functional.linear

    def layer(name, x):
        return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    torch.manual_seed(0)
    h = torch.relu(layer("fc1", hot))
    q = torch.distributions.Normal(layer("fc2_mu", h), torch.exp(0.5 * layer("fc2_logvar", h)))
    z = q.sample((4000,))
    logits = layer("fc4", torch.relu(layer("fc3", z)))
    log_p = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits, hot.expand_as(logits), reduction="none"
    ).sum(-1)
    weights = (
        log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
    )
    theirs = (torch.logsumexp(weights, 0) - np.log(4000)).numpy()
    ours = run.row_likelihood(run.rows("test")[:20], 4000, 0)
    assert (np.abs(ours.log_likelihood - theirs) < 6 * np.sqrt(2 * ours.variance) + 1e-4).all()
