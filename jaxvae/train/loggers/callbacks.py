"""Functions of a user's own that are called once an epoch: `trainer.callbacks`."""

from collections.abc import Sequence
from typing import Any

from jaxvae.config.extensions import (
    Extension,
    ExtensionFailed,
    load_extension,
    users_code,
)

ARGUMENTS = ("epoch", "metrics", "state")


class CallbackFailed(RuntimeError):
    """A callback raised; the message says which, in which line and at which epoch."""


def load_callbacks(references: Sequence[str]) -> list[Extension]:
    """Runs the files of `trainer.callbacks`.

    Args:
      references: `file.py:name` of each.

    Raises:
      InputError: a file can't be run, or a function does not take (epoch, metrics, state).
    """
    return [
        load_extension(reference, field="trainer.callbacks", arguments=ARGUMENTS)
        for reference in references
    ]


class Callback:
    """A callback whose errors say that they are its own.

    Args:
      extension: the user's function.
    """

    def __init__(self, extension: Extension):
        self._extension = extension

    def __call__(self, epoch: int, metrics: dict[str, Any], state: Any) -> None:
        """Calls the function.

        Raises:
          CallbackFailed: the function raised.
        """
        try:
            with users_code(self._extension.path):
                self._extension.function(epoch, metrics, state)
        except ExtensionFailed as error:
            at_line = error.at_line and f"{error.at_line},"
            raise CallbackFailed(
                f"the callback {self._extension.reference}{at_line} failed at epoch {epoch}: "
                f"{error.reason}. The epoch is saved; mend the callback, or leave it out, and the "
                f"same command goes on"
            ) from error.__cause__
