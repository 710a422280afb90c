"""Entry points `launch.py` and `python -m jaxvae ...`, with their errors and exit codes.

Slow modules are imported only after the arguments were checked.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags

from jaxvae import __version__
from jaxvae.cli import evaluate, export, files, generate, tag_sets, taxonomy, train
from jaxvae.cli.quiet import quiet_libraries
from jaxvae.cli.sweeps import search, seeds
from jaxvae.config import parsing
from jaxvae.config.paths import user_path
from jaxvae.errors import CommandEnded, InputError
from jaxvae.runtime import signals
from jaxvae.runtime.escapes import escape_output
from jaxvae.train.choices import CHOICES

USAGE_ERROR = 2
DAMAGED = 1
INTERRUPTED = 130
_JAX_VARIABLE = re.compile(r"for JAX flag (jax_\w+)|environment '(JAX_\w+)'")
_TOO_LARGE = (
    "the memory of this machine or device is not enough; take a smaller --config.data.batch_size, "
    "--config.model.hidden_dim or latent_dim"
)


def launch(argv: Sequence[str]) -> int:
    """Runs `launch.py`, whose path comes first in `argv`, and returns the exit code."""
    return _guarded(lambda: train.run(argv[:1], argv[1:]))


def _settle_environment() -> None:
    """Resets environment variables of other programs that would break these commands.

    A notebook passes its plot backend to every process that it starts, which may lack it; the
    commands draw figures to files. Everything is float32, whatever JAX_ENABLE_X64 says.
    """
    os.environ["MPLBACKEND"] = "agg"
    os.environ.pop("JAX_ENABLE_X64", None)


def _guarded(command: Callable[[], int]) -> int:
    _settle_environment()
    escape_output()
    try:
        code = command()
        if sys.stdout is not None:  # None if the parent process closed it
            sys.stdout.flush()  # here, where a full disk is a message and not a traceback at exit
        return code
    except InputError as error:
        return _fail(error, USAGE_ERROR)
    except CommandEnded as error:
        return _fail(error, error.code)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        signals.drop_output(sys.stdout)
        return 0  # the reader of our output went away, as `head` does
    except MemoryError:
        return _fail(_TOO_LARGE, USAGE_ERROR)
    except RuntimeError as error:  # the base class of JAX's errors; JAX may not be imported yet
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return _fail(_TOO_LARGE, USAGE_ERROR)
    except UnicodeEncodeError as error:  # from a library, for a name that is not UTF-8
        name = error.object[:200]
        return _fail(f"{name}: {error.reason}; rename what is not UTF-8 text in it", USAGE_ERROR)
    except ValueError as error:  # JAX reads its variables when it is imported
        variable = _JAX_VARIABLE.search(str(error))
        if variable is None:
            raise
        name = (variable[1] or variable[2]).upper()
        value = os.environ.get(name, "")
        return _fail(f"{name}={value}: JAX knows no such value; unset {name}", USAGE_ERROR)
    except OSError as error:
        signals.drop_output(sys.stdout)
        if error.filename is None and _is_adrift():
            return _fail("the working directory no longer exists; change to another", USAGE_ERROR)
        return _fail(f"{error.filename or 'standard output'}: {error.strerror}", USAGE_ERROR)


def _is_adrift() -> bool:
    """Returns whether the working directory was deleted under this process."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _fail(message: object, code: int) -> int:
    print(f"jaxvae: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m jaxvae COMMAND ...` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _dispatch(arguments))


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(f"{message}; see {self.prog} --help")


def _dispatch(arguments: list[str]) -> int:
    parser = _Parser(prog="jaxvae", description="Work with data and with trained runs.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    training = commands.add_parser(
        "train",
        help="train a config, as launch.py does; train --help lists every field",
        add_help=False,
    )
    training.set_defaults(run=_train, takes_config=True)

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

    evaluate.add_to(commands)
    generate.add_to(commands)
    tag_sets.add_to(commands)
    files.add_to(commands)
    export.add_to(commands)
    search.add_to(commands)
    seeds.add_to(commands)
    taxonomy.add_to(commands)

    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_config", False):
        raise InputError(f"unknown argument {rest[0]!r}; see jaxvae {arguments[0]} --help")
    if options.run not in (_data, _train):
        quiet_libraries()
    if not getattr(options, "takes_config", False):
        signals.restore_handlers()
    return options.run(options, rest)


def _train(options: argparse.Namespace, rest: list[str]) -> int:
    del options
    return train.run(["-m", "jaxvae", "train"], rest)


def _data(options: argparse.Namespace, rest: list[str]) -> int:
    del options
    if not rest or any(argument in ("-h", "-help", "--help") for argument in rest):
        print(
            "usage: jaxvae data --config=FILE[:PRESETS] [--config.data.FIELD=VALUE] [--json]\n\n"
            "Reads the config's data and prints the report: rows read, kept and dropped, coverage\n"
            "of the taxonomy, unknown tags with their nearest known ones, repeats across splits."
        )
        return 0 if rest else USAGE_ERROR
    config, _, values = parsing.parse(["jaxvae", *rest], define=_define_data_flags, choices=CHOICES)

    from jaxvae.data.dataset import load_from_config
    from jaxvae.data.summary import format_report

    dataset = load_from_config(config)
    print(json.dumps(dataset.report, indent=2) if values.json else format_report(dataset.report))
    return 0


def _define_data_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("json", False, "print the report as JSON", flag_values=values)


def _verify(options: argparse.Namespace, rest: list[str]) -> int:
    from jaxvae.export.hub_repo import refuse_published
    from jaxvae.inference.verify import verify

    refuse_published(options.run_folder, "verify")
    passed, wrong = verify(user_path(options.run_folder))
    for line in passed:
        print(f"ok     {line}")
    for line in wrong:
        print(f"wrong  {' '.join(line.split())}")
    return DAMAGED if wrong else 0
