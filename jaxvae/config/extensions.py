"""Code of a user's own that a config names as `file.py:name`."""

import contextlib
import functools
import glob
import hashlib
import inspect
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxvae.config.paths import user_path
from jaxvae.errors import InputError, did_you_mean, one_line


class ExtensionFailed(Exception):
    """A user's code raised, or left the program.

    Attributes:
      at_line: ", line N" of the user's file, or "" if the error has no line there.
      reason: the error on one line.
    """

    def __init__(self, error: BaseException, path: Path):
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
        if isinstance(error, SyntaxError) and not lines:  # of the file itself
            lines = [error.lineno]
        self.at_line = f", line {lines[-1]}" if lines else ""
        self.reason = one_line(error, kind=True)
        super().__init__(self.reason)


@contextlib.contextmanager
def users_code(path: Path) -> Iterator[None]:
    """Runs code of a user's file.

    Raises:
      ExtensionFailed: the code raised, or left by SystemExit as if all was well.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ExtensionFailed(error, path) from error


class Extension(NamedTuple):
    """A function or class of a user's file.

    Attributes:
      field: the config's field that names it.
      reference: `file.py:name`, as the config has it.
      path: the file.
      source: the file's bytes, as they were run.
      function: the function or class.
    """

    field: str
    reference: str
    path: Path
    source: bytes
    function: Callable[..., Any]

    def call(self, use: Callable[[], Any], *, failing: str) -> Any:
        """Returns what `use` does with the function.

        Args:
          use: calls the function.
          failing: says what it was called with, for the message.

        Raises:
          InputError: the user's code raised, or `use` did for what the code returned.
        """
        where = f"--config.{self.field}={self.reference}"
        try:
            with users_code(self.path):
                return use()
        except ExtensionFailed as error:
            if isinstance(error.__cause__, InputError):
                raise InputError(f"{where}: {error.__cause__}") from error.__cause__
            raise InputError(
                f"{where}{error.at_line}: it fails {failing}: {error.reason}"
            ) from error.__cause__

    @property
    def copy_name(self) -> str:
        """Name of the file's copy in a run: the beginning of its digest, and its own name."""
        return f"{_digest(self.source)}_{file_name(self.reference)}"


def is_copy_of(copy_name: str, source: bytes) -> bool:
    """Returns whether a file of a copy's name has the content that the name says."""
    return copy_name.partition("_")[0] == _digest(source)


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:16]


def is_reference(value: object) -> bool:
    """Returns whether a value of a config has the form `file.py:name`."""
    if not isinstance(value, str):
        return False
    path, colon, name = value.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def file_name(reference: str) -> str:
    """Returns the name of a reference's file, without its folder."""
    return Path(reference.rpartition(":")[0]).name


def find_copy(copies: Path, reference: str) -> Path | None:
    """Returns a run's copy of a reference's file, None if there is none, or more than one."""
    paths = list(copies.glob(f"*_{glob.escape(file_name(reference))}"))
    return paths[0] if len(paths) == 1 else None


def load_extension(
    reference: str,
    *,
    field: str,
    arguments: Sequence[str] = (),
    keywords: Sequence[str] = (),
    copy: Path | None = None,
) -> Extension:
    """Runs a user's file and returns its function or class of a name.

    Args:
      reference: `file.py:name`; the path is relative to the current folder.
      field: the field that names it, for messages.
      arguments: names of the positional arguments that the function is called with.
      keywords: names of its keyword arguments.
      copy: a copy to run if the file is no longer there.

    Raises:
      InputError: there is no such file, it can't be run, it lacks the name, or the function does
        not take these arguments.
    """
    where = f"--config.{field}={reference}"
    if not is_reference(reference):
        raise InputError(f"{where}: must be a file and a name in it, such as my_code.py:name")
    path = user_path(reference.rpartition(":")[0])
    if copy is not None and not path.exists():
        path = copy
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: {path} can't be read: {error.strerror or error}") from error
    extension = run_source(reference, path, source, field=field)
    _check_signature(extension.function, arguments, keywords, where)
    return extension


def run_source(reference: str, path: Path, source: bytes, *, field: str) -> Extension:
    """Runs the content of a user's file and returns its function or class of a name.

    Args:
      reference: `file.py:name`.
      path: the file, whose folder it may import from.
      source: its content.
      field: the field that names it, for messages.

    Raises:
      InputError: it can't be run, or lacks the name.
    """
    where, name = f"--config.{field}={reference}", reference.rpartition(":")[2]
    module = _run_file(path, source, where)
    function = getattr(module, name, None)
    if function is None:
        names = [known for known in vars(module) if not known.startswith("_")]
        raise InputError(f"{where}: {path} has no {name!r}{did_you_mean(name, names)}")
    return Extension(field, reference, path.resolve(), source, function)


def _run_file(path: Path, source: bytes, where: str) -> Any:
    """Runs a file as a module of its own, once for each content."""
    path = path.resolve()
    module_name = f"jaxvae_extension_{_digest(str(path).encode() + bytes(1) + source)}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    module = types.ModuleType(module_name)
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the file may import what lies beside it
    sys.modules[module_name] = module
    try:
        with users_code(path):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, ExtensionFailed):
            raise InputError(
                f"{where}: {path}{error.at_line} can't be run: {error.reason}"
            ) from error.__cause__
        raise
    return module


def _check_signature(
    function: object, arguments: Sequence[str], keywords: Sequence[str], where: str
) -> None:
    if not callable(function):
        raise InputError(f"{where}: it is no function, but {type(function).__name__}")
    try:
        if inspect.isclass(function):  # a metaclass may hide the class's own signature
            function = functools.partial(function.__init__, None)
        inspect.signature(function).bind(*arguments, **dict.fromkeys(keywords))
    except TypeError as error:
        called = ", ".join([*arguments, *(f"{name}=" for name in keywords)])
        raise InputError(
            f"{where}: it is called with ({called}), and that does not fit: {error}"
        ) from error
    except ValueError:  # a built-in without a signature
        return
