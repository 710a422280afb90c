"""The commands that train one config many times at once, seeds and frontier; what they share."""

import argparse
import contextlib
import datetime
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.config.paths import run_path
from jaxvae.errors import InputError
from jaxvae.runtime import signals

AT_ONCE = 16
_MOST = 10_000
_LIKE_LAUNCH = "Takes --config=FILE[:PRESETS] and --config.FIELD=VALUE as launch.py does."


def add_to(commands) -> None:
    """Adds the commands to argparse's subparsers."""
    seeds = command(commands, "seeds", _seeds, "one config with several seeds: mean and spread")
    seeds.add_argument("--num", type=int, default=8, help="how many (8)")

    frontier = command(commands, "frontier", _frontier, "rate against distortion over weights")
    frontier.add_argument(
        "--kld_weights",
        default="0.1:10:16log",
        help="LOW:HIGH:NUMBER[log] or a list (0.1:10:16log)",
    )
    frontier.add_argument("--seeds", type=int, default=2, help="runs of each weight (2)")


def command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    """A command that takes a config, with the options that all of them have."""
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. {_LIKE_LAUNCH}",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--at_once", type=int, default=AT_ONCE, help=f"most runs in training ({AT_ONCE})"
    )
    parser.add_argument("--workdir", help=f"folder to write (outputs/{name}/<date and time>)")
    parser.set_defaults(run=run, takes_config=True)
    return parser


def parse(
    options: argparse.Namespace, rest: list[str], name: str
) -> tuple[ConfigDict, dict[str, Any], Path]:
    """The config, what was overridden, and the folder to write."""
    at_least_one(options, "at_once")
    config, overrides, _ = parsing.parse(["jaxvae", *rest], define=lambda values: None)
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = run_path(options.workdir or f"outputs/{name}/{now}")
    return config, overrides, folder


def at_least_one(options: argparse.Namespace, *names: str) -> None:
    """Raises InputError for an option below 1, or of more runs than any machine trains."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 1 <= value <= _MOST:
            raise InputError(f"--{name} {value}: must be at least 1 and at most {_MOST:,}")


def _check_last_seed(config: ConfigDict, option: str, num: int) -> None:
    """Raises InputError where the seeds after the config's leave the range of a seed."""
    last = config.seed + num - 1
    if last >= 2**32:
        raise InputError(
            f"--config.seed={config.seed}: with {option} {num} the last seed is {last}; it must be "
            f"at most 4294967295"
        )


@contextlib.contextmanager
def prepared_trials(config: ConfigDict, folder: Path, at_once: int) -> Iterator[Any]:
    """What trains members on a config's data, with the folder claimed: (trials, requests)."""
    from jaxvae.data.dataset import load_dataset
    from jaxvae.data.taxonomy import Taxonomy
    from jaxvae.runtime import compilation_cache, devices
    from jaxvae.storage import lock
    from jaxvae.sweeps.trials import Trials, refuse_alone, share_devices

    refuse_alone(config)
    lock.refuse_if_held(folder)
    at_second = "jaxvae: stopped at once; what was saved before stands"
    with (
        signals.exit_at_second_signal(at_second),
        signals.requests() as requests,
        contextlib.ExitStack() as held,
    ):
        with requests.defer():  # a folder that is made is held, or gone again
            held.enter_context(lock.claim(folder))
        compilation_cache.keep_programs()
        devices.start(
            accelerator=config.trainer.accelerator, deterministic=config.trainer.deterministic
        )
        mesh = share_devices(config.trainer.accelerator, at_once)
        taxonomy = Taxonomy.load(config.data.taxonomy_path or None)
        dataset = load_dataset(taxonomy=taxonomy, **schema.data_arguments(config))
        if not len(dataset.splits["val"]):
            raise InputError(
                f"--config.data.val_fraction={config.data.val_fraction}: leaves no validation row "
                f"to choose by"
            )
        say(
            f"{len(dataset.rows):,} rows, {taxonomy.num_tags} tags; "
            f"{at_once} runs at once on {devices.describe(mesh.devices.flatten())}; folder {folder}"
        )
        with requests.defer():
            yield Trials(taxonomy, dataset, mesh, at_once), requests


def say(text: str) -> None:
    """Prints a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def interrupted(error: signals.Interrupted, outcome: str) -> int:
    """Says what a signal left and how to go on; the exit code."""
    signal_name = str(error).removeprefix("stopped by ").partition(":")[0]
    say(f"jaxvae: stopped by {signal_name}; {outcome}")
    return 128 + error.signum


def typed(command: list[str], options: argparse.Namespace, *names: str) -> str:
    """Returns a command with some of its options, those that have a value, as a shell takes it."""
    values = {name: getattr(options, name) for name in names}
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return shlex.join(["python", "-m", "jaxvae", *command, *given])


def _seeds(options: argparse.Namespace, rest: list[str]) -> int:
    at_least_one(options, "num")
    config, overrides, folder = parse(options, rest, "seeds")
    _check_last_seed(config, "--num", options.num)
    from jaxvae.storage import atomic_files, run_dir
    from jaxvae.sweeps import seeds

    for made in sorted(folder.glob("seed_*")):
        for line in run_dir.keep_older_values(made, config, typed=overrides):
            say(f"jaxvae: {line}")
        plain = json.loads(config.to_json())
        given = dict(schema.fields(plain)) | {"seed": int(made.name.removeprefix("seed_"))}
        run_dir.refuse_other_settings(made, given)
    try:
        with prepared_trials(config, folder, min(options.at_once, options.num)) as (
            trials,
            requests,
        ):
            found = seeds.train_seeds(
                trials,
                config,
                folder,
                num=options.num,
                overrides=overrides,
                requests=requests,
                ended=lambda seed, member: say(f"seed {seed}: {_ending(member)}"),
            )
    except signals.Interrupted as error:
        options.workdir = folder
        again = typed(["seeds", *rest], options, "num", "at_once", "workdir")
        return interrupted(error, f"what is finished is kept; go on with: {again}")
    if not found:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    atomic_files.write_json(folder / "seeds.json", found)
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
        f"best {member.plan.monitor.name} {progress.best_value:.3f} at epoch "
        f"{progress.best_epoch} of {progress.epoch}"
    )


def _frontier(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.storage.atomic_files import write_json, write_text
    from jaxvae.sweeps.rate_distortion import PURPOSES, frontier, recommend, weights_of

    at_least_one(options, "seeds")
    weights = weights_of(options.kld_weights)
    config, _, folder = parse(options, rest, "frontier")
    _check_last_seed(config, "--seeds", options.seeds)
    at_once = min(options.at_once, len(weights) * options.seeds)
    try:
        with prepared_trials(config, folder, at_once) as (trials, requests):
            points = frontier(
                trials,
                config,
                weights=weights,
                num_seeds=options.seeds,
                requests=requests,
                ended=lambda w, seed, member: say(f"{w:g}, seed {seed}: {_ending(member)}"),
            )
    except signals.Interrupted as error:
        options.workdir = folder
        again = typed(["frontier", *rest], options, "kld_weights", "seeds", "at_once", "workdir")
        return interrupted(error, f"a frontier keeps nothing before its end; begin again: {again}")
    if not points:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    advice = recommend(points)
    write_json(folder / "frontier.json", {"points": points, "recommended": advice})
    from jaxvae.reports.sweep_report import frontier_page

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
