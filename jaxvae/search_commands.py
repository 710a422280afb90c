"""The commands that train many runs at once: search, seeds and frontier."""

import argparse
import contextlib
import datetime
import json
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae import interrupt, settings
from jaxvae.errors import InputError

_AT_ONCE = 16
_LIKE_LAUNCH = "Takes --config=FILE[:PRESETS] and --config.FIELD=VALUE as launch.py does."
STUDY = "study.json"


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    search = _command(commands, "search", _search, "the best of many configs, trained together")
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

    seeds = _command(commands, "seeds", _seeds, "one config with several seeds: mean and spread")
    seeds.add_argument("--num", type=int, default=8, help="how many (8)")

    frontier = _command(commands, "frontier", _frontier, "rate against distortion over weights")
    frontier.add_argument(
        "--kld_weights",
        default="0.1:10:16log",
        help="LOW:HIGH:NUMBER[log] or a list (0.1:10:16log)",
    )
    frontier.add_argument("--seeds", type=int, default=2, help="runs of each weight (2)")


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {_LIKE_LAUNCH}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--at_once", type=int, default=_AT_ONCE, help=f"most runs in training ({_AT_ONCE})"
    )
    parser.add_argument("--workdir", help=f"folder to write (outputs/{name}/<date and time>)")
    parser.set_defaults(run=run, takes_config=True)
    return parser


def _parse(
    options: argparse.Namespace, rest: list[str], name: str
) -> tuple[ConfigDict, dict[str, Any], Path]:
    """The config, what was overridden, and the folder to write."""
    _at_least_one(options, "at_once")
    config, overrides, _ = settings.parse(["jaxvae", *rest], define=lambda values: None)
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(options.workdir or f"outputs/{name}/{now}").expanduser().resolve()
    return config, overrides, folder


def _at_least_one(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")


@contextlib.contextmanager
def _trials(config: ConfigDict, folder: Path, at_once: int) -> Iterator[Any]:
    """What trains members on a config's data, with the folder claimed: (trials, requests)."""
    from jaxvae import compiled, devices, lock
    from jaxvae.dataset import load_dataset
    from jaxvae.taxonomy import Taxonomy
    from jaxvae.trials import Trials, share_devices

    lock.refuse_if_held(folder)
    at_second = "jaxvae: stopped at once; what was saved before stands"
    with (
        interrupt.exit_at_second_signal(at_second),
        interrupt.requests() as requests,
        lock.claim(folder),
    ):
        compiled.keep_programs()
        devices.start(
            accelerator=config.trainer.accelerator, deterministic=config.trainer.deterministic
        )
        mesh = share_devices(config.trainer.accelerator, at_once)
        taxonomy = Taxonomy.load(config.data.taxonomy_path or None)
        dataset = load_dataset(taxonomy=taxonomy, **settings.data_arguments(config))
        if not len(dataset.splits["val"]):
            raise InputError(
                f"--config.data.val_fraction={config.data.val_fraction}: leaves no validation row "
                f"to choose by"
            )
        _say(
            f"{len(dataset.rows):,} rows, {taxonomy.num_tags} tags; "
            f"{at_once} runs at once on {devices.describe(mesh.devices.flatten())}; folder {folder}"
        )
        with requests.defer():
            yield Trials(taxonomy, dataset, mesh, at_once), requests


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupted(error: interrupt.Interrupted, resume: list[str]) -> int:
    command = shlex.join(["python", "-m", "jaxvae", *resume])
    signal_name = str(error).removeprefix("stopped by ").partition(":")[0]
    _say(f"jaxvae: stopped by {signal_name}; what is finished is kept; go on with: {command}")
    return 128 + error.signum


def _seeds(options: argparse.Namespace, rest: list[str]) -> int:
    _at_least_one(options, "num")
    config, overrides, folder = _parse(options, rest, "seeds")
    from jaxvae import record, run_folder, seeds

    for made in folder.glob("seed_*"):
        plain = json.loads(config.to_json())
        given = dict(settings.fields(plain)) | {"seed": int(made.name.removeprefix("seed_"))}
        run_folder.refuse_other_settings(made, given)
    try:
        with _trials(config, folder, min(options.at_once, options.num)) as (trials, requests):
            found = seeds.train_seeds(
                trials,
                config,
                folder,
                num=options.num,
                overrides=overrides,
                requests=requests,
                ended=lambda seed, member: _say(f"seed {seed}: {_ending(member)}"),
            )
    except interrupt.Interrupted as error:
        own = ["--num", str(options.num), "--workdir", str(folder)]
        return _interrupted(error, ["seeds", *rest, *own])
    if not found:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    record.write_json(folder / "seeds.json", found)
    for stage, metrics in found.items():
        for name, measure in metrics.items():
            if measure["sd"] == 0.0:  # a setting, or a count that no seed changed: in the file
                continue
            spread = "" if measure["sd"] is None else f" ± {measure['sd']:.4g}"
            print(f"{name if '/' in name else f'{stage}/{name}'}  {measure['mean']:.6g}{spread}")
    return 0


def _ending(member) -> str:
    progress = member.progress
    if member.failed:
        return (
            f"stopped being finite at epoch {progress.epoch + 1}, step {progress.nonfinite_step}: "
            f"{progress.nonfinite_terms}"
        )
    return (
        f"best val/loss {progress.best_loss:.3f} at epoch {progress.best_epoch} of {progress.epoch}"
    )


def _frontier(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.frontier import PURPOSES, frontier, recommend, weights_of
    from jaxvae.record import write_json, write_text

    _at_least_one(options, "seeds")
    weights = weights_of(options.kld_weights)
    config, _, folder = _parse(options, rest, "frontier")
    at_once = min(options.at_once, len(weights) * options.seeds)
    try:
        with _trials(config, folder, at_once) as (trials, requests):
            points = frontier(
                trials,
                config,
                weights=weights,
                num_seeds=options.seeds,
                requests=requests,
                ended=lambda w, seed, member: _say(f"{w:g}, seed {seed}: {_ending(member)}"),
            )
    except interrupt.Interrupted as error:
        return _interrupted(error, ["frontier", *rest, f"--kld_weights={options.kld_weights}"])
    if not points:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    advice = recommend(points)
    write_json(folder / "frontier.json", {"points": points, "recommended": advice})
    from jaxvae.study_page import frontier_page

    given = shlex.join(["python", "launch.py", *rest])
    told = []
    for purpose, meaning in PURPOSES.items():
        weight = advice[purpose]
        what = "no weight" if weight is None else f"{weight:g}"
        command = "" if weight is None else f"{given} --config.loss.kld_weight={weight}"
        told.append((purpose, f"{meaning}: {what}", command))
    title = "Rate and distortion over the weight of the KL"
    write_text(folder / "frontier.html", frontier_page(title=title, points=points, advice=told))
    print("kld_weight     nll_iw       rate  distortion  active units")
    for point in points:
        means = [point[f"val/{name}"]["mean"] for name in ("nll_iw", "rate", "distortion")]
        print(
            f"{point['kld_weight']:10g} "
            + " ".join(f"{mean:10.3f}" for mean in means)
            + f"  {point['val/active_units']['mean']:12.1f}"
        )
    for purpose, meaning, command in told:
        print(f"{purpose} ({meaning})" + (f"\n  {command}" if command else ""))
    print(folder / "frontier.html")
    return 0


def _search(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.space import load_space
    from jaxvae.study import PRUNERS, SAMPLERS, load_optuna

    load_optuna()  # before anything takes time

    _at_least_one(options, "trials")
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
        config, overrides, folder = _parse(options, rest, "search")
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
    space = folder / "space.py" if options.resume else Path(options.space)
    apply = load_space(space)
    _check_space(apply, config)
    try:
        return _run_search(config, facts, folder, apply, space)
    except interrupt.Interrupted as error:
        return _interrupted(error, ["search", "--resume", str(folder)])


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
    config = settings.load_config(f"{_base_file()}")
    try:
        config.update(facts["config"])
        facts = facts["search"] | ({"trials": options.trials} if options.trials else {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / STUDY}: damaged: {error}") from error
    return config, facts, folder


def _base_file() -> Path:
    path = Path("configs") / "base.py"
    beside = Path(__file__).resolve().parent.parent / path
    return beside if beside.is_file() else path


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
    with _trials(config, folder, min(facts["at_once"], facts["trials"])) as (trials, requests):
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

        with standings(metric=metric, maximise=maximise, total=facts["trials"], say=_say) as shown:
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
    command = f"python launch.py --config={_relative(folder / 'best.py')}"
    page = study_page(
        title=f"Search: {facts['study']}",
        metric=metric,
        maximise=maximise,
        outcomes=study.outcomes(),
        importance=study.importance(),
        best=best,
        command=command,
        test={name: test[name] for name in ("test/loss", "test/bce", "test/kld") if name in test},
    )
    record.write_text(folder / "study.html", page)
    if best is None:
        raise InputError(f"{folder}: no trial was complete; study.html has their fields")
    print(f"trial {best.number}: {metric} {best.value:.4f}")
    for field, value in sorted(best.drawn.items()):
        print(f"  {field} = {value}")
    print(f"run      {run_folder}\nagain    {command}\npage     {folder / 'study.html'}")
    return 0


def _write_best_config(folder: Path, config: ConfigDict, best, metric: str) -> None:
    from jaxvae.record import write_text
    from jaxvae.search import config_file

    title = f"Trial {best.number} of a search: {metric} {best.value:.4f} on validation."
    origin = settings.load_config(str(_base_file()))
    write_text(folder / "best.py", config_file(config, origin, best, title))


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
