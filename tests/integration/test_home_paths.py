"""One rule for `~`, whatever command, field or function takes the path."""

import json
import os
import pwd
import shutil
from pathlib import Path

import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.config.parsing import load_config
from jaxvae.config.paths import run_path, user_path, user_url
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from tests.conftest import ROOT

NOBODY = "~no-such-user/x"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder; the command is started elsewhere."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture
def files(home):
    """What commands read, in the home folder."""
    rows = "".join(f"\"['jazz', '{tag}']\"\n" for tag in ("mellow", "slow", "rock") * 20)
    (home / "rows.csv").write_text("aspect_list\n" + rows)
    tags = {"genre": ["jazz", "rock"], "mood": ["mellow", "slow"]}
    (home / "tags.json").write_text(json.dumps(tags))
    (home / "mine.py").write_text(
        "from configs.small import get_config\n__all__ = ['get_config']\n"
    )
    return home


@pytest.fixture
def homeless(home, monkeypatch):
    """A user whom no entry of the system's knows, and without HOME."""

    def unknown(key):
        raise KeyError(key)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def shell(capsys, *arguments):
    code = main.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert not [path for path in Path.cwd().iterdir() if path.name.startswith("~")]
    return out


def refused(capsys, *arguments):
    assert main.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert not list(Path.cwd().iterdir())
    return err


def test_the_rule(home):
    assert user_path("~") == home
    assert user_path("~/a/b") == user_path(Path("~/a/b")) == home / "a" / "b"
    assert user_path("~//a") == home / "a"
    mine = pwd.getpwuid(os.getuid())
    assert user_path(f"~{mine.pw_name}/a") == Path(mine.pw_dir) / "a"
    for plain in ("a", "a/~/b", "/a/~b", "."):
        assert user_path(plain) == Path(plain)


@pytest.mark.parametrize("typed", ["./~x", "././~x/a", ".//~"])
def test_what_begins_with_a_tilde_is_typed_behind_a_dot(home, typed):
    once = user_path(typed)
    assert once == Path.cwd() / Path(typed)
    assert user_path(once) == user_path(str(once)) == once


def test_the_files_of_storages(home):
    assert user_url("sqlite:///~/a.db") == f"sqlite:///{home}/a.db"
    assert user_url("sqlite+pysqlite:///~/a.db") == f"sqlite+pysqlite:///{home}/a.db"
    for typed in ("journal:///~/log", "journal://~/log", "journal:~/log"):
        assert user_url(typed) == f"journal://{home}/log"
    for plain in (
        "sqlite:///a.db",
        "sqlite:////a/~/b.db",
        "sqlite:///./~b",
        "journal:///log",
        "mysql://~u:p@host/db",
        "",
    ):
        assert user_url(plain) == plain


@pytest.mark.parametrize("typed", ["~no-such-user", NOBODY, "~a\0b/c", "~" + "x" * 5000])
def test_a_user_that_nobody_is(home, typed):
    with pytest.raises(
        InputError, match=r"there is no user .*; type the whole path, or ./~"
    ) as told:
        user_path(typed)
    assert len(str(told.value)) < 700


def test_a_user_without_a_home(homeless, monkeypatch):
    with pytest.raises(InputError, match="~/x: you have no home folder; type the whole path"):
        user_path("~/x")
    monkeypatch.setenv("HOME", "")  # `~/x` would be `/x`
    with pytest.raises(InputError, match="you have no home folder"):
        user_path("~/x")
    assert user_path("x") == Path("x")  # a control


def test_every_command_reads_and_writes_in_the_home(capsys, files, folder):
    shutil.copytree(folder, files / "run")
    shell(capsys, "encode", "~/run", "--input=~/rows.csv", "--output=~/latents.csv")
    shell(capsys, "explore", "~/run", "--no-open", "--output=~/explore.html")
    shell(capsys, "export", "~/run", "--output=~/model.pth")
    shell(capsys, "export", "~/run", "--output=~/torch", "--format=torch_module")
    taxonomy = "--taxonomy=~/run/taxonomy.json"
    shell(capsys, "import", "~/model.pth", taxonomy, "--output=~/imported")
    shell(capsys, "push", "~/run", "user/name", "--folder=~/published")
    shutil.copytree(files / "run", files / "twin")
    assert "once more" in shell(capsys, "compare", "~/run", "~/twin")
    shell(capsys, "verify", "~/run")
    shell(capsys, "sample", "~/published", "--num=1")
    written = {"latents.csv", "explore.html", "model.pth", "torch", "imported", "published"}
    assert written <= {path.name for path in files.iterdir()}
    assert not list(Path.cwd().iterdir())


def test_the_report_page_lies_in_the_home(capsys, home, folder, monkeypatch):
    monkeypatch.setattr(
        "jaxvae.reports.run_report.evaluate_run.evaluate_run", lambda run, **options: {}
    )
    for part in ("_verdict", "_likelihoods", "_latent", "_samples", "_completion"):
        monkeypatch.setattr(f"jaxvae.reports.run_report.{part}", lambda *arguments: "")
    shell(capsys, "report", folder, "--output=~/page.html")
    assert (home / "page.html").is_file()


def test_config_fields_and_the_config_itself(capsys, files):
    fields = ("--config.data.dataset_name=~/rows.csv", "--config.data.taxonomy_path=~/tags.json")
    report = json.loads(shell(capsys, "data", "--config=~/mine.py", *fields, "--json"))
    assert report["rows_kept"] == 60
    assert report["source"].startswith("~/rows.csv")  # as it was typed
    (Path.cwd() / "~rows.csv").write_text((files / "rows.csv").read_text())
    dotted = fields[1].replace("~/", "../home/")
    arguments = ["data", "--config=~/mine.py", "--config.data.dataset_name=./~rows.csv", dotted]
    assert main.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_kept"] == 60


def test_the_run_folder_and_the_models(files, monkeypatch):
    config = load_config(str(ROOT / "configs" / "small.py"))
    config.trainer.max_epochs = 1
    config.data.dataset_name, config.data.taxonomy_path = "~/rows.csv", "~/tags.json"
    config.logger.name = ()
    from jaxvae.train.trainer import train_and_evaluate

    train_and_evaluate(config, "~/runs/a", models_dir="~/models")
    assert json.loads((files / "runs/a/config.json").read_text())["data"]["dataset_name"] == (
        "~/rows.csv"
    )
    assert list((files / "models").iterdir())
    assert jaxvae.load("~/runs/a").folder == jaxvae.load(Path("~/runs/a")).folder
    with pytest.raises(InputError, match="at least two runs"):
        jaxvae.load_many("~/runs")
    jaxvae.load("~/runs/a").export("~/b.pth")
    assert (files / "b.pth").is_file()
    assert jaxvae.load("~/b.pth", taxonomy_path="~/tags.json").taxonomy == Taxonomy.load(
        "~/tags.json"
    )
    assert not list(Path.cwd().iterdir())


CONFIG = f"--config={ROOT}/configs/small.py"


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", NOBODY],
        ["compare", NOBODY],
        ["evaluate", NOBODY],
        ["sample", NOBODY, "--checkpoint=last"],
        ["encode", "RUN", f"--input={NOBODY}", "--output=a.csv"],
        ["encode", "RUN", "--input=a.csv", f"--output={NOBODY}.csv"],
        ["report", "RUN", f"--output={NOBODY}.html"],
        ["explore", "RUN", f"--output={NOBODY}.html"],
        ["export", "RUN", f"--output={NOBODY}.pth"],
        ["import", f"{NOBODY}.pth", "--output=a"],
        ["import", "RUN/model.pth", f"--output={NOBODY}"],
        ["import", "RUN/model.pth", f"--taxonomy={NOBODY}", "--output=a"],
        ["push", "RUN", "user/name", f"--folder={NOBODY}"],
        ["train", CONFIG, f"--workdir={NOBODY}"],
        ["data", CONFIG, f"--config.data.dataset_name={NOBODY}.csv"],
        ["data", CONFIG, f"--config.data.taxonomy_path={NOBODY}"],
        ["data", f"--config={NOBODY}.py"],
        ["data", f"--flagfile={NOBODY}"],
        ["seeds", CONFIG, f"--workdir={NOBODY}"],
        ["search", CONFIG, f"--space={NOBODY}.py"],
        ["search", CONFIG, f"--space={ROOT}/configs/search/default.py",
         f"--storage=sqlite:///{NOBODY}"],
        ["search", f"--resume={NOBODY}"],
    ],
)  # fmt: skip
def test_nobodys_home_is_one_line_in_every_command(capsys, home, folder, arguments):
    if arguments[0] == "search":
        pytest.importorskip("optuna", reason="search needs the extra optuna")
    arguments = [argument.replace("RUN", str(folder)) for argument in arguments]
    assert "no-such-user" in refused(capsys, *arguments)


@pytest.mark.parametrize("url", ["gs://bucket/run", "file:///tmp/run", "S3://b"])
def test_a_run_does_not_lie_behind_a_url(url):
    with pytest.raises(InputError, match="not behind a URL") as caught:
        run_path(url)
    assert f"type ./{url}" in str(caught.value)
    for name in (f"./{url}", "gs:/bucket", "a://b"[1:], "1a://b"):  # the controls
        assert run_path(name).is_absolute()


@pytest.mark.parametrize("command", ["train", "seeds"])
def test_a_command_refuses_a_url_before_it_trains(home, capsys, command):
    arguments = [command, f"--config={ROOT}/configs/small.py", "--workdir=gs://bucket/run"]
    assert "gs://bucket/run: a run lies in a folder" in refused(capsys, *arguments)
    assert not Path("gs:").exists()
