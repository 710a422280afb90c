"""Classical density models that a VAE has to beat, fitted from scratch; all in nats.

Independent tags, the Chow-Liu tree (1968) and a mixture of Bernoullis by EM. Their options are
chosen on validation, since a weak baseline would flatter the model beside it.
"""

import dataclasses
import os
import time
from pathlib import Path

import numpy as np

COMPONENTS = (20, 40, 80, 160, 320)
SMOOTHINGS = (0.05, 0.1, 0.25, 0.5, 1.0)
_RESTARTS = 2
_ITERATIONS = 150
_EVERY = 5
_TRIED_ROWS = 10_000
_TREE_TAGS = 2048
_CHOW_LIU_SMOOTHINGS = (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Independent:
    """Every tag by itself: `probs` `[V]`."""

    probs: np.ndarray

    @classmethod
    def fit(cls, train, smoothing: float = 0.5) -> "Independent":
        """Tag rates of boolean or sparse `[N, V]`, with `smoothing` pseudo-counts of each value."""
        counts = np.asarray(train.sum(axis=0)).ravel()
        return cls((counts + smoothing) / (train.shape[0] + 2.0 * smoothing))

    def log_likelihood(self, sets) -> np.ndarray:
        """Log p(x) `[N]` of boolean or sparse `[N, V]`."""
        absent = np.log1p(-self.probs)
        return sets.astype(np.float64) @ (np.log(self.probs) - absent) + absent.sum()

    def predict(self, present: np.ndarray) -> np.ndarray:
        """p(tag | the tags in `present` are there) `[N, V]`; a present tag has 1."""
        return np.where(present, 1.0, self.probs[None, :])

    def sample(self, num: int, *, seed: int) -> np.ndarray:
        """Sets `[num, V]`, empty ones drawn again a bounded number of times."""
        rng = np.random.default_rng(seed)
        sets = rng.random((num, len(self.probs))) < self.probs
        for _ in range(100):
            empty = ~sets.any(axis=1)
            if not empty.any():
                break
            sets[empty] = rng.random((empty.sum(), len(self.probs))) < self.probs
        return sets


@dataclasses.dataclass(frozen=True, eq=False)
class ChowLiu:
    """The tree of pairwise dependences with the greatest likelihood.

    Attributes:
      parent: `[V]`, each tag's parent; -1 for a root.
      probs: `[V, 2]`, p(tag present | parent absent, present); a root has both equal.
    """

    parent: np.ndarray
    probs: np.ndarray

    @classmethod
    def fit(cls, train: np.ndarray, smoothing: float) -> "ChowLiu":
        """The exact maximum-likelihood tree of smoothed pair tables.

        `smoothing` rows are added that hold what independent tags would: they keep every table
        positive and consistent with its margins, and pull pairs towards independence. Of a wider
        vocabulary the tree has the 2,048 commonest tags; the others are independent.

        Args:
          train: boolean `[N, V]`.
          smoothing: pseudo-rows, above 0.
        """
        from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

        num, width = train.shape
        rate = Independent.fit(train).probs
        if width > _TREE_TAGS:
            common = np.sort(np.argsort(-rate, kind="stable")[:_TREE_TAGS])
            tree = cls.fit(train[:, common], smoothing)
            parent, probs = np.full(width, -1), np.stack([rate, rate], axis=1)
            parent[common] = np.where(tree.parent < 0, -1, common[tree.parent])
            probs[common] = tree.probs
            return cls(parent, probs)
        hot = train.astype(np.float64)
        both = (hot.T @ hot + smoothing * np.outer(rate, rate)) / (num + smoothing)
        p = (hot.sum(axis=0) + smoothing * rate) / (num + smoothing)
        tables = {
            (1, 1): both,
            (1, 0): np.maximum(p[:, None] - both, 1e-300),
            (0, 1): np.maximum(p[None, :] - both, 1e-300),
            (0, 0): np.maximum(1.0 - p[:, None] - p[None, :] + both, 1e-300),
        }
        margin = {1: p, 0: 1.0 - p}
        information = sum(
            table * (np.log(table) - np.log(margin[a])[:, None] - np.log(margin[b])[None, :])
            for (a, b), table in tables.items()
        )
        # The library minimises, and takes a zero for a missing edge: weights are 1 and more.
        weight = 1.0 + information.max() - information
        np.fill_diagonal(weight, 0.0)
        edges = minimum_spanning_tree(weight)
        _, before = breadth_first_order(edges, 0, directed=False)
        parent = np.where(before < 0, -1, before).astype(np.int64)
        at = np.arange(width)
        given = np.where(parent < 0, at, parent)
        probs = np.stack(
            [
                np.where(parent < 0, p, (p - both[at, given]) / (1.0 - p[given])),
                np.where(parent < 0, p, both[at, given] / p[given]),
            ],
            axis=1,
        )
        return cls(parent, np.clip(probs, 1e-12, 1.0 - 1e-12))

    def log_likelihood(self, sets: np.ndarray) -> np.ndarray:
        """Log p(x) `[N]` of boolean `[N, V]`."""
        above = sets[:, np.maximum(self.parent, 0)].astype(np.int64)
        p = self.probs[np.arange(sets.shape[1])[None, :], above]
        return np.where(sets, np.log(p), np.log1p(-p)).sum(axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of independent Bernoullis: `weights` `[K]`, `probs` `[K, V]`."""

    weights: np.ndarray
    probs: np.ndarray

    @classmethod
    def fit(
        cls, train: np.ndarray, val: np.ndarray, *, components: int, smoothing: float, seed: int
    ) -> tuple["Mixture", float]:
        """Expectation-maximisation, stopped where the validation likelihood stops rising.

        Args:
          train: boolean `[N, V]`.
          val: boolean `[M, V]`.
          components: K.
          smoothing: pseudo-counts of each value of a tag in a component, and of a component.
          seed: of the responsibilities that it starts from.

        Returns:
          (the best iterate, its mean log-likelihood of `val`).
        """
        rng = np.random.default_rng(seed)
        # Equal rows have equal responsibilities: do each once, weighted.
        _, first, counts = np.unique(
            np.packbits(train, axis=1), axis=0, return_index=True, return_counts=True
        )
        hot, weight = train[first].astype(np.float32), counts.astype(np.float32)
        start = rng.dirichlet(np.full(components, 0.1), len(hot)).astype(np.float32)
        best, best_score, stale = None, -np.inf, 0
        share = start * weight[:, None]
        for iteration in range(_ITERATIONS):
            total = share.sum(axis=0, dtype=np.float64)
            probs = (share.T @ hot + smoothing) / (total[:, None] + 2.0 * smoothing)
            weights = (total + smoothing) / (total.sum() + smoothing * components)
            model = cls(weights, probs.astype(np.float64))
            if iteration % _EVERY == _EVERY - 1:
                score = float(model.log_likelihood(val).mean())
                if score > best_score:
                    best, best_score, stale = model, score, 0
                elif (stale := stale + 1) == 2:
                    break
            share = model._responsibilities(hot) * weight[:, None]
        assert best is not None  # the first score is finite
        return best, best_score

    def log_likelihood(self, sets: np.ndarray) -> np.ndarray:
        """Log p(x) `[N]` of boolean `[N, V]`."""
        joint = self._log_joint(sets.astype(np.float32)).astype(np.float64)
        top = joint.max(axis=1)
        return top + np.log(np.exp(joint - top[:, None]).sum(axis=1))

    def predict(self, present: np.ndarray) -> np.ndarray:
        """p(tag | the tags in `present` are there) `[N, V]`; a present tag has 1."""
        joint = present.astype(np.float64) @ np.log(self.probs).T + np.log(self.weights)
        share = np.exp(joint - joint.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return np.where(present, 1.0, share @ self.probs)

    def _log_joint(self, hot: np.ndarray) -> np.ndarray:
        absent = np.log1p(-self.probs)
        odds = (np.log(self.probs) - absent).astype(np.float32)
        return hot @ odds.T + (absent.sum(axis=1) + np.log(self.weights)).astype(np.float32)

    def _responsibilities(self, hot: np.ndarray) -> np.ndarray:
        joint = self._log_joint(hot)
        joint -= joint.max(axis=1, keepdims=True)
        np.exp(joint, out=joint)
        joint /= joint.sum(axis=1, keepdims=True)
        return joint


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The three, and `facts` of how they were chosen (JSON-able)."""

    independent: Independent
    chow_liu: ChowLiu
    mixture: Mixture
    facts: dict

    def each(self) -> dict:
        """The three by name."""
        names = ("independent", "chow_liu", "mixture")
        return {name: getattr(self, name) for name in names}


def fit_baselines(
    train: np.ndarray,
    val: np.ndarray,
    *,
    seed: int = 0,
    components: tuple[int, ...] = COMPONENTS,
    smoothings: tuple[float, ...] = SMOOTHINGS,
) -> Baselines:
    """Fits the baselines on `train`, options chosen on `val` (both boolean `[N, V]`).

    With more than 10,000 training rows the mixture's options are chosen by fits to 10,000 of them.
    """
    started = time.monotonic()
    val = val if len(val) else train
    tried = train
    if len(train) > _TRIED_ROWS:
        tried = train[np.random.default_rng(seed).permutation(len(train))[:_TRIED_ROWS]]
    trees = {s: ChowLiu.fit(train, s) for s in _CHOW_LIU_SMOOTHINGS}
    scores = {s: tree.log_likelihood(val).mean() for s, tree in trees.items()}
    tree_smoothing = max(scores, key=lambda s: scores[s])
    best, best_score, chosen = None, -np.inf, (0, 0.0)
    # More than a component for ten rows only repeats rows.
    most = min(len(tried), max(components[0], len(tried) // 10))
    for k in sorted({min(k, most) for k in components}):
        for smoothing in smoothings:
            for restart in range(_RESTARTS):
                mixture, score = Mixture.fit(
                    tried, val, components=k, smoothing=smoothing, seed=seed + restart
                )
                if score > best_score:
                    best, best_score, chosen = mixture, score, (k, smoothing)
    assert best is not None
    if tried is not train:
        k, smoothing = chosen
        best, best_score = Mixture.fit(train, val, components=k, smoothing=smoothing, seed=seed)
    facts = {
        "chow_liu_smoothing": tree_smoothing,
        "mixture_components": chosen[0],
        "mixture_smoothing": chosen[1],
        "mixture_val_nll": -best_score,
        "train_rows": len(train),
        "seconds": time.monotonic() - started,
    }
    return Baselines(Independent.fit(train), trees[tree_smoothing], best, facts)


def save_baselines(path: Path, baselines: Baselines, *, key: str) -> None:
    """Keeps them in one `.npz`, written in one step; `key` says of which data they are."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
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
    os.replace(fresh, path)


def load_baselines(path: Path, *, key: str) -> Baselines | None:
    """What `save_baselines` wrote; None where it is missing, damaged, or of other data."""
    try:
        # Opened here: of a damaged file numpy would leave its own handle open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            facts = dict(zip(file["names"].tolist(), file["facts"].tolist(), strict=True))
            found = Baselines(
                Independent(file["independent"]),
                ChowLiu(file["parent"], file["tree"]),
                Mixture(file["weights"], file["probs"]),
                facts,
            )
            nothing = np.zeros((1, len(file["independent"])), bool)
            for model in found.each().values():  # arrays that don't fit together raise here
                model.log_likelihood(nothing)
            return found
    except Exception:  # Whatever is wrong with a kept result, fitting again mends it.
        return None
