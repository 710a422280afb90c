"""Resolves paths as users type them: one rule for `~` in every command, config field, function."""

import os
import re
import sys
from pathlib import Path

from jaxvae.errors import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FILE_URL = re.compile(r"(sqlite(?:\+\w+)?:///|journal:(?:///?)?)(~.*)", re.DOTALL)


def user_path(text: str | os.PathLike[str]) -> Path:
    """Expands `~/x` to a path in the user's home folder, and `~name/x` to one in that of `name`.

    The function is idempotent: a path that really begins with `~`, typed as `./~x`, is returned
    absolute.

    Args:
      text: the path as typed.

    Raises:
      InputError: the user or the home folder does not exist.
    """
    text = os.fspath(text)
    if text.startswith("~"):
        return Path(_home_of(text), text.partition("/")[2].lstrip("/"))
    path = Path(text)
    return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path


def run_path(text: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a run's folder.

    Raises:
      InputError: as in `user_path`; or the path is a URL, or is not UTF-8 text, which checkpoints
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
    """Expands `~` in the URL of a storage by the rule of `user_path`.

    Args:
      text: the URL as typed; one that names no file is returned unchanged.

    Raises:
      InputError: as in `user_path`.
    """
    match = _FILE_URL.fullmatch(text)
    if match is None:
        return text
    scheme = "journal://" if match[1].startswith("journal:") else match[1]
    return f"{scheme}{user_path(match[2])}"


def _home_of(text: str) -> str:
    """Returns the home folder that a path's first part stands for."""
    first = text.partition("/")[0]
    try:
        home = os.path.expanduser(first)
    except ValueError:  # The name is impossible for a user.
        home = first
    # With an empty HOME, `~` would expand to the root folder.
    if home.startswith("~") or (first == "~" and not os.environ.get("HOME", home)):
        missing = f"there is no user {first[1:81]!r}" if first != "~" else "you have no home folder"
        name = text[:200]
        raise InputError(
            f"{name}: {missing}; type the whole path, or ./{name} if its name begins with ~"
        )
    return home
