"""`run.plot`: each figure of the report by itself, as a matplotlib figure."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxvae.errors import InputError
from jaxvae.evaluation import latents, retrieval
from jaxvae.evaluation.sets.sample_quality import commonest_pairs
from jaxvae.inference import completion, queries, traversal
from jaxvae.reports import figures
from jaxvae.storage import run_files
from jaxvae.storage.epoch_metrics import read_epochs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Plots:
    """The figures of one run; a notebook displays them, and `figure.savefig(...)` writes them.

    All but `traversal` need the run's own data, which an imported or downloaded model lacks.

    Args:
      run: a `Run`.
    """

    def __init__(self, run: Any):  # not `Run`, whose module imports this one
        self._run = run

    def curves(self) -> "Figure":
        """Training and validation loss, and the validation's KL, over epochs."""
        if not (self._run.folder / run_files.EPOCHS).is_file():
            raise InputError(f"{self._run.folder}: has no metrics.jsonl: it was not trained here")
        return figures.curves(read_epochs(self._run.folder))

    def kl(self, split: str = "test") -> "Figure":
        """Mean KL of every latent dimension, largest first, nats."""
        return figures.kl_bars(self._kl(split).tolist())

    def latent_map(self, split: str = "test") -> "Figure":
        """Posterior means in two dimensions, by UMAP if it is installed, else by PCA.

        A point's colour is the concept with most of its row's tags.
        """
        run = self._run
        mean, _ = queries.posterior(run.network, run.rows(split))
        points, method = latents.two_dimensions(mean)
        sets, concepts = run.sets(split), run.taxonomy.concepts
        counts = [sets[:, columns.start : columns.stop].sum(axis=1) for _, columns in concepts]
        labels = [concepts[concept][0] for concept in np.stack(counts, axis=1).argmax(axis=1)]
        return figures.latent_map(points, labels, method)

    def cooccurrence(
        self, *, num_samples: int = 5000, num_tags: int = 25, seed: int = 0
    ) -> "Figure":
        """Rates of pairs of the commonest tags, in training rows and in samples."""
        run = self._run
        sampled = run.sample_sets(num_samples, seed=seed).multi_hot
        columns, data, samples = commonest_pairs(run.sets("train"), sampled, num=num_tags)
        return figures.cooccurrence(data, samples, run.taxonomy.names(columns))

    def calibration(self, split: str = "test", *, seed: int = 0) -> "Figure":
        """Predicted probabilities of the tags of partly hidden rows, against their frequencies."""
        run = self._run
        visible, hidden = retrieval.hold_out_tags(run.sets(split), seed=seed)
        mean, logvar = queries.posterior(run.network, run.rows("train"))
        predicted = completion.predict(run.network, visible, mean, logvar, seed=seed)
        return figures.calibration(*retrieval.calibration(predicted, visible, hidden))

    def traversal(self, dim: int | None = None, *, around: list[str] | None = None) -> "Figure":
        """The six tags that move most while one latent dimension goes from -3 to 3.

        Args:
          dim: the dimension; None takes the dimension with the most KL on training rows.
          around: tags of a set whose posterior mean gives the other dimensions; None takes the mean
            of all training rows.
        """
        run = self._run
        dims = run.network.latent_dim
        if dim is not None and not 0 <= dim < dims:
            raise InputError(f"dim {dim}: must be between 0 and {dims - 1}")
        dim = int(self._kl("train").argmax()) if dim is None else dim
        sets = run.sets("train") if around is None else [around]
        origin = run.encode(sets).mean(axis=0)
        _, probabilities = traversal.traverse(run.network, origin, dim)
        moved = np.argsort(-np.ptp(probabilities, axis=0))[:6]
        names = run.taxonomy.names(moved)
        return figures.traversal(traversal.STEPS, probabilities[:, moved], names, dim)

    def _kl(self, split: str) -> np.ndarray:
        network = self._run.network
        posterior = queries.posterior(network, self._run.rows(split))
        return queries.kl_per_dimension(network, *posterior).mean(axis=0)
