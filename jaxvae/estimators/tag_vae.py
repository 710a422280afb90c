"""A variational autoencoder of tags as a scikit-learn transformer."""

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from jaxvae.data import encoding
from jaxvae.errors import InputError
from jaxvae.estimators.fit import fit
from jaxvae.inference import queries


class TagVAE(TransformerMixin, BaseEstimator):
    """Maps rows of tags to latent vectors, the means of their posteriors.

    Args:
        config: as in `jaxvae.fit`.
        max_epochs: epochs to train; None leaves the config's.
        binarize: values of a matrix above this are tags that a row has, as in scikit-learn's
            `BernoulliNB`; None takes 0 and 1 alone.
        overrides: other fields of the config by dotted name, or None.
        workdir: the run's folder; None takes one that goes with the estimator.
        random_state: seed of training, 0 to 2**32 - 1; None leaves the config's.
        verbose: whether to print what training prints.

    Attributes:
        run_: the finished run, a `Run`.
        n_features_in_: number of columns of the matrix that it was fitted on.
    """

    def __init__(
        self,
        config="best",
        *,
        max_epochs=None,
        binarize=0.0,
        overrides=None,
        workdir=None,
        random_state=None,
        verbose=False,
    ):
        self.config = config
        self.max_epochs = max_epochs
        self.binarize = binarize
        self.overrides = overrides
        self.workdir = workdir
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "TagVAE":
        """Trains on rows.

        Args:
            X: a matrix `[N, V]`, dense or sparse, or a list of N lists of tags.
            y: not used.

        Raises:
            ValueError: there are too few rows, or a value is wrong.
        """
        del y
        overrides = dict(self.overrides or {})
        if self.max_epochs is not None:
            overrides["trainer.max_epochs"] = self.max_epochs
            if "trainer.lr_scheduler.warmup_epochs" not in overrides:
                overrides["trainer.lr_scheduler.warmup_epochs"] = min(4.0, self.max_epochs / 10.0)
        if self.random_state is not None:
            overrides["seed"] = int(self.random_state)
        names = None
        if _are_lists(X):
            num_rows = sum(map(bool, X))
        else:
            X = self._hot(X, reset=True)
            num_rows = int((np.diff(X.indptr) > 0).sum())  # a row without a tag is left out
            names = [str(name) for name in getattr(self, "feature_names_in_", range(X.shape[1]))]
        for name in ("data.val_fraction", "data.test_fraction"):  # at least one row of each
            if 0 < num_rows < 20 and name not in overrides:
                overrides[name] = 1.0 / num_rows
        folder = self.workdir
        if folder is None:
            temporary = tempfile.mkdtemp(prefix="jaxvae_")
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            folder = Path(temporary, "run")
        self.run_ = fit(
            X,
            config=self.config,
            names=names,
            taxonomy="from_data" if names is None else {"tags": names},
            workdir=folder,
            models_dir=Path(folder).with_name("models"),
            silent=not self.verbose,
            **overrides,
        )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns the posterior means of rows, `[N, latent]`; tags that are not known count not.

        Args:
            X: as in `fit`.
        """
        check_is_fitted(self, "run_")
        if _are_lists(X):
            columns = [self.run_.taxonomy.columns(tags, on_unknown="ignore") for tags in X]
            rows = encoding.pad_tag_ids(columns, self.run_.taxonomy.num_tags)
        else:
            hot = self._hot(X, reset=False)
            columns = [
                hot.indices[start:stop].tolist()
                for start, stop in zip(hot.indptr, hot.indptr[1:], strict=False)
            ]
            rows = encoding.pad_tag_ids(columns, hot.shape[1])
        return queries.posterior(self.run_.network, rows)[0]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Returns the names of the latent dimensions, `tagvae0` and so on."""
        del input_features
        check_is_fitted(self, "run_")
        latent_dim = self.run_.config["model"]["latent_dim"]
        return np.array([f"tagvae{number}" for number in range(latent_dim)], dtype=object)

    def _hot(self, X: Any, *, reset: bool) -> sparse.csr_array:
        """Returns a checked matrix of 0 and 1."""
        matrix = validate_data(
            self, X, reset=reset, accept_sparse="csr", ensure_min_samples=2 if reset else 1
        )
        matrix = sparse.csr_array(matrix)
        if self.binarize is not None:
            matrix = sparse.csr_array(matrix > self.binarize)
        elif len(matrix.data) and not np.isin(matrix.data, (0, 1)).all():
            raise InputError("X must hold 0 and 1 alone; binarize=0.0 takes what is above 0 as 1")
        matrix.eliminate_zeros()
        return matrix

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _are_lists(rows: Any) -> bool:
    """Tests for lists of tags, rather than a matrix."""
    if sparse.issparse(rows) or (isinstance(rows, np.ndarray) and rows.ndim == 2):
        return False
    if hasattr(rows, "columns") or not hasattr(rows, "__len__") or not len(rows):
        return False
    first = next(iter(rows))
    return isinstance(first, list | tuple | set) and all(isinstance(tag, str) for tag in first)
