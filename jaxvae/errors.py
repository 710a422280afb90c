"""Exceptions that end a command, their messages, and the "did you mean" of misspelt names."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class InputError(ValueError):
    """Something the user gave is wrong: a config value, a file, a row, a tag.

    The message is one line that says what is wrong, where, and what to do. Command-line entries
    print it without a traceback and exit with code 2; from Python it is an ordinary ValueError.
    """

    def __init__(self, message: object):
        # The user's own text, quoted in the message, may have line breaks.
        super().__init__(" ".join(str(message).split()))


class Unreadable(InputError):
    """A file can't be read now: it is another user's, the disk fails, or memory ran out.

    The file's contents may be fine, so nothing is changed, and the same command goes on once the
    cause is mended.
    """

    def __init__(self, path: object, cause: BaseException):
        reason = getattr(cause, "strerror", None) or one_line(cause)
        super().__init__(
            f"{path} can't be read now: {reason}. Nothing was changed; mend that first"
        )


class CommandEnded(RuntimeError):
    """A command ended with an exit code of its own, by neither success nor an InputError.

    Attributes:
      code: the exit code.
    """

    def __init__(self, message: object, code: int):
        super().__init__(str(message))
        self.code = code


class StudyLost(RuntimeError):
    """The storage of a study became unavailable: a full disk, a folder that is gone."""


def one_line(error: object, *, kind: bool = False) -> str:
    """Returns an exception's message on one line, a long one without its middle.

    The end of a long message stays, because it has the operating system's own words.

    Args:
      error: the exception, or the value that a library has in its place.
      kind: whether the exception's type comes first.

    Returns:
      One line without a full stop, of some 300 characters at most.
    """
    name = type(error).__name__
    text = " ".join(str(error).split()).rstrip(".")
    if len(text) > 300:
        text = f"{text[:80]} ... {text[-200:]}"
    if not text:
        return name
    return f"{name}: {text}" if kind else text


def json_fault(error: Exception) -> str:
    """Describes the fault of a JSON text that could not be read, in Python's words if they help."""
    if "set_int_max_str_digits" in str(error):
        return "a number in it is too long"
    return str(error)


def type_name(value: object) -> str:
    """Names the type of a value that was read, in a user's words: "a list", "text", "null"."""
    if value is None:
        return "null"
    names: tuple[tuple[Any, str], ...] = (
        *((bool, "a truth value"), (int | float, "a number"), (str, "text"), (bytes, "bytes")),
        *((list | tuple, "a list"), (Mapping, "an object")),
    )
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Returns ``" (did you mean 'a' or 'b'?)"`` with the nearest known spellings, or ``""``."""
    return suggest(difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6))


def suggest(near: Iterable[str]) -> str:
    """Returns ``" (did you mean 'a' or 'b'?)"`` with the words given, or ``""`` where none is."""
    words = " or ".join(map(repr, near))
    return f" (did you mean {words}?)" if words else ""
