"""A finished run, opened from its folder: the model, the taxonomy, and what was written of it."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from jaxvae import export
from jaxvae.checkpoints import Checkpoints, load_params, save_params
from jaxvae.errors import InputError, did_you_mean
from jaxvae.model import VAE
from jaxvae.record import environment, write_json
from jaxvae.state import create_state
from jaxvae.taxonomy import Taxonomy

CHECKPOINTS = ("best", "last")


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with everything needed to use it.

    Attributes:
      folder: where it lies.
      config: the config it was trained with, as nested dictionaries; of an imported model only
        what is known.
      taxonomy: what the columns mean.
      network: the parameters, ready to compute with.
      facts: which checkpoint the parameters are, and of which epoch.
    """

    folder: Path
    config: dict
    taxonomy: Taxonomy
    network: export.Network
    facts: dict

    def rows(self, split: str) -> np.ndarray:
        """The rows `[N, K]` of "train", "val" or "test", padded with the vocabulary's size.

        Raises:
          InputError: the run keeps no rows (an imported model) or has no such split.
        """
        if not (self.folder / "rows.npz").exists():
            raise InputError(f"{self.folder} keeps no rows: the model was imported without data")
        splits = _read_json(self.folder / "splits.json")
        if split not in splits:
            raise InputError(f"no split {split!r}{did_you_mean(split, splits)}")
        with np.load(self.folder / "rows.npz") as stored:
            return stored["rows"][splits[split]]

    def export(self, output: str | Path) -> float:
        """Writes the model as `.pth`, with `.safetensors` and `.json` beside it.

        Args:
          output: path that ends in `.pth`.

        Returns:
          The largest difference between the file's logits and the model's.
        """
        path = Path(output)
        if path.suffix != ".pth":
            raise InputError(f"--output {output}: the name must end in .pth")
        return export.write_model(
            path,
            self.network.params,
            self.network.batch_stats,
            taxonomy=self.taxonomy,
            config=self.config,
            probe=_probe(self.taxonomy.num_tags),
        )


def load(path: str | Path, *, checkpoint: str = "best") -> Run:
    """Opens a finished run.

    Args:
      path: the run's folder.
      checkpoint: "best", the parameters with the lowest validation loss, which were exported; or
        "last", those at the end of training.

    Raises:
      InputError: no run there, a half-written one, or one of another taxonomy.
    """
    folder = Path(path).resolve()
    if not (folder / "config.json").is_file():
        raise InputError(f"{path}: not a run's folder (it has no config.json)")
    if checkpoint not in CHECKPOINTS:
        raise InputError(f"no checkpoint {checkpoint!r}: it is one of {', '.join(CHECKPOINTS)}")
    config = _read_json(folder / "config.json")
    taxonomy = Taxonomy.load(folder / "taxonomy.json")
    if checkpoint == "best":
        params, batch_stats, facts = load_params(folder / "final")
        if facts.get("taxonomy_digest") != taxonomy.digest:
            raise InputError(f"{folder}: taxonomy.json is not the one the model was trained with")
    else:
        params, batch_stats, facts = _last(folder, config, taxonomy)
    return Run(folder, config, taxonomy, export.make_network(params, batch_stats), facts)


def import_model(path: str | Path, *, taxonomy_path: str | None, output: str | Path) -> Run:
    """Turns a `.pth` into a run that later commands accept; it has no rows.

    Args:
      path: a `.pth` of the model's architecture.
      taxonomy_path: what its columns mean; None takes the `.json` beside it.
      output: folder to make.

    Raises:
      InputError: the file is refused, or the folder exists.
    """
    path, folder = Path(path), Path(output).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output {output}: exists already; name a new folder")
    params, batch_stats, taxonomy, config = export.read_model(path, taxonomy_path)
    network = export.make_network(params, batch_stats)
    model = {
        "latent_dim": network.latent_dim,
        "hidden_dim": network.hidden_dim,
        "use_batch_norm": network.use_batch_norm,
    }
    config = {
        "model_name": path.stem,
        **config,
        "model": {**config.get("model", {}), **model},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: can't be made: {error.strerror}") from error
    write_json(folder / "taxonomy.json", taxonomy.to_mapping())
    write_json(folder / "environment.json", environment(", ".join(map(str, jax.devices()))))
    write_json(folder / "summary.json", {"config": config, "imported_from": path.name})
    facts = {"checkpoint": "imported", "taxonomy_digest": taxonomy.digest}
    save_params(folder / "final", params, batch_stats, facts)
    # The config last: a folder without one is not a run yet.
    write_json(folder / "config.json", config)
    run = load(folder)
    run.export(folder / "model.pth")
    return run


def _last(folder: Path, config: dict, taxonomy: Taxonomy) -> tuple[dict, dict, dict]:
    if not (folder / "checkpoints").is_dir():
        raise InputError(f"{folder} has no checkpoints: the model was imported")
    settings = config["model"]

    def build() -> VAE:
        return VAE(
            num_tags=taxonomy.num_tags,
            latent_dim=settings["latent_dim"],
            hidden_dim=settings["hidden_dim"],
            use_batch_norm=settings["use_batch_norm"],
            rngs=nnx.Rngs(0),
        )

    _, state = create_state(build, seed=0)
    with Checkpoints(folder / "checkpoints", taxonomy_digest=taxonomy.digest) as checkpoints:
        found, _ = checkpoints.restore({"state": state, "best": best_of(state)})
    if found is None:
        raise InputError(f"{folder}: no checkpoint yet")
    state = found.tree["state"]
    return state.params, state.batch_stats, {**found.facts, "checkpoint": "last"}


def best_of(state) -> dict:
    """The part of a training state that is kept when validation is at its best."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def _probe(num_tags: int) -> np.ndarray:
    """Rows to compare logits on where a run has none: about four tags each."""
    return np.random.default_rng(0).random((64, num_tags)) < min(1.0, 4.0 / num_tags)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or not JSON: {error}") from error
