"""Publishes a run: writes its model, card and pictures to a folder, and uploads it to the Hub."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvae.errors import InputError
from jaxvae.evaluation.saved_evaluation import (
    evaluation_path,
    read_evaluation,
)
from jaxvae.export import hub_files, hub_repo, network_tensors
from jaxvae.inference.run import Run
from jaxvae.models.trained import parameters_digest
from jaxvae.reports import figures, model_card
from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import name_file_in_errors, read_json, write_json, write_text

_SAMPLES = 8


def write_folder(run: Run, folder: Path, *, repository: str, license: str | None) -> list[str]:
    """Writes the exact contents of a repository.

    Args:
      run: any run; results of `evaluate` are included if there are any.
      folder: the folder to make.
      repository: "user/name", for the card.
      license: the Hub's identifier of a license, for the card.

    Returns:
      The names of the files.

    Raises:
      InputError: the folder exists, writing failed, or a file of the run is damaged.
    """
    model_card.check_license(license)
    return write_new_folder(folder, lambda contents: _write(run, contents, repository, license))


def write_new_folder(folder: Path, write: Callable[[Path], None]) -> list[str]:
    """Makes a folder whose contents appear in one step; returns the names of its files.

    Args:
      folder: the folder to make.
      write: writes the contents into the empty folder that it is given.

    Raises:
      InputError: the folder exists, or writing failed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; name a new folder")
    with name_file_in_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".push-", dir=folder.parent) as stage:
            contents = Path(stage) / "made"
            contents.mkdir()
            write(contents)
            names = sorted(path.name for path in contents.iterdir())
            contents.replace(folder)  # whole, in one step
    return names


def push(
    run: Run, repository: str, *, private: bool, revision: str | None, license: str | None
) -> str:
    """Writes a repository's contents and uploads them; returns the commit.

    Args:
      run: as for `write_folder`.
      repository: "user/name".
      private: whether a new repository is private.
      revision: the branch; None is the main branch.
      license: as for `write_folder`.

    Raises:
      InputError: as for `write_folder` and `hub_repo.upload`.
    """
    with tempfile.TemporaryDirectory(prefix="jaxvae-push-") as stage:
        folder = Path(stage) / "model"
        write_folder(run, folder, repository=repository, license=license)
        return hub_repo.upload(folder, repository, private=private, revision=revision)


def _write(run: Run, folder: Path, repository: str, license: str | None) -> None:
    judged = judged_of(run)
    if judged is not None:
        write_json(folder / run_files.METRICS, judged)
    hub_files.write_model_files(
        folder, run.network, taxonomy=run.taxonomy, config=run.config, facts=run.facts
    )
    pictures = {}
    for name, (title, png) in _pictures(run, judged).items():
        (folder / name).write_bytes(png)
        pictures[name] = title
    report = run.folder / run_files.DATA_REPORT
    card = model_card.make_card(
        repository=repository,
        config=hub_files.without_paths(run.config),
        sizes=hub_files.sizes(run.network),
        prior=run.network.model.prior_title,
        carries_code=run.network.user_classes is not None,
        concepts={name: len(columns) for name, columns in run.taxonomy.concepts},
        facts=run.facts,
        judged=judged,
        data_report=read_json(report) if report.is_file() else {},
        samples=run.sample(_SAMPLES, seed=0),
        pictures=pictures,
        license=license,
    )
    write_text(folder / "README.md", card)


def judged_of(run: Run) -> dict[str, Any] | None:
    """Returns the saved evaluation of these parameters, on the test split or else on validation.

    Raises:
      InputError: a file of the evaluation is damaged.
    """
    parameters = parameters_digest(network_tensors.to_state_dict(run.network))
    for split in ("test", "val"):
        if judged := read_evaluation(run.folder, split, parameters=parameters):
            return model_card.check_judged(judged, evaluation_path(run.folder, split))
    return None


def _pictures(run: Run, judged: dict[str, Any] | None) -> dict[str, tuple[str, bytes]]:
    """Returns the pictures as {file name: (title, PNG)}."""
    pictures = {}
    if (run.folder / run_files.EPOCHS).is_file():
        png = figures.to_png(run.plot.curves())
        pictures["training.png"] = ("Training", png)
    if judged is not None:
        png = figures.to_png(figures.kl_bars(judged["kl_per_dimension"]))
        pictures["kl_per_dimension.png"] = ("Latent space", png)
    if (run.folder / run_files.ROWS).is_file():
        png = figures.to_png(run.plot.cooccurrence())
        pictures["cooccurrence.png"] = ("Pairs of the commonest tags, in data and samples", png)
    return pictures
