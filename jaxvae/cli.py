"""The commands: `launch.py` and `python -m jaxvae ...`; the only place that prints and exits.

Nothing slow is imported before the arguments are known to be right.
"""

import argparse
import contextlib
import datetime
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from jaxvae import (
    export_commands,
    interrupt,
    job,
    lock,
    population_commands,
    run_commands,
    search_commands,
    settings,
)
from jaxvae.errors import InputError

USAGE_ERROR = 2
TRAINING_FAILED = 1
DAMAGED = 1
INTERRUPTED = 130
_FORWARDED_SECONDS = 1.0
_TOO_LARGE = (
    "the memory of this machine or device is not enough; take a smaller --config.data.batch_size, "
    "--config.model.hidden_dim or latent_dim"
)


def launch(argv: Sequence[str], *, description: str) -> int:
    """Runs `launch.py`: trains what `--config` says.

    Args:
      argv: arguments with the program's name first.
      description: what `--help` opens with.

    Returns:
      The exit code.
    """
    return _guarded(lambda: _launch(argv, description))


def _guarded(command: Callable[[], int]) -> int:
    try:
        code = command()
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()  # here, where a full disk is a message and not a traceback at exit
        return code
    except InputError as error:
        return _fail(error, USAGE_ERROR)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return 0  # the reader of our output went away, as `head` does
    except MemoryError:
        return _fail(_TOO_LARGE, USAGE_ERROR)
    except RuntimeError as error:  # the base of JAX's own, which must not be imported for this
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(_TOO_LARGE, USAGE_ERROR)
    except OSError as error:
        _drop_output()
        return _fail(f"{error.filename or 'standard output'}: {error.strerror}", USAGE_ERROR)


def _drop_output() -> None:
    """Sends what is still buffered nowhere, or Python would try once more at exit, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: object, code: int) -> int:
    print(f"jaxvae: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def _launch(argv: Sequence[str], description: str) -> int:
    if any(argument in ("-h", "-help", "--help") for argument in argv[1:]):
        print(_help(argv, description))
        return 0
    config, overrides, values = settings.parse(argv, define=_define_launch_flags)
    if values.print_config:
        print(config.to_json(indent=2))
        return 0
    flagged = {
        name: getattr(values, name) for name in ("coordinator", "num_processes", "process_id")
    }
    job.check_flags(**flagged)
    asked = values.coordinator or job.in_a_cluster(os.environ)
    alone = not asked or values.num_processes == 1
    if not alone and not job.is_supervised():
        return job.supervise(argv)
    if not alone:
        interrupt.take_as_one(_FORWARDED_SECONDS)
    workdir = Path(values.workdir) if values.workdir else _new_workdir()
    if alone:  # before JAX is imported, which takes long
        lock.refuse_if_held(workdir.expanduser().resolve())
    _quiet_libraries()
    at_once = "jaxvae: stopped at once; what was saved before stands"
    # From here on, not from training on: while libraries are imported, an exception that Python's
    # own handler raises may be lost.
    with interrupt.requests(), interrupt.exit_at_second_signal(at_once):
        from jaxvae import hosts
        from jaxvae.train import TrainingFailed, train_and_evaluate

        try:
            hosts.join(**flagged)
            train_and_evaluate(config, workdir, overrides=overrides)
        except (TrainingFailed, job.PeerLost) as error:
            return _fail(error, TRAINING_FAILED)
        except interrupt.Interrupted as error:
            return _fail(f"{error}{_how_to_resume(argv, workdir)}", 128 + error.signum)
        except OSError as error:
            return _fail(f"{error.filename or workdir}: {error.strerror or error}", USAGE_ERROR)
    return 0


def _how_to_resume(argv: Sequence[str], workdir: Path) -> str:
    if not (workdir / "config.json").exists():
        return ""
    arguments = list(argv)
    if "--workdir" in arguments:
        at = arguments.index("--workdir")
        del arguments[at : at + 2]
    arguments = [argument for argument in arguments if not argument.startswith("--workdir=")]
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    return f"; resume with: {shlex.join([python, *arguments, f'--workdir={workdir}'])}"


def _define_launch_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", "", "the run's folder", flag_values=values)
    flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", -1, "processes of the job", flag_values=values)
    flags.DEFINE_integer("process_id", -1, "this one's number, from 0", flag_values=values)
    flags.DEFINE_bool("print_config", False, "print the config and exit", flag_values=values)


def _new_workdir() -> Path:
    """`outputs/vae_training/<date and time>`, with a suffix if it is taken."""
    root = Path("outputs") / "vae_training"
    name = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    suffixes = ("", *(f"-{number}" for number in range(2, 1000)))
    return next(root / (name + s) for s in suffixes if not (root / (name + s)).exists())


def _help(argv: Sequence[str], description: str) -> str:
    base = Path(argv[0]).resolve().parent / "configs" / "base.py"
    try:
        config = settings.load_config(settings.config_argument(argv))
    except InputError:
        config = settings.load_config(str(base))
    source = base.read_text(encoding="utf-8")
    return (
        f"{description.strip()}\n\n"
        f"Flags:\n"
        f"  --config=FILE[:PRESETS]\n      the experiment, such as configs/medium.py\n"
        f"  --workdir=FOLDER\n      the run's folder; one that holds a run resumes it\n"
        f"  --coordinator=HOST:PORT --num_processes=N --process_id=I\n"
        f"      one of several processes (on SLURM, Open MPI and TPU pods they are found without)\n"
        f"  --print_config\n      print the resolved config as JSON and exit\n\n"
        f"Fields, with the values of the config given (or of configs/base.py):\n"
        f"{settings.field_help(source, config)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m jaxvae COMMAND ...` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _dispatch(arguments))


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")


def _dispatch(arguments: list[str]) -> int:
    parser = _Parser(prog="jaxvae", description="Work with data and with trained runs.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    data = commands.add_parser(
        "data",
        help="the data report alone: what is read, kept and dropped, and why",
        description="Reads a config's data and prints the report; takes the flags of launch.py.",
        add_help=False,
    )
    data.set_defaults(run=_data, takes_config=True)

    verify = commands.add_parser(
        "verify", help="whether a run's folder is what was written: digests, exports, rows, epochs"
    )
    verify.add_argument("run_folder", metavar="RUN", help="a run's folder")
    verify.set_defaults(run=_verify)

    run_commands.add_to(commands)
    export_commands.add_to(commands)
    search_commands.add_to(commands)
    population_commands.add_to(commands)

    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_config", False):
        raise InputError(f"unknown argument {rest[0]!r}; see jaxvae {arguments[0]} --help")
    if options.run is not _data:
        _quiet_libraries()
    return options.run(options, rest)


def _data(options: argparse.Namespace, rest: list[str]) -> int:
    del options
    if not rest or any(argument in ("-h", "-help", "--help") for argument in rest):
        print(
            "usage: jaxvae data --config=FILE[:PRESETS] [--config.data.FIELD=VALUE] [--json]\n\n"
            "Reads the config's data and prints the report: rows read, kept and dropped, coverage\n"
            "of the taxonomy, unknown tags with their nearest known ones, repeats across splits."
        )
        return 0 if rest else USAGE_ERROR
    config, _, values = settings.parse(["jaxvae", *rest], define=_define_data_flags)

    from jaxvae.data_report import format_report
    from jaxvae.dataset import load_dataset
    from jaxvae.taxonomy import Taxonomy

    taxonomy = Taxonomy.load(config.data.taxonomy_path or None)
    dataset = load_dataset(taxonomy=taxonomy, **settings.data_arguments(config))
    print(json.dumps(dataset.report, indent=2) if values.json else format_report(dataset.report))
    return 0


def _define_data_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("json", False, "print the report as JSON", flag_values=values)


def _verify(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.hub_model import refuse_published
    from jaxvae.verify import verify

    refuse_published(options.run_folder, "verify")
    held, wrong = verify(Path(options.run_folder).expanduser())
    for line in held:
        print(f"ok     {line}")
    for line in wrong:
        print(f"wrong  {' '.join(line.split())}")
    return DAMAGED if wrong else 0


def _quiet_libraries() -> None:
    """Libraries tell users about their internals; what matters is raised.

    When a save fails, its other writers fail too, with a traceback each that nobody awaits.
    """
    import logging
    import warnings

    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Compiled programs that can't be kept, for want of room, are compiled again.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    sys.unraisablehook = _except_of_abandoned_writers
    for name in ("orbax", "jax", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _except_of_abandoned_writers(unraisable: "sys.UnraisableHookArgs") -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
