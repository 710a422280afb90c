"""Priors and architectures of a user's own in a trained model: their code's way to files and back.

An exported model carries the files that define them as text in its JSON, by the name of a run's
copy, which has the digest. A run's own copies are run as they are; those of a file from elsewhere
only if the user says so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxvae.config.extensions import (
    ExtensionFailed,
    file_name,
    is_copy_of,
    is_reference,
    run_source,
    users_code,
)
from jaxvae.errors import InputError
from jaxvae.models.trained import TrainedModel, UserClasses, rebuild_model

FIELDS = ("prior", "architecture")
"""Fields of a config's `model` that a user's own code may be chosen in."""


def user_references(model: Mapping[str, Any]) -> dict[str, str]:
    """Returns those of `FIELDS` of a config's `model` that name a user's own code."""
    return {name: model[name] for name in FIELDS if is_reference(model.get(name))}


def sources_of_run(copies: Path) -> dict[str, bytes]:
    """Reads the copies of a user's files in a run's `extensions/`, by name.

    Raises:
      InputError: one can't be read.
    """
    try:
        return {path.name: path.read_bytes() for path in sorted(copies.glob("*.py"))}
    except OSError as error:
        raise InputError(f"{error.filename}: can't be read: {error.strerror}") from error


def sources_as_text(user_classes: UserClasses | None) -> dict[str, dict[str, str]]:
    """Returns an entry of a JSON file with the sources of a model's own classes; {} for none.

    Raises:
      InputError: a source is not UTF-8.
    """
    try:
        texts = (
            {name: source.decode() for name, source in user_classes.sources.items()}
            if user_classes
            else {}
        )
    except UnicodeDecodeError as error:
        raise InputError(f"a file of your own is not UTF-8 text: {error}") from error
    return {"extensions": texts} if texts else {}


def sources_from_text(content: Mapping[str, Any]) -> dict[str, bytes]:
    """Reads the entry that `sources_as_text` wrote in a JSON file."""
    texts = content.get("extensions")
    texts = texts if isinstance(texts, dict) else {}
    return {name: text.encode() for name, text in texts.items() if isinstance(text, str)}


def check_trusted(model: Mapping[str, Any], origin: object, *, trusted: bool) -> None:
    """Raises InputError if a model needs code of a user's own, which may not run.

    Args:
      model: a config's `model`.
      origin: the model's file or address.
      trusted: whether its code may run.
    """
    references = user_references(model)
    if references and not trusted:
        named = ", ".join(f"model.{name}={reference}" for name, reference in references.items())
        raise InputError(
            f"{origin}: is made by code that it carries ({named}), which is not run unasked; read "
            f"`extensions` in its JSON, then give --trust-code, in Python trust_code=True"
        )


def load_user_classes(
    model: Mapping[str, Any],
    sources: Mapping[str, bytes],
    *,
    num_tags: int,
    origin: Path,
    trusted: bool,
) -> UserClasses | None:
    """Runs the code of a model's own classes.

    Args:
      model: a config's `model`.
      sources: the files that may define the classes, by the name of a run's copy.
      num_tags: V.
      origin: the folder or file that the sources are from.
      trusted: whether their code may run.

    Returns:
      The classes; None if all are the package's.

    Raises:
      InputError: the code may not run, is missing or damaged, or can't be run.
    """
    references = user_references(model)
    if not references:
        return None
    check_trusted(model, origin, trusted=trusted)
    classes: dict[str, Any] = dict.fromkeys(FIELDS)
    used = {}
    for name, reference in references.items():
        copies = [copy for copy in sources if copy.partition("_")[2] == file_name(reference)]
        if len(copies) != 1:
            raise InputError(f"{origin}: has {len(copies)} files {file_name(reference)}, not one")
        source = sources[copies[0]]
        if not is_copy_of(copies[0], source):
            raise InputError(f"{origin}: {copies[0]} is not what the model was trained with")
        path = origin / copies[0] if origin.is_dir() else origin.with_name(copies[0])
        extension = run_source(reference, path, source, field=f"model.{name}")
        classes[name] = extension.function
        used[copies[0]] = source
    return UserClasses(dict(model), num_tags, classes["prior"], classes["architecture"], used)


def rebuild(
    params: dict, batch_stats: dict, user_classes: UserClasses | None, *, origin: object
) -> TrainedModel:
    """Rebuilds a model: see `rebuild_model`.

    Raises:
      InputError: the arrays are not those of a user's own classes, or their code fails.
    """
    if user_classes is None:
        return rebuild_model(params, batch_stats)
    try:
        with users_code(Path(str(origin))):
            return rebuild_model(params, batch_stats, user_classes)
    except ExtensionFailed as error:
        reason = error.__cause__ if isinstance(error.__cause__, InputError) else error.reason
        raise InputError(f"{origin}: its own code does not fit: {reason}") from error.__cause__
