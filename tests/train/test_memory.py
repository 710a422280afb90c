"""What a device must hold, and what is refused because it can't."""

from types import SimpleNamespace

import jax
import pytest

from jaxvae.data.dataset import load_from_config
from jaxvae.errors import InputError
from jaxvae.runtime import devices
from jaxvae.sweeps.trials import TrialRunner, share_devices
from jaxvae.train import program_setup
from tests.helpers.training import run, small, write_clips

# Encoder, two heads, and the decoder's two layers; four bytes each.
PARAMS = 4 * ((12 + 1) * 8 + 2 * (8 + 1) * 2 + (2 + 1) * 8 + (8 + 1) * 12)
STATE = 4 * PARAMS + 4
"""With Adam's two moments, its count of steps, and the best parameters so far."""
NEEDED = STATE + PARAMS
"""With the gradients."""
ROWS = 42 * 4
"""Of at most four tags; they are there twice for a moment."""


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path)


@pytest.fixture
def memory(monkeypatch):
    """Sets the bytes of each device."""
    return lambda size: monkeypatch.setattr(devices, "device_memory_bytes", lambda mesh: size)


def test_a_model_that_no_device_holds_is_refused(clips, memory):
    memory(NEEDED - 1)
    with pytest.raises(InputError, match=rf"needs {NEEDED:,} of a device's {NEEDED - 1:,} bytes"):
        run(clips)
    assert not (clips / "run").exists()
    memory(NEEDED)
    run(clips, trainer__max_epochs=1)


def test_an_average_of_the_parameters_is_counted(clips, memory):
    memory(NEEDED + PARAMS - 1)
    with pytest.raises(InputError, match=f"needs {NEEDED + PARAMS:,} "):
        run(clips, trainer__ema_decay=0.9)


@pytest.mark.parametrize(("at_once", "each"), [(1, 1), (2, 1), (3, 2), (5, 3)])
def test_trials_that_no_device_holds_are_refused(clips, memory, at_once, each):
    config = small(clips)
    dataset = load_from_config(config)
    trials = TrialRunner(dataset.taxonomy, dataset, share_devices("cpu", at_once), at_once)
    needed = each * STATE + PARAMS
    memory(needed - 1)
    with pytest.raises(InputError, match=f"needs {needed:,} .*latent_dim(, or fewer --at_once)?$"):
        trials.member("a", config)
    memory(needed)
    member = trials.member("a", config)
    population = trials._population(member.shape)
    population.admit(member.fresh(), member.hyperparams)
    state, _, best = population._parts()
    assert each * STATE == sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state.params, state.opt_state, best))
        for shard in leaf.addressable_shards[:1]
    )


def test_only_layers_with_an_axis_of_tags_are_shared(clips, memory):
    """Over two devices: the first layer's weights, and the last one's with their biases."""
    own = PARAMS - 4 * (12 * 8 + (8 + 1) * 12) // 2
    config = {"trainer__devices": 2, "trainer__mesh__model": 2, "trainer__max_epochs": 1}
    memory(5 * own + 3)
    with pytest.raises(InputError, match=f"needs {5 * own + 4:,} "):
        run(clips, **config)
    memory(10**6)
    placed = []
    run(clips, **config, hooks=[lambda epoch, metrics, state: placed.append(state.params)])
    assert own == sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed[0]))


def test_rows_that_no_device_holds_are_refused_with_what_to_do(clips, memory, monkeypatch):
    monkeypatch.setattr(program_setup, "check_memory", lambda model, mesh: None)
    memory(2 * ROWS - 1)
    with pytest.raises(InputError, match=r"need 168 of a device's 335 bytes .*rows_per_epoch"):
        run(clips)
    memory(2 * ROWS)
    run(clips, "fits", trainer__max_epochs=1)
    memory(1)
    run(clips, "streamed", data__rows_per_epoch=16, trainer__max_epochs=1)


def test_the_memory_of_a_machine_is_shared_by_its_simulated_devices():
    one, two = (
        devices.device_memory_bytes(devices.make_mesh(accelerator="cpu", num_devices=number))
        for number in (1, 2)
    )
    assert one > 2**28
    assert two == one // 2


@pytest.mark.parametrize(
    ("pages", "limits", "memory"),
    [
        (1000, ["max\n", "9223372036854771712\n"], 4_096_000),
        (1000, ["4000000\n"], 4_000_000),
        (1000, ["0", "5000000"], 4_096_000),
        (-1, ["3000000"], 3_000_000),
        (-1, [], None),
    ],
)
def test_a_container_has_what_it_may_take(monkeypatch, tmp_path, pages, limits, memory):
    files = [tmp_path / str(number) for number in range(2)]
    for file, limit in zip(files, limits, strict=False):
        file.write_text(limit)
    monkeypatch.setattr(devices, "_CONTAINER_LIMITS", files)
    known = {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(devices.os, "sysconf", known.__getitem__)
    assert devices.device_memory_bytes(devices.one_device_mesh(jax.devices()[0])) == memory


@pytest.mark.parametrize(("stats", "memory"), [({"bytes_limit": 7}, 7), ({}, None), (None, None)])
def test_other_devices_say_what_they_have_each(stats, memory):
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    assert devices.device_memory_bytes(SimpleNamespace(local_devices=[device, device])) == memory
