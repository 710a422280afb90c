"""Functions of a user's own files that the config names: `trainer.callbacks`."""

import json
import os

import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.config.extensions import is_reference, load_extension
from jaxvae.errors import InputError
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train import CallbackFailed
from tests.conftest import ROOT
from tests.helpers.training import small, write_clips

GAP = """
import csv

def gap(epoch, metrics, state):
    with open("gap.csv", "a", newline="") as file:
        csv.writer(file).writerow([epoch, metrics["val/loss"] - metrics["train/loss"], int(state.step)])

def count(epoch, metrics, state):
    with open("count.txt", "a") as file:
        print(epoch, file=file)

five = 5

def no_arguments():
    pass
"""


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """The current folder, with clips, their taxonomy and a file of callbacks."""
    write_clips(tmp_path)
    (tmp_path / "mine.py").write_text(GAP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(clips, *arguments):
    config = small(clips)
    fields = {"data.dataset_name": config.data.dataset_name, "data.aspect_column": "aspect_list",
              "data.taxonomy_path": config.data.taxonomy_path, "logger.name": "()",
              "data.batch_size": 14, "model.hidden_dim": 4, "model.latent_dim": 2}  # fmt: skip
    given = [f"--config.{field}={value}" for field, value in fields.items()]
    return main.main(["train", f"--config={ROOT}/configs/small.py", *given, *arguments])


@pytest.mark.long
def test_each_sees_every_epoch_and_the_run_keeps_its_file(clips):
    callbacks = "--config.trainer.callbacks=mine.py:gap,mine.py:count"
    assert train(clips, callbacks, "--config.trainer.max_epochs=3", "--workdir=run") == 0
    rows = [line.split(",") for line in (clips / "gap.csv").read_text().splitlines()]
    lines = read_epochs(clips / "run")
    assert [int(row[0]) for row in rows] == [1, 2, 3]
    assert [int(row[2]) for row in rows] == [line["step"] for line in lines]
    assert [float(row[1]) for row in rows] == pytest.approx(
        [line["val/loss"] - line["train/loss"] for line in lines]
    )
    assert (clips / "count.txt").read_text() == "1\n2\n3\n"
    (copy,) = (clips / "run" / "extensions").iterdir()
    assert copy.read_text() == GAP
    assert copy.name.endswith("_mine.py")
    assert str(clips) not in copy.name
    # They are no part of what was trained: others may follow, and a finished run stays finished.
    assert train(clips, "--config.trainer.max_epochs=3", "--workdir=run") == 0
    assert (clips / "count.txt").read_text() == "1\n2\n3\n"
    more = ("--config.trainer.callbacks=mine.py:count", "--config.trainer.max_epochs=4")
    assert train(clips, *more, "--workdir=run") == 0
    assert (clips / "count.txt").read_text() == "1\n2\n3\n4\n"
    assert len((clips / "gap.csv").read_text().splitlines()) == 3
    assert len(jaxvae.load("run").sample(2)) == 2


def test_one_that_raises_is_named_and_loses_no_epoch(clips, capsys):
    (clips / "bad.py").write_text(
        "def stop(epoch, metrics, state):\n    if epoch == 2:\n        raise ValueError('no\\nmore')\n"
    )
    command = ("--config.trainer.callbacks=bad.py:stop", "--config.trainer.max_epochs=4")
    rare = ("--config.trainer.checkpoint_every_seconds=1e6", "--workdir=run")
    assert train(clips, *command, *rare) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(
        "jaxvae: the callback bad.py:stop, line 3, failed at epoch 2: ValueError: no more. The epoch"
    )
    assert len(read_epochs(clips / "run")) == 2
    assert (clips / "run" / "checkpoints" / "2").is_dir()
    (clips / "bad.py").write_text("def stop(epoch, metrics, state):\n    pass\n")
    assert train(clips, *command, *rare) == 0
    assert "Resuming after epoch 2" in capsys.readouterr().err
    assert [line["epoch"] for line in read_epochs(clips / "run")] == [1, 2, 3, 4]
    assert len(list((clips / "run" / "extensions").iterdir())) == 2


@pytest.mark.parametrize("leave", ["sys.exit()", "sys.exit('text')", "raise BaseException('own')"])
def test_one_that_leaves_the_program_is_no_success(clips, capsys, leave):
    (clips / "bad.py").write_text(
        f"import sys\ndef stop(epoch, metrics, state):\n    if epoch == 2:\n        {leave}\n"
    )
    command = ("--config.trainer.callbacks=bad.py:stop", "--config.trainer.max_epochs=3")
    rare = ("--config.trainer.checkpoint_every_seconds=1e6", "--workdir=run")
    assert train(clips, *command, *rare) == 1
    assert "bad.py:stop, line 4, failed at epoch 2: " in capsys.readouterr().err
    assert (clips / "run" / "checkpoints" / "2").is_dir()
    (clips / "bad.py").write_text("import sys\nsys.exit()\n")
    assert train(clips, *command, *rare) == 2
    assert "bad.py, line 2 can't be run: SystemExit" in capsys.readouterr().err


def test_what_one_does_to_its_arguments_stays_its_own(clips):
    (clips / "bold.py").write_text(
        "def clear(epoch, metrics, state):\n    metrics.clear()\n"
        "    state.params['fc4']['bias'] = state.params['fc4']['bias'] + 100.0\n"
    )
    for name, callbacks in (("plain", ()), ("bold", ("bold.py:clear", "mine.py:gap"))):
        config = small(clips, trainer__callbacks=callbacks, trainer__max_epochs=3)
        jaxvae.train_and_evaluate(config, clips / name, models_dir=clips / "models")
    plain, bold = (read_epochs(clips / name) for name in ("plain", "bold"))
    assert [line["val/loss"] for line in bold] == [line["val/loss"] for line in plain]
    assert len((clips / "gap.csv").read_text().splitlines()) == 3


def test_a_folder_that_one_changes_moves_nothing(clips, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (clips / "go.py").write_text(
        f"import os\ndef away(epoch, metrics, state):\n    os.chdir({str(elsewhere)!r})\n"
    )
    command = ("--config.trainer.callbacks=go.py:away", "--config.trainer.max_epochs=1")
    assert train(clips, *command, "--workdir=run") == 0
    assert (clips / "models" / "vae_small.pth").exists()
    assert list(elsewhere.iterdir()) == []


def test_from_python_the_error_keeps_its_cause(clips):
    (clips / "bad.py").write_text("def stop(epoch, metrics, state):\n    raise KeyError('x')\n")
    config = small(clips, trainer__callbacks=("bad.py:stop",))
    with pytest.raises(CallbackFailed, match="line 2, failed at epoch 1: KeyError") as caught:
        jaxvae.train_and_evaluate(config, clips / "run", models_dir=clips / "models")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("mine.py:gpa", "mine.py has no 'gpa' (did you mean 'gap'?)"),
        ("missing.py:gap", "missing.py can't be read: No such file or directory"),
        ("mine.py", "must be files and names in them, such as my_callbacks.py:gap"),
        ("mine:gap", "must be files and names in them"),
        ("mine.py:five", "it is no function, but int"),
        (
            "mine.py:no_arguments",
            "it is called with (epoch, metrics, state), and that does not fit",
        ),
        ("syntax.py:gap", "syntax.py, line 2 can't be run: SyntaxError"),
        ("raises.py:gap", "raises.py, line 3 can't be run: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_is_said_before_rows_are_read(clips, capsys, reference, says):
    (clips / "syntax.py").write_text("import os\ndef gap(:\n")
    (clips / "raises.py").write_text("import os\n\n1 / 0\n")
    os.remove(clips / "clips.csv")
    assert train(clips, f"--config.trainer.callbacks={reference}", "--workdir=run") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert not (clips / "run").exists()


def test_many_runs_at_once_have_none(clips, capsys):
    config = small(clips)
    code = main.main(
        [
            "seeds",
            f"--config={ROOT}/configs/small.py",
            "--config.trainer.callbacks=mine.py:gap",
            f"--config.data.dataset_name={config.data.dataset_name}",
            "--workdir=seeds",
        ]
    )
    assert code == 2
    assert "a callback follows a run that trains by itself" in capsys.readouterr().err


def test_a_reference_is_a_file_and_a_name(tmp_path):
    assert is_reference("a.py:b")
    assert is_reference("~/dir:x/a.py:b")
    for text in ("a.py", "a:b", "a.py:", ":b", "a.py:b.c", "a.py:1", 5, None):
        assert not is_reference(text)
    with pytest.raises(InputError, match=r"--config.x=a: must be a file and a name in it"):
        load_extension("a", field="x", arguments=())


def test_an_edited_file_is_run_anew(tmp_path):
    path = tmp_path / "f.py"
    values = []
    for text in ("def f(): return 1", "def f(): return 2", "def f(): return 1"):
        path.write_text(text)
        extension = load_extension(f"{path}:f", field="x", arguments=())
        values.append((extension.function(), extension.copy_name))
    assert [value for value, _ in values] == [1, 2, 1]
    assert values[0] == values[2]
    assert values[0][1] != values[1][1]
    assert json.dumps(values)
