"""Classical density models that a VAE has to beat; likelihoods in nats.

Independent tags, the Chow-Liu tree (1968) and a mixture of Bernoullis by EM.
"""

import dataclasses

import numpy as np

_ITERATIONS = 150
_EVERY = 5
_TREE_TAGS = 2048


@dataclasses.dataclass(frozen=True, eq=False)
class Independent:
    """Independent Bernoulli tags with probabilities `probs` `[V]`."""

    probs: np.ndarray

    @classmethod
    def fit(cls, train, smoothing: float = 0.5) -> "Independent":
        """Fits tag rates of boolean or sparse `[N, V]`, with `smoothing` pseudo-counts a value."""
        return cls.of_counts(np.asarray(train.sum(axis=0)).ravel(), train.shape[0], smoothing)

    @classmethod
    def of_counts(cls, counts: np.ndarray, num: int, smoothing: float = 0.5) -> "Independent":
        """Fits tag rates from each tag's number of rows, `counts` `[V]`, out of `num` rows."""
        return cls((counts + smoothing) / (num + 2.0 * smoothing))

    def log_likelihood(self, sets) -> np.ndarray:
        """Log p(x) `[N]` of boolean or sparse `[N, V]`."""
        absent = np.log1p(-self.probs)
        return sets.astype(np.float64) @ (np.log(self.probs) - absent) + absent.sum()

    def predict(self, present: np.ndarray) -> np.ndarray:
        """p(tag | the tags in `present` are there) `[N, V]`; a present tag has 1."""
        return np.where(present, 1.0, self.probs[None, :])

    def sample(self, num: int, *, seed: int) -> np.ndarray:
        """Samples sets `[num, V]`; empty ones are redrawn a bounded number of times."""
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
        """Fits the exact maximum-likelihood tree of smoothed pair tables.

        `smoothing` pseudo-rows with independent tags are added: they keep every table positive and
        consistent with its margins, and pull pairs towards independence. In a wider vocabulary the
        tree has the 2,048 commonest tags; the others are independent.

        Args:
          train: boolean `[N, V]`.
          smoothing: number of pseudo-rows, above 0.
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
        joint = (hot.T @ hot + smoothing * np.outer(rate, rate)) / (num + smoothing)
        p = (hot.sum(axis=0) + smoothing * rate) / (num + smoothing)
        tables = {
            (1, 1): joint,
            (1, 0): np.maximum(p[:, None] - joint, 1e-300),
            (0, 1): np.maximum(p[None, :] - joint, 1e-300),
            (0, 0): np.maximum(1.0 - p[:, None] - p[None, :] + joint, 1e-300),
        }
        margin = {1: p, 0: 1.0 - p}
        information = sum(
            table * (np.log(table) - np.log(margin[a])[:, None] - np.log(margin[b])[None, :])
            for (a, b), table in tables.items()
        )
        # The library minimises, and treats a zero as a missing edge: all weights are at least 1.
        weight = 1.0 + information.max() - information
        np.fill_diagonal(weight, 0.0)
        edges = minimum_spanning_tree(weight)
        _, predecessor = breadth_first_order(edges, 0, directed=False)
        parent = np.where(predecessor < 0, -1, predecessor).astype(np.int64)
        child = np.arange(width)
        condition = np.where(parent < 0, child, parent)
        probs = np.stack(
            [
                np.where(parent < 0, p, (p - joint[child, condition]) / (1.0 - p[condition])),
                np.where(parent < 0, p, joint[child, condition] / p[condition]),
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
        """Fits by expectation-maximisation until the validation likelihood stops rising.

        Args:
          train: boolean `[N, V]`.
          val: boolean `[M, V]`.
          components: K.
          smoothing: pseudo-counts of each value of a tag in a component, and of a component.
          seed: seed of the initial responsibilities.

        Returns:
          (the best iterate, its mean log-likelihood of `val`).
        """
        from scipy.sparse import csr_matrix

        rng = np.random.default_rng(seed)
        # Equal rows have equal responsibilities: compute each distinct row once, weighted.
        _, first, counts = np.unique(
            np.packbits(train, axis=1), axis=0, return_index=True, return_counts=True
        )
        # Rows have few tags, so sparse matrix products are several times faster.
        hot, weight = csr_matrix(train[first], dtype=np.float32), counts.astype(np.float32)
        rows_of_tags, val_hot = csr_matrix(hot.T), csr_matrix(val)
        start = rng.dirichlet(np.full(components, 0.1), len(first)).astype(np.float32)
        best, best_score, stale = None, -np.inf, 0
        share = start * weight[:, None]
        for iteration in range(_ITERATIONS):
            total = share.sum(axis=0, dtype=np.float64)
            present = np.asarray(rows_of_tags @ share).T
            probs = (present + smoothing) / (total[:, None] + 2.0 * smoothing)
            weights = (total + smoothing) / (total.sum() + smoothing * components)
            model = cls(weights, probs.astype(np.float64))
            if iteration % _EVERY == _EVERY - 1:
                score = float(model.log_likelihood(val_hot).mean())
                if score > best_score:
                    best, best_score, stale = model, score, 0
                elif (stale := stale + 1) == 2:
                    break
            share = model._responsibilities(hot) * weight[:, None]
        assert best is not None  # the first score is finite
        return best, best_score

    def log_likelihood(self, sets) -> np.ndarray:
        """Log p(x) `[N]` of boolean `[N, V]`, an array or a sparse matrix."""
        joint = self._log_joint(sets.astype(np.float32)).astype(np.float64)
        top = joint.max(axis=1)
        return top + np.log(np.exp(joint - top[:, None]).sum(axis=1))

    def predict(self, present: np.ndarray) -> np.ndarray:
        """p(tag | the tags in `present` are there) `[N, V]`; a present tag has 1."""
        joint = present.astype(np.float64) @ np.log(self.probs).T + np.log(self.weights)
        share = np.exp(joint - joint.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return np.where(present, 1.0, share @ self.probs)

    def _log_joint(self, hot) -> np.ndarray:
        absent = np.log1p(-self.probs)
        odds = (np.log(self.probs) - absent).astype(np.float32)
        return hot @ odds.T + (absent.sum(axis=1) + np.log(self.weights)).astype(np.float32)

    def _responsibilities(self, hot: np.ndarray) -> np.ndarray:
        joint = self._log_joint(hot)
        joint -= joint.max(axis=1, keepdims=True)
        np.exp(joint, out=joint)
        joint /= joint.sum(axis=1, keepdims=True)
        return joint
