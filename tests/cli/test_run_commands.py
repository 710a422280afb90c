"""A finished run, asked from the shell as its user would."""

import csv
import errno
import functools
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.ensemble

import jaxvae
from jaxvae.cli import main
from jaxvae.data.dataset import fingerprint_rows
from jaxvae.errors import InputError
from jaxvae.evaluation import baseline_fitting, evaluate_run, saved_evaluation
from jaxvae.evaluation.baseline_fitting import fit_baselines, load_baselines
from jaxvae.evaluation.sets import sample_quality
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.export.safetensors_io import write_safetensors
from jaxvae.models import trained
from jaxvae.storage import atomic_files
from jaxvae.storage.epoch_metrics import read_epochs
from tests.conftest import ROOT
from tests.helpers.commands import refused, shell

pytestmark = pytest.mark.usefixtures("optimized")


@pytest.fixture(autouse=True)
def _few_rows_for_what_takes_long(monkeypatch):
    """What is measured there is the business of other tests."""

    def of_few(codes, factors, *, seed, whole=evaluate_run.disentanglement):
        return whole(codes[:500], {name: of[:500] for name, of in factors.items()}, seed=seed)

    monkeypatch.setattr(evaluate_run, "disentanglement", of_few)
    monkeypatch.setattr(evaluate_run, "NUM_SAMPLES", 500)
    monkeypatch.setattr(sample_quality, "_TEST_ROWS", 100)
    boosting = functools.partial(sklearn.ensemble.GradientBoostingClassifier, n_estimators=10)
    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingClassifier", boosting)
    few = functools.partial(fit_baselines, components=(20,), smoothings=(0.25,))
    monkeypatch.setattr(baseline_fitting, "fit_baselines", few)


def test_evaluate_prints_one_flat_object(capsys, folder):
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
    for name in ("independent", "chow_liu", "mixture", "generator"):
        gain = judged[f"baseline/{name}"] - judged["nll_iw"]
        assert judged[f"gain/{name}"] == pytest.approx(gain, abs=1e-4)
    # No model can beat the generator by more than luck.
    best = min(judged[f"baseline/{name}"] for name in ("independent", "chow_liu", "mixture"))
    assert judged["baseline/generator"] < best
    assert 0.0 <= judged["disentanglement/mig"] <= 1.0
    # Fitted once: the next command reads them.
    run = jaxvae.load(folder)
    key = " ".join(fingerprint_rows(run.rows(name), run.taxonomy) for name in ("train", "val"))
    kept = load_baselines(folder / "baselines.npz", key=key)
    assert kept.facts["mixture_components"] == 20


@pytest.mark.long
@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_an_evaluation_of_the_same_is_taken(capsys, folder, monkeypatch, tmp_path, command):
    run = jaxvae.load(folder)
    asked = {"split": "val", "num_importance_samples": 20, "seed": 0}
    judged = saved_evaluation.saved_evaluation(run, **asked)
    if judged is None:  # this test runs alone
        shell(capsys, "evaluate", folder, "--split", "val", "--num-importance-samples", 20)
        judged = saved_evaluation.saved_evaluation(run, **asked)
    assert judged["nll_iw"] > 0.0
    for other in ({"split": "test"}, {"num_importance_samples": 21}, {"seed": 1}):
        assert saved_evaluation.saved_evaluation(run, **asked | other) is None

    copy = shutil.copytree(folder, tmp_path / "run")
    few = ("--split", "val", "--num-importance-samples", 20)
    monkeypatch.setattr(evaluate_run, "evaluate_run", lambda *given, **named: sys.exit("judged"))
    shown = shell(capsys, command, copy, *few)
    if command == "report":
        shown = Path(shown.strip()).read_text(encoding="utf-8")
        shell(capsys, "report", copy, "--split", "val")  # with whatever number of draws
    assert f"{judged['nll_iw']:.3f}" in shown
    command = [command, str(copy), *map(str, few)]
    saved_evaluation.save_evaluation(copy, "val", judged)
    assert saved_evaluation.saved_evaluation(jaxvae.load(copy), **asked) == judged
    path = saved_evaluation.evaluation_path(copy, "val")
    whole = path.read_text()
    assert whole == saved_evaluation.evaluation_path(folder, "val").read_text()
    for other in ("parameters", "version", "epoch", "checkpoint", "seed"):
        saved_evaluation.save_evaluation(copy, "val", judged | {other: "0"})
        with pytest.raises(SystemExit, match="judged"):
            main.main(command)
    nll = str(judged["nll_iw"])
    for damaged in (whole[:-9], whole.replace(nll, nll[:-1]), "[]"):
        path.write_text(damaged)
        with pytest.raises(SystemExit, match="judged"):
            main.main(command)


@pytest.mark.long
def test_a_folder_that_takes_no_file_is_evaluated_all_the_same(
    capsys, folder, monkeypatch, tmp_path
):
    copy = shutil.copytree(folder, tmp_path / "run")
    for name in ("evaluation_val.json", "baselines.npz"):
        (copy / name).unlink(missing_ok=True)

    def refuse(source, target):
        raise OSError(errno.EROFS, "Read-only file system", str(target))

    monkeypatch.setattr(atomic_files.os, "replace", refuse)
    command = ("evaluate", copy, "--json", "--split", "val", "--num-importance-samples", 2)
    assert json.loads(shell(capsys, *command))["rows"] > 0
    assert not (copy / "evaluation_val.json").exists()
    assert not list(copy.glob("*.new"))
    # What was asked for by name is another matter.
    assert "Read-only" in refused(
        capsys, "encode", copy, "--input", write_rows(tmp_path), "--output", tmp_path / "l.csv"
    )


def write_rows(folder):
    path = folder / "rows.csv"
    path.write_text("aspect_list\njazz\n")
    return path


@pytest.mark.long
def test_of_many_rows_some_are_judged(capsys, folder, monkeypatch, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "run")
    monkeypatch.setattr(evaluate_run, "_ROWS", 40)
    monkeypatch.setattr(evaluate_run, "_TRAIN_ROWS", 300)
    monkeypatch.setattr(evaluate_run, "_LEAST_ROWS", 1)
    run = jaxvae.load(folder)
    whole = {name: len(run.rows(name)) for name in ("train", "val", "test")}
    some = evaluate_run.with_rows_enough(run)
    assert {name: len(some.rows(name)) for name in whole} == {"train": 300, "val": 40, "test": 40}
    assert set(some.source_row("test")) < set(run.source_row("test"))
    np.testing.assert_array_equal(
        evaluate_run.with_rows_enough(run).rows("test"), some.rows("test")
    )
    (folder / "evaluation_test.json").unlink(missing_ok=True)
    printed = shell(capsys, "evaluate", folder, "--num-importance-samples", 5)
    assert printed.startswith(f"40 of {whole['test']} test rows, 5 importance samples a row;")
    judged = json.loads((folder / "evaluation_test.json").read_text())
    assert (judged["rows"], judged["rows_in_split"]) == (40, whole["test"])
    assert judged["baseline_facts/train_rows"] == 300
    own = some.log_likelihood(some.sets("test"), num_importance_samples=5)
    assert judged["nll_iw"] == pytest.approx(-own.mean())


def test_the_report_is_one_page_without_a_network(capsys, folder):
    asked = ("--split", "val", "--num-importance-samples", 20)  # as an evaluation above
    path = shell(capsys, "report", folder, *asked).strip()
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


def test_compare_takes_only_a_likelihood_of_the_exported_parameters(capsys, folder, tmp_path):
    for name in ("config.json", "metrics.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path / name)
    best = trained.parameters_digest(to_state_dict(jaxvae.load(folder).network))

    def shown(**kept):
        saved_evaluation.save_evaluation(tmp_path, "test", {"nll_iw": 12.5, **kept})
        groups = json.loads(shell(capsys, "compare", tmp_path, "--json"))
        return groups[0]["measures"]["nll_iw"]["mean"]

    def draws(number):
        return shown(parameters=best, num_importance_samples=number)

    assert draws(1000) == draws(5000) == 12.5
    assert draws(1) is None
    assert shown(parameters=best[::-1], num_importance_samples=1000) is None
    assert shown(num_importance_samples=1000) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["evaluate", "nowhere"], "not a run's folder"),
        (["evaluate", "RUN", "--split", "tset"], "did you mean 'test'"),
        (["evaluate", "PTH"], "has no rows.npz"),
        (["report", "PTH"], "has no rows.npz"),
        (["report", "RUN", "--output", "x.pdf"], "must end in .html"),
        (["sample", "no.csv"], "nothing is there"),
        (["sample", "RUN", "--top-k", "3"], "--top-k is for --decode top_k"),
        (["sample", "RUN", "--threshold", "0.3"], "--threshold is for --decode threshold"),
        (["sample", "RUN", "--num", "0"], "num 0"),
        (["sample", "RUN", "--num", "x"], "invalid int"),
        (["complete", "RUN"], "nothing to complete"),
        (["complete", "RUN", "--with", "jazz", "--without", "jazz"], "both present and absent"),
        (["complete", "RUN", "--with", "jazzz"], "did you mean 'jazz'"),
        (["traverse", "RUN", "--around", "jazz", "--dim", "32"], "between 0 and 31"),
        (["traverse", "RUN", "--around", ",", "--dim", "3"], "no tag"),
        (["encode", "RUN", "--input", "no.csv", "--output", "x.npz"], "no.csv"),
        (["encode", "RUN", "--input", "no.csv", "--output", "x.txt"], ".parquet"),
        (["likelihood", "RUN", "--input", "no.csv", "--output", "x.csv"], "no.csv"),
        (["likelihood", "RUN", "--input", "no.csv", "--output", "x.npz"], ".jsonl"),
        (["complete", "RUN", "--top", "3"], "--top goes with --input"),
        (["complete", "RUN", "--input", "a.csv"], "--input needs --output"),
        (
            ["complete", "RUN", "--input", "a.csv", "--output", "x.csv", "--num", "3"],
            "--num does not go with --input",
        ),
        (
            ["complete", "RUN", "--input", "a.csv", "--output", "x.csv", "--with", "jazz"],
            "--with does not go with --input",
        ),
        (["compare", "nowhere"], "not a run's folder"),
    ],
)
def test_bad_commands_are_one_line(capsys, folder, arguments, says):
    places = {"RUN": folder, "PTH": folder / "model.pth"}
    assert says in refused(capsys, *(places.get(each, each) for each in arguments))


@pytest.mark.parametrize("command", ["complete", "likelihood"])
def test_a_files_rows_are_answered(capsys, folder, tmp_path, command):
    source, output = tmp_path / "clips.csv", tmp_path / "out.csv"
    source.write_text('clip,words\n1,"jazz, no such thing"\n2,nothing known\n3,rock\n')
    options = ("--draws", 2000, "--top", 3) if command == "complete" else ()
    arguments = (command, folder, "--input", source, "--column", "words", *options)
    assert shell(capsys, *arguments, "--output", output) == ""
    lines = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [line["row"] for line in lines] == ["0", "1", "2"]
    assert not lines[1]["effective_draws"]
    if command == "complete":
        assert [len(json.loads(lines[at]["tags"])) for at in (0, 2)] == [3, 3]
        assert "jazz" not in json.loads(lines[0]["tags"])
    else:
        run = jaxvae.load(folder)
        own = run.log_likelihood([["jazz"], [], ["rock"]], num_importance_samples=100)
        found = [float(lines[at]["log_likelihood"]) for at in (0, 2)]
        np.testing.assert_allclose(found, own[[0, 2]], rtol=1e-5)
    assert "is the input" in refused(capsys, *arguments, "--output", source)
    assert source.read_text().startswith("clip,words")


def test_encode_spares_its_input_and_wants_a_known_tag(capsys, folder, tmp_path):
    source = tmp_path / "clips.csv"
    source.write_text("aspect_list\njazz\n")
    assert "is the input" in refused(
        capsys, "encode", folder, "--input", source, "--output", source
    )
    assert source.read_text() == "aspect_list\njazz\n"
    source.write_text("aspect_list\nnothing\nknown\n")
    output = tmp_path / "out.npz"
    said = refused(capsys, "encode", folder, "--input", source, "--output", output)
    assert "none of its 2 rows" in said
    assert not output.exists()


def test_rows_and_lines_of_another_run_are_refused(capsys, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    with np.load(folder / "rows.npz") as stored:
        kept = dict(stored)
    kept["rows"] = kept["rows"][::-1]
    np.savez(tmp_path / "run" / "rows.npz", **kept)
    assert "not the rows" in refused(capsys, "evaluate", tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_bytes()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(lines[: len(lines) // 2 + 9])
    with pytest.raises(InputError, match=r"metrics\.jsonl, line \d: damaged"):
        read_epochs(tmp_path / "run")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "jaxvae", "data", "--config=configs/small.py"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    assert done.returncode == 2
    assert done.stderr == "jaxvae: standard output: No space left on device\n"


def test_a_half_written_run_is_refused(capsys, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "half", ignore=shutil.ignore_patterns("final"))
    assert "did the run finish" in refused(capsys, "sample", tmp_path / "half")
    to = tmp_path / "m.pth"
    assert "did the run finish" in refused(capsys, "export", tmp_path / "half", "--output", to)
    (tmp_path / "other").mkdir()
    shutil.copytree(folder, tmp_path / "other", dirs_exist_ok=True)
    mapping = json.loads((folder / "taxonomy.json").read_text())
    (tmp_path / "other" / "taxonomy.json").write_text(
        json.dumps({name: tags[::-1] for name, tags in mapping.items()})
    )
    assert "taxonomy.json is not what" in refused(capsys, "sample", tmp_path / "other")
    (tmp_path / "other" / "SHA256SUMS").unlink()
    assert "not the one the model was trained with" in refused(capsys, "sample", tmp_path / "other")
    assert shell(capsys, "sample", folder, "--num", 1)


def test_compare_counts_a_run_that_was_copied_once(capsys, folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "again")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "SHA256SUMS").unlink()
    write_safetensors(other / "model.safetensors", {"other": np.zeros(1, np.float32)})
    (group,) = json.loads(shell(capsys, "compare", folder, again, other, "--json"))
    assert group["runs"] == [str(folder), str(other)]
    assert group["repeats"] == {str(again): str(folder)}
    assert len(group["measures"]["Jaccard"]["values"]) == 2
    assert f"{again} is {folder} once more" in shell(capsys, "compare", folder, again, other)
    assert "once more" not in shell(capsys, "compare", folder, other)


@pytest.mark.long
def test_what_takes_long_is_said_before_it_starts(capsys, folder, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "baselines.npz").unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(baseline_fitting, "fit_baselines", lambda *rows: sys.exit("fitting"))
        for command in ("evaluate", "report"):
            with pytest.raises(SystemExit):
                main.main([command, str(copy)])
            out, err = capsys.readouterr()
            assert out == ""
            assert f"fitting baselines once; kept in {copy / 'baselines.npz'}" in err
    for draws in (2, 3):  # the second time at the latest they are there
        assert main.main(["evaluate", str(copy), "--num-importance-samples", str(draws)]) == 0
        err = capsys.readouterr().err
        assert f"{draws} draws" in err
    assert "fitting" not in err
    assert main.main(["evaluate", str(copy), "--num-importance-samples", "3"]) == 0
    err = capsys.readouterr().err
    assert err == f"jaxvae: taking what is kept in {copy / 'evaluation_test.json'}\n"


def test_a_report_that_can_t_be_written_is_refused_before_the_work(
    capsys, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate_run, "evaluate_run", lambda *given, **named: pytest.fail("judged"))
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    for output in ("file/report.html", "folder.html"):
        assert str(tmp_path / output) in refused(
            capsys, "report", folder, "--output", tmp_path / output
        )
    with pytest.raises(pytest.fail.Exception, match="judged"):
        main.main(["report", str(folder), "--output", str(tmp_path / "report.html")])
