"""The design's rooms: who may import whom, and what an import may cost."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "jaxvae"
ROOMS = {
    "errors": set(),
    "paths": {"errors"},
    "escapes": set(),
    "regular_file": {"errors"},
    "hidden_layers": set(),
    "taxonomy": {"errors", "file_kinds", "paths"},
    "corpus_tables": set(),
    "corpus": {"corpus_tables", "taxonomy"},
    "file_kinds": {"regular_file"},
    "json_values": {"errors"},
    "tables": {"errors", "file_kinds", "json_values"},
    "hub_access": {"errors"},
    "hub": {"errors", "hub_access", "tables"},
    "splits": {"errors"},
    "data_report": {"tag_rows", "taxonomy"},
    "growing": {"errors"},
    "tag_lists": {"errors", "taxonomy"},
    "cells": {"tag_lists", "taxonomy"},
    "tag_rows": {"cells", "growing", "taxonomy"},
    "dataset": {
        "corpus",
        "data_report",
        "errors",
        "growing",
        "hub",
        "paths",
        "splits",
        "tables",
        "tag_rows",
        "taxonomy",
    },
    "monitor": {"errors"},
    "ranges": {"errors", "hidden_layers", "monitor"},
    "field_hints": {"errors"},
    "settings": {"errors", "field_hints", "paths", "ranges"},
    "compiled": {"errors", "paths"},
    "console": set(),
    "devices": {"errors"},
    "sharding": {"errors"},
    "job": {"errors"},
    "hosts": {"errors", "job"},
    "layers": set(),
    "priors": {"layers"},
    "model": {"hidden_layers", "layers", "priors"},
    "losses": set(),
    "forward": {"losses", "model", "priors"},
    "metrics": set(),
    "state": {"losses"},
    "draws": {"model"},
    "epoch": {"draws", "forward", "losses", "metrics", "model", "sharding", "state"},
    "prepare": {
        "dataset",
        "devices",
        "epoch",
        "errors",
        "evaluate",
        "hidden_layers",
        "likelihood",
        "loop",
        "losses",
        "model",
        "monitor",
        "row_stream",
        "schedule",
        "sharding",
        "state",
        "tag_rows",
        "taxonomy",
    },
    "schedule": {"epoch", "errors", "monitor", "progress", "state"},
    "row_stream": {"errors"},
    "wandb_tracker": {"errors", "paths"},
    "trackio_tracker": set(),
    "mlflow_tracker": set(),
    "trackers": {
        "errors",
        "escapes",
        "mlflow_tracker",
        "record",
        "trackio_tracker",
        "wandb_tracker",
    },
    "projector": {"record", "tag_lists", "taxonomy"},
    "loop": {
        "checkpoints",
        "devices",
        "errors",
        "evaluate",
        "hosts",
        "interrupt",
        "metrics",
        "monitor",
        "progress",
        "record",
        "sharding",
        "state",
        "trackers",
    },
    "population": {"metrics", "state"},
    "space": {"errors", "settings"},
    "study": {"errors", "space"},
    "study_terms": {"settings"},
    "study_folder": {"errors", "manifest", "record", "run_folder", "settings", "verify"},
    "standings": {"record", "study"},
    "members": {"interrupt", "loop", "monitor", "population", "progress", "state"},
    "manifest": {"errors", "regular_file"},
    "lock": {"errors"},
    "interrupt": set(),
    "checkpoints": {"devices", "errors", "manifest", "record"},
    "events": {"escapes"},
    "record": {"errors", "escapes", "events", "regular_file"},
    "evaluate": {"baselines", "metrics", "tag_rows"},
    "sample": set(),
    "torch_pickle": set(),
    "torch_machine": {"torch_names", "torch_pickle"},
    "torch_names": {"errors", "hidden_layers"},
    "torch_file": {"errors", "torch_machine", "torch_names", "torch_pickle"},
    "safetensors_file": {"errors", "record"},
    "export": {
        "errors",
        "file_kinds",
        "hidden_layers",
        "model",
        "record",
        "safetensors_file",
        "taxonomy",
        "torch_file",
        "torch_names",
    },
    "inference": {"export", "losses", "tag_rows"},
    "onnx_file": {"errors", "export", "hidden_layers", "inference", "taxonomy"},
    "stablehlo_file": {"errors", "export", "inference"},
    "torch_module": {"export", "hidden_layers"},
    "formats": {
        "errors",
        "export",
        "onnx_file",
        "record",
        "safetensors_file",
        "stablehlo_file",
        "taxonomy",
        "torch_module",
    },
    "hub_folder": {
        "errors",
        "export",
        "hidden_layers",
        "record",
        "safetensors_file",
        "tables",
        "taxonomy",
        "torch_file",
    },
    "hub_model": {"errors", "hub_access", "hub_folder", "paths"},
    "model_card": {"errors", "report_text"},
    "kept_evaluation": {"errors", "export", "record", "run"},
    "publish": {
        "errors",
        "hub_folder",
        "hub_model",
        "kept_evaluation",
        "model_card",
        "plots",
        "record",
        "run",
    },
    "likelihood": {"draws", "export", "inference", "losses", "model", "priors"},
    "complete": {"export", "inference"},
    "baselines": set(),
    "fitted_baselines": {"baselines"},
    "ranking": set(),
    "sample_quality": set(),
    "disentanglement": set(),
    "latents": {"disentanglement", "export", "inference"},
    "arguments": {"errors"},
    "kept_rows": {"dataset", "errors", "record", "regular_file", "splits", "taxonomy"},
    "run": {
        "arguments",
        "complete",
        "errors",
        "evaluate",
        "export",
        "formats",
        "inference",
        "kept_rows",
        "likelihood",
        "paths",
        "run_plots",
        "sample",
        "tag_lists",
        "tag_rows",
        "taxonomy",
    },
    "ensemble": {"arguments", "errors", "paths", "run", "sample", "taxonomy"},
    "open_run": {
        "ensemble",
        "checkpoints",
        "compiled",
        "errors",
        "export",
        "hub_folder",
        "hub_model",
        "model",
        "paths",
        "record",
        "run",
        "run_folder",
        "state",
        "taxonomy",
    },
    "judge": {
        "baselines",
        "complete",
        "dataset",
        "disentanglement",
        "evaluate",
        "export",
        "fitted_baselines",
        "inference",
        "kept_evaluation",
        "latents",
        "likelihood",
        "metrics",
        "ranking",
        "run",
        "sample",
        "sample_quality",
    },
    "latent_table": {"dataset", "errors", "inference", "run", "tables", "tag_rows"},
    "plots": set(),
    "run_plots": {
        "complete",
        "errors",
        "inference",
        "latents",
        "plots",
        "ranking",
        "record",
        "sample_quality",
    },
    "report_text": set(),
    "page": {"plots"},
    "study_plots": {"plots"},
    "study_page": {"page", "study_plots"},
    "report": {
        "data_report",
        "errors",
        "judge",
        "kept_evaluation",
        "metrics",
        "page",
        "paths",
        "ranking",
        "record",
        "report_text",
        "run",
        "tag_lists",
    },
    "compare": {"errors", "manifest", "record", "run_folder", "settings"},
    "explore_data": {"export", "hidden_layers", "inference"},
    "explore": {
        "errors",
        "evaluate",
        "explore_data",
        "inference",
        "latents",
        "losses",
        "metrics",
        "paths",
        "record",
        "run",
    },
    "progress": {"monitor"},
    "run_folder": {
        "dataset",
        "errors",
        "hidden_layers",
        "kept_rows",
        "manifest",
        "record",
        "regular_file",
        "settings",
        "taxonomy",
    },
    "verify": {
        "checkpoints",
        "devices",
        "errors",
        "export",
        "kept_rows",
        "manifest",
        "record",
        "regular_file",
        "run_folder",
        "safetensors_file",
        "taxonomy",
        "torch_file",
    },
    "finish": {
        "checkpoints",
        "dataset",
        "epoch",
        "evaluate",
        "events",
        "export",
        "losses",
        "monitor",
        "projector",
        "record",
        "sample",
        "settings",
        "sharding",
        "taxonomy",
    },
}
FREE = {
    "train",
    "trials",
    "search",
    "seeds",
    "frontier",
    "search_commands",
    "population_commands",
    "train_command",
    "cli",
    "export_commands",
    "run_commands",
    "__main__",
    "__init__",
}
WITHOUT_JAX = {
    *(
        "errors",
        "escapes",
        "paths",
        "taxonomy",
        "corpus",
        "corpus_tables",
        "cells",
        "file_kinds",
        "json_values",
        "tables",
        "tag_lists",
        "tag_rows",
        "growing",
        "hub",
        "hub_access",
        "splits",
        "data_report",
    ),
    *(
        "hidden_layers",
        "dataset",
        "ranges",
        "field_hints",
        "settings",
        "record",
        "progress",
        "run_folder",
        "torch_file",
    ),
    *(
        "torch_pickle",
        "torch_machine",
        "torch_names",
        "safetensors_file",
        "model_card",
        "report_text",
        "plots",
        "page",
    ),
    *(
        "study_page",
        "study_plots",
        "space",
        "study",
        "study_terms",
        "arguments",
        "kept_rows",
        "compare",
        "regular_file",
        "manifest",
        "lock",
        "interrupt",
        "job",
    ),
    *("baselines", "fitted_baselines", "ranking", "sample_quality", "disentanglement", "events"),
    *("trackers", "wandb_tracker", "trackio_tracker", "mlflow_tracker", "projector"),
}
LAZY = {
    "optuna",
    "onnx",
    "huggingface_hub",
    "flatbuffers",
    "datasets",
    "sklearn",
    "matplotlib",
    "tensorboard",
    "wandb",
    "trackio",
    "mlflow",
    "torch",
    "safetensors",
    "pyarrow",
}


def imports_of(room: str, *, top_level: bool = False) -> set[str]:
    """Dotted names that a room imports; `jaxvae.x` for other rooms."""
    tree = ast.parse((PACKAGE / f"{room}.py").read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.module == "jaxvae":
                names |= {f"jaxvae.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


def test_every_module_is_a_room():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ROOMS) | FREE


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_those_it_may(room):
    used = {name.removeprefix("jaxvae.") for name in imports_of(room) if "jaxvae." in name}
    assert used <= ROOMS[room] | {"__version__"}


@pytest.mark.parametrize("room", sorted(WITHOUT_JAX))
def test_a_room_that_must_not_know_jax_does_not(room):
    assert not {name.split(".")[0] for name in imports_of(room)} & {"jax", "flax", "optax", "clu"}


@pytest.mark.parametrize("room", sorted(set(ROOMS) | FREE))
def test_slow_libraries_are_imported_where_they_are_used(room):
    assert not {name.split(".")[0] for name in imports_of(room, top_level=True)} & LAZY


def test_the_graph_of_rooms_has_no_cycle():
    done: set[str] = set()
    while len(done) < len(ROOMS):
        ready = {room for room in ROOMS if room not in done and ROOMS[room] <= done}
        assert ready, f"a cycle among {set(ROOMS) - done}"
        done |= ready


def test_the_python_api_loads_neither_torch_nor_tensorflow_nor_plots():
    code = (
        "import sys, jaxvae, jaxvae.train.trainer, jaxvae.inference.load\n"
        "print([m for m in ('torch', 'tensorflow', 'matplotlib', 'sklearn', 'datasets')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_package_does_not_import_jax():
    code = "import sys, jaxvae; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"
