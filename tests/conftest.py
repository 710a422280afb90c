"""Strictness, set once for the whole suite, and the things that a machine may lack."""

import gc
import importlib
import os

from tests.helpers import optimization, programs

# Before jax is imported: two simulated devices, no search for accelerators.
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count=2 {optimization.LITTLE_OPTIMIZED}"
)
os.environ["JAX_PLATFORMS"] = "cpu"
# The same for NumPy and scikit-learn, whose idle threads would spin.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
# Processes that tests start find their modules compiled: two thirds of what an import takes.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""
# Equal programs are compiled once, here, in the processes that tests start, and in later runs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs.borrow())
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# An older JAX gives XLA's own caches, of which a CPU has none, a place in the folder, and counts
# that place as a part of the program.
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"

from pathlib import Path

import hypothesis
import jax
import pytest

# The same examples at every run, so that a failure belongs to the change that shows it;
# HYPOTHESIS_SEARCH=1 looks for new ones.
hypothesis.settings.register_profile(
    "repeatable", derandomize=not os.environ.get("HYPOTHESIS_SEARCH"), deadline=None
)
hypothesis.settings.load_profile("repeatable")

# Most programs here train a few steps, and each test has its own; others are of modules that use
# `optimized`, or of the processes that tests start.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

XLA_FLAGS = os.environ["XLA_FLAGS"]
ROOT = Path(__file__).resolve().parent.parent
IN_CI = bool(os.environ.get("CI"))
# What a lane of .ci/run goes without: "shared" in a public clone, "torch" on some versions.
MAY_LACK = os.environ.get("JAXVAE_MAY_LACK", "").split()


def pytest_collection_finish():
    # Libraries and test modules stay: looking through them for garbage is a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


def pytest_sessionfinish():
    programs.give_back(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


# With a file on one core and the next on another, the files that take longest come first, so that
# none of them is still running alone when all others have ended.
LONGEST = (
    "ecosystem/test_trackers.py",
    "ecosystem/test_documents.py",
    "ecosystem/test_notebook.py",
    "train/test_trainer.py",
    "sweeps/test_search.py",
    "inference/test_generation.py",
    "sweeps/test_population.py",
    "cli/test_tag_sets.py",
    "integration/test_damaged_runs.py",
    "inference/test_likelihood.py",
    "cli/test_run_commands.py",
    "integration/test_recipes.py",
    "integration/test_own_models.py",
    "integration/test_commands.py",
    "train/steps/test_train_epoch.py",
    "faults/test_hostile.py",
    "faults/test_several_processes.py",
    "faults/test_kills.py",
    "faults/test_signals.py",
    "integration/test_environment.py",
    "faults/test_disk.py",
    "faults/test_fuzz_tables.py",
    "integration/test_own_objectives.py",
    "reports/test_advice.py",
    "inference/test_ensemble.py",
    "train/plan/test_recipe.py",
    "integration/test_paths.py",
)


def pytest_configure(config):
    """What is long runs where it is asked for, by its mark or by its file or a folder."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    wanted = config.option.markexpr
    if not named and "long" not in wanted:
        config.option.markexpr = f"({wanted}) and not long" if wanted else "not long"
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # else files with the most tests come first


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`, a file's tests are one process's; but each page is of whoever is free."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "::test_a_page_does_" in nodeid else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items):
    """What needs PyTorch is asked for by `-m torch`: not every lane of .ci/run has it."""
    for item in items:
        if "torch" in getattr(item, "fixturenames", ()):
            item.add_marker("torch")
    if "PYTEST_XDIST_WORKER" in os.environ:
        rank = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path, len(rank)))


_exchange_programs = programs.Exchange(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))


def pytest_runtest_setup():
    """What the tests of another core have compiled in the meantime is not compiled again."""
    _exchange_programs()


@pytest.fixture(autouse=True)
def _flags_of_one_test_are_its_own():
    """A deterministic run asks XLA for more; programs that follow would count as others."""
    flags = os.environ["XLA_FLAGS"]
    yield
    os.environ["XLA_FLAGS"] = flags


def lacking(what: str, name: str = ""):
    """Skips where something is missing; in CI nothing may be but what JAXVAE_MAY_LACK names."""
    if IN_CI and name not in MAY_LACK:
        pytest.fail(f"{what}: must be there in CI")
    pytest.skip(what)


def for_a_module(name: str):
    """A library that a whole test module needs; as `lacking`, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if IN_CI and name.partition(".")[0] not in MAY_LACK:
            raise
        pytest.skip(f"{name} is not installed", allow_module_level=True)


@pytest.fixture
def quick_collection():
    """For tests that look for garbage: what is there already is not looked through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def optimized():
    """For programs that run longer than they compile, or must have another process's last bits."""
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real MusicCaps rows and a real taxonomy."""
    shared = os.environ.get("JAXVAE_SHARED")
    if not shared:
        lacking("JAXVAE_SHARED is not set", "shared")
    folder = Path(shared) / "data"
    if not (folder / "musiccaps-public.csv").is_file():
        lacking(f"no MusicCaps in {folder}", "shared")
    return folder


@pytest.fixture(scope="session")
def torch():
    """The independent reference; the product never imports it."""
    try:
        import torch
    except ImportError:
        lacking("torch is not installed", "torch")
    return torch


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A finished run on the embedded corpus; its copies are in `models` beside it."""
    from jaxvae.config.parsing import load_config
    from jaxvae.train.trainer import train_and_evaluate

    config = load_config(str(ROOT / "configs" / "small.py"))
    config.trainer.max_epochs = 2
    config.logger.name = ()
    place = tmp_path_factory.mktemp("run")
    train_and_evaluate(config, place / "a", models_dir=place / "models")
    return place / "a"


@pytest.fixture(scope="session")
def run(folder):
    """That run, opened."""
    import jaxvae

    return jaxvae.load(folder)


@pytest.fixture
def checkpoints(tmp_path, quick_collection):
    from jaxvae.storage.checkpoints import Checkpoints

    with Checkpoints(tmp_path / "checkpoints", taxonomy_digest="tags") as opened:
        yield opened


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    from tests.helpers.studies import SPACE

    path = tmp_path_factory.mktemp("space") / "space.py"
    path.write_text(SPACE)
    return path
