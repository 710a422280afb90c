"""Any path may be a run's, and what users typed is shown as they typed it."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import jaxvae
from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.storage import array_files
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.storage.final_params import load_params, save_params
from jaxvae.sweeps.optuna_study import TrialResult
from jaxvae.sweeps.progress_table import TrialTable
from jaxvae.train.loggers.display import PlainConsole, Terminal
from tests.conftest import ROOT
from tests.helpers.states import equal, make_state
from tests.helpers.training import run, timeless, write_clips

NAMES = (
    "plain",
    "hidden_dims=[256,128]",
    "[/old]",
    "[bold red]:smile:",
    "a*b?c",
    "back\\slash",
    "gs:",
    "new\nline",
    "%41#x?y;z&w",
    "$x$ 'quoted' \"twice\" <b>",
    "..dots.. ",
    "--workdir=x",
)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a run in a folder of a plain name gives."""
    clips = write_clips(tmp_path_factory.mktemp("plain"))
    _, folder = run(clips, trainer__max_epochs=3)
    return timeless(folder), load_params(folder / "final")[0]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_run_may_be_called_anything(name, tmp_path, expected, capsys):
    clips = write_clips(tmp_path)
    _, folder = run(clips, name, trainer__max_epochs=2)
    assert folder.is_dir()
    run(clips, name, trainer__max_epochs=3)
    assert name.splitlines()[0] in capsys.readouterr().err.replace("\n", "")
    assert timeless(folder) == expected[0]
    assert equal(load_params(folder / "final")[0], expected[1])
    assert len(jaxvae.load(folder, checkpoint="last").sample(3)) == 3
    for command in (["verify", str(folder)], ["sample", str(folder), "--num", "1"]):
        assert main.main(command) == 0, capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {
        *("clips.csv", "words.json", "models"),
        Path(name).parts[0] if not name.startswith("[/") else "[",
    }


@pytest.mark.parametrize("name", NAMES[1:9:2], ids=repr)
def test_a_model_may_be_imported_to_anywhere(name, tmp_path, folder, monkeypatch):
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    output = f"./{name}"
    assert main.main(["import", str(folder / "model.pth"), "--output", output]) == 0
    assert main.main(["verify", output]) == 0
    assert main.main(["export", output, "--output", "again.pth"]) == 0
    assert Path("again.pth").read_bytes() == (folder / "model.pth").read_bytes()


@pytest.mark.long
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(name="caf\udce9")  # no UTF-8
@given(name=st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20))
def test_parameters_come_back_from_below_any_name(name, tmp_path):
    if name in (".", "..") or len(os.fsencode(name)) > 200:
        return
    params = {"fc": {"kernel": np.float32([[1.0, 2.0]])}}
    place = tmp_path / name
    place.mkdir(exist_ok=True)
    save_params(place / "final", params, {}, {"epoch": 1})
    assert load_params(place / "final")[0]["fc"]["kernel"].tolist() == [[1.0, 2.0]]


@pytest.mark.long
def test_a_sibling_that_a_pattern_would_match_is_no_part_of_a_checkpoint(tmp_path):
    states = {"a*": make_state(seed=1), "ab": make_state(seed=2), "a[b]": make_state(seed=3)}
    for name, state in states.items():
        with Checkpoints(tmp_path / name, taxonomy_digest="tags") as opened:
            opened.save(1, state, {"name": name})
    for name, state in states.items():
        with Checkpoints(tmp_path / name, taxonomy_digest="tags") as opened:
            restored, _ = opened.restore(make_state())
        assert equal(restored.tree, state)
        assert restored.facts == {"name": name}


def test_no_link_is_left_and_a_place_for_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "[a]").mkdir()
    with Checkpoints(tmp_path / "[a]" / "c", taxonomy_digest="tags") as opened:
        assert len(list(tmp_path.iterdir())) == 2
        opened.save(1, make_state(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["[a]"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "[a]"))
    with pytest.raises(InputError, match="set TMPDIR to a folder named by letters"):
        Checkpoints(tmp_path / "[a]" / "c", taxonomy_digest="tags")
    assert array_files._PLAIN.fullmatch(str(tmp_path))


TYPED = ("[/old]", "[bold]x[/bold]", ":smile:", "[link=https://a.b]c[/link]", "a\\[b", "https://a")


@pytest.mark.parametrize("text", TYPED)
def test_text_is_shown_as_it_is(text, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal that could show links
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal(progress_bar=True)
    terminal.say(text)
    assert capsys.readouterr().err == f"{text}\n"
    terminal.summary(text, {text: text})
    shown = capsys.readouterr().err
    assert shown.count(text) == 3
    assert "]8;" not in shown  # the code of a link
    table = []
    options = {"metric": text, "maximise": False, "total": 1, "show": table.append, "live": True}
    trial = TrialResult(number=0, state="complete", value=1.0, drawn={text: text}, measures={})
    TrialTable(**options).update([trial], trial)
    PlainConsole().print(table[0])
    assert capsys.readouterr().err.count(text) >= 2


@pytest.mark.long
@pytest.mark.parametrize("command", ["seeds", "search"])
def test_many_runs_too(command, tmp_path, capsys):
    pytest.importorskip("optuna", reason="search needs the extra optuna")
    clips = write_clips(tmp_path)
    place = tmp_path / "grid=[1,2]" / "a b:smile:"
    space = tmp_path / "space.py"
    space.write_text("def get_space(s):\n    s.log('trainer.optimizer.lr', 1e-4, 1e-2)\n")
    arguments = [f"--config={ROOT}/configs/small.py", "--config.trainer.max_epochs=1",
                 "--config.model.latent_dim=2", "--config.model.hidden_dim=8",
                 f"--config.data.dataset_name={clips}/clips.csv", "--config.logger.name=()",
                 f"--config.data.taxonomy_path={clips}/words.json", "--workdir", str(place),
                 "--config.data.val_fraction=0.2", "--config.data.test_fraction=0.2"]  # fmt: skip
    own = ["--num", "2"] if command == "seeds" else ["--space", str(space), "--trials", "2"]
    assert main.main([command, *arguments, *own]) == 0, capsys.readouterr().err
    runs = [path for path in place.iterdir() if (path / "config.json").is_file()]
    assert runs
    for folder in runs:
        assert main.main(["verify", str(folder)]) == 0
        assert len(read_epochs(folder)) == 1
        assert json.loads((folder / "summary.json").read_text())["epochs"] == 1
