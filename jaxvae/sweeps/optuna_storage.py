"""Optuna's storages: a database or a journal file, by its URL."""

import re
import time
import warnings
from pathlib import Path

from jaxvae.errors import InputError

_OPEN_AGAIN = 20


_OPEN_AGAIN_SECONDS = 0.1


def load_optuna():
    """Imports Optuna and silences its log.

    Raises:
      InputError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InputError("search needs Optuna: pip install 'optuna>=4.0'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def storage_name(storage: str) -> str:
    """Name of a storage for messages: its file, or its URL without a password."""
    if storage.startswith("sqlite:///"):
        return storage.removeprefix("sqlite:///")
    return "--storage=" + re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage)


def first_cause(error: BaseException) -> BaseException:
    """Returns the root cause of an error, which drivers wrap in SQL statements and links."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def open_storage(optuna, storage: str):
    """Opens a storage by its URL; a database is made if missing."""
    if not storage.startswith("journal:"):
        return _open_database(optuna, storage)
    path = storage.removeprefix("journal:").removeprefix("//")
    backend = optuna.storages.journal.JournalFileBackend(path)
    return optuna.storages.JournalStorage(backend)


def _open_database(optuna, url: str):
    from sqlalchemy.exc import DatabaseError, IntegrityError
    from sqlalchemy.pool import NullPool

    for tries_left in reversed(range(_OPEN_AGAIN)):
        try:
            # A new connection for each use, so that none is open when the command ends.
            return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})
        except DatabaseError as error:
            # Another process is making the tables of a new database.
            half_made = isinstance(error, IntegrityError) or "already exists" in str(error)
            if not half_made or not tries_left:
                raise
            time.sleep(_OPEN_AGAIN_SECONDS)


def sqlite_url(path: Path) -> str:
    """URL of the storage in one SQLite file."""
    return f"sqlite:///{path}"
