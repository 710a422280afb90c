"""Options, set-up and messages common to the commands that train many runs."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing
from jaxvae.config.paths import run_path
from jaxvae.errors import InputError
from jaxvae.runtime import signals
from jaxvae.storage import run_files
from jaxvae.train.choices import CHOICES

AT_ONCE = 16


_MOST = 10_000


_LIKE_LAUNCH = "Takes --config=FILE[:PRESETS] and --config.FIELD=VALUE as launch.py does."


def command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    """Adds a command that takes a config, with the options common to all such commands."""
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
    """Returns the config, its overrides, and the folder to write."""
    at_least_one(options, "at_once")
    config, overrides, _ = parsing.parse(
        ["jaxvae", *rest], define=lambda values: None, choices=CHOICES
    )
    return config, overrides, run_path(options.workdir or run_files.new_workdir(name))


def at_least_one(options: argparse.Namespace, *names: str) -> None:
    """Raises InputError for an option below 1 or above 10,000."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 1 <= value <= _MOST:
            raise InputError(f"--{name} {value}: must be at least 1 and at most {_MOST:,}")


@contextlib.contextmanager
def prepared_trials(config: ConfigDict, folder: Path, at_once: int) -> Iterator[Any]:
    """Locks the folder and loads a config's data; yields (trial runner, stop requests)."""
    from jaxvae.data.dataset import load_from_config
    from jaxvae.runtime import compilation_cache, devices
    from jaxvae.storage import lock
    from jaxvae.sweeps.shapes import check_sweepable
    from jaxvae.sweeps.trials import TrialRunner, share_devices
    from jaxvae.train.user_code import load_user_code

    check_sweepable(config)
    load_user_code(config)  # which is wrong, if it is, before rows are read
    lock.check_not_held(folder)
    at_second = "jaxvae: stopped at once; what was saved before stands"
    with (
        signals.exit_at_second_signal(at_second),
        signals.listen_for_stop() as requests,
        contextlib.ExitStack() as opened,
    ):
        with requests.defer():  # so that the folder is either locked or removed
            opened.enter_context(lock.acquire_run_lock(folder))
        compilation_cache.enable_compilation_cache()
        devices.configure_platform(
            accelerator=config.trainer.accelerator, deterministic=config.trainer.deterministic
        )
        mesh = share_devices(config.trainer.accelerator, at_once)
        dataset = load_from_config(config)
        taxonomy = dataset.taxonomy
        if not len(dataset.splits["val"]):
            raise InputError(
                f"--config.data.val_fraction={config.data.val_fraction}: leaves no validation row "
                f"to choose by"
            )
        say(
            f"{len(dataset.rows):,} rows, {taxonomy.num_tags} tags; "
            f"{at_once} runs at once on {devices.describe_devices(mesh.devices.flatten())}; "
            f"folder {folder}"
        )
        with requests.defer():
            yield TrialRunner(taxonomy, dataset, mesh, at_once), requests


def say(text: str) -> None:
    """Prints a line to standard error."""
    print(text, file=sys.stderr, flush=True)


def interrupted(error: signals.Interrupted, outcome: str) -> int:
    """Prints which signal stopped the command, and the outcome; returns the exit code."""
    signal_name = str(error).removeprefix("stopped by ").partition(":")[0]
    say(f"jaxvae: stopped by {signal_name}; {outcome}")
    return 128 + error.signum


def typed(command: list[str], options: argparse.Namespace, *names: str) -> str:
    """Returns a shell command with those of the named options that have a value."""
    values = {name: getattr(options, name) for name in names}
    flags = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return shlex.join(["python", "-m", "jaxvae", *command, *flags])
