"""Publishes a table of drawn tag sets as a data set: the table, its record and its card."""

import shutil
import tempfile
from pathlib import Path

from jaxvae.errors import InputError
from jaxvae.export import hub_repo
from jaxvae.inference.generation.tables.record import record_path
from jaxvae.reports.publish import write_new_folder
from jaxvae.reports.sets import data_card
from jaxvae.reports.sets.table_record import read_record
from jaxvae.storage.atomic_files import write_json, write_text

_CARD = "README.md"


def write_table_folder(
    table: Path, folder: Path, *, repository: str, license: str | None, card: Path | None = None
) -> list[str]:
    """Writes the exact contents of a repository of a table.

    Args:
      table: a table by `generate`.
      folder: the folder to make.
      repository: "user/name", for the card.
      license: the Hub's identifier of a license, for the card.
      card: a card to take as it is; None makes one.

    Returns:
      The names of the files.

    Raises:
      InputError: the folder exists, writing failed, or the table has no record or no such card.
    """
    record = read_record(table)
    if card is not None and license is not None:
        raise InputError("--license is for a card that is made; write it into the card given")
    if card is not None and not card.is_file():
        raise InputError(f"card {card}: no such file")
    if table.name in (_CARD, record_path(table).name):
        raise InputError(f"{table}: a table of that name can't be published; name it otherwise")

    def write(contents: Path) -> None:
        shutil.copyfile(table, contents / table.name)
        write_json(record_path(contents / table.name), record)
        if card is not None:
            shutil.copyfile(card, contents / _CARD)
        else:
            text = data_card.make_card(
                record, table=table.name, repository=repository, license=license
            )
            write_text(contents / _CARD, text)

    return write_new_folder(folder, write)


def push_table(
    table: Path,
    repository: str,
    *,
    private: bool,
    revision: str | None,
    license: str | None,
    card: Path | None = None,
) -> str:
    """Writes the contents of a repository of a table and uploads them; returns the commit.

    Args:
      table: as for `write_table_folder`.
      repository: "user/name", of a data set.
      private: whether a new repository is private.
      revision: the branch; None is the main branch.
      license: as for `write_table_folder`.
      card: as for `write_table_folder`.

    Raises:
      InputError: as for `write_table_folder` and `hub_repo.upload`.
    """
    with tempfile.TemporaryDirectory(prefix="jaxvae-push-") as stage:
        folder = Path(stage) / "dataset"
        write_table_folder(table, folder, repository=repository, license=license, card=card)
        return hub_repo.upload(
            folder, repository, private=private, revision=revision, contents=hub_repo.TABLE
        )
