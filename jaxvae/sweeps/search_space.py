"""A search space: a Python file that draws the values of a trial, field by field.

    def get_space(s):
        s.log("trainer.optimizer.lr", 3e-4, 3e-2)
        prior = s.choice("model.prior", "normal", "vamp")
        if prior == "vamp":
            s.choice("model.prior_components", 100, 500)

Each call draws a value, sets the config's field of that name and returns it, so that later draws
may depend on it.
"""

import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema, validation
from jaxvae.errors import InputError, StudyLost, did_you_mean
from jaxvae.train.choices import CHOICES
from jaxvae.train.user_code import load_user_code

NOT_SEARCHED = (
    *("data", "inference", "logger", "model_name", "trainer.accelerator", "trainer.devices"),
    *("trainer.scale_batch_with_devices", "trainer.deterministic"),
    *("trainer.checkpoint_every_seconds", "trainer.enable_progress_bar"),
)
"""Fields that must be equal in all trials, so that they can be compared; but not the batch size."""


class Dimension(NamedTuple):
    """The range or the choices of a field.

    Attributes:
      kind: "choice", "integer", "uniform" or "log".
      values: the choices; or the least and the greatest value, both included.
    """

    kind: str
    values: tuple


Draw = Callable[[str, Dimension], Any]


class Space:
    """The argument of a space file's `get_space`: draws values and sets them in a config.

    Args:
      path: the space file, for messages.
      config: the trial's own config, which is changed.
      draw: a function of (field, dimension) to a value.
    """

    def __init__(self, path: Path, config: ConfigDict, draw: Draw):
        self._path, self._config, self._draw = path, config, draw
        self._known = dict(schema.flatten(config))
        self.drawn: dict[str, Any] = {}
        """Values drawn so far, by field."""

    def choice(self, field: str, *values: Any) -> Any:
        """Draws one of the values."""
        if not values:
            raise self._refuse(field, "a choice among nothing; list values behind the field")
        return self._set(field, Dimension("choice", values))

    def integer(self, field: str, low: int, high: int) -> int:
        """Draws a whole number from low to high, both included."""
        self._check_range(field, low, high)
        if not (isinstance(low, int) and isinstance(high, int)):
            raise self._refuse(field, f"integer({low}, {high}): both ends must be whole numbers")
        return self._set(field, Dimension("integer", (low, high)))

    def uniform(self, field: str, low: float, high: float) -> float:
        """Draws a number uniformly from low to high."""
        self._check_range(field, low, high)
        return self._set(field, Dimension("uniform", (float(low), float(high))))

    def log(self, field: str, low: float, high: float) -> float:
        """Draws a number from low to high, with a uniform logarithm."""
        self._check_range(field, low, high)
        if low <= 0:
            raise self._refuse(field, f"log({low}, {high}): zero and less have no logarithm")
        return self._set(field, Dimension("log", (float(low), float(high))))

    def __getitem__(self, field: str) -> Any:
        """Returns the current value of any field of the trial's config."""
        self._check_name(field)
        return dict(schema.flatten(self._config))[field]

    def _set(self, field: str, dimension: Dimension) -> Any:
        self._check_name(field)
        if field in self.drawn:
            raise self._refuse(field, "is drawn twice")
        if field != "data.batch_size" and any(
            field == name or field.startswith(name + ".") for name in NOT_SEARCHED
        ):
            raise self._refuse(field, "must be the same in all trials; set it on the command line")
        value = self._draw(field, dimension)
        if isinstance(self._known[field], float) and isinstance(value, int):
            value = float(value)
        try:
            self._config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            kind = type(self._known[field]).__name__
            raise self._refuse(field, f"{value!r} is no {kind}, such as the config has") from error
        self.drawn[field] = value
        return value

    def _check_name(self, field: str) -> None:
        if field not in self._known:
            hint = did_you_mean(str(field), self._known)
            raise self._refuse(field, f"no such field{hint}; launch.py --help lists them")

    def _check_range(self, field: str, low: float, high: float) -> None:
        numbers = all(
            isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end)
            for end in (low, high)
        )
        if not numbers or low >= high:
            raise self._refuse(field, f"from {low!r} to {high!r} is no range")

    def _refuse(self, field: object, what: str) -> InputError:
        return InputError(f"--space={self._path}: {field}: {what}")


def load_space(path: str | Path) -> Callable[[ConfigDict, Draw], Space]:
    """Loads a space file.

    Args:
      path: a Python file with `get_space(s)`.

    Returns:
      A function of (a trial's config, draw), which sets the trial's fields in the config.

    Raises:
      InputError: the file is missing or broken; or, from the returned function, a field is unknown,
        a range is empty, or the trial's config is invalid.
    """
    path = parsing.find_file(str(path), flag="space")
    spec = importlib.util.spec_from_file_location("jaxvae_space", path)
    if spec is None or spec.loader is None:
        raise InputError(f"--space={path}: a space is a Python file, its name ends in .py")
    module = importlib.util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        get_space = getattr(module, "get_space", None)
    except (Exception, SystemExit) as error:
        raise InputError(f"--space={path}: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = dont_write

    if not callable(get_space):
        raise InputError(f"--space={path}: defines no get_space(s); see configs/search/default.py")

    def apply(config: ConfigDict, draw: Draw) -> Space:
        space = Space(path, config, draw)
        try:
            get_space(space)
            validation.validate(config, CHOICES)
            load_user_code(config)
        except InputError as error:
            if str(error).startswith("--space"):
                raise
            values = ", ".join(f"{name}={value}" for name, value in space.drawn.items())
            raise InputError(f"--space={path}: a trial with {values}: {error}") from error
        except StudyLost:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"--space={path}: {type(error).__name__}: {error}") from error
        if not space.drawn:
            raise InputError(f"--space={path}: get_space(s) draws nothing")
        return space

    return apply
