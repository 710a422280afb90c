"""Compiled programs on disk: shared by processes, and never in the way."""

import os

import jax
import pytest

from jaxvae.runtime import compilation_cache, xla_flags

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
    compilation_cache.enable_compilation_cache()
    (folder,) = (home / "jaxvae").iterdir()
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)


def test_old_programs_go_and_new_ones_stay(home):
    compilation_cache.enable_compilation_cache()
    (folder,) = (home / "jaxvae").iterdir()
    for name, age in (
        ("old", compilation_cache.MAX_AGE + 60.0),
        ("new", compilation_cache.MAX_AGE - 60.0),
    ):
        (folder / name).touch()
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.enable_compilation_cache()
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_the_users_own_folder_stands(home):
    jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
    compilation_cache.enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(home / "mine")
    assert not (home / "jaxvae").exists()


def test_a_folder_that_cannot_be_made_leaves_it_off(home):
    (home / "jaxvae").touch()
    compilation_cache.enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_the_users_own_folder_may_lie_in_their_home(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))
    jax.config.update("jax_compilation_cache_dir", "~/mine")
    compilation_cache.enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(home / "mine")
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")  # a control
    compilation_cache.enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == "gs://bucket/programs"


def test_without_a_home_folder_it_is_off_and_leaves_nothing(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    compilation_cache.enable_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    assert not list(home.iterdir())


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
    monkeypatch.setattr(xla_flags, "_GPU_DRIVERS", (str(driver),))
    monkeypatch.setenv("XLA_FLAGS", flags)
    compilation_cache.enable_compilation_cache()
    assert os.environ["XLA_FLAGS"] == after
