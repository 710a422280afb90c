"""What a device must hold, and what is refused because it can't."""

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
"""With the gradients, Adam's two moments and its count of steps."""
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
    memory(STATE - 1)
    with pytest.raises(InputError, match=rf"needs {STATE:,} of a device's {STATE - 1:,} bytes"):
        run(clips)
    assert not (clips / "run").exists()
    memory(STATE)
    run(clips, trainer__max_epochs=1)


def test_an_average_of_the_parameters_is_counted(clips, memory):
    memory(STATE + PARAMS - 1)
    with pytest.raises(InputError, match=f"needs {STATE + PARAMS:,} "):
        run(clips, trainer__ema_decay=0.9)


def test_a_trial_that_no_device_holds_is_refused(clips, memory):
    config = small(clips)
    dataset = load_from_config(config)
    trials = TrialRunner(dataset.taxonomy, dataset, share_devices("cpu", 1), 1)
    memory(STATE - 1)
    with pytest.raises(InputError, match=f"needs {STATE:,} "):
        trials.member("a", config)
    memory(STATE)
    trials.member("a", config)


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
