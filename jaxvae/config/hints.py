"""Hints for arguments that name a field otherwise than by `--config.GROUP.FIELD=VALUE`.

Users come from Hydra, whose overrides have no dashes, and from programs whose options have no
groups.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxvae.errors import did_you_mean

_PRESETS = ("data", "trainer")
_RESUMES = "the --workdir=FOLDER of a run resumes it"
_DEVICES = "use --config.trainer.devices=N, and --config.trainer.accelerator=gpu"
_WORKDIR = "use --workdir=FOLDER"
_SWEEPS = "several runs are made by the commands seeds, frontier and search"
_CONFIG = "name the config's file, such as --config=configs/medium.py"
# Options of Lightning, Hydra and other trainers, with dashes or underscores.
_OTHER_PROGRAMS = {
    **dict.fromkeys(
        ("ckpt_path", "ckpt", "checkpoint", "resume", "resume_from", "resume_from_checkpoint"),
        _RESUMES,
    ),
    **dict.fromkeys(("gpus", "gpu", "num_gpus", "n_gpus", "tpu_cores", "cuda"), _DEVICES),
    **dict.fromkeys(("multirun", "m", "sweep"), _SWEEPS),
    **dict.fromkeys(("config_name", "config_path", "config_dir", "cn", "cp", "cd"), _CONFIG),
    **dict.fromkeys(("logdir", "log_dir", "output_dir", "default_root_dir", "save_dir"), _WORKDIR),
    **dict.fromkeys(("hydra.run.dir", "hydra.sweep.dir"), _WORKDIR),
    "cfg": "--print_config prints the config",
    "fast_dev_run": "the preset --config=FILE.py:trainer=quick_test is a short run",
    "limit_train_batches": "every epoch has every row once; use --config.trainer.max_steps=N",
    "num_workers": "rows live on the device and need no workers; leave it out",
}


def field_hint(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" with the nearest fields, or "".

    Args:
        name: a field's dotted name, as typed.
        known: the fields' names.
    """
    # The last part is the easiest to remember, so it is compared alone as well.
    same = with_last_part(name.rpartition(".")[2], known)
    return f" (did you mean {same[0]!r}?)" if same else did_you_mean(name, known)


def with_last_part(last: str, known: Iterable[str]) -> list[str]:
    """Returns the fields whose name ends in a part."""
    return [field for field in known if field.rpartition(".")[2] == last]


def leftover(argument: str, known: Mapping[str, Any], retired: Mapping[str, str]) -> str:
    """Returns an error message for an argument without dashes, with its correct form.

    Args:
        argument: the argument as typed, for example a Hydra override.
        known: the fields' values by name.
        retired: the replacements of retired fields, by name.
    """
    name, equals, value = argument.lstrip("+~").partition("=")
    if argument.startswith("~"):
        return (
            f"leftover argument {argument!r}: no field can be taken away; leave it at its default, "
            f"or set another value by --config.FIELD=VALUE"
        )
    if not equals:
        return (
            f"leftover argument {argument!r}: write values with an equals sign, "
            f"such as --config.data.shuffle=False"
        )
    hint = _otherwise(name, value, retired)
    if not hint and (field := _meant(name, known)):
        hint = f"name the field --config.{field}={value}"
    if not hint:
        near = field_hint(name, known)
        hint = f"fields are set by --config.FIELD=VALUE, and there is no {name!r}{near}"
    return f"leftover argument {argument!r}: {hint}"


def unknown_flag(
    name: str, value: str, known: Mapping[str, Any], retired: Mapping[str, str]
) -> str:
    """Returns a message with the field that an unknown flag may mean; "" if none is similar.

    Args:
        name: the flag's name, without dashes.
        value: the text after its equals sign, or "".
        known: the fields' values by name.
        retired: the replacements of retired fields, by name.
    """
    if hint := _otherwise(name, value, retired):
        return f"--{name}: no such flag; {hint}"
    assigned = f"={value}" if value else ""
    field = _meant(name, known)
    if not field and name.startswith("no") and (field := _meant(name[2:], known)):
        assigned = "=False"
    if field:
        return f"--{name}: no such flag; name the field --config.{field}{assigned}"
    lasts = dict.fromkeys(field.rpartition(".")[2] for field in known)
    near = did_you_mean(name.rpartition(".")[2], lasts, limit=1)
    if match := re.search(r"'(.*)'", near):
        fields = " or ".join(f"--config.{field}" for field in with_last_part(match[1], known)[:3])
        return f"--{name}: no such flag (did you mean {fields}?); --help lists the fields"
    return ""


def swallowed(arguments: list[str], takes_value: Iterable[str], known: Mapping[str, Any]) -> str:
    """Returns a message about a flag without a value, followed by another flag; "" if none.

    Args:
        arguments: the arguments as typed, without the program's name.
        takes_value: the program's own flags that take a value.
        known: the fields' values by name.
    """
    takes_value = set(takes_value)
    for argument, following in itertools.pairwise(arguments):
        if argument == "--":
            break
        name = argument.lstrip("-")
        field = name.removeprefix("config.")
        takes = name in takes_value or (
            name != field and field in known and not isinstance(known[field], bool)
        )
        if argument.startswith("-") and takes and re.match(r"--|-[a-zA-Z]", following):
            return (
                f"{argument} has no value before {following}; write {argument}=VALUE, with an "
                f"equals sign if {following!r} is the value"
            )
    return ""


def _otherwise(name: str, value: str, retired: Mapping[str, str]) -> str:
    if name.replace("-", "_") in _OTHER_PROGRAMS:
        return _OTHER_PROGRAMS[name.replace("-", "_")]
    last = name.rpartition(".")[2]
    for field, replacement in retired.items():
        if name == field or (last == name and field.rpartition(".")[2] == last != "name"):
            return f"{field} is retired: {replacement}"
    if name in _PRESETS:
        return f"name a preset behind the config, --config=FILE.py:{name}={value or 'NAME'}"
    if name == "model":
        return f"name the model's config file, such as --config=configs/{value or 'medium'}.py"
    return ""


def _meant(name: str, known: Mapping[str, Any]) -> str:
    """Returns the only field with a name or a last part, or ""."""
    if name in known:
        return name
    same = with_last_part(name.rpartition(".")[2], known)
    return same[0] if len(same) == 1 else ""
