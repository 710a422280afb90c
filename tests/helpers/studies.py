"""Studies of small searches."""

import contextlib
import sqlite3

import pytest

from tests.conftest import ROOT

optuna = pytest.importorskip("optuna", reason="search needs the extra optuna")


NullPool = pytest.importorskip("sqlalchemy.pool").NullPool


SMALL = (
    f"--config={ROOT}/configs/small.py",
    "--config.trainer.max_epochs=3",
    "--config.model.hidden_dim=16",
    "--config.model.latent_dim=4",
    "--config.data.batch_size=64",
    "--config.data.test_fraction=0.8",  # so that few rows train
    "--config.data.val_fraction=0.02",
    "--config.logger.name=()",
    "--config.inference.num_samples=20",
)


SPACE = """
def get_space(s):
    s.log("trainer.optimizer.lr", 1e-4, 1e-2)
    s.choice("trainer.optimizer.betas", (0.9, 0.999), (0.8, 0.9))
    if s.choice("model.decoder_bias", "random", "log_odds") == "random":
        s.uniform("model.dropout_p", 0.0, 0.5)
"""


def study_of(*, study_name, storage):
    """A study whose connections are closed after each use."""
    kept = optuna.storages.RDBStorage(storage, engine_kwargs={"poolclass": NullPool})
    return optuna.load_study(study_name=study_name, storage=kept)


def states(folder):
    with contextlib.closing(sqlite3.connect(folder / "study.db")) as database:
        return [state for (state,) in database.execute("select state from trials order by number")]
