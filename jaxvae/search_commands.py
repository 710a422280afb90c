"""The command that looks for the best config: search."""

import argparse
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae import interrupt, settings
from jaxvae.errors import InputError
from jaxvae.population_commands import (
    at_least_one,
    command,
    interrupted,
    parse,
    prepared_trials,
    say,
)

STUDY = "study.json"


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    search = command(commands, "search", _search, "the best of many configs, trained together")
    search.add_argument("--space", help="a Python file such as configs/search/default.py")
    search.add_argument("--trials", type=int, help="of the whole study (64)")
    search.add_argument("--metric", default="val/nll_iw", help="what to look for (val/nll_iw)")
    search.add_argument("--sampler", default="tpe", help="tpe (default), random or qmc")
    search.add_argument("--pruner", default="median", help="median (default), hyperband or none")
    search.add_argument(
        "--storage",
        default="",
        help="database URL or journal:///FILE, for several machines with one --study; default: "
        "study.db in the folder",
    )
    search.add_argument("--study", default="", help="its name in the storage (the folder's)")
    search.add_argument("--resume", metavar="FOLDER", help="go on with a study, or add trials")


def _search(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.space import load_space
    from jaxvae.study import PRUNERS, SAMPLERS, load_optuna

    load_optuna()  # before anything takes time

    at_least_one(options, "trials")
    for option, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if getattr(options, option) not in known:
            raise InputError(
                f"--{option} {getattr(options, option)}: must be one of {', '.join(known)}"
            )
    if options.resume:
        config, facts, folder = _resumed(options, rest)
    else:
        if not options.space:
            raise InputError("no space given: --space=configs/search/default.py")
        config, overrides, folder = parse(options, rest, "search")
        if (folder / STUDY).exists():
            raise InputError(f"{folder} holds a study: go on with it by --resume {folder}")
        facts = {
            "command": rest,
            "overrides": overrides,
            "trials": options.trials or 64,
            "metric": options.metric,
            "sampler": options.sampler,
            "pruner": options.pruner,
            "at_once": options.at_once,
            "storage": options.storage,
            "study": options.study or folder.name,
            "worker": uuid.uuid4().hex,
        }
    space = folder / "space.py"
    if not options.resume:  # which may be one that the package brings
        space = settings.find_file(options.space, flag="space")
    apply = load_space(space)
    _check_space(apply, config)
    try:
        return _run_search(config, facts, folder, apply, space)
    except interrupt.Interrupted as error:
        return interrupted(error, ["search", "--resume", str(folder)])


def _resumed(
    options: argparse.Namespace, rest: list[str]
) -> tuple[ConfigDict, dict[str, Any], Path]:
    from jaxvae.record import read_json

    if rest or options.space or options.workdir:
        given = rest[0] if rest else "--space" if options.space else "--workdir"
        raise InputError(f"{given}: a resumed study keeps its own; only --trials may change")
    folder = Path(options.resume).expanduser().resolve()
    if not (folder / STUDY).is_file():
        raise InputError(f"--resume {options.resume}: holds no study (no {STUDY})")
    facts = read_json(folder / STUDY)
    config = settings.load_config("configs/base.py")
    try:
        config.update(facts["config"])
        facts = facts["search"] | ({"trials": options.trials} if options.trials else {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / STUDY}: damaged: {error}") from error
    return config, facts, folder


def _check_space(apply, config: ConfigDict) -> None:
    """Draws at random before anything starts, so that a wrong space is known at once."""
    import random

    from jaxvae.search import as_given
    from jaxvae.space import Dimension

    apply(config.copy_and_resolve_references(), as_given(config))
    drawn = random.Random(0)

    def draw(field: str, dimension: Dimension):
        if dimension.kind == "choice":
            return drawn.choice(dimension.values)
        low, high = dimension.values
        return drawn.randint(low, high) if dimension.kind == "integer" else drawn.uniform(low, high)

    for _ in range(100):
        apply(config.copy_and_resolve_references(), draw)


def _run_search(config: ConfigDict, facts: dict[str, Any], folder: Path, apply, space: Path) -> int:
    from jaxvae import record
    from jaxvae.search import as_given, best_run, is_higher_better, search
    from jaxvae.standings import standings
    from jaxvae.study import Study, sqlite_url
    from jaxvae.study_page import study_page

    metric, maximise = facts["metric"], is_higher_better(facts["metric"])
    with prepared_trials(config, folder, min(facts["at_once"], facts["trials"])) as (
        trials,
        requests,
    ):
        study = Study(
            name=facts["study"],
            storage=facts["storage"] or sqlite_url(folder),
            worker=facts["worker"],
            maximise=maximise,
            sampler=facts["sampler"],
            pruner=facts["pruner"],
            seed=config.seed,
        )
        if space != folder / "space.py":
            shutil.copyfile(space, folder / "space.py")
        record.write_json(folder / STUDY, {"config": json.loads(config.to_json()), "search": facts})
        given = config.copy_and_resolve_references()
        study.suggest_first(apply(given, as_given(config)).drawn)

        with standings(metric=metric, maximise=maximise, total=facts["trials"], say=say) as shown:
            leading = search(
                trials,
                study,
                apply,
                config,
                num_trials=facts["trials"],
                metric=metric,
                requests=requests,
                ended=lambda outcome: shown.update(study.outcomes(), outcome),
            )
        best = study.best()
        test: dict[str, float] = {}
        run_folder = folder / "none"
        if best is not None:
            run_folder = folder / f"trial_{best.number:04d}"
            if not (run_folder / "SHA256SUMS").exists():
                best_run(trials, apply, config, best, leading, run_folder, requests)
            test = record.read_json(run_folder / "metrics.json")["test"]
            _write_best_config(folder, config, best, metric)
    again = f"python launch.py --config={_relative(folder / 'best.py')}"
    page = study_page(
        title=f"Search: {facts['study']}",
        metric=metric,
        maximise=maximise,
        outcomes=study.outcomes(),
        importance=study.importance(),
        best=best,
        command=again,
        test={name: test[name] for name in ("test/loss", "test/bce", "test/kld") if name in test},
    )
    record.write_text(folder / "study.html", page)
    if best is None:
        raise InputError(f"{folder}: no trial was complete; study.html has their fields")
    print(f"trial {best.number}: {metric} {best.value:.4f}")
    for field, value in sorted(best.drawn.items()):
        print(f"  {field} = {value}")
    print(f"run      {run_folder}\nagain    {again}\npage     {folder / 'study.html'}")
    return 0


def _write_best_config(folder: Path, config: ConfigDict, best, metric: str) -> None:
    from jaxvae.record import write_text
    from jaxvae.search import config_file

    title = f"Trial {best.number} of a search: {metric} {best.value:.4f} on validation."
    origin = settings.load_config("configs/base.py")
    write_text(folder / "best.py", config_file(config, origin, best, title))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
