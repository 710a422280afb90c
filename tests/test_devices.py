"""Meshes, and refusals with both numbers. The suite runs on two simulated devices."""

import jax
import numpy as np
import pytest

from jaxvae import devices
from jaxvae.errors import InputError


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


def test_a_batch_that_does_not_divide():
    mesh = devices.make_mesh(accelerator="auto", num_devices=2)
    with pytest.raises(InputError, match="batch_size=33 does not divide over 2 devices") as error:
        devices.check_divisible(batch_size=33, mesh=mesh)
    assert "\n" not in str(error.value)
    devices.check_divisible(batch_size=32, mesh=mesh)


def test_rows_are_placed_whole_with_an_empty_one_behind():
    mesh = devices.make_mesh(accelerator="auto", num_devices=2)
    placed = devices.place_rows(np.array([[0, 1], [2, 9]], np.uint8), mesh, num_tags=9)
    assert placed.sharding.is_fully_replicated
    np.testing.assert_array_equal(placed, [[0, 1], [2, 9], [9, 9]])


def test_a_batch_is_split_over_the_devices():
    mesh = devices.make_mesh(accelerator="auto", num_devices=2)
    batch = jax.device_put(np.arange(6.0).reshape(6, 1), devices.batch_sharding(mesh))
    halves = [np.asarray(shard.data).ravel().tolist() for shard in batch.addressable_shards]
    assert sorted(halves) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
