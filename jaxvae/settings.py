"""From the command line to a checked config: parsing, spelling, ranges, `--help`.

Knows ml_collections and the config files, and nothing that is slow to import.
"""

import importlib.util
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxvae.errors import InputError, did_you_mean

RETIRED = {
    "model.input_dim": "the width follows from the taxonomy: --config.data.taxonomy_path=FILE",
    "model.beta": "one number weighs the KL term: --config.loss.kld_weight=4.0",
    "model.name": "there is one architecture; name the export with --config.model_name=NAME",
    "data.dataloader_num_workers": "rows live on the device and need no workers; leave it out",
    "trainer.strategy": "use --config.trainer.devices=-1 or the preset trainer=distributed",
    "trainer.log_every_n_steps": "metrics are sums over each whole epoch; leave it out",
    "trainer.val_check_interval": "use --config.trainer.check_val_every_n_epoch=N",
    "trainer.enable_model_summary": "the parameter table is always printed; leave it out",
    "trainer.callbacks": "pass hooks to jaxvae.train.train_and_evaluate",
    "device": "use --config.trainer.accelerator=cpu|gpu|tpu",
    "random_state": "use --config.seed=N, and --config.data.split_seed=N for the splits",
    "save_model": "the model is always exported; leave it out",
    "paths": "use --workdir=FOLDER",
    "run_id": "use --workdir=FOLDER",
}


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of a config as (dotted name, value)."""
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            yield from fields(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def data_arguments(config: ConfigDict) -> dict[str, Any]:
    """The arguments that `dataset.load_dataset` takes from a config, besides the taxonomy."""
    names = (
        "dataset_name",
        "dataset_split",
        "aspect_column",
        "val_fraction",
        "test_fraction",
        "split_by",
        "split_seed",
    )
    return {name: config.data[name] for name in names}


def find_file(name: str, *, flag: str = "config") -> Path:
    """The file of a config or a search space.

    Args:
      name: a path. `configs/...` is found from everywhere: the package brings its own.
      flag: what names it on the command line.

    Raises:
      InputError: there is none.
    """
    path = Path(name)
    package = Path(__file__).resolve().parent
    brought = package / "shipped"
    root = brought if brought.is_dir() else package.parent  # in a clone they are beside it
    places = [path, *([root / path] if path.parts[:1] == ("configs",) else [])]
    for place in places:
        if place.is_file():
            return place
    files = [file for place in places for file in place.parent.glob("*.py") if file.stem[0] != "_"]
    known = sorted({str(path.parent / file.name) for file in files})
    raise InputError(f"--{flag}={name}: no such file{did_you_mean(name, known)}")


def load_config(path_and_presets: str) -> ConfigDict:
    """Runs a config file: `configs/medium.py` or `configs/medium.py:data=musiccaps`.

    Raises:
      InputError: the file is missing or broken, or a preset is unknown.
    """
    name, _, presets = path_and_presets.partition(":")
    path = find_file(name)
    # A config imports its neighbours as `configs.base`, wherever the command was started.
    for root in (str(Path.cwd()), str(path.resolve().parent.parent)):
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
    argv: Sequence[str], *, define: Callable[[flags.FlagValues], None]
) -> tuple[ConfigDict, dict[str, Any], flags.FlagValues]:
    """Parses `--config=FILE`, its overrides and the program's own flags.

    Args:
      argv: the arguments with the program's name first.
      define: adds the program's own flags to the FlagValues it is given.

    Returns:
      (locked and checked config, the overrides as typed, the other flags' values).

    Raises:
      InputError: anything wrong with them, in one line.
    """
    if re.match(r"--?(no)?config\.", argv[1] if len(argv) > 1 else ""):
        raise InputError(f"{argv[1]} comes too early: give --config=FILE first")
    given = config_argument(argv)
    config = load_config(given)
    known = dict(fields(config))
    for argument in argv[1:]:
        _check_name(argument, known)

    values = flags.FlagValues()
    name, colon, presets = given.partition(":")
    found = f"{find_file(name)}{colon}{presets}"
    argv = [
        argument.replace(given, found) if _names(argument, given) else argument for argument in argv
    ]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(argv))
    define(values)
    try:
        rest = values(list(argv))[1:]
    except flags.Error as error:
        raise InputError(_explain(str(error), known)) from error
    if rest:
        raise InputError(
            f"leftover argument {rest[0]!r}: write values with an equals sign, "
            f"such as --config.data.shuffle=False"
        )
    config = values["config"].value
    _split_names(config)
    validate(config)
    return config, config_flags.get_override_values(values["config"]), values


def _split_names(config: ConfigDict) -> None:
    """Typed without quotes, a,b is one text; it means two trackers."""
    names = config.logger.name
    if isinstance(names, tuple) and all(isinstance(name, str) for name in names):
        config.logger.name = tuple(part for name in names for part in name.split(","))


def config_argument(argv: Sequence[str]) -> str:
    """The value of `--config` among the arguments."""
    given = [
        argument.partition("=")[2] or "".join(argv[position + 1 : position + 2])
        for position, argument in enumerate(argv)
        if re.match(r"--?config(=|$)", argument)
    ]
    if len(given) > 1:
        raise InputError(f"--config is given {len(given)} times: {', '.join(given)}; give one")
    if given and given[0]:
        return given[0]
    raise InputError("no config given: start with --config=configs/medium.py")


def _names(argument: str, config: str) -> bool:
    """Whether an argument is the one that names the config."""
    return argument == config or argument in (f"--config={config}", f"-config={config}")


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
    # The last part is what people remember, so it is compared alone as well.
    leaf = name.rpartition(".")[2]
    same_leaf = [field for field in known if field.rpartition(".")[2] == leaf]
    hint = f" (did you mean {same_leaf[0]!r}?)" if same_leaf else did_you_mean(name, known)
    raise InputError(f"--config.{name}: no such field{hint}; --help lists them")


def _explain(message: str, known: dict[str, Any]) -> str:
    message = " ".join(message.split())
    match = re.search(r"--(?:no)?config\.([\w.]+)=(.*?): ", message)
    if match and match[1] in known:
        default = known[match[1]]
        kind = {int: "a whole number", float: "a number", bool: "True or False"}.get(type(default))
        return f"--config.{match[1]}={match[2]}: expected {kind or 'text'}, such as {default}"
    return message


def _at_least(low):
    return lambda value: value >= low, f"must be at least {low}"


def _from_to(low, high):
    return lambda value: low <= value <= high, f"must be at least {low} and at most {high:,}"


def _positive():
    return lambda value: value > 0, "must be above 0"


def _one_of(*choices):
    listed = ", ".join(repr(choice) for choice in choices)
    return lambda value: value in choices, f"must be one of {listed}"


def _between(low, high, text):
    return lambda value: low <= value < high, text


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _between(0, 2**32, "must be between 0 and 4294967295"),
    "model_name": (
        lambda value: bool(_NAME.fullmatch(value)),
        "must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
    ),
    "model.latent_dim": _from_to(1, 2**16),
    "model.hidden_dim": _from_to(1, 2**20),
    "model.dropout_p": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "model.hidden_dropout_p": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "model.decoder_bias": _one_of("random", "log_odds"),
    "model.prior": _one_of("normal", "mixture", "vamp", "flow"),
    "model.prior_components": _from_to(1, 2**20),
    "data.val_fraction": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "data.test_fraction": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "data.split_by": _one_of("row", "set"),
    "data.split_seed": _between(0, 2**32, "must be between 0 and 4294967295"),
    "data.batch_size": _from_to(1, 2**24),
    "loss.bce_weight": _at_least(0.0),
    "loss.kld_weight": _at_least(0.0),
    "loss.objective": _one_of("elbo", "free_bits", "capacity", "tcvae", "iw"),
    "loss.kld_schedule": _one_of("constant", "linear", "cosine", "cyclical"),
    "loss.kld_warmup": _at_least(0.0),
    "loss.kld_cycles": _at_least(1),
    "loss.free_bits": _at_least(0.0),
    "loss.capacity": _at_least(0.0),
    "loss.num_importance_samples": _from_to(1, 10_000),
    "trainer.max_epochs": _from_to(1, 10**9),
    "trainer.accelerator": _one_of("auto", "cpu", "gpu", "tpu"),
    "trainer.devices": (
        lambda value: value == -1 or value >= 1,
        "must be at least 1, or -1 for all devices",
    ),
    "trainer.mesh.data": (
        lambda value: value == -1 or value >= 1,
        "must be at least 1, or -1 for as many as mesh.model leaves",
    ),
    "trainer.mesh.model": _at_least(1),
    "trainer.precision": _one_of("32", "bf16"),
    "trainer.gradient_clip_val": _at_least(0.0),
    "trainer.accumulate_grad_batches": _from_to(1, 2**20),
    "trainer.check_val_every_n_epoch": _at_least(1),
    "trainer.optimizer.lr": _positive(),
    "trainer.optimizer.betas": (
        lambda value: (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(beta, int | float) and 0.0 <= beta < 1.0 for beta in value)
        ),
        "must be two numbers at least 0 and below 1, such as 0.9,0.999",
    ),
    "trainer.optimizer.weight_decay": _at_least(0.0),
    "trainer.lr_scheduler.name": _one_of("constant", "cosine"),
    "trainer.lr_scheduler.warmup_epochs": _at_least(0.0),
    "trainer.lr_scheduler.final_fraction": (
        lambda value: 0.0 <= value <= 1.0,
        "must be between 0 and 1",
    ),
    "trainer.ema_decay": _between(0.0, 1.0, "must be at least 0 and below 1"),
    "trainer.early_stopping_patience": _at_least(0),
    "trainer.early_stopping_min_delta": _at_least(0.0),
    "trainer.checkpoint_every_seconds": _at_least(0.0),
    "logger.project": (
        lambda value: bool(_NAME.fullmatch(value)),
        "must be 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
    ),
    "inference.num_samples": _from_to(1, 10**7),
    "inference.temperature": _positive(),
    "inference.decode": _one_of("bernoulli", "threshold"),
    "inference.threshold": (lambda value: 0.0 < value < 1.0, "must be above 0 and below 1"),
    "inference.seed": _between(0, 2**32, "must be between 0 and 4294967295"),
}
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


def validate(config: ConfigDict) -> None:
    """Checks every value's range, and the values that depend on each other.

    Raises:
      InputError: naming the field, the value and what it must be.
    """
    values = dict(fields(config))
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--config.{name}={value}: must be a finite number")
        holds, text = RANGES.get(name, (None, ""))
        if name == "trainer.precision" and value == "16":
            raise InputError(
                "--config.trainer.precision=16: float16 would need loss scaling; use bf16 or 32"
            )
        if holds is not None and not holds(value):
            raise InputError(f"--config.{name}={value}: {text}")
    if config.data.val_fraction + config.data.test_fraction >= 1.0:
        raise InputError(
            f"--config.data.val_fraction={config.data.val_fraction} and --config.data."
            f"test_fraction={config.data.test_fraction} leave no rows to train on"
        )
    warmup, epochs = config.trainer.lr_scheduler.warmup_epochs, config.trainer.max_epochs
    if warmup >= epochs:
        raise InputError(
            f"--config.trainer.lr_scheduler.warmup_epochs={warmup}: warm-up would never end "
            f"within --config.trainer.max_epochs={epochs}"
        )
    _validate_objective(config)
    names = config.logger.name
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"--config.logger.name={names}: must be names such as tensorboard, or () for none"
        )
    if repeated := [name for name in TRACKERS if names.count(name) > 1]:
        raise InputError(f"--config.logger.name: {repeated[0]!r} is given twice")
    for tracker in names:
        if tracker not in TRACKERS:
            raise InputError(
                f"--config.logger.name: no tracker {tracker!r}"
                f"{did_you_mean(tracker, TRACKERS)}; known: {', '.join(TRACKERS)}, or () for none"
            )


def _validate_objective(config: ConfigDict) -> None:
    loss, prior, epochs = config.loss, config.model.prior, config.trainer.max_epochs
    if loss.objective == "free_bits" and prior != "normal":
        raise InputError(
            f"--config.loss.objective=free_bits needs a KL for each dimension, which "
            f"--config.model.prior={prior} does not have; take prior=normal, or objective=capacity"
        )
    if loss.objective == "iw" and not loss.use_binary_cross_entropy:
        raise InputError(
            "--config.loss.objective=iw bounds a likelihood, and "
            "--config.loss.use_binary_cross_entropy=False has none"
        )
    if loss.objective == "iw" and loss.num_importance_samples < 2:
        raise InputError(
            f"--config.loss.num_importance_samples={loss.num_importance_samples}: with one draw "
            f"objective=iw is objective=elbo; take at least 2"
        )
    if loss.kld_schedule == "constant" and loss.kld_warmup:
        raise InputError(
            f"--config.loss.kld_warmup={loss.kld_warmup} does nothing with --config.loss."
            f"kld_schedule=constant; take linear, cosine or cyclical"
        )
    if loss.kld_schedule != "constant" and not 0.0 < loss.kld_warmup < epochs:
        raise InputError(
            f"--config.loss.kld_warmup={loss.kld_warmup}: --config.loss.kld_schedule="
            f"{loss.kld_schedule} needs epochs of warm-up, fewer than --config.trainer.max_epochs="
            f"{epochs}, or a share of them below 1.0"
        )


def field_help(source: str, config: ConfigDict) -> str:
    """The table of fields for `--help`, its texts taken from the comments of `configs/base.py`.

    Args:
      source: the text of the base config file.
      config: the config whose values are shown as defaults.
    """
    comments = dict(re.findall(r"^\s*c\.([\w.]+) = .*?  # (.*)$", source, flags=re.MULTILINE))
    lines = []
    for name, value in fields(config):
        shown = value if isinstance(value, str) and value else repr(value)
        lines.append(f"  --config.{name}={shown}\n      {comments.get(name, '')}".rstrip())
    return "\n".join(lines)
