"""search, seeds and frontier from the shell, with kills, against single runs."""

import concurrent.futures
import contextlib
import json
import os
import shlex
import shutil
import signal
import sqlite3
import threading

import numpy as np
import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.cli.sweeps import seeds, study
from jaxvae.config import parsing
from jaxvae.errors import InputError, StudyLost
from jaxvae.inference.likelihood import row_likelihood
from jaxvae.inference.verify import verify
from jaxvae.reports import sweep_figures
from jaxvae.runtime import signals
from jaxvae.sweeps import optuna_storage, rate_distortion
from jaxvae.sweeps.optuna_study import PRUNERS, SAMPLERS, Study, TrialResult
from jaxvae.sweeps.search import config_file
from jaxvae.sweeps.seeds import summarize
from jaxvae.sweeps.study_terms import differences, hold_to_terms, in_a_line, terms_of
from jaxvae.sweeps.trials import LIKELIHOOD_DRAWS, METRICS
from tests.conftest import ROOT
from tests.helpers.studies import SMALL, SPACE, optuna, states, study_of

pytestmark = pytest.mark.usefixtures("optimized")


def shell(capsys, *arguments):
    code = main.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def refused(capsys, *arguments):
    assert main.main([str(argument) for argument in arguments]) == 2
    _, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("jaxvae: ")
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.fixture(scope="module")
def found(tmp_path_factory, space):
    """The folder of a finished search of eight trials."""
    folder = tmp_path_factory.mktemp("search") / "a"
    arguments = ("--space", space, "--trials", 8, "--at_once", 3, "--workdir", folder)
    assert main.main(["search", *SMALL, *map(str, arguments)]) == 0
    return folder


@pytest.mark.long
def test_a_search_leaves_its_best_trial_as_a_run(found):
    assert states(found) == ["COMPLETE"] * 8
    study = study_of(study_name="a", storage=f"sqlite:///{found / 'study.db'}")
    best = study.best_trial
    folder = found / f"trial_{best.number:04d}"
    assert not verify(folder)[1]
    # The value is the run's own, computed anew from its files.
    run = jaxvae.load(folder)
    likelihood = row_likelihood(
        run.network, run.rows("val"), num_importance_samples=LIKELIHOOD_DRAWS, seed=0
    )
    assert best.value == pytest.approx(-likelihood.log_likelihood.mean(), rel=1e-6)
    assert len({round(trial.value, 9) for trial in study.trials}) == 8
    # The first trial is the config as it stands, where the space allows it.
    first = study.trials[0].params
    assert first["trainer.optimizer.lr"] == 5e-4
    assert first["model.dropout_p"] == 0.3
    # The best one as a config: the same fields as the run's.
    config = parsing.load_config(str(found / "best.py"))
    kept = json.loads((folder / "config.json").read_text())
    assert json.loads(config.to_json()) == kept
    page = (found / "study.html").read_text()
    assert page.count("<svg") == 4
    assert "src=" not in page


def copied(found, place):
    """A copy of a finished search, to do something to."""
    return shutil.copytree(found, place / "study")


@pytest.mark.long
def test_a_resumed_search_adds_trials_and_repeats_none(found, tmp_path, capsys):
    folder = copied(found, tmp_path)
    before = study_of(study_name="a", storage=f"sqlite:///{folder / 'study.db'}").trials
    out, _ = shell(capsys, "search", "--resume", folder)
    assert "val/nll_iw" in out
    assert len(states(folder)) == 8
    shell(capsys, "search", "--resume", folder, "--trials", 10)
    after = study_of(study_name="a", storage=f"sqlite:///{folder / 'study.db'}").trials
    assert len(after) == 10
    assert [trial.value for trial in after[:8]] == [trial.value for trial in before]
    assert len({json.dumps(trial.params, sort_keys=True) for trial in after}) == 10


@pytest.mark.long
def test_two_workers_share_a_study(tmp_path, space, capsys):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for name, trials in (("a", 3), ("b", 5)):
        arguments = ("--space", space, "--trials", trials, "--workdir", tmp_path / name)
        shell(capsys, "search", *SMALL, *arguments, "--storage", storage, "--study", "both")
    study = study_of(study_name="both", storage=storage)
    assert len(study.trials) == 5
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2


@pytest.fixture
def joining(found, space, tmp_path, capsys):
    """Arguments that join the finished study, in a copy of its storage, from another folder."""
    shutil.copy(found / "study.db", tmp_path / "study.db")
    storage = ("--storage", f"sqlite:///{tmp_path / 'study.db'}", "--study", "a")
    capsys.readouterr()
    return (*SMALL, *storage, "--workdir", tmp_path / "b", "--trials", 9)


def clips(path, num_tags):
    """A file of rows of a few tags, and a taxonomy of so many; as options."""
    rows = [{"tags": [f"t{n % num_tags}", f"t{n % 3}"]} for n in range(400)]
    path.write_text("\n".join(map(json.dumps, rows)))
    taxonomy = path.with_name("taxonomy.json")
    taxonomy.write_text(json.dumps({"all": [f"t{n}" for n in range(num_tags)]}))
    return (
        f"--config.data.dataset_name={path}",
        "--config.data.aspect_column=tags",
        f"--config.data.taxonomy_path={taxonomy}",
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--metric", "val/rate"), "metric (val/nll_iw there, val/rate here)"),
        (
            ("--metric", "val/jaccard_index"),
            "metric (val/nll_iw there, val/jaccard_index here), direction (minimize there, maximize",
        ),
        (("--config.trainer.max_epochs=4",), "config.trainer.max_epochs (3 there, 4 here)"),
        (("--config.data.split_seed=1",), "config.data.split_seed (42 there, 1 here)"),
        # Drawn where the bias is random, and the config's own elsewhere.
        (("--config.model.dropout_p=0.1",), "config.model.dropout_p (0.3 there, 0.1 here)"),
    ],
)
def test_a_study_is_of_one_thing(joining, space, tmp_path, capsys, more, named):
    before = (tmp_path / "study.db").read_bytes()
    line = refused(capsys, "search", *joining, *more, "--space", space)
    assert line.startswith(f"jaxvae: study 'a' is of another {named}")
    assert "--study" in line
    assert (tmp_path / "study.db").read_bytes() == before
    assert not (tmp_path / "b").exists()


@pytest.mark.long
def test_a_study_is_of_one_taxonomy_of_one_data_set_and_of_one_space(
    joining, space, tmp_path, capsys
):
    options = clips(tmp_path / "clips.jsonl", 8)
    line = refused(capsys, "search", *joining, *options, "--space", space)
    assert "is of another taxonomy (224 tags there, 8 here)" in line

    other = tmp_path / "space.py"
    other.write_text(SPACE.replace("1e-4, 1e-2", "1e-5, 1e-2"))
    line = refused(capsys, "search", *joining, "--space", other)
    assert "is of another space (line 3: 's.log(" in line
    assert "config." not in line


@pytest.mark.long
def test_a_study_from_before_says_so_and_takes_the_first_process(joining, space, tmp_path, capsys):
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("delete from study_user_attributes")
    line = refused(capsys, "search", *joining, "--metric", "val/jaccard_index", "--space", space)
    assert "study 'a' takes less of its metric for better" in line
    # What does not change a trial's value may differ between processes.
    elsewhere = (
        *("--config.model_name=other", "--config.trainer.deterministic=True"),
        *("--config.inference.num_samples=10", "--config.trainer.optimizer.lr=0.002"),
    )
    _, err = shell(capsys, "search", *joining, *elsewhere, "--space", space)
    assert err.count("study 'a' does not say of which data, config and metric its trials are") == 1
    line = refused(
        capsys, "search", *joining, "--config.seed=5", "--workdir", tmp_path / "c",
        "--space", space,
    )  # fmt: skip
    assert "config.seed (0 there, 5 here)" in line
    # It goes on as it was.
    _, err = shell(capsys, "search", "--resume", tmp_path / "b", "--trials", 9)
    assert "does not say" not in err


def test_other_rows_of_the_same_tags_are_other_data():
    config = parsing.load_config("configs/base.py")

    def terms(rows="aaaa", tags="dddd", **changed):
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(changed)
        return terms_of(
            own, data=(rows, "clips.csv"), taxonomy=(tags, 8), metric="val/loss", maximise=False,
            space="x", always_drawn={"trainer.optimizer.lr"}, user_code={},
        )  # fmt: skip

    def differing(*pair):
        return differences(*pair, config)

    assert differing(terms(), terms()) == []
    assert differing(terms(), terms(**{"trainer.optimizer.lr": 1.0, "logger.name": ()})) == []
    (text,) = differing(terms(), terms(rows="bbbb"))
    assert text == "data (clips.csv aaaa there, clips.csv bbbb here)"
    (text,) = differing(terms(), terms(tags="eeee"))
    assert text.startswith("taxonomy (8 tags there, 8 here in another order")
    # A field that an earlier version did not have is as it was there by default.
    before = terms()
    del before["config"]["trainer.ema_decay"]
    assert differing(before, terms()) == []
    assert differing(before, terms(**{"trainer.ema_decay": 0.5})) == [
        "config.trainer.ema_decay (0.0 there, 0.5 here)"
    ]
    six = [f"config.{n}" for n in range(6)]
    assert in_a_line(six).endswith("config.3, and 2 more")


def begin(storage, worker, metric):
    """Begins or joins a study with terms that differ by their metric; whether they were its own."""
    config = parsing.load_config("configs/base.py")
    terms = terms_of(
        config, data=("aaaa", "clips.csv"), taxonomy=("dddd", 8), metric=metric, maximise=False,
        space="x", always_drawn=set(), user_code={},
    )  # fmt: skip
    study = Study(name="s", storage=storage, worker=worker, maximise=False, sampler="random",
                  pruner="none", seed=0)  # fmt: skip
    try:
        hold_to_terms(study, terms, "s", alone=False, say=print)
    except InputError as error:
        return "study 's' is of another metric (" not in str(error)
    return True


STORAGES = ("sqlite:///{}/s.db", "journal:///{}/s.log")


@pytest.mark.long
@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "before", [(Study, "terms"), (optuna.Study, "add_trial"), (optuna.Study, "set_user_attr")]
)
def test_a_process_that_begins_while_another_does_does_not_overwrite_its_terms(
    tmp_path, monkeypatch, storage, before
):
    storage, (place, name) = storage.format(tmp_path), before
    function = getattr(place, name)
    others = []

    def late(self, *arguments):
        """The second process's call, and the whole beginning of the first one before it counts."""
        value = function(self, *arguments) if name == "terms" else None
        monkeypatch.setattr(place, name, function)
        others.append(begin(storage, "first", "val/loss"))
        return value if name == "terms" else function(self, *arguments)

    monkeypatch.setattr(place, name, late)
    # By the time it only writes down what was agreed on, the second one was the first.
    second = begin(storage, "second", "val/rate")
    assert [second, *others] == ([True, False] if name == "set_user_attr" else [False, True])
    # Whoever joins later is of the same mind, and equal terms go on as one.
    assert begin(storage, "third", "val/rate") is second
    assert begin(storage, "fourth", "val/loss") is not second


@pytest.mark.long
@pytest.mark.parametrize("storage", STORAGES)
def test_of_processes_that_begin_at_once_those_of_one_mind_go_on(tmp_path, monkeypatch, storage):
    storage = storage.format(tmp_path)
    optuna.create_study(study_name="s", storage=optuna_storage.open_storage(optuna, storage))
    together, terms = threading.Barrier(4), Study.terms

    def all_read_first(self):
        value = terms(self)
        together.wait(60)
        return value

    monkeypatch.setattr(Study, "terms", all_read_first)
    metrics = ["val/loss", "val/rate"] * 2
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        went_on = list(threads.map(lambda at: begin(storage, str(at), metrics[at]), range(4)))
    assert went_on in ([True, False] * 2, [False, True] * 2)


@pytest.mark.long
def test_a_trial_that_overflows_fails_alone(tmp_path, capsys):
    space = tmp_path / "space.py"
    space.write_text(
        "def get_space(s):\n"
        "    s.choice('trainer.gradient_clip_val', 0.0, 1.0)\n"
        "    s.choice('trainer.optimizer.lr', 1e-3, 1e30)\n"
    )
    folder = tmp_path / "a"
    arguments = ("--space", space, "--trials", 8, "--workdir", folder, "--sampler", "random")
    shell(capsys, "search", *SMALL, *arguments)
    study = study_of(study_name="a", storage=f"sqlite:///{folder / 'study.db'}")
    for trial in study.trials:
        overflowed = trial.params["trainer.optimizer.lr"] == 1e30
        assert trial.state.name == ("FAIL" if overflowed else "COMPLETE")
    assert {trial.state.name for trial in study.trials} == {"FAIL", "COMPLETE"}


@pytest.mark.long
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("pruner", PRUNERS)
def test_samplers_and_pruners(tmp_path, sampler, pruner):
    study = Study(
        name="s",
        storage=f"journal:///{tmp_path / 'log'}",
        worker="me",
        maximise=False,
        sampler=sampler,
        pruner=pruner,
        seed=0,
    )
    from jaxvae.sweeps.search_space import Dimension

    pruned = 0
    for _ in range(25):
        number, draw = study.ask(25)
        x = draw("x", Dimension("uniform", (0.0, 1.0)))
        study.note_drawn(number, {"x": x})
        far = 5.0 * (number >= 20)  # worse than all before, whatever was drawn
        if any(study.report(number, epoch, x + far) for epoch in range(1, 6)):
            study.prune(number, {})
            pruned += 1
        else:
            study.finish(number, x, {})
    assert study.ask(25) is None
    assert (pruned > 0) == (pruner != "none")
    assert study.best().value == min(o.value for o in study.outcomes() if o.value is not None)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*SMALL,), "no space given"),
        ((*SMALL, "--space", "none.py"), "no such file"),
        (("--space", "{space}"), "no config given"),
        ((*SMALL, "--space", "{space}", "--trials", "0"), "must be at least 1"),
        ((*SMALL, "--space", "{space}", "--sampler", "gp"), "must be one of tpe, random, qmc"),
        ((*SMALL, "--space", "{space}", "--pruner", "x"), "must be one of"),
        ((*SMALL, "--space", "{space}", "--storage", "nonsense"), "can't be opened"),
        ((*SMALL, "--space", "{space}", "--metric", "val/los"), "did you mean 'val/loss'"),
        ((*SMALL, "--config.trainer.scale_batch_with_devices=True", "--space", "{space}"), "leave"),
        ((*SMALL, "--config.data.rows_per_epoch=99", "--space", "{space}"), "leave it out"),
        (("--resume", "nowhere"), "holds no study"),
        ((*SMALL, "--config.model.latentdim=3", "--space", "{space}"), "no such field"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, space, capsys, arguments, told):
    given = [argument.format(space=space) for argument in arguments]
    if "--resume" not in given:
        given += ["--workdir", str(tmp_path / "a")]
    assert told in refused(capsys, "search", *given)
    assert not (tmp_path / "a" / "study.db").exists()


@pytest.mark.long
def test_every_metric_is_known_before_anything_starts(found):
    trial = study_of(study_name="a", storage=f"sqlite:///{found / 'study.db'}").best_trial
    known = {*METRICS, "epochs", "best_epoch", "seconds"}
    assert set(trial.user_attrs["measures"]) == known


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "study.db").unlink(), "study.db: is gone or empty"),
        (lambda folder: (folder / "study.db").write_bytes(b""), "study.db: is gone or empty"),
        (lambda folder: (folder / "study.db").write_bytes(b"no" * 999), "can't be opened: file is"),
        (lambda folder: (folder / "space.py").write_text("x = 1"), "is not the one"),
        (lambda folder: (folder / "space.py").unlink(), "space.py: is gone"),
        (lambda folder: (folder / "study.json").write_text('{"config":{},"search":{}}'),
         "study.json: damaged: no "),
    ],
)  # fmt: skip
def test_a_study_that_is_not_what_it_was_does_not_go_on(found, tmp_path, capsys, damage, told):
    folder = copied(found, tmp_path)
    damage(folder)
    assert told in refused(capsys, "search", "--resume", folder)
    assert not list(folder.glob("*.damaged"))


@pytest.mark.long
def test_a_database_without_the_study_is_named(found, tmp_path, capsys):
    folder = copied(found, tmp_path)
    (folder / "study.db").unlink()
    Study(name="other", storage=f"sqlite:///{folder / 'study.db'}", worker="me", maximise=False,
          sampler="random", pruner="none", seed=0)  # fmt: skip
    assert "has no study 'a' any more" in refused(capsys, "search", "--resume", folder)


def best_folder(folder):
    best = study_of(study_name="a", storage=f"sqlite:///{folder / 'study.db'}").best_trial
    return folder / f"trial_{best.number:04d}"


@pytest.mark.long
def test_a_best_run_that_is_damaged_or_another_is_made_anew(found, tmp_path, capsys):
    folder = copied(found, tmp_path)
    best = best_folder(folder)
    whole = (best / "model.pth").read_bytes()
    kept_before = {path: path.read_bytes() for path in best.glob("*.json")}
    shell(capsys, "search", "--resume", folder)  # a control: it is left alone
    assert {path: path.read_bytes() for path in best.glob("*.json")} == kept_before
    (best / "model.pth").write_bytes(whole[:-1])
    _, err = shell(capsys, "search", "--resume", folder)
    assert f"kept as {best.name}.damaged, and made anew" in err
    assert not verify(best)[1]
    assert (best / "model.pth").read_bytes() == whole
    # One of another trial, whole as it may be.
    shutil.rmtree(best)
    shutil.copytree(folder / f"{best.name}.damaged", best)
    (best / "model.pth").write_bytes(whole)
    assert not verify(best)[1]
    config = json.loads((best / "config.json").read_text())
    config["model"]["dropout_p"] = 0.7
    (best / "config.json").write_text(json.dumps(config))
    _, err = shell(capsys, "search", "--resume", folder)
    assert f"kept as {best.name}.damaged-2" in err
    assert not verify(best)[1]


@pytest.mark.long
@pytest.mark.parametrize(
    "option",
    [("--metric", "val/loss"), ("--sampler", "random"), ("--pruner", "none"),
     ("--storage", "sqlite:///x.db"), ("--study", "b"), ("--space", "x.py"), ("--trials", "3")],
)  # fmt: skip
def test_what_belongs_to_a_study_stays(found, capsys, option):
    assert option[0] in refused(capsys, "search", "--resume", found, *option)


def test_a_storage_that_is_lost_is_one_line(tmp_path):
    study = Study(name="s", storage=f"sqlite:///{tmp_path / 'study.db'}", worker="me",
                  maximise=False, sampler="random", pruner="none", seed=0)  # fmt: skip
    number, _ = study.ask(9)
    study.finish(number, 1.0, {})
    (tmp_path / "study.db").unlink()
    (tmp_path / "study.db").mkdir()
    with pytest.raises(StudyLost, match=r"study\.db: unable to open database file"):
        study.ask(9)
    with pytest.raises(StudyLost):
        study.outcomes()


@pytest.mark.parametrize(
    ("words", "opens"),
    [("table studies already exists", 2), ("unable to open database file", 1)],
)
def test_a_database_whose_tables_another_process_makes_is_opened_again(
    tmp_path, monkeypatch, words, opens
):
    from sqlalchemy.exc import OperationalError

    open_database, errors, opened = optuna.storages.RDBStorage.__init__, [words], []

    def fails_once(self, url, **options):
        opened.append(url)
        if errors:
            raise OperationalError("CREATE TABLE", {}, Exception(errors.pop()))
        open_database(self, url, **options)

    monkeypatch.setattr(optuna.storages.RDBStorage, "__init__", fails_once)
    with pytest.raises(InputError, match=words) if opens == 1 else contextlib.nullcontext():
        Study(name="s", storage=f"sqlite:///{tmp_path / 'study.db'}", worker="me", maximise=False,
              sampler="random", pruner="none", seed=0)  # fmt: skip
    assert len(opened) == opens


def test_a_password_is_not_told():
    with pytest.raises(InputError) as caught:
        Study(name="s", storage="nonsense://me:secret@host/db", worker="me", maximise=False,
              sampler="random", pruner="none", seed=0)  # fmt: skip
    assert "secret" not in str(caught.value)
    assert "me:***@host" in str(caught.value)


@pytest.mark.long
def test_a_study_is_not_begun_twice(found, space, capsys):
    assert "--resume" in refused(capsys, "search", *SMALL, "--space", space, "--workdir", found)
    assert "only --trials" in refused(capsys, "search", "--resume", found, *SMALL)


def test_the_standings_on_a_terminal_are_a_table_of_the_best():
    from rich.console import Console

    from jaxvae.sweeps.progress_table import TrialTable

    shown = []
    outcomes = [
        TrialResult(
            n, "complete", value, {"trainer.optimizer.lr": 0.001 * n, "model.prior": "vamp"}, {}
        )
        for n, value in enumerate([3.0, 1.0, 2.0])
    ]
    outcomes.append(TrialResult(3, "pruned", None, {}, {}))
    for live in (True, False):
        table = TrialTable(metric="m", maximise=False, total=9, show=shown.append, live=live)
        table.update(outcomes, outcomes[-1])
    console = Console(width=100)
    with console.capture() as text:
        console.print(shown[0])
    lines = text.get().splitlines()
    assert "3 complete, 1 pruned" in lines[0]
    assert [line.split()[1] for line in lines if "vamp" in line] == ["1", "2", "0"]
    assert shown[1] == "trial 3: pruned  best 1.0000 (1)  "


@pytest.mark.long
def test_seeds_are_runs_and_their_spread(tmp_path, capsys):
    out, _ = shell(capsys, "seeds", *SMALL, "--num", 3, "--workdir", tmp_path / "s")
    folders = [tmp_path / "s" / f"seed_{seed}" for seed in range(3)]
    losses = []
    for folder in folders:
        assert not verify(folder)[1]
        losses.append(json.loads((folder / "metrics.json").read_text())["test"]["test/loss"])
    measure = json.loads((tmp_path / "s" / "seeds.json").read_text())["test"]["test/loss"]
    assert measure["values"] == losses
    assert measure["mean"] == pytest.approx(np.mean(losses))
    assert measure["sd"] == pytest.approx(np.std(losses, ddof=1))
    assert len(set(losses)) == 3
    assert f"test/loss  {np.mean(losses):.6g} ± " in out
    # Once more with one more: the three stay as they are.
    before = [(folder / "model.pth").stat().st_mtime_ns for folder in folders]
    shell(capsys, "seeds", *SMALL, "--num", 4, "--workdir", tmp_path / "s")
    assert [(folder / "model.pth").stat().st_mtime_ns for folder in folders] == before
    assert (tmp_path / "s" / "seed_3" / "model.pth").exists()
    told = refused(
        capsys, "seeds", *SMALL, "--config.loss.kld_weight=2.0", "--workdir", tmp_path / "s"
    )
    assert "loss.kld_weight (was 1.0, now 2.0)" in told


def interrupted(capsys, *arguments):
    """What a command says last that is stopped by a signal."""
    assert main.main([str(argument) for argument in arguments]) == 128 + signal.SIGINT
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("jaxvae: stopped by SIGINT; ")
    return line


def command_in(line):
    """The command, after `python -m jaxvae`, with which a line says how to go on."""
    words = shlex.split(line.partition(": python -m jaxvae ")[2])
    assert words
    return words


def stop_before(monkeypatch, place, name):
    """From now on a signal comes before a function does anything."""

    def stopped(*arguments, **options):
        raise signals.Interrupted(signal.SIGINT)

    monkeypatch.setattr(place, name, stopped)


@pytest.mark.parametrize(
    ("name", "given", "outcome"),
    [
        ("seeds", ["--num=3", "--at_once=2"], "what is finished is kept; go on with"),
        (
            "frontier",
            ["--kld_weights=0.5,1", "--seeds=3", "--at_once=2"],
            "a frontier keeps nothing before its end; begin again",
        ),
    ],
)
def test_how_to_go_on_has_every_option(tmp_path, monkeypatch, capsys, name, given, outcome):
    stop_before(monkeypatch, seeds, "prepared_trials")
    given = [*SMALL, *given, f"--workdir={tmp_path / 'a b'}"]
    line = interrupted(capsys, name, *given)
    assert line.startswith(f"jaxvae: stopped by SIGINT; {outcome}: ")
    again = command_in(line)
    assert again[0] == name
    assert set(again[1:]) == set(given)
    assert interrupted(capsys, *again) == line


@pytest.mark.long
def test_seeds_that_were_stopped_go_on_with_what_is_printed(tmp_path, monkeypatch, capsys):
    said = seeds.say

    def stop(text):
        said(text)
        if text.startswith("seed 0:"):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(seeds, "say", stop)
        line = interrupted(
            capsys, "seeds", *SMALL, "--num=2", "--at_once=1", "--workdir", tmp_path / "s"
        )
    kept = (tmp_path / "s" / "seed_0" / "model.pth").stat().st_mtime_ns
    _, err = shell(capsys, *command_in(line))
    assert "1 runs at once" in err
    assert (tmp_path / "s" / "seed_0" / "model.pth").stat().st_mtime_ns == kept
    assert (
        len(json.loads((tmp_path / "s" / "seeds.json").read_text())["test"]["test/loss"]["values"])
        == 2
    )


@pytest.mark.long
def test_a_search_that_was_stopped_says_how_to_go_on(found, space, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        stop_before(patched, study, "prepared_trials")
        line = interrupted(
            capsys, "search", *SMALL, "--space", space, "--workdir", tmp_path / "new"
        )
        assert line.endswith("the study had not begun, and the same command begins it")
        # Of a study that has begun its folder knows all but what may change.
        folder = copied(found, tmp_path)
        given = ["search", "--resume", str(folder), "--trials=9", "--at_once=2"]
        line = interrupted(capsys, *given)
        assert line.startswith("jaxvae: stopped by SIGINT; what is finished is kept; go on with: ")
        assert command_in(line) == given
    shell(capsys, *command_in(line))
    assert len(states(folder)) == 9


def test_the_spread_leaves_out_what_is_not_a_number():
    runs = [{"test": {"a": 1.0, "b": "x", "c": None}}, {"test": {"a": 3.0, "b": "y", "c": 1.0}}]
    measure = summarize(runs)
    assert set(measure["test"]) == {"a"}
    assert measure["test"]["a"]["mean"] == 2.0
    assert measure["test"]["a"]["sd"] == pytest.approx(2**0.5)
    assert summarize(runs[:1])["test"]["a"]["sd"] is None


@pytest.mark.long
def test_a_frontier_trades_rate_for_distortion(tmp_path, capsys):
    out, _ = shell(
        capsys, "frontier", *SMALL, "--config.trainer.max_epochs=30", "--config.trainer.optimizer.lr=0.01",
        "--kld_weights", "0.05,1,20", "--seeds", 2, "--workdir", tmp_path / "f",
    )  # fmt: skip
    points = json.loads((tmp_path / "f" / "frontier.json").read_text())["points"]
    assert [point["kld_weight"] for point in points] == [0.05, 1.0, 20.0]
    rates = [point["val/rate"]["mean"] for point in points]
    distortions = [point["val/distortion"]["mean"] for point in points]
    assert rates == sorted(rates, reverse=True)
    assert distortions == sorted(distortions)
    assert all(point["val/nll_iw"]["sd"] > 0 for point in points[:2])
    page = (tmp_path / "f" / "frontier.html").read_text()
    assert page.count("<svg") == 2
    assert "--config.loss.kld_weight=" in page
    assert "--config.loss.kld_weight=" in out


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("0.1:10:3log", [0.1, 1.0, 10.0]),
        ("1:3:3", [1.0, 2.0, 3.0]),
        ("4,1,1,0.5", [0.5, 1.0, 4.0]),
        ("2", [2.0]),
    ],
)
def test_weights_as_typed(text, weights):
    assert rate_distortion.parse_weight_grid(text) == weights


@pytest.mark.parametrize(
    "text", ["", "a", "1:2", "0:1:3log", "2:1:3", "1:2:1", "-1,2", "1,nan", "1,inf", "1:2:100000"]
)
def test_weights_that_are_none(text):
    with pytest.raises(InputError, match="kld_weights"):
        rate_distortion.parse_weight_grid(text)


def point(weight, nll, rate, distortion):
    names = {"nll_iw": nll, "rate": rate, "distortion": distortion}
    return {
        "kld_weight": weight,
        **{f"val/{name}": {"mean": mean, "sd": 0.0} for name, mean in names.items()},
    }


def test_what_is_recommended():
    points = [point(0.1, 15.0, 9.0, 7.0), point(0.5, 12.5, 5.0, 8.0), point(1.0, 12.0, 3.0, 9.5)]
    points += [point(2.0, 12.8, 1.2, 12.0), point(9.0, 12.9, 0.0, 13.0)]
    assert rate_distortion.recommend(points) == {
        "likelihood": 1.0,
        "reconstruction": 0.5,
        "compact": 2.0,
    }
    assert rate_distortion.recommend([point(9.0, 12.9, 0.0, 13.0)])["compact"] is None
    assert set(rate_distortion.recommend([]).values()) == {None}


def test_a_config_file_has_what_differs(tmp_path):
    base = parsing.load_config(f"{ROOT}/configs/medium.py")
    origin = parsing.load_config(f"{ROOT}/configs/base.py")
    best = TrialResult(3, "complete", 1.0, {"trainer.optimizer.betas": [0.5, 0.9], "seed": 7}, {})
    path = tmp_path / "best.py"
    path.write_text(config_file(base, origin, best, "A title."))
    config = parsing.load_config(str(path))
    assert (config.seed, config.trainer.optimizer.betas) == (7, (0.5, 0.9))
    assert (config.model.latent_dim, config.model_name) == (64, "vae_medium")
    assert config.trainer.optimizer.lr == base.trainer.optimizer.lr
    assert parsing.load_config(f"{path}:data=musiccaps").data.dataset_name == "google/MusicCaps"


def test_a_history_says_what_it_does_not_show():
    pytest.importorskip("matplotlib")
    values = [(number, 10.0 + number % 3) for number in range(20)]
    far = [(number, 1e6) if number == 7 else (number, value) for number, value in values]

    def title(values, **options):
        return sweep_figures.history(values, "val/loss", **options).axes[0].get_title()

    assert title(values, maximise=False) == title(far, maximise=True) == "History"
    assert title(far, maximise=False) == "History; beyond the edge: 1 worse"
