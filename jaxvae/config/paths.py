"""Paths as users type them: one rule for `~`, in every command, config field and function."""

import os
import re
import sys
from pathlib import Path

from jaxvae.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FILE_URL = re.compile(r"(sqlite(?:\+\w+)?:///|journal:(?:///?)?)(~.*)", re.DOTALL)


def user_path(text: str | os.PathLike[str]) -> Path:
    """The path that a user means: `~/x` lies in the user's home folder, `~name/x` in that of name.

    Twice is as good as once: what really begins with `~`, typed as `./~x`, comes back absolute.

    Args:
      text: as it was typed.

    Raises:
      InputError: no such user, or no home folder.
    """
    text = os.fspath(text)
    if text.startswith("~"):
        return Path(_home_of(text), text.partition("/")[2].lstrip("/"))
    path = Path(text)
    return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path


def run_path(text: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder that will hold a run.

    Raises:
      InputError: as `user_path` does; the path is a URL; or it is not UTF-8 text, which checkpoints
        need.
    """
    if _URL.match(os.fspath(text)):
        raise InputError(
            f"{text}: a run lies in a folder of this machine, not behind a URL; copy it there when "
            f"it is finished, or type ./{text} for a folder of that name"
        )
    path = user_path(text).resolve()
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding()
        remedy = "name another" if encoding == "utf-8" else f"set LC_ALL=C.UTF-8 (now {encoding})"
        raise InputError(
            f"{path}: its name is not UTF-8 text, which checkpoints need; rename it, or {remedy}"
        ) from error
    return path


def user_url(text: str) -> str:
    """The URL of a storage, in which the path of a file follows the rule of `user_path`.

    Args:
      text: as it was typed; a URL that names no file is left as it is.

    Raises:
      InputError: as `user_path` does.
    """
    match = _FILE_URL.fullmatch(text)
    if match is None:
        return text
    scheme = "journal://" if match[1].startswith("journal:") else match[1]
    return f"{scheme}{user_path(match[2])}"


def _home_of(text: str) -> str:
    """The folder that the first part of a path stands for."""
    first = text.partition("/")[0]
    try:
        home = os.path.expanduser(first)
    except ValueError:  # a name that no user can have
        home = first
    # An empty HOME would make it the root of all files.
    if home.startswith("~") or (first == "~" and not os.environ.get("HOME", home)):
        missing = f"there is no user {first[1:81]!r}" if first != "~" else "you have no home folder"
        name = text[:200]
        raise InputError(
            f"{name}: {missing}; type the whole path, or ./{name} if its name begins with ~"
        )
    return home
