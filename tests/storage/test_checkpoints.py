"""What is saved comes back bit for bit, or is refused by name."""

import json

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from jaxvae.errors import InputError
from jaxvae.storage import manifest
from jaxvae.storage.checkpoints import Checkpoints
from jaxvae.storage.final_params import load_params, save_params
from tests.helpers.states import equal, flip_a_bit, make_state, reopened

# Orbax drops its coroutines unawaited when a file is damaged, which Python reports when they are
# collected: `reopened` collects them at once.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_a_state_comes_back_bit_for_bit(checkpoints):
    state = make_state(seed=3)
    checkpoints.save(1, state, {"epoch": 1})
    found, damaged = reopened(checkpoints, make_state(seed=4))
    assert equal(found.tree, state)
    assert not equal(make_state(seed=4), state)
    assert found.facts == {"epoch": 1}
    assert damaged == []


def test_an_empty_folder_has_no_checkpoint(checkpoints):
    assert checkpoints.restore(make_state()) == (None, [])


def test_the_newest_two_are_kept(checkpoints):
    for epoch in (1, 2, 3, 4):
        checkpoints.save(epoch, make_state(seed=epoch), {"epoch": epoch})
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["3", "4"]
    assert reopened(checkpoints, make_state())[0].facts == {"epoch": 4}


def test_what_a_killed_save_left_is_removed_by_the_next_one(checkpoints):
    leftover = checkpoints.folder / "3.orbax-checkpoint-tmp"
    (leftover / "state").mkdir(parents=True)
    checkpoints.restore(make_state())
    assert leftover.exists()
    checkpoints.save(4, make_state(), {})
    assert not leftover.exists()


def test_an_older_epoch_is_never_saved_silently(checkpoints):
    checkpoints.save(5, make_state(), {})
    with pytest.raises(InputError, match="checkpoint 4 not saved"):
        checkpoints.save(4, make_state(), {})


def test_an_array_with_a_flipped_bit_is_caught_though_orbax_reads_it(checkpoints):
    state = make_state(seed=1)
    checkpoints.save(1, state, {})
    arrays = max(checkpoints.folder.rglob("state/**/d/*"), key=lambda path: path.stat().st_size)
    flip_a_bit(arrays, arrays.stat().st_size // 2)
    with pytest.raises(InputError, match="no whole checkpoint"):
        reopened(checkpoints, make_state())


def test_an_empty_step_folder_is_not_the_latest(checkpoints):
    checkpoints.save(1, make_state(seed=1), {"epoch": 1})
    (checkpoints.folder / "7").mkdir()
    found, damaged = reopened(checkpoints, make_state())
    assert found.facts == {"epoch": 1}
    assert "7" in damaged[0]


def test_training_goes_on_past_a_damaged_checkpoint(checkpoints):
    checkpoints.save(1, make_state(seed=1), {"epoch": 1})
    (checkpoints.folder / "2").mkdir()
    with Checkpoints(checkpoints.folder, taxonomy_digest="tags") as fresh:
        fresh.restore(make_state(), set_aside=True)
        fresh.save(2, make_state(seed=2), {"epoch": 2})
    assert reopened(checkpoints, make_state())[0].facts == {"epoch": 2}


@pytest.mark.parametrize("how", ["shape", "dtype"])
def test_another_shape_or_dtype_is_refused(checkpoints, how):
    checkpoints.save(1, make_state(), {})
    if how == "shape":
        like = make_state(hidden_dim=7)
    else:
        like = jax.tree.map(
            lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf,
            make_state(),
        )
    with pytest.raises(InputError, match="no whole checkpoint"):
        reopened(checkpoints, like)


def test_a_reader_leaves_the_folder_as_it_is(checkpoints):
    checkpoints.save(1, make_state(seed=1), {"epoch": 1})
    (checkpoints.folder / "2").mkdir()  # as a writer's save looks before it is finished
    found, passed_over = reopened(checkpoints, make_state())
    assert found.facts == {"epoch": 1}
    assert "not whole" in passed_over[0]
    assert (checkpoints.folder / "2").is_dir()


def test_a_run_killed_in_its_first_save_starts_again(checkpoints):
    checkpoints.save(1, make_state(), {})
    (checkpoints.folder / "1" / manifest.NAME).unlink()
    found, passed_over = reopened(checkpoints, make_state())
    assert found is None
    assert "not whole" in passed_over[0]


def test_two_unfinished_checkpoints_are_not_a_start(checkpoints):
    for epoch in (1, 2):
        checkpoints.save(epoch, make_state(), {})
        (checkpoints.folder / str(epoch) / manifest.NAME).unlink()
    with pytest.raises(InputError, match="no whole checkpoint"):
        reopened(checkpoints, make_state())


def test_a_save_that_reads_back_otherwise_is_no_save(checkpoints, monkeypatch):
    checkpoints.save(1, make_state(seed=1), {"epoch": 1})
    save = ocp.CheckpointManager.save

    def rots(manager, epoch, **options):
        saved = save(manager, epoch, **options)
        # Arrays lie in any order in any of these, and not all of them are read.
        for path in (checkpoints.folder / str(epoch)).rglob("state/**/d/*"):
            for place in range(300, path.stat().st_size, 300):
                flip_a_bit(path, place)
        return saved

    monkeypatch.setattr(ocp.CheckpointManager, "save", rots)
    with pytest.raises(InputError, match="checkpoint 2 not saved"):
        checkpoints.save(2, make_state(seed=2), {"epoch": 2})
    found, passed_over = reopened(checkpoints, make_state())
    assert found.facts == {"epoch": 1}
    assert "not whole" in passed_over[0]


def test_another_taxonomy_is_refused(checkpoints):
    checkpoints.save(1, make_state(), {})
    with pytest.raises(InputError, match="another taxonomy"):
        reopened(checkpoints, make_state(), taxonomy_digest="reordered")


def test_parameters_come_back_bit_for_bit(tmp_path):
    state = make_state(seed=2)
    save_params(tmp_path / "final", state.params, state.batch_stats, {"epoch": 3})
    params, batch_stats, facts = load_params(tmp_path / "final")
    assert equal(params, state.params)
    assert equal(batch_stats, state.batch_stats)
    assert facts == {"epoch": 3}


def test_damaged_parameters_are_refused_by_name(tmp_path):
    state = make_state(seed=2)
    save_params(tmp_path / "final", state.params, state.batch_stats, {})
    record = json.loads((tmp_path / "final" / "record.json").read_text())
    record["leaves"]["params.fc1.kernel"]["sha256"] = "0" * 64
    (tmp_path / "final" / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"record\.json is not"):
        load_params(tmp_path / "final")
    manifest.seal(tmp_path / "final")  # as if the arrays had been read wrongly
    with pytest.raises(InputError, match=r"params\.fc1\.kernel"):
        load_params(tmp_path / "final")


def test_missing_parameters_are_refused(tmp_path):
    with pytest.raises(InputError, match="no trained parameters"):
        load_params(tmp_path / "final")
