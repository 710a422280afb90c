"""Layouts on several devices: the same results, every row once, and no more traffic than stated."""

import concurrent.futures
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxvae.errors import InputError
from jaxvae.runtime import devices
from jaxvae.runtime.sharding import Sharding, append_empty_rows, check_vocabulary
from tests.conftest import ROOT
from tests.helpers.eight_devices import CASES, FEW, MESHES, NUM_ROWS, collectives

pytestmark = pytest.mark.devices
RUNS = [
    (name, *mesh)
    for name in CASES
    for mesh in (MESHES if name == "narrow" else FEW)
    if mesh != (1, 1)
]


@pytest.fixture(scope="module")
def found():
    def start(cases):
        return subprocess.run(
            [sys.executable, "-m", "tests.helpers.eight_devices", *cases],
            cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip

    # Side by side, since all other tests of several devices end before one process would.
    halves = [("narrow", "batch norm"), tuple({*CASES} - {"narrow", "batch norm"})]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        ended = list(pool.map(start, halves))
    for done in ended:
        assert done.returncode == 0, done.stderr[-2000:]
    return {name: of for done in ended for name, of in json.loads(done.stdout).items()}


@pytest.mark.parametrize(("case", "data", "model"), RUNS)
def test_a_mesh_trains_as_one_device(found, case, data, model):
    one, several = found[f"{case} 1 1"], found[f"{case} {data} {model}"]
    assert len(one["history"]) >= 3
    # Float32 sums, added in another order; a learned prior's rate is a difference of densities of
    # some tens of nats.
    near = {"rel": 2e-6, "abs": 5e-6}
    for a, b in zip(one["history"], several["history"], strict=True):
        assert b == pytest.approx(a, **near)
    assert one["history"][-1]["loss"] < one["history"][0]["loss"] - 1  # and it does learn
    assert several["judged"] == pytest.approx(one["judged"], **near)
    # Of parameters around 0.1 that Adam has moved by up to 0.05.
    assert several["gap"] < 1e-4


@pytest.mark.parametrize(("case", "data", "model"), [(name, 1, 1) for name in CASES] + RUNS)
def test_every_row_once(found, case, data, model):
    result = found[f"{case} {data} {model}"]
    assert [line["count"] for line in result["history"]] == [NUM_ROWS] * len(result["history"])
    assert result["judged"]["count"] == NUM_ROWS


def test_rows_are_found_wherever_they_are(found):
    assert found["rows"] is True


def test_a_mesh_run_twice_gives_the_same_bits(found):
    assert found["again"]["digest"] == found["batch norm 2 4"]["digest"]
    assert found["again"]["digest"] != found["batch norm 4 1"]["digest"]


@pytest.mark.parametrize(("case", "data", "model"), RUNS)
def test_nothing_is_on_every_device_that_could_be_shared(found, case, data, model):
    result = found[f"{case} {data} {model}"]
    assert result["rows on a device"] == -(-(NUM_ROWS + 1) // data)
    assert result["tags on a device"] == CASES[case]["num_tags"] // model
    assert result["moments on a device"] == CASES[case]["num_tags"] // model


@pytest.mark.parametrize("case", ["narrow", "wide", "vamp"])
def test_a_step_over_a_batch_exchanges_gradients_and_losses_at_once(found, case):
    listed = found[f"{case} 4 1"]["collectives"]
    in_a_step = [each for each in listed if each["loops"] == 2]
    assert [each["name"] for each in in_a_step] == ["all-reduce"]
    # Ten gradients, or more with a learned prior, and the five sums of the losses.
    assert len(in_a_step[0]["results"]) == {"vamp": 14}.get(case, 10) + 5


@pytest.mark.parametrize(("case", "data", "model"), RUNS)
def test_rows_are_exchanged_for_many_steps_at_once(found, case, data, model):
    listed = found[f"{case} {data} {model}"]["collectives"]
    exchanges = sorted(each["loops"] for each in listed if each["name"] == "reduce-scatter")
    # A last batch of its own size comes after the loop.
    assert exchanges == ([0, 1] if case == "cut" else [1]) * (data > 1)
    counts = [each for each in listed if each["name"] == "all-reduce" and each["loops"] == 1]
    assert len(counts) <= (data > 1)  # of the rows in each of those steps
    # Rows are looked up where they are: nothing is ever brought together.
    assert "all-gather" not in {each["name"] for each in listed}
    assert "all-to-all" not in {each["name"] for each in listed}


@pytest.mark.parametrize("case", ["narrow", "wide", "deeper, tied"])
def test_a_layer_that_is_shared_exchanges_no_weights(found, case):
    """Activations and sums alone: nothing with an axis of tags."""
    num_tags, model = CASES[case]["num_tags"], 4
    listed = found[f"{case} 2 {model}"]["collectives"]
    shapes = {result for each in listed for result in each["results"]}
    sizes = {int(n) for shape in shapes for n in shape[shape.index("[") + 1 : -1].split(",") if n}
    assert num_tags not in sizes
    assert num_tags // model in sizes  # its own part of the gradient, over `data`


def test_one_device_talks_to_nobody(found):
    assert all(found[f"{case} 1 1"]["collectives"] == [] for case in CASES)


def test_collectives_are_read_from_a_program():
    """The control: what the others count is found where it is known to be."""
    mesh = devices.make_mesh(accelerator="cpu", num_devices=2)
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    gather = jax.jit(lambda x: x * 2.0, in_shardings=split, out_shardings=whole)
    text = gather.lower(jax.ShapeDtypeStruct((4, 3), np.float32)).compile().as_text()
    assert collectives(text) == [{"name": "all-gather", "results": ["f32[4,3]"], "loops": 0}]


def test_rows_are_placed_by_their_positions():
    rows = np.array([[0, 1], [2, 9], [3, 4], [5, 9]], np.uint8)
    for shares in (1, 2):
        mesh = devices.make_mesh(accelerator="cpu", num_devices=shares)
        placed = Sharding(mesh).place_rows(rows, np.array([3, 0, 2]), num_tags=9)
        assert np.asarray(placed).tolist() == [[5, 9], [0, 1], [3, 4], [9, 9]]
        assert len(placed.addressable_shards) == shares
        whole = np.asarray(Sharding(mesh).place_rows(rows, np.arange(4), num_tags=9))
        assert whole.tolist() == [*rows.tolist(), *[[9, 9]] * shares]
        assert placed.dtype == rows.dtype


def test_an_empty_row_stands_behind():
    rows = np.array([[0, 1], [2, 9]], np.uint8)
    np.testing.assert_array_equal(append_empty_rows(rows, num_tags=9), [[0, 1], [2, 9], [9, 9]])


def test_a_gathered_state_is_on_one_device():
    sharding = Sharding(devices.make_mesh(accelerator="cpu", num_devices=2, model=2))
    kernel = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    placed = sharding.place({"fc1": {"kernel": kernel}})
    assert placed["fc1"]["kernel"].addressable_shards[0].data.shape == (3, 2)
    whole = sharding.gather(placed)["fc1"]["kernel"]
    assert len(whole.sharding.device_set) == 1
    np.testing.assert_array_equal(whole, kernel)


def test_a_vocabulary_that_does_not_divide():
    mesh = devices.make_mesh(accelerator="cpu", num_devices=2, model=2)
    check_vocabulary(mesh, num_tags=200)
    with pytest.raises(InputError, match=r"mesh.model=2: 201 tags do not divide .*; it can be 1$"):
        check_vocabulary(mesh, num_tags=201)
