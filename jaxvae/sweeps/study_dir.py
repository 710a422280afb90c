"""A study's folder: what it keeps for the next start, and whether that is still what it was."""

import json
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.errors import InputError
from jaxvae.inference.verify import verify
from jaxvae.storage import atomic_files, run_dir
from jaxvae.storage.manifest import file_digest

STUDY, SPACE, DATABASE = "study.json", "space.py", "study.db"
_FACTS = {
    **dict.fromkeys(("metric", "sampler", "pruner", "storage", "study", "worker"), str),
    **dict.fromkeys(("trials", "at_once"), int),
}


def begin(folder: Path, config: ConfigDict, facts: dict[str, Any], space: Path) -> None:
    """Keeps what a new study is: its config, how it searches, and its space.

    Args:
      folder: of the study.
      config: that trials start from.
      facts: how it searches.
      space: the file of the space, which is copied.
    """
    shutil.copyfile(space, folder / SPACE)
    write(folder, config, facts | {"space_sha256": file_digest(folder / SPACE)})


def write(folder: Path, config: ConfigDict, facts: dict[str, Any]) -> None:
    """Writes `study.json`."""
    value = {"config": json.loads(config.to_json()), "search": facts}
    atomic_files.write_json(folder / STUDY, value)


def read(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The config and the facts of a study that was begun.

    Raises:
      InputError: there is none, what is there is damaged, or the space is not the one that it was
        begun with.
    """
    path = folder / STUDY
    if not path.is_file():
        raise InputError(f"--resume {folder}: holds no study (no {STUDY})")
    kept = atomic_files.read_json(path)
    config = parsing.load_config("configs/base.py")
    try:
        config.update(kept["config"])
        facts = dict(kept["search"])
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
    own = folder / DATABASE
    if not facts["storage"] and (not own.is_file() or own.stat().st_size == 0):
        raise InputError(f"{own}: is gone or empty, and with it every trial; begin another study")
    return config, facts


def what_is_wrong(folder: Path, config: ConfigDict) -> str:
    """Why a folder is not the whole run of a config; "" if it is.

    Args:
      folder: of a run that was sealed.
      config: what it must have been trained with.
    """
    try:
        kept = run_dir.recorded_fields(folder)
        wrong = verify(folder)[1]
    except InputError as error:
        return str(error)
    wanted = dict(schema.flatten(json.loads(config.to_json())))
    differing = sorted(name for name in {*kept, *wanted} if kept.get(name) != wanted.get(name))
    if differing:
        return f"its config is another ({', '.join(differing[:3])})"
    return wrong[0] if wrong else ""


def set_aside(folder: Path) -> Path:
    """Renames a folder to `<name>.damaged`, or with a number behind; the new path."""
    suffixes = ("", *(f"-{number}" for number in range(2, 1000)))
    free = (folder.with_name(f"{folder.name}.damaged{suffix}") for suffix in suffixes)
    place = next(path for path in free if not path.exists())
    return folder.rename(place)
