"""The table of results that a finished run prints."""

from pathlib import Path
from typing import Any

from jaxvae.config.extensions import is_reference
from jaxvae.config.monitor import Monitor
from jaxvae.storage import run_files


def summarize_run(
    folder: Path, stages: dict[str, dict[str, Any]], summary: dict[str, Any], copies: str
) -> dict[str, str]:
    """Returns the rows of the table that a finished run prints.

    Args:
      folder: the run's folder.
      stages: final metrics by stage, under their logged names.
      summary: the contents of `summary.json`.
      copies: where the copies named after the model are; "" for none.
    """
    test = stages["test"]
    independent = test.get("test/independent_nll")
    trainer = summary["config"]["trainer"]
    monitor = Monitor(trainer["monitor"], trainer["monitor_mode"])
    unit = "nats" if independent is not None else "squared error and nats"
    rows = {
        "best epoch": f"{summary['best_epoch']} of {summary['epochs']} "
        f"({monitor.direction} {monitor.name})",
        "test loss": f"{test['test/loss']:.3f} = reconstruction {test['test/bce']:.3f}, "
        f"KL {test['test/kld']:.3f} ({unit} per row, before weights)",
        "test Jaccard, Hamming": f"{test['test/jaccard_index']:.3f}, "
        f"{test['test/hamming_loss']:.4f}",
        "active units": f"{test['test/active_units_num_active_units']} of "
        f"{test['test/active_units_total_units']}",
    }
    if independent is not None:
        gain = independent - test["test/bce"] - test["test/kld"]
        rows["independent tags"] = (
            f"{independent:.3f} nats per row; the model's -ELBO is {abs(gain):.3f} "
            f"{'better' if gain > 0 else 'worse'}"
        )
    if "test/generator_nll" in test:
        rows["best possible"] = (
            f"{test['test/generator_nll']:.3f} nats per row: the corpus's own generator"
        )
    if "test/quick_mixture_gain" in test:
        rows["quick mixture"] = _quick_mixture(test)
    if "inference" in stages:
        samples = stages["inference"]
        rows["samples"] = (
            f"{samples['inference/unique_combinations']} distinct sets of "
            f"{samples['inference/num_samples']}, "
            f"{samples['inference/avg_tags_per_sample']:.2f} tags "
            f"each, {samples['inference/empty_sets']} empty: samples.json"
        )
    is_own = is_reference(summary["config"]["model"]["architecture"])
    exported = f"{run_files.SAFETENSORS if is_own else run_files.MODEL}, read back: logits differ"
    rows["export"] = f"{exported} by at most {summary['largest_logit_difference']:.1e}"
    if is_own:
        rows["export"] += f"; {run_files.MODEL} can't express an architecture of your own"
    rows["run folder"] = str(folder)
    if copies:
        rows["copies"] = copies
    return rows


def _quick_mixture(test: dict[str, Any]) -> str:
    """Says where the model stands against a mixture that took a moment, and what tells more."""
    gain, error = test["test/quick_mixture_gain"], test["test/quick_mixture_gain_stderr"]
    stands = "level with it" if abs(gain) < 2.0 * error else "ahead" if gain > 0 else "behind"
    return (
        f"{test['test/quick_mixture_nll']:.3f} nats per row on {test['test/quick_mixture_rows']:,} "
        f"test rows; the model is {stands} ({gain:+.3f} ± {error:.3f}). A tuned one: "
        "python -m jaxvae evaluate"
    )
