"""The commands that train one config many times at once: seeds and frontier."""

import argparse
import json
import shlex

from ml_collections import ConfigDict

from jaxvae.cli.sweeps.options import (
    at_least_one,
    command,
    interrupted,
    parse,
    prepared_trials,
    say,
    typed,
)
from jaxvae.config import schema
from jaxvae.errors import InputError
from jaxvae.runtime import signals


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


def _check_last_seed(config: ConfigDict, option: str, num: int) -> None:
    """Raises InputError if the last seed is out of range."""
    last = config.seed + num - 1
    if last >= 2**32:
        raise InputError(
            f"--config.seed={config.seed}: with {option} {num} the last seed is {last}; it must be "
            f"at most 4294967295"
        )


def _seeds(options: argparse.Namespace, rest: list[str]) -> int:
    at_least_one(options, "num")
    config, overrides, folder = parse(options, rest, "seeds")
    _check_last_seed(config, "--num", options.num)
    from jaxvae.storage import atomic_files, same_run
    from jaxvae.sweeps import seeds
    from jaxvae.train.user_code import load_user_code

    user_code = load_user_code(config)
    for run_folder in sorted(folder.glob("seed_*")):
        for line in same_run.keep_values_of_older_run(run_folder, config, typed=overrides):
            say(f"jaxvae: {line}")
        plain = json.loads(config.to_json())
        fields = dict(schema.flatten(plain)) | {"seed": int(run_folder.name.removeprefix("seed_"))}
        same_run.check_same_settings(run_folder, fields)
        for extension in user_code.files:
            same_run.check_same_extension(run_folder, extension)
    try:
        with prepared_trials(config, folder, min(options.at_once, options.num)) as (
            trials,
            requests,
        ):
            summary = seeds.train_seeds(
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
        restart = typed(["seeds", *rest], options, "num", "at_once", "workdir")
        return interrupted(error, f"what is finished is kept; go on with: {restart}")
    if not summary:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    atomic_files.write_json(folder / "seeds.json", summary)
    for stage, metrics in summary.items():
        for name, measure in metrics.items():
            if measure["sd"] == 0.0:  # a setting, or a count equal for all seeds: only in the file
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
    from jaxvae.sweeps.rate_distortion import (
        PURPOSES,
        parse_weight_grid,
        recommend,
        train_rate_distortion,
    )

    at_least_one(options, "seeds")
    weights = parse_weight_grid(options.kld_weights)
    config, _, folder = parse(options, rest, "frontier")
    _check_last_seed(config, "--seeds", options.seeds)
    at_once = min(options.at_once, len(weights) * options.seeds)
    try:
        with prepared_trials(config, folder, at_once) as (trials, requests):
            points = train_rate_distortion(
                trials,
                config,
                weights=weights,
                num_seeds=options.seeds,
                requests=requests,
                ended=lambda w, seed, member: say(f"{w:g}, seed {seed}: {_ending(member)}"),
            )
    except signals.Interrupted as error:
        options.workdir = folder
        restart = typed(["frontier", *rest], options, "kld_weights", "seeds", "at_once", "workdir")
        return interrupted(
            error, f"a frontier keeps nothing before its end; begin again: {restart}"
        )
    if not points:
        raise InputError("no run stayed finite; try a lower --config.trainer.optimizer.lr")
    advice = recommend(points)
    write_json(folder / "frontier.json", {"points": points, "recommended": advice})
    from jaxvae.reports.sweep_report import frontier_page

    launch = shlex.join(["python", "launch.py", *rest])
    recommendations = []
    for purpose, meaning in PURPOSES.items():
        weight = advice[purpose]
        what = "no weight" if weight is None else f"{weight:g}"
        command = "" if weight is None else f"{launch} --config.loss.kld_weight={weight}"
        recommendations.append((purpose, f"{meaning}: {what}", command))
    title = "Rate and distortion over the weight of the KL"
    write_text(
        folder / "frontier.html", frontier_page(title=title, points=points, advice=recommendations)
    )
    print("kld_weight     nll_iw       rate  distortion  active units")
    for point in points:
        means = [point[f"val/{name}"]["mean"] for name in ("nll_iw", "rate", "distortion")]
        print(
            f"{point['kld_weight']:10g} "
            + " ".join(f"{mean:10.3f}" for mean in means)
            + f"  {point['val/active_units']['mean']:12.1f}"
        )
    for purpose, meaning, command in recommendations:
        print(f"{purpose} ({meaning})" + (f"\n  {command}" if command else ""))
    print(folder / "frontier.html")
    return 0
