"""The command that searches for the best config: search."""

import argparse
import uuid
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.cli.sweeps import study
from jaxvae.cli.sweeps.options import (
    AT_ONCE,
    at_least_one,
    command,
    interrupted,
    parse,
    typed,
)
from jaxvae.config import parsing
from jaxvae.config.paths import user_path, user_url
from jaxvae.errors import InputError, StudyLost, did_you_mean
from jaxvae.runtime import signals

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
        return study.run_search(
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
