"""The numbers that users tune: a section of them for each of the config's."""

import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxvae.config import parsing
from jaxvae.sweeps import shapes
from jaxvae.train.plan.hyperparams import (
    hyperparams_from_config,
    run_plan_from_config,
    tunable_fields,
)
from tests.conftest import ROOT


def config_of(**values) -> ConfigDict:
    config = parsing.load_config(f"{ROOT}/configs/medium.py")
    config.update_from_flattened_dict(values)
    return config


def test_each_is_found_under_its_fields_name():
    values = {
        "model.dropout_p": 0.25,
        "model.hidden_dropout_p": 0.125,
        "loss.kld_weight": 4.0,
        "loss.kld_cycles": 3,
        "trainer.gradient_clip_val": 2.0,
        "trainer.ema_decay": 0.5,
        "trainer.optimizer.lr": 0.03125,
        "trainer.optimizer.betas": (0.5, 0.75),
        "trainer.optimizer.weight_decay": 0.0625,
        "trainer.lr_scheduler.name": "cosine",
        "trainer.lr_scheduler.final_fraction": 0.25,
    }
    numbers = hyperparams_from_config(config_of(**values), steps=10)
    for name, value in values.items():
        section, field = name.removeprefix("trainer.").rpartition(".")[::2]
        if field != "name":
            assert getattr(getattr(numbers, section or "trainer"), field) == value
    assert {leaf.dtype for leaf in jax.tree.leaves(numbers._replace(lengths=()))} == {
        np.dtype("float32")
    }


def test_a_new_number_is_there_without_another_line_and_no_shape_of_its_own():
    plain, more = config_of(), config_of()
    for config, value in ((plain, 0.5), (more, 0.75)):
        with config.trainer.optimizer.unlocked():
            config.trainer.optimizer.eps = value
            config.trainer.optimizer.rounds = 3  # a size, perhaps
    assert hyperparams_from_config(more, steps=10).optimizer.eps == 0.75
    assert tunable_fields(more) - tunable_fields(config_of()) == {"trainer.optimizer.eps"}
    assert shapes.program_key(plain) == shapes.program_key(more)
    more.trainer.optimizer.rounds = 4
    assert shapes.program_key(plain) != shapes.program_key(more)


def test_what_is_off_and_what_grows():
    off = hyperparams_from_config(
        config_of(
            **{
                "trainer.gradient_clip_val": 0.0,
                "trainer.lr_scheduler.name": "constant",
                "trainer.lr_scheduler.final_fraction": 0.5,
            }
        ),
        steps=10,
        growth=4,
    )
    assert off.trainer.gradient_clip_val == np.inf
    assert off.lr_scheduler.final_fraction == 1.0
    lr = config_of().trainer.optimizer.lr
    assert off.optimizer.lr == pytest.approx(lr * math.sqrt(4))


def test_lengths_by_hand():
    config = config_of(
        **{
            "trainer.max_epochs": 20,
            "trainer.lr_scheduler.warmup_epochs": 1.5,
            "loss.kld_schedule": "linear",
            "loss.kld_warmup": 0.25,
        }
    )
    lengths = hyperparams_from_config(config, steps=10).lengths
    assert tuple(map(float, lengths)) == (15.0, 185.0, 50.0, np.iinfo(np.int32).max)
    config.trainer.max_steps = 120
    lengths = hyperparams_from_config(config, steps=10).lengths
    assert tuple(map(float, lengths)) == (15.0, 105.0, 30.0, 120.0)
    plan = run_plan_from_config(config, steps=10)
    assert (plan.max_epochs, plan.warmup_epochs) == (12, 3.0)


@pytest.mark.parametrize(("warmup", "steps"), [(0.5, 100), (1.0, 10), (1.5, 15)])
def test_a_loss_warms_up_for_a_share_below_one_and_for_epochs_from_one_on(warmup, steps):
    config = config_of(
        **{
            "trainer.max_epochs": 20,
            "loss.kld_schedule": "linear",
            "loss.kld_warmup": warmup,
        }
    )
    assert float(hyperparams_from_config(config, steps=10).lengths.kld_warmup) == steps
    assert run_plan_from_config(config, steps=10).warmup_epochs == steps / 10
    config.loss.kld_schedule = "constant"
    assert run_plan_from_config(config, steps=10).warmup_epochs == 0.0
