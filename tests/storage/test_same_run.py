"""Which settings may change when a run is resumed, one at a time."""

import json

import pytest

from jaxvae.config import parsing, schema
from jaxvae.errors import InputError
from jaxvae.storage.same_run import check_same_settings
from tests.conftest import ROOT


def fields_of(**changes):
    """All fields, as JSON has them; names have `__` for a dot."""
    config = parsing.load_config(f"{ROOT}/configs/medium.py")
    config.trainer.lr_scheduler.name = "constant"
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in changes.items()}
    )
    return dict(schema.flatten(json.loads(config.to_json())))


@pytest.fixture
def check(tmp_path):
    """Checks a run of some settings against others."""

    def compare(before, after):
        (tmp_path / "config.json").write_text(json.dumps(fields_of(**before)))
        check_same_settings(tmp_path, fields_of(**after))

    return compare


@pytest.mark.parametrize("name", ["model__latent_dim", "loss__kld_weight", "seed"])
def test_one_setting_that_changed_is_enough(check, name):
    check({name: 3}, {name: 3})
    with pytest.raises(InputError, match=rf"{name.replace('__', '.')} \(was 3\S*, now 4\S*\)"):
        check({name: 3}, {name: 4})


MORE = ({"trainer__max_epochs": 5}, {"trainer__max_epochs": 6})


@pytest.mark.parametrize(
    ("also", "may_grow"),
    [
        ({}, True),
        ({"trainer__lr_scheduler__name": "cosine"}, False),
        ({"loss__kld_schedule": "linear", "loss__kld_warmup": 0.5}, False),
        ({"loss__kld_schedule": "linear", "loss__kld_warmup": 2.0}, True),
        ({"trainer__max_steps": 100}, False),
        ({"trainer__max_minutes": 1.0}, False),
    ],
)
def test_a_run_grows_where_nothing_of_it_is_a_share_of_its_length(check, also, may_grow):
    before, after = ({**epochs, **also} for epochs in MORE)
    if may_grow:
        check(before, after)
    else:
        with pytest.raises(InputError, match=r"trainer.max_epochs \(was 5, now 6\)"):
            check(before, after)
    with pytest.raises(InputError, match=r"trainer.max_epochs \(was 6, now 5\)"):
        check(after, before)


def test_devices_may_change_unless_the_batch_grows_with_them(check):
    one, two = {"trainer__devices": 1}, {"trainer__devices": 2}
    check(one, two)
    grows = {"trainer__scale_batch_with_devices": True}
    with pytest.raises(InputError, match=r"trainer.devices \(was 1, now 2\)"):
        check(one | grows, two | grows)
