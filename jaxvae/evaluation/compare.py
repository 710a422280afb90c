"""Compares several runs in one table: mean and spread over the seeds of a config."""

import json
from pathlib import Path
from typing import Any

from jaxvae.errors import InputError
from jaxvae.evaluation.saved_evaluation import (
    evaluation_path,
    read_evaluation,
)
from jaxvae.evaluation.spread import is_number, spread
from jaxvae.export.safetensors_io import read_safetensors
from jaxvae.models.trained import parameters_digest
from jaxvae.storage import manifest, run_dir, run_files, same_run
from jaxvae.storage.atomic_files import read_json

MIN_DRAWS = 1000
"""Least importance samples of a saved likelihood: with fewer the bound is not comparable."""
SHOWN = {
    "nll_iw": lambda test: test.get("nll_iw"),
    "-ELBO (one draw)": lambda test: test["test/bce"] + test["test/kld"],
    "KL": lambda test: test["test/kld"],
    "Jaccard": lambda test: test["test/jaccard_index"],
    "active units": lambda test: test["test/active_units_num_active_units"],
    "independent": lambda test: test.get("test/independent_nll"),
}
_SEEDS = ("seed", "inference.seed", "data.split_seed", "model_name", "inference", "logger")


def compare_runs(folders: list[Path]) -> list[dict[str, Any]]:
    """Groups runs that differ only by their seeds and summarises each group.

    Args:
      folders: finished runs.

    Returns:
      For each group: `runs`; `what`, the fields that differ between the groups; `repeats`, folders
      left out because their seed and parameters equal those of one of the runs, mapped to that run;
      and `measures`, `{name: {mean, sd, values}}`, sd None for a single run.

    Raises:
      InputError: a folder does not hold a finished run.
    """
    groups: dict[str, dict[str, Any]] = {}
    resolved: set[Path] = set()
    for folder in folders:
        run_dir.check_is_run(folder)
        if folder.resolve() in resolved:
            raise InputError(f"{folder}: is named twice, and would count as two runs")
        resolved.add(folder.resolve())
        if not (folder / run_files.METRICS).exists():
            raise InputError(f"{folder}: no metrics.json; the run did not finish, or was imported")
        if manifest.is_sealed(folder):
            manifest.check(folder, [run_files.METRICS, run_files.SUMMARY])
        run_dir.read_config(folder)  # raises if it is damaged
        fields = same_run.recorded_fields(folder)
        test = read_json(folder / run_files.METRICS).get("test", {})
        if not isinstance(test, dict):
            raise InputError(f"{folder / run_files.METRICS}: damaged: test is no object")
        test["nll_iw"] = _kept_likelihood(folder)
        settings = {
            name: value
            for name, value in fields.items()
            if not any(name == seed or name.startswith(seed + ".") for seed in _SEEDS)
        }
        group = groups.setdefault(
            json.dumps(settings, sort_keys=True),
            {"fields": settings, "runs": [], "tests": [], "first": {}, "repeats": {}},
        )
        model = folder / run_files.SAFETENSORS
        digest = manifest.file_digest(model) if model.exists() else str(folder)
        first = group["first"].setdefault((fields.get("seed"), digest), str(folder))
        if first != str(folder):
            group["repeats"][str(folder)] = first
            continue
        group["runs"].append(str(folder))
        group["tests"].append(test)
    names = sorted({name for group in groups.values() for name in group["fields"]})
    differing = [
        name
        for name in names
        if len({json.dumps(group["fields"].get(name)) for group in groups.values()}) > 1
    ]
    return [
        {
            "runs": group["runs"],
            "repeats": group["repeats"],
            "what": {name: group["fields"].get(name) for name in differing},
            "measures": {name: _spread(of, group["tests"]) for name, of in SHOWN.items()},
        }
        for group in groups.values()
    ]


def comparison_table(groups: list[dict[str, Any]]) -> str:
    """Formats the groups as a table for a terminal."""
    header = ["config", "runs", *SHOWN]
    lines = [header]
    for group in groups:
        what = ", ".join(f"{name}={value}" for name, value in group["what"].items())
        cells = [what or Path(group["runs"][0]).name, str(len(group["runs"]))]
        for name in SHOWN:
            measure = group["measures"][name]
            if measure["mean"] is None:
                cells.append("-")
            elif measure["sd"] is None:
                cells.append(f"{measure['mean']:.3f}")
            else:
                cells.append(f"{measure['mean']:.3f} ± {measure['sd']:.3f}")
        lines.append(cells)
    repeats = [
        f"{folder} is {first} once more (the same seed and parameters): counted once"
        for group in groups
        for folder, first in group["repeats"].items()
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*table, *repeats])


def _kept_likelihood(folder: Path) -> float | None:
    """Returns the saved `nll_iw` on the test split, if it is of the run's exported parameters."""
    if not evaluation_path(folder, "test").is_file():
        return None
    exported = parameters_digest(read_safetensors(folder / run_files.SAFETENSORS))
    saved = read_evaluation(folder, "test", parameters=exported)
    if saved is None:
        return None
    draws = saved.get("num_importance_samples")
    return saved.get("nll_iw") if isinstance(draws, int) and draws >= MIN_DRAWS else None


def _spread(of, tests: list[dict]) -> dict[str, Any]:
    try:
        values = [of(test) for test in tests]
    except (KeyError, TypeError):
        values = []
    values = [value for value in values if is_number(value)]
    return {**spread(values), "values": values}
