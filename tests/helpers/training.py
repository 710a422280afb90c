"""Runs in this process: small configs, a few clips, and what two runs have in common."""

import json

import numpy as np
import pytest

from jaxvae.config import parsing
from jaxvae.inference.load import load
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train.trainer import train_and_evaluate
from tests.conftest import ROOT

WORDS = {
    "genre": ["jazz", "rock", "techno", "folk"],
    "mood": ["calm", "dark", "happy"],
    "instrument": ["piano", "guitar", "synth", "drums", "violin"],
}


SETS = [
    ["jazz", "calm", "piano"],
    ["rock", "dark", "guitar", "drums"],
    ["techno", "happy", "synth", "drums"],
    ["folk", "calm", "guitar", "violin"],
]


def write_clips(folder):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(70):
        base = SETS[number % len(SETS)]
        rows.append([tag for tag in base if rng.random() < 0.9] or base[:1])
    lines = ["clip,aspect_list", *(f'{n},"{row}"' for n, row in enumerate(rows))]
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    (folder / "words.json").write_text(json.dumps(WORDS))
    return folder


def small(clips, **overrides):
    """A config of the smallest model on the clips."""
    config = parsing.load_config(str(ROOT / "configs" / "small.py"))
    values = {
        "model.latent_dim": 2,
        "model.hidden_dim": 8,
        "data.dataset_name": str(clips / "clips.csv"),
        "data.taxonomy_path": str(clips / "words.json"),
        "data.batch_size": 14,  # which divides the rows to train on: one step to compile, not two
        "data.val_fraction": 0.2,
        "data.test_fraction": 0.2,
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": False,
        "inference.num_samples": 50,
        "logger.name": (),
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    config.update_from_flattened_dict(values)
    return config


def run(clips, name="run", *, hooks=(), **overrides):
    folder = clips / name
    metrics = train_and_evaluate(
        small(clips, **overrides), folder, hooks=hooks, models_dir=clips / "models"
    )
    return metrics, folder


class Killed(Exception):
    pass


def killed(clips, name="run", *, after=1, **overrides):
    """Starts a run that is killed after an epoch, as soon as that is recorded; the run's folder."""

    def kill(epoch, metrics, state):
        if epoch == after:
            raise Killed

    with pytest.raises(Killed):
        run(clips, name, hooks=[kill], **overrides)
    return clips / name


def parameters(folder):
    network = load(folder).network
    return {
        f"{layer}.{name}": np.asarray(array)
        for layer, arrays in {**network.params}.items()
        for name, array in arrays.items()
    }


def same(a, b) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def timeless(folder):
    clocks = ("seconds", "seconds_eval", "examples_per_second")
    return [
        {name: value for name, value in line.items() if name not in clocks}
        for line in read_epochs(folder)
    ]


def logged(folder, name):
    """(epoch, value) of all that TensorBoard shows under a name, by both of its readers."""
    event = "tensorboard.backend.event_processing"
    old = pytest.importorskip(f"{event}.event_accumulator").EventAccumulator
    new = pytest.importorskip(f"{event}.plugin_event_accumulator").EventAccumulator
    path = str(folder / "tensorboard")
    values = [(event.step, event.value) for event in old(path).Reload().Scalars(name)]
    tensors = new(path).Reload().Tensors(name)
    assert [(event.step, event.tensor_proto.float_val[0]) for event in tensors] == values
    return values
