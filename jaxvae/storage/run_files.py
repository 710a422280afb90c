"""Names of the files and folders of a run."""

CONFIG = "config.json"
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

SEALED = (
    *(CONFIG, OVERRIDES, ENVIRONMENT, TAXONOMY, DATA_REPORT, ROWS, EPOCHS, METRICS, SUMMARY),
    *(SAMPLES, MODEL, SAFETENSORS, MODEL_MEANING),
)
"""Files that a run writes itself and its manifest lists; commands add others later."""
