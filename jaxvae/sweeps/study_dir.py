"""A study's folder: the files that its next start needs, and checks that they are unchanged."""

import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.errors import InputError
from jaxvae.inference.verify import verify
from jaxvae.storage import atomic_files, same_run
from jaxvae.storage.manifest import file_digest

STUDY, SPACE, DATABASE = "study.json", "space.py", "study.db"
_FACTS = {
    **dict.fromkeys(("metric", "sampler", "pruner", "storage", "study", "worker"), str),
    **dict.fromkeys(("trials", "at_once"), int),
}


def begin(folder: Path, config: ConfigDict, facts: dict[str, Any], space: Path) -> None:
    """Writes the files of a new study: its config, its search settings, and its space.

    Args:
      folder: the study's folder.
      config: the config that trials start from.
      facts: the search settings.
      space: the file of the space, which is copied.
    """
    shutil.copyfile(space, folder / SPACE)
    write(folder, config, facts | {"space_sha256": file_digest(folder / SPACE)})


def write(folder: Path, config: ConfigDict, facts: dict[str, Any]) -> None:
    """Writes `study.json`."""
    value = {"config": json.loads(config.to_json()), "search": facts}
    atomic_files.write_json(folder / STUDY, value)


def read(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """Reads the config and the search settings of a study.

    Raises:
      InputError: the folder holds no study, a file is damaged, or the space is not the one that
        the study was begun with.
    """
    path = folder / STUDY
    if not path.is_file():
        raise InputError(f"--resume {folder}: holds no study (no {STUDY})")
    record = atomic_files.read_json(path)
    config = parsing.load_config("configs/base.py")
    try:
        config.update(record["config"])
        facts = dict(record["search"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: damaged: {error}") from error
    wrong = [name for name, kind in _FACTS.items() if type(facts.get(name)) is not kind]
    if wrong:
        raise InputError(f"{path}: damaged: no {', '.join(wrong)} in it")
    if not (folder / SPACE).is_file():
        raise InputError(f"{folder / SPACE}: is gone; put it back, or begin another study")
    if facts.get("space_sha256") != file_digest(folder / SPACE):
        raise InputError(
            f"{folder / SPACE}: is not the one that the study was begun with; put that back, or "
            f"begin another study in a new --workdir"
        )
    database = folder / DATABASE
    if not facts["storage"] and (not database.is_file() or database.stat().st_size == 0):
        raise InputError(
            f"{database}: is gone or empty, and with it every trial; begin another study"
        )
    return config, facts


def what_is_wrong(folder: Path, config: ConfigDict) -> str:
    """Describes why a folder is not the whole run of a config; "" if it is.

    Args:
      folder: the folder of a sealed run.
      config: the config that the run must have been trained with.
    """
    try:
        recorded = same_run.recorded_fields(folder)
        wrong = verify(folder)[1]
    except InputError as error:
        return str(error)
    expected = dict(schema.flatten(json.loads(config.to_json())))
    differing = sorted(
        name for name in {*recorded, *expected} if recorded.get(name) != expected.get(name)
    )
    if differing:
        return f"its config is another ({', '.join(differing[:3])})"
    return wrong[0] if wrong else ""


def set_aside(folder: Path) -> Path:
    """Renames a folder to `<name>.damaged`, or `<name>.damaged-<n>`; returns the new path."""
    suffixes = ("", *(f"-{number}" for number in range(2, 1000)))
    free = (folder.with_name(f"{folder.name}.damaged{suffix}") for suffix in suffixes)
    target = next(path for path in free if not path.exists())
    return folder.rename(target)
