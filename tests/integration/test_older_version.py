"""What an older version left opens, goes on, and is what it was.

`older_version.tar.xz` holds a run of two epochs and a search of three trials, with the clips and the
taxonomy they are of, as the commit eeee798 left them. That version's own numbers of the epochs that
follow are below.
"""

import json
import tarfile
from pathlib import Path

import pytest

import jaxvae
from jaxvae.cli import main
from tests.conftest import ROOT

EPOCHS = {3: (4.656495094299316, 4.238447189331055), 4: (4.713437557220459, 4.23854414621989)}
"""Training and validation loss by epoch."""


@pytest.fixture
def older(tmp_path, monkeypatch):
    """A folder that has what the older version left, and is the current one."""
    with tarfile.open(Path(__file__).with_name("older_version.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *arguments):
    code = main.main(list(arguments))
    out, err = capsys.readouterr()
    assert code == 0, err
    return out + err


def test_a_run_opens_whole(older, capsys):
    verified = command(capsys, "verify", "run").splitlines()
    assert len(verified) > 4
    assert all(line.startswith("ok ") for line in verified)
    for checkpoint in ("best", "last"):
        run = jaxvae.load("run", checkpoint=checkpoint)
        assert len(run.rows("train")) + len(run.rows("val")) + len(run.rows("test")) == 70
        assert len(run.sample(3)) == 3
        assert "jazz" in run.complete(["jazz"], num=1).sets[0]
    judged = json.loads(
        command(capsys, "evaluate", "run", "--json", "--num-importance-samples", "5").partition(
            "\njaxvae:"
        )[0]
    )
    assert judged["epoch"] in (1, 2)


def test_a_run_goes_on_as_it_would_have(older):
    config = ("data.dataset_name=clips.csv", "data.aspect_column=tags",
              "data.taxonomy_path=concepts.json", "model.hidden_dim=4", "model.latent_dim=2",
              "logger.name=()", "trainer.max_epochs=4")  # fmt: skip
    arguments = [f"--config.{field}" for field in config]
    file = f"--config={ROOT}/configs/small.py"
    assert main.main(["train", file, *arguments, "--workdir=run"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines[2:]:
        assert (line["train/loss"], line["val/loss"]) == pytest.approx(
            EPOCHS[line["epoch"]], rel=1e-6
        )


@pytest.mark.long
def test_a_study_goes_on(older, capsys):
    pytest.importorskip("optuna")
    config = json.loads(Path("study/trial_0000/config.json").read_text())
    assert "monitor" not in config["trainer"]  # a field that it is too old to know
    printed = command(capsys, "search", "--resume", "study", "--trials", "4")
    assert "damaged" not in printed
    assert printed.count("val/nll_iw") >= 1
    assert not list(Path("study").glob("*.damaged"))
