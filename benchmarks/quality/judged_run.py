"""Trains one recipe on one split of one data set in a process of its own, and judges its rows."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxvae
from benchmarks.quality import panel
from jaxvae.data.dataset import known_generator
from jaxvae.evaluation import retrieval
from jaxvae.evaluation.baseline_fitting import Baselines, load_or_fit_baselines
from jaxvae.evaluation.baselines import Mixture
from jaxvae.evaluation.evaluate_run import baselines_key, some_training_rows, with_rows_enough
from jaxvae.inference import completion, queries
from jaxvae.inference.run import Run
from jaxvae.storage.atomic_files import atomic_write
from jaxvae.storage.epoch_metrics import read_epochs

ROOT = Path(__file__).resolve().parents[2]
LARGER = (640, 1280)
"""Components of the larger mixture, with the smoothing that the tuned one has."""
QUIET = (
    "--config.inference.enabled=False",
    "--config.inference.quick_baseline=False",
    "--config.logger.name=()",
    "--config.trainer.enable_progress_bar=False",
)


class Question(NamedTuple):
    """What a judged run answers: a recipe on a split of a data set.

    Attributes:
      data: name of the data set.
      seed: of the split.
      recipe: its name.
      options: of `launch.py`, the recipe's config first.
      split: whose rows are judged, "val" or "test".
      draws: K, importance samples of a row.
    """

    data: str
    seed: int
    recipe: str
    options: tuple[str, ...]
    split: str
    draws: int

    @property
    def name(self) -> str:
        """Names its files."""
        return f"{self.data}-{self.split}-s{self.seed}-{self.recipe}"


class Answer(NamedTuple):
    """Seconds, and a value for each judged row.

    Attributes:
      seconds: of the whole command, from the shell to the exported model.
      training_seconds: of its epochs.
      rows: training rows.
      log_likelihood: `[N]` by who gave it: model, mixture, larger, and generator where it is known.
      recalled: `[M, 2]` by who completed: tags recalled at 10, and held out, of each row that has
        two tags or more.
    """

    seconds: float
    training_seconds: float
    rows: int
    log_likelihood: dict[str, np.ndarray]
    recalled: dict[str, np.ndarray]


def answer(question: Question, *, shared: Path, folder: Path) -> Answer:
    """Returns the kept answer to a question, or finds it."""
    file = folder / "answers" / f"{question.name}.npz"
    asked = json.dumps(question)
    if file.exists():
        with np.load(file) as kept:
            if str(kept["question"]) == asked:
                return _read(kept)
    answered = _find(question, shared=shared, folder=folder)
    file.parent.mkdir(exist_ok=True)
    arrays = {"seconds": [answered.seconds, answered.training_seconds, answered.rows]}
    for kind in ("log_likelihood", "recalled"):
        arrays |= {f"{kind}/{who}": value for who, value in getattr(answered, kind).items()}
    with atomic_write(file) as stream:
        np.savez(stream, question=np.array(asked), **arrays)
    return answered


def _read(kept) -> Answer:
    values: dict[str, dict[str, np.ndarray]] = {"log_likelihood": {}, "recalled": {}}
    for name in kept.files:
        kind, _, who = name.partition("/")
        if who:
            values[kind][who] = kept[name]
    seconds, training_seconds, rows = kept["seconds"].tolist()
    return Answer(seconds, training_seconds, int(rows), **values)


def _find(question: Question, *, shared: Path, folder: Path) -> Answer:
    run_folder = folder / "runs" / question.name
    data = panel.prepare(question.data, shared=shared, folder=folder)
    seconds = _train(question, data, run_folder)
    run = with_rows_enough(jaxvae.load(run_folder))
    rows, sets, train = run.rows(question.split), run.sets(question.split), run.sets("train")
    kept = folder / "baselines"
    kept.mkdir(exist_ok=True)
    place = kept / f"{question.data}-s{question.seed}.npz"
    key = baselines_key(run)
    baselines = load_or_fit_baselines(place, train, run.sets("val"), key=key)
    larger = _larger(place.with_suffix(".larger.npz"), baselines, train, run.sets("val"), key)
    log_likelihood = {
        "model": run.row_likelihood(rows, question.draws, 0).log_likelihood,
        "mixture": baselines.mixture.log_likelihood(sets),
        "larger": larger.log_likelihood(sets),
    }
    corpus = known_generator(run.config["data"]["dataset_name"], run.taxonomy)
    if corpus is not None:
        log_likelihood["generator"] = corpus.log_likelihood(rows)
    return Answer(
        seconds,
        sum(line["seconds"] for line in read_epochs(run_folder)),
        len(run.kept.positions("train")),
        log_likelihood,
        _recalled(run, sets, baselines.mixture),
    )


def _train(question: Question, data: tuple[str, ...], run_folder: Path) -> float:
    """Trains as a user does, or goes on with what was begun; returns the seconds of the command."""
    command = [
        sys.executable,
        str(ROOT / "launch.py"),
        *question.options,
        *data,
        f"--config.data.split_seed={question.seed}",
        f"--config.model_name={question.name}",
        *QUIET,
        f"--workdir={run_folder}",
    ]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return time.monotonic() - started


def _larger(
    path: Path, baselines: Baselines, train: np.ndarray, val: np.ndarray, key: str
) -> Mixture:
    """Returns the best mixture with more components than the yardstick may have, kept in a file."""
    if path.exists():
        with np.load(path) as kept:
            if str(kept["key"]) == key:
                return Mixture(kept["weights"], kept["probs"])
    smoothing = baselines.facts["mixture_smoothing"]
    fits = [
        Mixture.fit(train, val, components=min(k, len(train)), smoothing=smoothing, seed=0)
        for k in LARGER
    ]
    best = max(fits, key=lambda fit: fit[1])[0]
    with atomic_write(path) as stream:
        np.savez(stream, key=np.array(key), weights=best.weights, probs=best.probs)
    return best


def _recalled(run: Run, sets: np.ndarray, mixture: Mixture) -> dict[str, np.ndarray]:
    """Counts, in each row, the held-out tags among the ten best-scored ones, and all of them."""
    observed, held_out = retrieval.hold_out_tags(sets, seed=0)
    if not len(observed):
        return {}
    mean, logvar = queries.posterior(run.network, some_training_rows(run))
    scores = {
        "model": completion.predict(run.network, observed, mean, logvar, seed=0),
        "mixture": mixture.predict(observed),
    }
    counts = {}
    for who, values in scores.items():
        hits = (held_out & (retrieval.rank_tags(values, observed) < 10)).sum(axis=1)
        counts[who] = np.stack([hits, held_out.sum(axis=1)], axis=1)
    return counts
