"""Runs a study: trains its trials, makes the best one a run, and writes the study's page."""

import shlex
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.cli.sweeps.options import prepared_trials, say
from jaxvae.config.paths import user_url
from jaxvae.errors import InputError
from jaxvae.storage import run_files


def run_search(
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
