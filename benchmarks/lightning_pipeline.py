"""The usual Lightning pipeline: dense rows behind a `DataLoader`, validation, logging, checkpoints.

It is a contender of `benchmarks.training`, and a whole command of its own:
`python -m benchmarks.lightning_pipeline rows.npz out --epochs 10 --workers 4`.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

LEARNING_RATE, CLIP, DROPOUT = 5e-4, 1.0, 0.3


class LightningVAE(L.LightningModule):
    """The same model and objective, written as Lightning's documentation would."""

    def __init__(self, num_tags: int, latent_dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = torch.nn.Linear(num_tags, hidden_dim)
        self.fc2_mu = torch.nn.Linear(hidden_dim, latent_dim)
        self.fc2_logvar = torch.nn.Linear(hidden_dim, latent_dim)
        self.fc3 = torch.nn.Linear(latent_dim, hidden_dim)
        self.fc4 = torch.nn.Linear(hidden_dim, num_tags)
        self.dropout = torch.nn.Dropout(DROPOUT)

    def _losses(self, batch, stage: str):
        (x,) = batch
        h = F.relu(self.fc1(self.dropout(x)))
        mean, logvar = self.fc2_mu(h), self.fc2_logvar(h)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        logits = self.fc4(F.relu(self.fc3(z)))
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum() / len(x)
        values = {f"{stage}/loss": nll + kl, f"{stage}/bce": nll, f"{stage}/kld": kl}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(x))
        return nll + kl

    def training_step(self, batch, batch_number):
        """Lightning's hook."""
        return self._losses(batch, "train")

    def validation_step(self, batch, batch_number):
        """Lightning's hook."""
        self._losses(batch, "val")

    def test_step(self, batch, batch_number):
        """Lightning's hook."""
        self._losses(batch, "test")

    def configure_optimizers(self):
        """Lightning's hook."""
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)


def _loader(x: np.ndarray, batch_size: int, workers: int, shuffle: bool = False) -> DataLoader:
    rows = TensorDataset(torch.from_numpy(x.astype(np.float32)))
    return DataLoader(rows, batch_size=batch_size, num_workers=workers, shuffle=shuffle)


def _trainer(folder: Path, epochs: int, callbacks: list[L.Callback]) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        gradient_clip_val=CLIP,
        logger=CSVLogger(folder),
        callbacks=[ModelCheckpoint(folder, monitor="val/loss", save_last=True), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class _Turns(L.Callback):
    """Holds the fit before every epoch until a line comes in."""

    def on_train_epoch_start(self, trainer, module):
        """Lightning's hook."""
        print("ready", flush=True)
        if not sys.stdin.readline():
            trainer.should_stop = True


class _FirstEpoch(L.Callback):
    def __init__(self, folder: Path):
        self.folder = folder

    def on_train_epoch_end(self, trainer, module):
        """Lightning's hook."""
        (self.folder / "first_epoch").write_text("1\n")


def main() -> None:
    """Trains, tests and saves a `.pth`, from rows that are ready: nothing is parsed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", help="an .npz of multi-hot uint8 rows: train, val, test")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--turns", action="store_true", help="an epoch for every line of stdin")
    parser.add_argument("--latent_dim", type=int, default=64)
    parser.add_argument("--hidden_dim", type=int, default=256)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    with np.load(options.rows) as rows:
        train, val, test = (
            _loader(rows[name], options.batch_size, options.workers, shuffle=name == "train")
            for name in ("train", "val", "test")
        )
        model = LightningVAE(rows["train"].shape[1], options.latent_dim, options.hidden_dim)
    callbacks: list[L.Callback] = [_Turns()] if options.turns else [_FirstEpoch(options.folder)]
    trainer = _trainer(options.folder, -1 if options.turns else options.epochs, callbacks)
    trainer.fit(model, train, val)
    if options.turns:
        return
    trainer.test(model, test, ckpt_path="best", weights_only=False, verbose=False)
    torch.save(model.state_dict(), options.folder / "model.pth")


if __name__ == "__main__":
    main()
