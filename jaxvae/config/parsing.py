"""Parses the command line into a checked config, with messages for misspelt arguments.

The module imports ml_collections, and nothing that is slow to import.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxvae.config import hints
from jaxvae.config.paths import user_path
from jaxvae.config.schema import RETIRED, flatten
from jaxvae.config.validation import Choices, validate
from jaxvae.errors import InputError, did_you_mean

_NAMES = tuple(
    f"{dashes}config.{field}"
    for dashes in ("--", "-")
    for field in ("logger.name", "trainer.callbacks")
)


def find_file(name: str, *, flag: str = "config") -> Path:
    """Finds the file of a config or a search space.

    Args:
      name: a path. `configs/...` is found from any folder, since the package ships its own.
      flag: the command-line flag, for the message.

    Raises:
      InputError: there is no such file.
    """
    path = user_path(name)
    paths = [path, *([_shipped_configs_root() / path] if path.parts[:1] == ("configs",) else [])]
    for candidate in paths:
        if candidate.is_file():
            return candidate
    files = [file for base in paths for file in base.parent.glob("*.py") if file.stem[0] != "_"]
    names = sorted({str(path.parent / file.name) for file in files})
    raise InputError(f"--{flag}={name}: no such file{did_you_mean(name, names)}")


def _shipped_configs_root() -> Path:
    """Returns the folder that contains the package's own `configs`."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "shipped"
    return shipped if shipped.is_dir() else package.parent  # In a clone, they are beside it.


def load_config(path_and_presets: str) -> ConfigDict:
    """Runs a config file: `configs/medium.py` or `configs/medium.py:data=musiccaps`.

    Raises:
      InputError: the file is missing or broken, or a preset is unknown.
    """
    name, _, presets = path_and_presets.partition(":")
    path = find_file(name)
    # A config imports its neighbours as `configs.base`, whatever the working directory.
    for root in map(str, (Path.cwd(), path.resolve().parent.parent, _shipped_configs_root())):
        if root not in sys.path:
            sys.path.append(root)
    spec = importlib.util.spec_from_file_location("jaxvae_config", path)
    if spec is None or spec.loader is None:
        raise InputError(f"--config={name}: a config is a Python file, its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(presets) if presets else module.get_config()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--config={name}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config={name}: get_config() must return a ConfigDict")
    return config


def parse(
    argv: Sequence[str], *, define: Callable[[flags.FlagValues], None], choices: Choices
) -> tuple[ConfigDict, dict[str, Any], flags.FlagValues]:
    """Parses `--config=FILE`, its overrides and the program's own flags.

    Args:
      argv: the arguments with the program's name first.
      define: function that adds the program's own flags to a FlagValues.
      choices: the names that fields may choose from.

    Returns:
      (locked and checked config, the overrides as typed, the other flags' values).

    Raises:
      InputError: an argument is wrong; the message is one line.
    """
    values = flags.FlagValues()
    source, arguments = take_config(expand_flag_files(argv[1:]))
    config = load_config(source)
    fields = dict(flatten(config))
    for argument in arguments:
        _check_name(argument, fields)

    command = [argv[0], *_quote_names(arguments)]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=command)
    define(values)
    takes_value = [
        name for name in values if not name.startswith("config") and not values[name].boolean
    ]
    if text := hints.swallowed(arguments, takes_value, fields):
        raise InputError(text)
    try:
        leftovers = values(command)[1:]
    except flags.UnrecognizedFlagError as error:
        value = str(error.flagvalue or "").partition("=")[2]
        hint = hints.unknown_flag(error.flagname, value, fields, RETIRED)
        raise InputError(hint or _explain(str(error), fields)) from error
    except flags.Error as error:
        raise InputError(_explain(str(error), fields)) from error
    if leftovers:
        raise InputError(hints.leftover(leftovers[0], fields, RETIRED))
    config = values["config"].value
    validate(config, choices)
    return config, config_flags.get_override_values(values["config"]), values


def _quote_names(arguments: Sequence[str]) -> list[str]:
    """Quotes the values of fields that list names, so that a,b is two of them.

    The parser of tuples takes a text without quotes for one name, or for none that it can read.
    """
    quoted = []
    previous = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if equals and flag in _NAMES:
            argument = f"{flag}={_as_tuple(value)}"
        elif previous in _NAMES and not argument.startswith("-"):
            argument = _as_tuple(argument)
        quoted.append(argument)
        previous = argument
    return quoted


def _as_tuple(value: str) -> str:
    """Returns names between commas as the source of a tuple; a value with quotes as it is."""
    if not value or re.match(r"""\s*[("'\[]""", value):
        return value
    return repr(tuple(name.strip() for name in value.split(",") if name.strip()))


def expand_flag_files(arguments: Sequence[str]) -> list[str]:
    """Replaces each `--flagfile=FILE` by the arguments in the file.

    Raises:
      InputError: a file can't be read.
    """
    try:
        return flags.FlagValues().read_flags_from_files(list(arguments), force_gnu=False)
    except flags.Error as error:
        raise InputError(" ".join(str(error).split())) from error
    except ValueError as error:
        raise InputError(f"--flagfile: not UTF-8 text: {error}") from error


def take_config(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Extracts `--config=FILE[:PRESETS]` from the arguments, in any spelling and position.

    Returns:
      (the file and presets, the other arguments).

    Raises:
      InputError: no config is given, or more than one.
    """
    sources, other_arguments = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--":
            other_arguments += [argument, *remaining]
        elif re.match(r"--?config(=|$)", argument):
            _, equals, value = argument.partition("=")
            value = value if equals else next(remaining, "")
            if value.startswith("-"):
                raise InputError(f"--config has no value before {value}; write --config=FILE")
            sources.append(value)
        else:
            other_arguments.append(argument)
    if len(sources) > 1:
        raise InputError(f"--config is given {len(sources)} times: {', '.join(sources)}; give one")
    if not sources or not sources[0]:
        raise InputError("no config given: start with --config=configs/medium.py")
    return sources[0], other_arguments


def _check_name(argument: str, known: dict[str, Any]) -> None:
    match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
    if match is None:
        return
    name = match[1]
    for retired, replacement in RETIRED.items():
        if name == retired or name.startswith(retired + "."):
            raise InputError(f"--config.{name} is retired: {replacement}")
    if name in known:
        return
    inside = [field for field in known if field.startswith(name + ".")]
    if inside:
        raise InputError(f"--config.{name} is a group; set a field of it: {', '.join(inside)}")
    hint = hints.field_hint(name, known)
    raise InputError(f"--config.{name}: no such field{hint}; --help lists them")


def _explain(message: str, known: dict[str, Any]) -> str:
    message = " ".join(message.split())
    match = re.search(r"--(?:no)?config\.([\w.]+)=(.*?): ", message)
    if match and match[1] in known:
        default = known[match[1]]
        kind = {int: "a whole number", float: "a number", bool: "True or False"}.get(type(default))
        return f"--config.{match[1]}={match[2]}: expected {kind or 'text'}, such as {default}"
    return message
