"""A member of a population is the run it would be alone."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.cli.sweeps import options, seeds
from jaxvae.config import parsing, schema
from jaxvae.data.dataset import Dataset, load_from_config
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.inference.load import load
from jaxvae.inference.verify import verify
from jaxvae.runtime import devices, signals
from jaxvae.runtime.sharding import Sharding
from jaxvae.storage import lock
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.sweeps import shapes, trials
from jaxvae.sweeps.member_loop import MemberCallbacks
from jaxvae.sweeps.population import Population
from jaxvae.train import model_setup, program_setup
from jaxvae.train.trainer import train_and_evaluate
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("optimized")

EPOCHS = 3


def config_of(**changes):
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.update_from_flattened_dict(
        {
            "trainer.max_epochs": EPOCHS,
            "model.hidden_dim": 16,
            "model.latent_dim": 4,
            "data.batch_size": 64,
            "logger.name": (),
            "inference.num_samples": 20,
            **changes,
        }
    )
    return config


@pytest.fixture(scope="module")
def data() -> tuple[Taxonomy, Dataset]:
    whole = load_from_config(config_of())
    return whole.taxonomy, whole


def train(data, configs, *, at_once=4, num_devices=2, epoch=lambda member: None):
    """{position: (member, trees)} of configs trained together, and the trials."""
    mesh = devices.make_mesh(accelerator="cpu", num_devices=num_devices)
    several = trials.TrialRunner(*data, mesh, at_once)
    waiting = [several.member(name, config) for name, config in enumerate(configs)]
    done = {}
    with signals.listen_for_stop() as requests:
        several.train(
            lambda: waiting.pop(0) if waiting else None,
            MemberCallbacks(
                epoch, lambda member, trees: done.update({member.name: (member, trees)})
            ),
            requests,
        )
    return done, several


def alone(data, config):
    """The best parameters and the losses of a run by itself, epoch by epoch."""
    taxonomy, dataset = data
    mesh = devices.make_mesh(accelerator="cpu", num_devices=1)
    rows = dataset.rows[dataset.splits["train"]]
    made = model_setup.build_model(config, taxonomy, len(rows))
    programs = program_setup.build_train_context(config, made, taxonomy, dataset, Sharding(mesh))
    state, losses = made.initial(config, rows), []
    for _ in range(config.trainer.max_epochs):
        state, sums = programs.train_epoch(state, programs.hyperparams, programs.rows_of_epoch(0))
        losses.append(jax.device_get(sums).compute()["loss"])
    return state, losses


CHANGES = (
    {"seed": 1},
    {"seed": 2, "trainer.optimizer.lr": 3e-3, "loss.kld_weight": 0.3},
    {"trainer.gradient_clip_val": 0.1, "model.dropout_p": 0.6, "trainer.max_epochs": 2},
    {"trainer.lr_scheduler.name": "cosine", "trainer.optimizer.betas": (0.8, 0.9)},
    {"model.decoder_bias": "log_odds", "trainer.optimizer.weight_decay": 0.01},
    {"loss.bce_weight": 0.5, "seed": 7},
)


@pytest.mark.long
def test_members_of_one_shape_share_a_program_and_are_what_they_are_alone(data):
    configs = [config_of(**changes) for changes in CHANGES]
    done, several = train(data, configs)  # six members, four slots: two slots are used again
    assert len(several._shapes) == 1
    assert sorted(done) == list(range(len(configs)))
    for number, config in enumerate(configs):
        member, trees = done[number]
        state, losses = alone(data, config)
        assert [line["train/loss"] for line in member.lines] == pytest.approx(losses, rel=1e-6)
        for mine, its in zip(
            jax.tree.leaves(trees["state"].params), jax.tree.leaves(state.params), strict=True
        ):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=2e-6)
        assert int(trees["state"].step) == int(state.step)
    # The control: members do differ.
    finals = [done[number][0].lines[-1]["train/loss"] for number in done]
    assert len({round(loss, 6) for loss in finals}) == len(configs)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model.latent_dim", 5),
        ("model.use_batch_norm", True),
        ("data.batch_size", 32),
        ("trainer.ema_decay", 0.9),
        ("loss.objective", "free_bits"),
        ("model.prior", "flow"),
        ("model.hidden_dims", (16, 8)),
        ("model.tied_weights", True),
    ],
)
def test_another_program_is_another_shape(field, value):
    assert shapes.program_key(config_of(**{field: value})) != shapes.program_key(config_of())


def test_every_field_is_either_a_members_own_or_part_of_its_shape():
    fields = dict(schema.flatten(config_of()))
    assert not [own for own in shapes.TRACED_FIELDS if not any(f.startswith(own) for f in fields)]


@pytest.mark.long
def test_shapes_train_side_by_side(data):
    other = {"model.latent_dim": 5, "model.hidden_dims": (16, 8), "model.tied_weights": True}
    done, several = train(data, [config_of(), config_of(**other)], at_once=2)
    assert len(several._shapes) == 2
    trees = [done[n][1] for n in (0, 1)]
    params = [each["best"]["params"] for each in trees]
    assert [each["fc3"]["kernel"].shape for each in params] == [(4, 16), (5, 8)]
    assert params[1]["fc1_2"]["kernel"].shape == (16, 8)
    assert ["kernel" in each["fc4"] for each in params] == [True, False]
    assert several.likelihood(*done[1]).log_likelihood.shape == (len(data[1].splits["val"]),)
    assert done[1][0].lines[-1]["train/loss"] < done[1][0].lines[0]["train/loss"]


@pytest.mark.long
def test_a_member_that_overflows_leaves_the_others_alone(data):
    good, bad = config_of(), config_of(**{"trainer.optimizer.lr": 1e9, "seed": 3})
    bad.trainer.gradient_clip_val = 0.0
    done, _ = train(data, [good, bad, config_of(seed=5)])
    control, _ = train(data, [good])
    assert done[1][0].failed
    assert done[1][0].progress.nonfinite_terms
    assert not done[0][0].failed
    assert done[0][0].progress.epoch == EPOCHS
    for name in ("train/loss", "val/loss"):
        assert [line[name] for line in done[0][0].lines] == [
            line[name] for line in control[0][0].lines
        ]


@pytest.mark.long
def test_a_member_that_overflows_in_its_first_step_has_trained_nothing(data):
    bad = config_of(**{"loss.bce_weight": 3e38, "trainer.check_val_every_n_epoch": 2})
    (member, _), *_ = train(data, [bad])[0].values()
    assert member.failed
    assert member.progress.nonfinite_step == 0
    assert (member.progress.epoch, member.lines) == (0, [])


@pytest.mark.long
def test_only_a_member_that_improved_has_its_parameters_kept(data):
    mesh = devices.make_mesh(accelerator="cpu", num_devices=1)
    several = trials.TrialRunner(*data, mesh, 2)
    members = [several.member(seed, config_of(seed=seed)) for seed in range(2)]
    population = several._population(members[0].shape)
    for member in members:
        population.admit(member.fresh(), member.hyperparams)
    before = [population.member(slot)["best"] for slot in range(2)]
    population.train()
    population.keep(np.array([False, True]))
    kept, changed = (population.member(slot) for slot in range(2))
    assert jax.tree.all(jax.tree.map(np.array_equal, kept["best"], before[0]))
    assert not np.array_equal(
        kept["state"].params["fc4"]["bias"], before[0]["params"]["fc4"]["bias"]
    )
    now = changed["state"].params["fc4"]["bias"]
    assert np.array_equal(changed["best"]["params"]["fc4"]["bias"], now)


@pytest.mark.long
def test_a_pruned_member_ends_and_its_slot_goes_on(data):
    def prune(member):
        member.pruned = member.name == 0 and member.progress.epoch == 1

    done, _ = train(
        data, [config_of(), config_of(seed=1), config_of(seed=2)], at_once=2, epoch=prune
    )
    assert [done[n][0].progress.epoch for n in range(3)] == [1, EPOCHS, EPOCHS]
    control, _ = train(data, [config_of(seed=2)])
    assert done[2][0].lines[-1]["train/loss"] == control[0][0].lines[-1]["train/loss"]


@pytest.mark.long
def test_patience_is_each_members_own(data):
    stubborn = config_of(**{"trainer.early_stopping_patience": 1, "trainer.max_epochs": 8})
    stubborn.trainer.early_stopping_min_delta = 100.0
    done, _ = train(data, [stubborn, config_of()])
    assert done[0][0].progress.stopped_early
    assert done[0][0].progress.epoch == 2
    assert not done[1][0].progress.stopped_early


@pytest.mark.long
def test_a_member_keeps_the_epoch_of_its_monitor_as_it_would_alone(data, tmp_path):
    changes = {"trainer.monitor": "val/nll_iw", "trainer.optimizer.lr": 0.05}
    configs = [config_of(seed=seed, **changes) for seed in (1, 2)]
    done, _ = train(data, configs)
    train_and_evaluate(configs[0], tmp_path / "alone", models_dir=tmp_path / "models")
    mine, its = done[0][0].lines, read_epochs(tmp_path / "alone")
    for name in ("val/nll_iw", "val/loss"):
        assert [line[name] for line in mine] == pytest.approx(
            [line[name] for line in its], rel=1e-5
        )
    progress = done[0][0].progress
    values = [line["val/nll_iw"] for line in mine]
    assert (progress.best_value, progress.best_epoch) == (min(values), 1 + int(np.argmin(values)))
    assert values != [line["val/nll_iw"] for line in done[1][0].lines]


@pytest.mark.long
def test_a_member_becomes_a_run_like_any_other(data, tmp_path):
    config = config_of(seed=4)
    done, several = train(data, [config, config_of(seed=5)])
    several.write_run(tmp_path / "member", config, *done[0], overrides={"seed": 4})
    train_and_evaluate(config_of(seed=4), tmp_path / "alone", models_dir=tmp_path / "models")
    held, wrong = verify(tmp_path / "member")
    assert not wrong
    assert held
    mine, its = load(tmp_path / "member"), load(tmp_path / "alone")
    rows = [data[0].names(row[row < data[0].num_tags]) for row in data[1].rows[:50]]
    np.testing.assert_allclose(mine.encode(rows), its.encode(rows), atol=1e-5)
    metrics = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("member", "alone")]
    assert metrics[0]["test"]["test/loss"] == pytest.approx(
        metrics[1]["test"]["test/loss"], rel=1e-5
    )
    # It goes on from where it ended, as a run of its own would.
    further = config_of(seed=4, **{"trainer.max_epochs": EPOCHS + 1})
    train_and_evaluate(further, tmp_path / "member", models_dir=tmp_path / "models")
    lines = (tmp_path / "member" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.long
def test_members_taken_at_once_are_those_taken_in_turn(data, monkeypatch):
    """As on a GPU or TPU, where one program takes a device's members together."""
    configs = [config_of(**changes) for changes in CHANGES[:3]]
    in_turn, _ = train(data, configs)
    together = functools.partial(Population, together=True)
    monkeypatch.setattr(trials, "Population", together)
    at_once, _ = train(data, configs)
    for number in in_turn:
        for name in ("train/loss", "val/loss", "val/jaccard_index"):
            assert [line[name] for line in at_once[number][0].lines] == pytest.approx(
                [line[name] for line in in_turn[number][0].lines], rel=1e-5
            )


@pytest.mark.long
def test_a_signal_ends_after_the_round(data):
    mesh = devices.make_mesh(accelerator="cpu", num_devices=1)
    several = trials.TrialRunner(*data, mesh, 1)
    member = several.member("only", config_of())
    asked = signals.StopRequest()
    waiting = [member]
    with pytest.raises(signals.Interrupted):
        several.train(
            lambda: waiting.pop() if waiting else None,
            MemberCallbacks(
                lambda member: setattr(asked, "signum", 15), lambda member, trees: None
            ),
            asked,
        )
    assert member.progress.epoch == 1


def test_a_signal_while_the_folder_is_made_leaves_none(tmp_path, monkeypatch):
    take = lock._take

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return take(*arguments)

    monkeypatch.setattr(lock, "_take", stopped)
    prepared = options.prepared_trials(config_of(), tmp_path / "new", 1)
    with pytest.raises(signals.Interrupted), prepared:
        pytest.fail("began")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", [("seeds", "--num"), ("frontier", "--seeds")])
def test_the_last_seed_must_be_one(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(seeds, "prepared_trials", lambda *given: pytest.fail("began"))
    name, option = command
    given = [name, f"--config={ROOT}/configs/small.py", "--workdir", str(tmp_path / "new")]
    assert main.main([*given, "--config.seed=4294967294", option, "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxvae: --config.seed=4294967294: ")
    assert "4294967296" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    with pytest.raises(pytest.fail.Exception, match="began"):
        main.main([*given, "--config.seed=4294967294", option, "2"])
