"""Loads runs from a folder, an exported file or the Hub, and imports a file as a run."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxvae.config.paths import run_path, user_path
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export import hub_files, model_files
from jaxvae.export.hub_repo import fetch, is_address
from jaxvae.export.user_classes import load_user_classes, rebuild, sources_of_run
from jaxvae.inference.ensemble import Ensemble
from jaxvae.inference.run import Run
from jaxvae.runtime import compilation_cache
from jaxvae.storage import run_dir, run_files
from jaxvae.storage.atomic_files import atomic_write, write_json
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.environment import environment
from jaxvae.storage.final_params import load_params, save_params

CHECKPOINTS = ("best", "last")
EXPORTED = (".pth", ".safetensors")


def load_many(
    path: str | Path | Sequence[str | Path], *, trust_code: bool = False
) -> Run | Ensemble:
    """Opens a run, or several as an ensemble.

    Args:
      path: a path as in `load`; a folder of runs, such as `jaxvae seeds` makes; or a list of paths.
      trust_code: as in `load`.

    Raises:
      InputError: as in `load`; or the runs can't be mixed.
    """
    if isinstance(path, str | Path):
        if is_address(path):
            return load(path, trust_code=trust_code)
        folder = user_path(path)
        within = sorted(entry.parent for entry in folder.glob("*/config.json"))
        if (folder / run_files.CONFIG).exists() or not within:
            return load(folder, trust_code=trust_code)
        paths: Sequence[str | Path] = within
    else:
        paths = path
    return Ensemble(tuple(load(entry, trust_code=trust_code) for entry in paths))


def load(
    path: str | Path,
    *,
    checkpoint: str = "best",
    taxonomy_path: str | None = None,
    trust_code: bool = False,
) -> Run:
    """Opens a finished run.

    Args:
      path: the run's folder; or, without rows, an exported `.pth` or `.safetensors`, a folder
        that `push --folder` wrote, or `hf://user/name[@revision]`, a model on the Hugging Face Hub.
      checkpoint: "best", the exported parameters, with the lowest validation loss; or "last", the
        parameters at the end of training.
      taxonomy_path: the taxonomy of an exported file; None takes the `.json` beside it.
      trust_code: whether code that an exported or published model carries may run, of a prior or
        an architecture that is no part of this package.

    Raises:
      InputError: there is no run, or it is incomplete or has another taxonomy; or the Hub is
        unreachable or has no such model; or the model needs code that may not run.
    """
    compilation_cache.enable_compilation_cache()
    if is_address(path):
        return _load_published(str(path), checkpoint, taxonomy_path, trust_code)
    folder = user_path(path).resolve()
    if folder.suffix in EXPORTED and not folder.is_dir():
        _refuse_last(path, checkpoint)
        network, taxonomy, config = model_files.read_model(
            folder, taxonomy_path, trust_code=trust_code
        )
        return Run(folder, config, taxonomy, network, {"checkpoint": "exported"})
    if hub_files.is_published(folder):
        return _load_published(path, checkpoint, taxonomy_path, trust_code)
    _refuse_taxonomy(path, taxonomy_path)
    run_dir.check_is_run(user_path(path))  # Not resolved: the message shows the path as typed.
    if checkpoint not in CHECKPOINTS:
        raise InputError(f"no checkpoint {checkpoint!r}: it is one of {', '.join(CHECKPOINTS)}")
    run_path(folder)
    config = run_dir.read_config(folder)
    taxonomy = Taxonomy.load(folder / run_files.TAXONOMY)
    if checkpoint == "best":
        params, batch_stats, facts = load_params(folder / run_files.FINAL)
        if facts.get("taxonomy_digest") != taxonomy.digest:
            raise InputError(f"{folder}: taxonomy.json is not the one the model was trained with")
    else:
        params, batch_stats, facts = _last(folder, taxonomy)
    user_classes = load_user_classes(
        config["model"],
        sources_of_run(folder / run_files.EXTENSIONS),
        num_tags=taxonomy.num_tags,
        origin=folder / run_files.EXTENSIONS,
        trusted=True,  # the user trained it
    )
    network = rebuild(params, batch_stats, user_classes, origin=folder / run_files.EXTENSIONS)
    return Run(folder, config, taxonomy, network, facts)


def _load_published(
    path: str | Path, checkpoint: str, taxonomy_path: str | None, trust_code: bool
) -> Run:
    """Loads a published model from a folder or from the Hub."""
    _refuse_taxonomy(path, taxonomy_path)
    _refuse_last(path, checkpoint)
    origin = {}
    folder = user_path(path).resolve()
    if is_address(path):
        folder, commit = fetch(str(path), trust_code=trust_code)
        origin = {"source": str(path), "commit": commit}
    network, taxonomy, config, facts = hub_files.read_model_files(
        folder, str(path), trust_code=trust_code
    )
    return Run(folder, config, taxonomy, network, {**facts, **origin})


def _refuse_last(path: str | Path, checkpoint: str) -> None:
    if checkpoint != "best":
        raise InputError(f"{path} holds one set of parameters, not checkpoints")


def _refuse_taxonomy(path: str | Path, taxonomy_path: str | None) -> None:
    if taxonomy_path is not None:
        raise InputError(f"{path} has its own taxonomy; --taxonomy is for an exported file")


def import_model(
    path: str | Path, *, taxonomy_path: str | None, output: str | Path, trust_code: bool = False
) -> Run:
    """Imports an exported file as a run, without rows, that other commands accept.

    Args:
      path: a `.pth` or `.safetensors` of the model's architecture.
      taxonomy_path: the taxonomy of its columns; None takes the `.json` beside it.
      output: the folder to create.
      trust_code: as in `load`.

    Raises:
      InputError: the file is invalid, or the folder exists and is not empty.
    """
    if is_address(path):
        raise InputError(f"{path}: commands take it as it is; import is for a file")
    path, folder = user_path(path), run_path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output {output}: exists already; name a new folder")
    network, taxonomy, config = model_files.read_model(path, taxonomy_path, trust_code=trust_code)
    config = {
        "model_name": path.stem,
        **config,
        "model": {**config.get("model", {}), **hub_files.sizes(network)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: can't be made: {error.strerror}") from error
    facts = {"checkpoint": "imported", "taxonomy_digest": taxonomy.digest}
    try:
        write_json(folder / run_files.TAXONOMY, taxonomy.to_file())
        write_json(folder / run_files.ENVIRONMENT, environment(", ".join(map(str, jax.devices()))))
        write_json(folder / run_files.SUMMARY, {"config": config, "imported_from": path.name})
        save_params(folder / run_files.FINAL, network.params, network.batch_stats, facts)
        for name, source in (network.user_classes.sources if network.user_classes else {}).items():
            with atomic_write(folder / run_files.EXTENSIONS / name) as file:
                file.write(source)
        # The config is written last: a folder without one is not a run yet.
        write_json(folder / run_files.CONFIG, config)
        run = load(folder)
        run.export(
            folder / (run_files.SAFETENSORS if network.user_architecture else run_files.MODEL)
        )
        run_dir.seal(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # Lets the same command be run again.
        raise
    return run


def _last(folder: Path, taxonomy: Taxonomy) -> tuple[dict, dict, dict]:
    if not (folder / run_files.CHECKPOINTS).is_dir():
        raise InputError(f"{folder} has no checkpoints: the model was imported")
    with Checkpoints(
        folder / run_files.CHECKPOINTS, taxonomy_digest=taxonomy.digest
    ) as checkpoints:
        newest = checkpoints.restore_params()
    if newest is None:
        raise InputError(f"{folder}: no checkpoint yet")
    params, batch_stats, facts = newest
    return params, batch_stats, {**facts, "checkpoint": "last"}
