"""The command that searches for the best config: search."""

import argparse
import shlex
import uuid
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.cli.sweep_options import (
    AT_ONCE,
    at_least_one,
    command,
    interrupted,
    parse,
    prepared_trials,
    say,
    typed,
)
from jaxvae.config import parsing
from jaxvae.config.paths import user_path, user_url
from jaxvae.errors import InputError, StudyLost, did_you_mean
from jaxvae.runtime import signals
from jaxvae.storage import run_files

_DEFAULTS = {
    "metric": "val/nll_iw",
    "sampler": "tpe",
    "pruner": "median",
    "storage": "",
    "study": "",
}
"""Defaults of options that belong to the study, and may not be given when it resumes."""


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    search = command(commands, "search", _search, "the best of many configs, trained together")
    search.add_argument("--space", help="a Python file such as configs/search/default.py")
    search.add_argument("--trials", type=int, help="of the whole study (64)")
    search.add_argument("--metric", help="what to look for (val/nll_iw)")
    search.add_argument("--sampler", help="tpe (default), random or qmc")
    search.add_argument("--pruner", help="median (default), hyperband or none")
    search.add_argument(
        "--storage",
        help="database URL or journal:///FILE, for several machines with one --study; default: "
        "study.db in the folder",
    )
    search.add_argument("--study", help="its name in the storage (the folder's)")
    search.add_argument("--resume", metavar="FOLDER", help="go on with a study, or add trials")
    search.set_defaults(at_once=None)


def _search(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.sweeps import study_dir
    from jaxvae.sweeps.optuna_storage import load_optuna
    from jaxvae.sweeps.search_space import load_space

    load_optuna()  # raises before slow work if Optuna is missing
    at_least_one(options, "trials", "at_once")
    if options.resume:
        folder = user_path(options.resume).resolve()
        config, facts = _resumed(options, rest, folder)
        space = folder / study_dir.SPACE
    else:
        if not options.space:
            raise InputError("no space given: --space=configs/search/default.py")
        config, overrides, folder = parse(options, rest, "search")
        if (folder / study_dir.STUDY).exists():
            raise InputError(f"{folder} holds a study: go on with it by --resume {folder}")
        space = parsing.find_file(options.space, flag="space")
        facts = _new_facts(options, rest, overrides, folder)
    apply = load_space(space)
    always_drawn = _check_space(apply, config)
    try:
        return _run_search(
            config, facts, folder, apply, None if options.resume else space, always_drawn
        )
    except signals.Interrupted as error:
        return interrupted(error, _how_to_go_on(folder, options))
    except StudyLost as error:
        raise InputError(
            f"{error}; when that is mended: {_how_to_go_on(folder, options)}"
        ) from error


def _how_to_go_on(folder: Path, options: argparse.Namespace) -> str:
    from jaxvae.sweeps import study_dir

    if not (folder / study_dir.STUDY).exists():
        return "the study had not begun, and the same command begins it"
    resume = typed(["search", "--resume", str(folder)], options, "trials", "at_once")
    return f"what is finished is kept; go on with: {resume}"


def _new_facts(
    options: argparse.Namespace, rest: list[str], overrides: dict[str, Any], folder: Path
) -> dict[str, Any]:
    from jaxvae.sweeps.optuna_study import PRUNERS, SAMPLERS
    from jaxvae.sweeps.trials import METRICS

    values = {
        name: default if getattr(options, name) is None else getattr(options, name)
        for name, default in _DEFAULTS.items()
    }
    for option, choices in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("metric", METRICS)):
        if values[option] not in choices:
            raise InputError(
                f"--{option} {values[option]}: must be one of {', '.join(choices)}"
                f"{did_you_mean(values[option], choices)}"
            )
    user_url(values["storage"])  # raises before slow work if the URL is wrong
    return {
        "command": rest,
        "overrides": overrides,
        "trials": options.trials or 64,
        "at_once": options.at_once or AT_ONCE,
        "worker": uuid.uuid4().hex,
        **values,
        "study": values["study"] or folder.name,
    }


def _resumed(
    options: argparse.Namespace, rest: list[str], folder: Path
) -> tuple[ConfigDict, dict[str, Any]]:
    from jaxvae.sweeps import study_dir

    refused = [f"--{name}" for name in ("space", "workdir", *_DEFAULTS)
             if getattr(options, name) is not None]  # fmt: skip
    if refused := rest[:1] + refused:
        raise InputError(
            f"{refused[0]}: a resumed study keeps its own; only --trials and --at_once may change"
        )
    config, facts = study_dir.read(folder)
    if (options.trials or facts["trials"]) < facts["trials"]:
        raise InputError(
            f"--trials {options.trials}: the study has {facts['trials']} already; a larger number "
            f"adds some"
        )
    for name in ("trials", "at_once"):
        facts[name] = getattr(options, name) or facts[name]
    return config, facts


def _check_space(apply, config: ConfigDict) -> set[str]:
    """Draws random trials before training starts, so that a wrong space fails at once.

    Returns:
      The fields that every trial draws.
    """
    import random

    from jaxvae.sweeps.search import as_given
    from jaxvae.sweeps.search_space import Dimension

    always = set(apply(config.copy_and_resolve_references(), as_given(config)).drawn)
    generator = random.Random(0)

    def draw(field: str, dimension: Dimension):
        if dimension.kind == "choice":
            return generator.choice(dimension.values)
        low, high = dimension.values
        return (
            generator.randint(low, high)
            if dimension.kind == "integer"
            else generator.uniform(low, high)
        )

    for _ in range(100):
        always &= set(apply(config.copy_and_resolve_references(), draw).drawn)
    return always


def _run_search(
    config: ConfigDict,
    facts: dict[str, Any],
    folder: Path,
    apply,
    space: Path | None,
    always_drawn: set[str],
) -> int:
    """Trains a search's trials and makes the best one a run.

    Args:
      config: the config that trials start from.
      facts: the search settings, as in `study.json`.
      folder: the study's folder.
      apply: sets a trial's fields (see `search_space.load_space`).
      space: the file of a new study's space; None resumes the study in the folder.
      always_drawn: fields that every trial draws.
    """
    from jaxvae.storage import atomic_files
    from jaxvae.sweeps.progress_table import trial_table
    from jaxvae.sweeps.search import as_given, is_higher_better, search, write_best_config

    metric, maximise = facts["metric"], is_higher_better(facts["metric"])
    with prepared_trials(config, folder, min(facts["at_once"], facts["trials"])) as (
        trials,
        requests,
    ):
        study = _open_study(trials, config, facts, folder, space, always_drawn)
        first_config = config.copy_and_resolve_references()
        study.suggest_first(apply(first_config, as_given(config)).drawn)

        with trial_table(metric=metric, maximise=maximise, total=facts["trials"], say=say) as table:
            leading = search(
                trials,
                study,
                apply,
                config,
                num_trials=facts["trials"],
                metric=metric,
                requests=requests,
                ended=lambda outcome: table.update(study.outcomes(), outcome),
            )
        best, test = study.best(), {}
        if best is not None:
            run_folder = folder / f"trial_{best.number:04d}"
            _make_best_run(trials, apply, config, best, leading, run_folder, requests)
            test = atomic_files.read_json(run_folder / run_files.METRICS)["test"]
            write_best_config(folder, config, best, metric)
    train_command = shlex.join(["python", "launch.py", f"--config={_relative(folder / 'best.py')}"])
    _write_page(study, facts, folder, command=train_command, test=test)
    if best is None:
        raise InputError(f"{folder}: no trial was complete; study.html has their fields")
    _print_best(best, metric, run_folder, again=train_command, page=folder / "study.html")
    if elsewhere := sum(outcome.state == "running" for outcome in study.outcomes()):
        say(
            f"{elsewhere} trials are still in training elsewhere; when they have ended, "
            f"{shlex.join(['python', '-m', 'jaxvae', 'search', '--resume', str(folder)])} "
            f"counts them too"
        )
    return 0


def _open_study(
    trials,
    config: ConfigDict,
    facts: dict[str, Any],
    folder: Path,
    space: Path | None,
    always_drawn: set[str],
):
    """Opens the study in its storage, checks its terms, and writes the folder's files."""
    from jaxvae.sweeps import study_dir
    from jaxvae.sweeps.optuna_storage import sqlite_url
    from jaxvae.sweeps.optuna_study import Study
    from jaxvae.sweeps.search import is_higher_better
    from jaxvae.sweeps.study_terms import hold_to_terms, terms_of
    from jaxvae.train.user_code import load_user_code

    maximise = is_higher_better(facts["metric"])
    study = Study(
        name=facts["study"],
        storage=user_url(facts["storage"]) or sqlite_url(folder / study_dir.DATABASE),
        worker=facts["worker"],
        maximise=maximise,
        sampler=facts["sampler"],
        pruner=facts["pruner"],
        seed=config.seed,
        begun=space is None,
    )
    terms = terms_of(
        config,
        user_code=load_user_code(config).copy_names,
        data=(trials.dataset.fingerprint, trials.dataset.source),
        taxonomy=(trials.taxonomy.digest, trials.taxonomy.num_tags),
        metric=facts["metric"],
        maximise=maximise,
        space=(space or folder / study_dir.SPACE).read_text(encoding="utf-8"),
        always_drawn=always_drawn,
    )
    # The folder's lock also protects a database inside it.
    hold_to_terms(study, terms, facts["study"], alone=not facts["storage"], say=say)
    if space is None:
        study_dir.write(folder, config, facts)
    else:
        study_dir.begin(folder, config, facts, space)
    return study


def _write_page(
    study, facts: dict[str, Any], folder: Path, *, command: str, test: dict[str, Any]
) -> None:
    """Writes `study.html`; `command` trains the best trial again, `test` has its test metrics."""
    from jaxvae.reports.sweep_report import study_page
    from jaxvae.storage import atomic_files
    from jaxvae.sweeps.search import is_higher_better

    page = study_page(
        title=f"Search: {facts['study']}",
        metric=facts["metric"],
        maximise=is_higher_better(facts["metric"]),
        outcomes=study.outcomes(),
        importance=study.importance(),
        best=study.best(),
        command=command,
        test={name: test[name] for name in ("test/loss", "test/bce", "test/kld") if name in test},
    )
    atomic_files.write_text(folder / "study.html", page)


def _print_best(best, metric: str, run_folder: Path, *, again: str, page: Path) -> None:
    """Prints the best trial, its fields, and the paths of its run and of the page."""
    print(f"trial {best.number}: {metric} {best.value:.4f}")
    for field, value in sorted(best.drawn.items()):
        print(f"  {field} = {value}")
    print(f"run      {run_folder}\nagain    {again}\npage     {page}")


def _make_best_run(trials, apply, config: ConfigDict, best, leading, folder: Path, requests):
    """Makes the best trial a run, unless the folder already holds it, intact."""
    from jaxvae.storage import manifest
    from jaxvae.sweeps import study_dir
    from jaxvae.sweeps.search import best_run, config_of

    if manifest.is_sealed(folder):
        wrong = study_dir.what_is_wrong(folder, config_of(best, apply, config))
        if not wrong:
            return
        set_aside = study_dir.set_aside(folder)
        say(f"{folder}: {wrong}; kept as {set_aside.name}, and made anew")
    best_run(trials, apply, config, best, leading, folder, requests)


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
