"""Options and output that the commands on a trained model share."""

import argparse
import csv
import sys
from typing import TYPE_CHECKING, Any

from jaxvae.config.paths import user_path
from jaxvae.data.cells.tag_lists import parse_tags
from jaxvae.errors import InputError

if TYPE_CHECKING:
    from jaxvae.data.taxonomy import Taxonomy

FORMATS = ("text", "json", "csv")


_LISTS: dict[str, Any] = {"action": "append", "default": []}
TAG_LIST = '"jazz, upright bass"; a tag with a comma in double quotes; or a JSON list'


def add_command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    """Adds a command on a trained model, with the options common to all such commands."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "run_folder", metavar="RUN", help="a run's folder, an exported .pth, or hf://user/name"
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which parameters (best)"
    )
    add_trust_option(parser)
    parser.set_defaults(run=run)
    return parser


class StoreOnce(argparse.Action):
    """Stores a value, and refuses a second one, which argparse would let replace the first."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Stores the value."""
        typed = vars(namespace).setdefault("typed", set())
        if self.option_strings and self.dest in typed:
            raise InputError(f"{option_string} is given twice; give it once")
        typed.add(self.dest)
        setattr(namespace, self.dest, values)


def refuse_repeats(parser: argparse.ArgumentParser) -> None:
    """Lets the options that are added from now on, but those that append, be given only once."""
    parser.register("action", None, StoreOnce)
    parser.register("action", "store", StoreOnce)


def add_tag_options(parser: argparse.ArgumentParser, present: str, absent: str) -> None:
    """Adds `--with` and `--without`, of which several are one list."""
    parser.add_argument("--with", dest="present", metavar="TAGS", **_LISTS, help=present)
    parser.add_argument("--without", dest="absent", metavar="TAGS", **_LISTS, help=absent)


def typed_tags(texts: list[str], taxonomy: "Taxonomy", option: str) -> list[str]:
    """Returns the tags of all texts that were given for an option."""
    return [tag for text in texts for tag in parse_tags(text, taxonomy, option=option)]


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Adds the permission to run code that a model from elsewhere carries."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="run the code of a prior or architecture that an exported or published model carries",
    )


def add_importance_options(parser: argparse.ArgumentParser, default: int | None = 1000) -> None:
    """Adds the number of importance samples and the seed.

    Args:
      parser: the command's.
      default: their number; None is that of a saved evaluation, else 1,000.
    """
    number = "those of a saved evaluation, else 1000" if default is None else str(default)
    parser.add_argument(
        "--num-importance-samples",
        type=int,
        default=default,
        metavar="K",
        help=f"draws a row ({number})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")


def add_seed_and_format(parser: argparse.ArgumentParser) -> None:
    """Adds the seed and the format of the output."""
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    parser.add_argument("--format", choices=FORMATS, default="text", help="text (default)")


def add_unknown_option(parser: argparse.ArgumentParser) -> None:
    """Adds the choice to skip tags that are not in the taxonomy."""
    parser.add_argument(
        "--ignore-unknown", action="store_true", help="skip tags that are not in the taxonomy"
    )


def check_page_name(options: argparse.Namespace) -> None:
    """Raises InputError unless `--output` is absent or names a page."""
    if options.output and user_path(options.output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {options.output}: the name must end in .html")


def load_run(options: argparse.Namespace):
    """Loads the model named on the command line."""
    from jaxvae.inference.load import load

    return load(options.run_folder, checkpoint=options.checkpoint, trust_code=options.trust_code)


def load_any(options: argparse.Namespace):
    """Loads a run, or all runs of a folder as an ensemble."""
    from jaxvae.inference.load import load_many

    if options.checkpoint != "best":
        return load_run(options)
    return load_many(options.run_folder, trust_code=options.trust_code)


def on_unknown(options: argparse.Namespace) -> str:
    """Returns the `on_unknown` argument of `Run`'s methods, the treatment of unknown tags."""
    return "ignore" if options.ignore_unknown else "error"


def say(line: str) -> None:
    """Prints a line for people to standard error."""
    print(f"jaxvae: {line}", file=sys.stderr, flush=True)


def print_json(value) -> None:
    """Prints a value as JSON, numbers that are not finite as null."""
    # JSON has no NaN, so values that can't be computed are null.
    from jaxvae.storage.atomic_files import to_json

    print(to_json(value))


def print_csv(header: list[str], rows) -> None:
    """Prints a table as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
