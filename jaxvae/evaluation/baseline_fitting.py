"""Fits a data set's baselines with the best options, and caches them.

Options are chosen on validation, since a weak baseline would flatter the model.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvae.errors import InputError
from jaxvae.evaluation.baselines import ChowLiu, Independent, Mixture
from jaxvae.storage.atomic_files import atomic_write

COMPONENTS = (20, 40, 80, 160, 320)
SMOOTHINGS = (0.05, 0.1, 0.25, 0.5, 1.0)
_RESTARTS = 2
_TRIED_ROWS = 10_000
_MOST_VALUES = 2**24
_CHOW_LIU_SMOOTHINGS = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The three baselines, and `facts` about the choice of their options (JSON-able)."""

    independent: Independent
    chow_liu: ChowLiu
    mixture: Mixture
    facts: dict

    def each(self) -> dict:
        """Returns the three baselines by name."""
        names = ("independent", "chow_liu", "mixture")
        return {name: getattr(self, name) for name in names}


def load_or_fit_baselines(
    path: Path,
    train: np.ndarray,
    val: np.ndarray,
    *,
    key: str,
    say: Callable[[str], None] = lambda line: None,
) -> Baselines:
    """Loads cached baselines, or fits and caches them.

    Args:
      path: the `.npz` that caches them.
      train: boolean `[N, V]`.
      val: boolean `[M, V]`.
      key: identifies the data; baselines with another key are not loaded.
      say: callback for a message before the fit, which takes long.
    """
    baselines = load_baselines(path, key=key)
    if baselines is None:
        say(f"fitting baselines once; kept in {path}")
        baselines = fit_baselines(train, val)
        with contextlib.suppress(InputError):  # Read-only run directories: skip caching.
            save_baselines(path, baselines, key=key)
    return baselines


def fit_baselines(
    train: np.ndarray,
    val: np.ndarray,
    *,
    seed: int = 0,
    components: tuple[int, ...] = COMPONENTS,
    smoothings: tuple[float, ...] = SMOOTHINGS,
) -> Baselines:
    """Fits the baselines on `train` with options chosen on `val` (both boolean `[N, V]`).

    With more than 10,000 training rows the mixture's options are chosen by fits to 10,000 of them.
    With more than 50,000 tags the mixture has fewer than 320 components.
    """
    started = time.monotonic()
    val = val if len(val) else train
    tried = train
    if len(train) > _TRIED_ROWS:
        tried = train[np.random.default_rng(seed).permutation(len(train))[:_TRIED_ROWS]]
    trees = {s: ChowLiu.fit(train, s) for s in _CHOW_LIU_SMOOTHINGS}
    scores = {s: tree.log_likelihood(val).mean() for s, tree in trees.items()}
    tree_smoothing = max(scores, key=lambda s: scores[s])
    best, best_score, options = None, -np.inf, (0, 0.0)
    max_components = min(len(tried), max(components[0], _MOST_VALUES // train.shape[1]))
    for k in sorted({min(k, max_components) for k in components}):
        for smoothing in smoothings:
            for restart in range(_RESTARTS):
                mixture, score = Mixture.fit(
                    tried, val, components=k, smoothing=smoothing, seed=seed + restart
                )
                if score > best_score:
                    best, best_score, options = mixture, score, (k, smoothing)
    assert best is not None
    if tried is not train:
        k, smoothing = options
        best, best_score = Mixture.fit(train, val, components=k, smoothing=smoothing, seed=seed)
    facts = {
        "chow_liu_smoothing": tree_smoothing,
        "mixture_components": options[0],
        "mixture_smoothing": options[1],
        "mixture_val_nll": -best_score,
        "train_rows": len(train),
        "seconds": time.monotonic() - started,
    }
    return Baselines(Independent.fit(train), trees[tree_smoothing], best, facts)


def save_baselines(path: Path, baselines: Baselines, *, key: str) -> None:
    """Saves baselines in one `.npz`, written atomically; `key` identifies their data."""
    with atomic_write(path) as file:
        np.savez(
            file,
            key=np.array(key),
            independent=baselines.independent.probs,
            parent=baselines.chow_liu.parent,
            tree=baselines.chow_liu.probs,
            weights=baselines.mixture.weights,
            probs=baselines.mixture.probs,
            names=np.array(list(baselines.facts)),
            facts=np.array(list(baselines.facts.values()), np.float64),
        )


def load_baselines(path: Path, *, key: str) -> Baselines | None:
    """Loads what `save_baselines` wrote; None if it is missing, damaged or of other data."""
    try:
        # Opened here, because numpy would leave its own handle to a damaged file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            facts = dict(zip(file["names"].tolist(), file["facts"].tolist(), strict=True))
            baselines = Baselines(
                Independent(file["independent"]),
                ChowLiu(file["parent"], file["tree"]),
                Mixture(file["weights"], file["probs"]),
                facts,
            )
            nothing = np.zeros((1, len(file["independent"])), bool)
            for model in baselines.each().values():  # arrays that don't fit together raise here
                model.log_likelihood(nothing)
            return baselines
    except Exception:  # Any damaged cache is replaced by a new fit.
        return None
