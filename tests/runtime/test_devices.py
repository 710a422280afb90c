"""Meshes, and refusals with both numbers. The suite runs on two simulated devices."""

import pytest

from jaxvae.errors import InputError
from jaxvae.runtime import devices


def test_one_two_and_all_devices():
    assert devices.make_mesh(accelerator="auto", num_devices=1).size == 1
    assert devices.make_mesh(accelerator="cpu", num_devices=2).size == 2
    assert devices.make_mesh(accelerator="auto", num_devices=-1).size == 2


def test_more_devices_than_there_are():
    with pytest.raises(InputError, match=r"devices=3: only 2 here \(2 cpu\)") as error:
        devices.make_mesh(accelerator="auto", num_devices=3)
    assert "\n" not in str(error.value)


def test_an_accelerator_that_is_not_there():
    with pytest.raises(InputError, match=r"accelerator=tpu: no such device here.*2 cpu"):
        devices.make_mesh(accelerator="tpu", num_devices=1)


def test_the_axes_of_a_mesh():
    for given, shape in (
        ({}, (2, 1)),
        ({"model": 2}, (1, 2)),
        ({"data": 2}, (2, 1)),
        ({"data": 1, "model": 2}, (1, 2)),
    ):
        mesh = devices.make_mesh(accelerator="auto", num_devices=-1, **given)
        assert tuple(mesh.shape[axis] for axis in ("data", "model")) == shape


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": 3}, r"^--config.trainer.mesh.model=3 does not make up 2 devices"),
        ({"data": 1}, r"mesh.data=1 times --config.trainer.mesh.model=1 does not make up 2"),
        ({"data": 2, "model": 2}, r"mesh.data=2 times .*mesh.model=2 does not make up 2 devices"),
    ],
)
def test_axes_that_do_not_multiply_out(given, message):
    with pytest.raises(InputError, match=message) as error:
        devices.make_mesh(accelerator="auto", num_devices=-1, **given)
    assert "\n" not in str(error.value)
