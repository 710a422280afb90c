"""Compiled programs on disk: shared by processes, and never in the way."""

import os
import subprocess
import sys

import jax
import pytest

from jaxvae import compiled
from tests.conftest import ROOT

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder, and JAX as if nobody had set up its cache."""
    before = {name: jax.config.values[name] for name in SETTINGS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def test_it_is_on_by_default_in_the_users_cache_folder(home):
    compiled.keep_programs()
    (folder,) = (home / "jaxvae").iterdir()
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_old_programs_go_and_new_ones_stay(home):
    compiled.keep_programs()
    (folder,) = (home / "jaxvae").iterdir()
    for name, age in (("old", compiled.MAX_AGE + 60.0), ("new", compiled.MAX_AGE - 60.0)):
        (folder / name).touch()
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    jax.config.update("jax_compilation_cache_dir", None)
    compiled.keep_programs()
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_the_users_own_folder_stands(home):
    jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
    compiled.keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(home / "mine")
    assert not (home / "jaxvae").exists()


def test_a_folder_that_cannot_be_made_leaves_it_off(home):
    (home / "jaxvae").touch()
    compiled.keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None


@pytest.mark.parametrize(
    ("there", "flags", "after"),
    [
        (True, "", "--xla_gpu_autotune_level=0"),
        (True, "--xla_a=1", "--xla_a=1 --xla_gpu_autotune_level=0"),
        (True, "--xla_gpu_autotune_level=4", "--xla_gpu_autotune_level=4"),
        (False, "", ""),
    ],
)
def test_on_a_gpu_no_kernel_is_chosen_by_the_clock(
    home, tmp_path, monkeypatch, there, flags, after
):
    (tmp_path / "driver").touch()
    driver = tmp_path / ("driver" if there else "none")
    monkeypatch.setattr(compiled, "_GPU_DRIVERS", (str(driver),))
    monkeypatch.setenv("XLA_FLAGS", flags)
    compiled.keep_programs()
    assert os.environ["XLA_FLAGS"] == after


def start(place, cache):
    """Starts a one-epoch run in a process of its own."""
    arguments = [f"--config={ROOT}/configs/small.py", "--config.trainer.max_epochs=1"]
    arguments += ["--config.logger.name=()", "--config.inference.enabled=False"]
    return subprocess.Popen(
        [sys.executable, ROOT / "launch.py", *arguments, f"--workdir={place}"],
        env={
            **os.environ,
            **{"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(cache)},
            "PYTHONPATH": str(ROOT),
        },
        cwd=cache.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process) -> None:
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_processes_share_it_and_a_torn_entry_is_compiled_anew(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "torn")]
    both = [start(place, tmp_path / "cache") for place in places[:2]]
    for process in both:
        finish(process)
    (folder,) = (tmp_path / "cache" / "jaxvae").iterdir()
    programs = [path for path in folder.iterdir() if "train_epoch" in path.name]
    assert programs
    for path in programs:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    finish(start(places[2], tmp_path / "cache"))
    first, *others = ((place / "model.pth").read_bytes() for place in places)
    assert all(other == first for other in others)
