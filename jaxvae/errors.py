"""How a command can end badly, and the "did you mean" of mistakes that a user can mend."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: a config value, a file, a row, a tag.

    The message is one line that says what is wrong, where, and what to do. Command-line entries
    print it without a traceback and exit with code 2; from Python it is an ordinary ValueError.
    """

    def __init__(self, message: object):
        # What the user gave is part of it, line breaks and all.
        super().__init__(" ".join(str(message).split()))


class Unreadable(InputError):
    """A file can't be read as things are: another user's, on a disk that fails, for want of memory.

    That says nothing about what is in it, so nothing is changed, and the same command goes on once
    the cause is mended.
    """

    def __init__(self, path: object, cause: BaseException):
        reason = getattr(cause, "strerror", None) or one_line(cause)
        super().__init__(
            f"{path} can't be read now: {reason}. Nothing was changed; mend that first"
        )


class CommandEnded(RuntimeError):
    """A command ended otherwise than by success or an InputError.

    Attributes:
      code: its exit code.
    """

    def __init__(self, message: object, code: int):
        super().__init__(str(message))
        self.code = code


class StudyLost(RuntimeError):
    """The storage no longer takes or gives what a study is: a full disk, a folder that is gone."""


def one_line(error: object, *, kind: bool = False) -> str:
    """What an exception says; of a long one the end, where the operating system's word is.

    Args:
      error: the exception, or what a library gives for one.
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
    """What is wrong with a JSON text that could not be read; Python's words, where they help."""
    if "set_int_max_str_digits" in str(error):
        return "a number in it is too long"
    return str(error)


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Returns ``" (did you mean 'a' or 'b'?)"`` with the nearest known spellings, or ``""``."""
    return suggest(difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6))


def suggest(near: Iterable[str]) -> str:
    """Returns ``" (did you mean 'a' or 'b'?)"`` with the words given, or ``""`` where none is."""
    words = " or ".join(map(repr, near))
    return f" (did you mean {words}?)" if words else ""
