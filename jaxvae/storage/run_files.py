"""Names of the files and folders of a run."""

import datetime
from pathlib import Path

CONFIG = "config.json"
RESOLVED = "resolved.json"
OVERRIDES = "overrides.json"
ENVIRONMENT = "environment.json"
TAXONOMY = "taxonomy.json"
DATA_REPORT = "data_report.json"
ROWS = "rows.npz"
SPLITS = "splits.json"
EPOCHS = "metrics.jsonl"
METRICS = "metrics.json"
SUMMARY = "summary.json"
SAMPLES = "samples.json"
MODEL = "model.pth"
SAFETENSORS = "model.safetensors"
MODEL_MEANING = "model.json"
REPORT = "report.html"
EXPLORER = "explore.html"
BASELINES = "baselines.npz"
CHECKPOINTS = "checkpoints"
FINAL = "final"
TENSORBOARD = "tensorboard"
EXTENSIONS = "extensions"
INIT_FROM = "init_from.json"

SEALED = (
    *(
        CONFIG,
        RESOLVED,
        OVERRIDES,
        ENVIRONMENT,
        TAXONOMY,
        DATA_REPORT,
        ROWS,
        EPOCHS,
        METRICS,
        SUMMARY,
    ),
    *(SAMPLES, MODEL, SAFETENSORS, MODEL_MEANING, INIT_FROM),
)
"""Files that a run writes itself and its manifest lists; commands add others later."""


def new_workdir(kind: str = "vae_training") -> Path:
    """Returns `outputs/<kind>/<date and time>`, with a suffix if it is taken."""
    root = Path("outputs") / kind
    name = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    suffixes = ("", *(f"-{number}" for number in range(2, 1000)))
    return next(root / (name + s) for s in suffixes if not (root / (name + s)).exists())
