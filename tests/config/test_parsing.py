"""The command line and the config tree: what is accepted, what is refused, and how."""

import contextlib
import re
import subprocess
import sys

import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.config import parsing, schema, validation
from jaxvae.config.monitor import MODES
from jaxvae.errors import InputError
from jaxvae.train.choices import CHOICES
from tests.conftest import ROOT
from tests.helpers.configs import CONFIGS, MEDIUM, parse, refusal


def config_of(*arguments):
    return parse(*arguments)[0]


DESIGN_TABLE = {
    "default": (32, 128, False, 1.0),
    "small": (32, 128, False, 1.0),
    "medium": (64, 256, False, 1.0),
    "large": (128, 512, True, 1.0),
    "beta_default": (32, 128, False, 4.0),
    "beta_balanced": (64, 256, False, 4.0),
    "beta_high": (128, 512, True, 10.0),
    "best": (0, 0, False, 1.0),  # which follow the data
    "best_0": (32, 256, False, 1.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_has_the_sizes_of_the_table(name):
    config = config_of(f"--config={ROOT}/configs/{name}.py")
    model = config.model
    sizes = (model.latent_dim, model.hidden_dim, model.use_batch_norm, config.loss.kld_weight)
    assert sizes == DESIGN_TABLE[name]


def test_all_configs_of_the_table_are_there():
    assert set(CONFIGS) == set(DESIGN_TABLE)


def test_the_defaults_are_the_originals():
    config = config_of(MEDIUM)
    assert config.model.dropout_p == 0.3
    assert config.data.batch_size == 32
    assert config.trainer.max_epochs == 250
    assert config.trainer.gradient_clip_val == 1.0
    assert config.trainer.optimizer.to_dict() == {
        "lr": 5e-4,
        "betas": (0.9, 0.999),
        "weight_decay": 0.0,
        "decoupled_weight_decay": False,
    }
    assert (config.data.val_fraction, config.data.test_fraction) == (0.05, 0.05)


def test_presets_change_what_they_name():
    config = config_of(MEDIUM + ":data=musiccaps,trainer=quick_test")
    assert config.data.dataset_name == "google/MusicCaps"
    assert config.data.aspect_column == "aspect_list"
    assert config.trainer.max_epochs == 10
    assert config.model.latent_dim == 64


def test_the_tuned_preset_leaves_the_architecture():
    plain, tuned = config_of(MEDIUM), config_of(MEDIUM + ":trainer=tuned")
    assert tuned.data.batch_size == 128
    assert tuned.model.decoder_bias == "log_odds"
    assert tuned.trainer.lr_scheduler.name == "cosine"
    for field in ("latent_dim", "hidden_dim", "use_batch_norm", "use_layer_norm", "prior"):
        assert tuned.model[field] == plain.model[field]
    assert tuned.loss == plain.loss
    for_likelihood = config_of(MEDIUM + ":trainer=tuned_iw")
    assert for_likelihood.loss.objective == "iw"
    assert for_likelihood.model == tuned.model
    assert for_likelihood.trainer.ema_decay == tuned.trainer.ema_decay
    wide = config_of(f"--config={ROOT}/configs/large.py:trainer=tuned_iw_wide")
    before = dict(schema.flatten(for_likelihood))
    changed = {name for name, value in schema.flatten(wide) if value != before[name]}
    assert changed == {
        *("model_name", "model.latent_dim", "model.hidden_dim", "model.use_batch_norm"),
        *("model.hidden_dropout_p", "loss.num_importance_samples"),
    }
    assert config_of(MEDIUM + ":trainer=tuned", "--config.data.batch_size=16").data.batch_size == 16


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"prior": "vmap"}, ["model.prior=vmap", "'vamp'", "my_priors.py:Name"]),
        ({"objective": "iw", "num_importance_samples": 1}, ["num_importance_samples=1", "2"]),
        ({"objective": "iw", "use_binary_cross_entropy": False}, ["iw", "likelihood"]),
        ({"kld_schedule": "cosine", "kld_warmup": 250.0}, ["kld_warmup=250.0", "fewer than"]),
    ],
)
def test_choices_that_do_not_go_together_are_refused(overrides, parts):
    config = config_of(MEDIUM)
    for name, value in overrides.items():
        config["model" if name == "prior" else "loss"][name] = value
    with pytest.raises(InputError) as caught:
        validation.validate(config, CHOICES)
    assert all(part in str(caught.value) for part in parts)
    validate_control = config_of(MEDIUM)
    validation.validate(validate_control, CHOICES)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"monitor": "val/los"}, ["trainer.monitor=val/los", "val/loss", "val/nll_iw"]),
        ({"monitor": "train/loss"}, ["trainer.monitor=train/loss", "val/elbo"]),
        ({"monitor_mode": "max"}, ["trainer.monitor_mode=max", "val/loss", "'min'"]),
        ({"monitor_mode": "lowest"}, ["trainer.monitor_mode=lowest", "'min'"]),
        ({"monitor": "val/jaccard_index"}, ["trainer.monitor_mode=min", "more is", "'max'"]),
        (
            {"monitor": "val/nll_iw", "use_binary_cross_entropy": False},
            ["trainer.monitor=val/nll_iw", "use_binary_cross_entropy=False", "val/loss"],
        ),
    ],
)
def test_a_monitor_that_can_not_choose_is_refused(overrides, parts):
    config = config_of(MEDIUM)
    for name, value in overrides.items():
        config["trainer" if name.startswith("monitor") else "loss"][name] = value
    with pytest.raises(InputError) as caught:
        validation.validate(config, CHOICES)
    assert all(part in str(caught.value) for part in parts), caught.value
    for name, mode in MODES.items():  # the control
        control = config_of(MEDIUM)
        control.trainer.monitor, control.trainer.monitor_mode = name, mode
        validation.validate(control, CHOICES)


@pytest.mark.parametrize(
    ("preset", "name", "column"),
    [
        ("msd", "seungheondoh/LP-MusicCaps-MSD", "tag"),
        ("mtt", "seungheondoh/LP-MusicCaps-MTT", "tag_top188"),
        ("embedded", "embedded", "aspect_list"),
    ],
)
def test_data_presets(preset, name, column):
    data = config_of(f"{MEDIUM}:data={preset}").data
    assert (data.dataset_name, data.aspect_column) == (name, column)


def test_the_distributed_preset_uses_every_device():
    trainer = config_of(MEDIUM + ":trainer=distributed").trainer
    assert trainer.devices == -1
    assert trainer.scale_batch_with_devices


def test_overrides_of_every_type():
    config = config_of(
        MEDIUM,
        "--config.loss.kld_weight=4",
        "--config.trainer.max_epochs=300",
        "--config.trainer.optimizer.lr=1e-3",
        "--config.trainer.optimizer.betas=0.8,0.99",
        "--noconfig.data.shuffle",
        "--config.logger.name=()",
        "--config.model.hidden_dims=256,128",
        "--config.model_name=mine",
    )
    assert config.loss.kld_weight == 4.0
    assert config.trainer.max_epochs == 300
    assert config.trainer.optimizer.lr == 1e-3
    assert config.trainer.optimizer.betas == (0.8, 0.99)
    assert config.data.shuffle is False
    assert config.logger.name == ()
    assert config.model.hidden_dims == (256, 128)
    assert config_of(MEDIUM, "--config.model.hidden_dims=64").model.hidden_dims == (64,)
    assert config.model_name == "mine"


def test_overrides_are_reported_as_typed():
    _, overrides, _ = parse(MEDIUM, "--config.loss.kld_weight=2.5")
    assert overrides == {"loss.kld_weight": 2.5}


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.loss.kld_wieght=4.0", ["loss.kld_wieght", "'loss.kld_weight'"]),
        ("--config.los.kld_weight=4.0", ["los.kld_weight", "'loss.kld_weight'"]),
        ("--config.kld_weight=4.0", ["'loss.kld_weight'"]),
        ("--config.loss=4.0", ["group", "loss.kld_weight"]),
        ("--config.trainer.max_epochs=1e3", ["max_epochs=1e3", "whole number"]),
        ("--config.trainer.max_epochs=many", ["max_epochs=many", "whole number"]),
        ("--config.data.shuffle=perhaps", ["data.shuffle=perhaps", "True or False"]),
        ("--config.model.dropout_p=1.0", ["dropout_p=1.0", "below 1"]),
        ("--config.model.dropout_p=-0.1", ["dropout_p=-0.1"]),
        ("--config.data.batch_size=-1", ["batch_size=-1", "at least 1"]),
        ("--config.model.latent_dim=-1", ["latent_dim=-1", "at least 1"]),
        ("--config.model.hidden_dims=0", ["hidden_dims=(0,)", "whole numbers"]),
        ("--config.model.hidden_dims=256,2.5", ["hidden_dims=(256, 2.5)", "such as 256,128"]),
        ("--config.model.hidden_dims=1,2,3,4,5,6,7,8,9", ["hidden_dims=(1, 2,", "up to 8"]),
        ("--config.model.hidden_dims=2097152", ["hidden_dims=(2097152,)", "1,048,576"]),
        ("--config.model.hidden_dims=wide", ["hidden_dims=('wide',)", "whole numbers"]),
        ("--config.loss.kld_weight=nan", ["kld_weight=nan", "finite"]),
        ("--config.loss.kld_weight=-1.0", ["kld_weight=-1.0", "at least 0"]),
        ("--config.trainer.optimizer.lr=inf", ["lr=inf", "finite"]),
        ("--config.trainer.optimizer.lr=0.0", ["lr=0.0", "above 0"]),
        ("--config.trainer.optimizer.betas=0.9", ["betas", "two numbers"]),
        ("--config.trainer.optimizer.betas=0.9,1.0", ["betas", "below 1"]),
        ("--config.trainer.precision=16", ["precision=16", "bf16"]),
        ("--config.trainer.accelerator=cuda", ["accelerator=cuda", "'gpu'"]),
        ("--config.trainer.devices=0", ["devices=0", "-1"]),
        ("--config.inference.temperature=0.0", ["temperature=0.0"]),
        ("--config.inference.decode=argmax", ["decode=argmax", "'bernoulli'"]),
        ("--config.inference.threshold=1.0", ["threshold=1.0"]),
        ("--config.data.max_unreadable_fraction=1.5", ["max_unreadable_fraction=1.5", "at most 1"]),
        ("--config.data.max_unreadable_fraction=-0.1", ["max_unreadable_fraction=-0.1"]),
        ("--config.data.split_by=column", ["split_by=column", "'set'"]),
        ("--config.data.val_fraction=0.97", ["val_fraction=0.97", "no rows to train"]),
        ("--config.trainer.lr_scheduler.warmup_epochs=250.0", ["warmup_epochs=250.0", "250"]),
        ("--config.model.prior=gaussian", ["prior=gaussian", "'mixture'"]),
        ("--config.model.prior_components=-1", ["prior_components=-1", "at least 1"]),
        ("--config.model.decoder_bias=zero", ["decoder_bias=zero", "'log_odds'"]),
        ("--config.loss.objective=vae", ["objective=vae", "'elbo'"]),
        ("--config.loss.kld_schedule=linear", ["kld_warmup=0.0", "kld_schedule=linear", "250"]),
        ("--config.loss.kld_warmup=10.0", ["kld_warmup=10.0", "does nothing", "linear"]),
        ("--config.trainer.ema_decay=1.0", ["ema_decay=1.0", "below 1"]),
        ("--config.model_name=../evil", ["model_name=../evil"]),
        ("--config.seed=-1", ["seed=-1"]),
        ("--config.logger.name=wandbb", ["wandbb", "tensorboard"]),
        ("--config.logger.name=1,2", ["logger.name", "no tracker '1'"]),
        ("--config.trainer.optimizer.betas=a,b", ["betas", "two numbers"]),
        ("--config.=1", ["no such field"]),
        ("--config. x=1", ["no such field"]),
        ("--config.model.input_dim=200", ["input_dim is retired", "taxonomy_path"]),
        ("--config.model.beta=4.0", ["model.beta is retired", "loss.kld_weight"]),
        ("--config.data.dataloader_num_workers=4", ["dataloader_num_workers is retired"]),
        ("--config.trainer.strategy=ddp", ["strategy is retired", "devices"]),
        ("--config.device=cuda", ["device is retired", "accelerator"]),
        ("--wrokdir=x", ["wrokdir", "workdir"]),
        ("stray", ["leftover", "'stray'"]),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(argument, parts):
    message = refusal(MEDIUM, argument)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("trainer.max_epochs=2", "name the field --config.trainer.max_epochs=2"),
        ("+trainer.max_epochs=2", "name the field --config.trainer.max_epochs=2"),
        ("max_epochs=2", "name the field --config.trainer.max_epochs=2"),
        ("trainer=quick_test", "--config=FILE.py:trainer=quick_test"),
        ("model=large", "--config=configs/large.py"),
        ("model.beta=4.0", "model.beta is retired: one number weighs the KL term"),
        ("max_epoch=2", "there is no 'max_epoch' (did you mean 'trainer.max_epochs'?)"),
        (
            "--max_epochs=2",
            "--max_epochs: no such flag; name the field --config.trainer.max_epochs=2",
        ),
        ("--max_epochs", "no such flag; name the field --config.trainer.max_epochs"),
        ("--trainer.optimizer.lr=0.1", "name the field --config.trainer.optimizer.lr=0.1"),
        ("--lr=0.1", "name the field --config.trainer.optimizer.lr=0.1"),
        ("--seed=3", "name the field --config.seed=3"),
        ("--noshuffle", "name the field --config.data.shuffle=False"),
        ("--epochs=2", "(did you mean --config.trainer.max_epochs?)"),
        ("--data=musiccaps", "--config=FILE.py:data=musiccaps"),
        ("--beta=4.0", "model.beta is retired"),
        ("--device=cuda", "device is retired"),
        ("--wrokdir=x", "workdir"),
        ("--ckpt_path=last.ckpt", "--workdir=FOLDER of a run resumes it"),
        ("--resume", "--workdir=FOLDER of a run resumes it"),
        ("--gpus=1", "--config.trainer.devices=N"),
        ("--multirun", "seeds, frontier and search"),
        ("-m", "seeds, frontier and search"),
        ("--config-name=medium", "--config=configs/medium.py"),
        ("--fast_dev_run", "trainer=quick_test"),
        ("--num-workers=4", "rows live on the device"),
        ("--cfg=job", "--print_config"),
        ("hydra.run.dir=x", "--workdir=FOLDER"),
        ("~trainer.max_epochs", "leave it at its default"),
    ],
)
def test_a_field_that_is_named_otherwise_is_found(argument, meant):
    message = refusal(MEDIUM, argument)
    assert meant in message
    assert "equals sign" not in message


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("--workdir", "--config.seed=1"), "--workdir"),
        (("--config.model_name", "--workdir=x"), "--config.model_name"),
        (("--config.seed", "--workdir", "x"), "--config.seed"),
        (("-workdir", "-config.seed=1"), "-workdir"),
    ],
)
def test_the_next_flag_is_no_value(arguments, flag):
    message = refusal(MEDIUM, *arguments)
    assert message.startswith(f"{flag} has no value before {arguments[1]}; write {flag}=VALUE")


def test_values_after_a_space_are_read_as_before():
    assert refusal("--config", "--workdir=x").startswith("--config has no value before --workdir=x")
    config, _, values = parse(MEDIUM, "--workdir", "x", "--config.loss.bce_weight", "2")
    assert (values.workdir, config.loss.bce_weight) == ("x", 2.0)
    _, _, values = parse(MEDIUM, "--workdir=--odd", "--config.data.shuffle")
    assert values.workdir == "--odd"
    assert "seed=-1: must be" in refusal(MEDIUM, "--config.seed", "-1")


def test_a_boolean_with_a_space_is_refused_not_ignored():
    message = refusal(MEDIUM, "--config.data.shuffle", "False")
    assert "'False'" in message
    assert "=" in message


def test_a_missing_config_is_refused():
    assert "--config=configs/medium.py" in refusal()


def test_two_configs_are_refused():
    assert "2 times" in refusal(MEDIUM, MEDIUM)


@pytest.mark.parametrize("spelling", ["--config={}", "-config={}", "--config {}", "-config {}"])
@pytest.mark.parametrize("first", [True, False])
def test_the_config_may_stand_anywhere_and_be_spelt_in_any_way(spelling, first):
    config = spelling.format(f"{ROOT}/configs/large.py:trainer=quick_test").split(" ")
    others = ["--config.seed=7", "--noconfig.data.shuffle", "--workdir=a"]
    config, overrides, values = parse(*(config + others if first else others + config))
    assert (config.seed, config.data.shuffle, config.model.latent_dim) == (7, False, 128)
    assert config.trainer.max_epochs == 10
    assert overrides == {"seed": 7, "data.shuffle": False}
    assert values.workdir == "a"


def test_a_config_file_runs_once(tmp_path):
    (tmp_path / "counted.py").write_text(
        "from configs import small\n\n\ndef get_config(presets=''):\n"
        f"    with open({str(tmp_path / 'runs')!r}, 'a') as file:\n        file.write('x')\n"
        "    return small.get_config()\n"
    )
    config, overrides, _ = parse(f"--config={tmp_path}/counted.py", "--config.seed=3")
    assert (config.seed, overrides) == (3, {"seed": 3})
    assert (tmp_path / "runs").read_text() == "x"


def test_a_flag_file_stands_for_the_arguments_in_it(tmp_path):
    (tmp_path / "inner").write_text("--noconfig.data.shuffle\n--workdir=b\n")
    (tmp_path / "all").write_text(
        f"# a comment\n{MEDIUM}\n--config.seed=7\n--config.logger.name=()\n"
        f"--flagfile={tmp_path}/inner\n"
    )
    config, overrides, values = parse(f"--flagfile={tmp_path}/all", "--config.trainer.max_epochs=2")
    assert config.model.latent_dim == 64
    assert (config.seed, config.logger.name, config.data.shuffle) == (7, (), False)
    assert config.trainer.max_epochs == 2
    assert set(overrides) == {"seed", "logger.name", "data.shuffle", "trainer.max_epochs"}
    assert values.workdir == "b"
    config, _, _ = parse(MEDIUM, f"--flagfile={tmp_path}/inner", "--config.data.shuffle=True")
    assert config.data.shuffle is True


def test_a_flag_file_that_cannot_be_read_is_one_line(tmp_path):
    assert "nowhere" in refusal(MEDIUM, f"--flagfile={tmp_path}/nowhere")
    (tmp_path / "latin").write_bytes("--config.model_name=né".encode("latin-1"))
    assert "UTF-8" in refusal(MEDIUM, f"--flagfile={tmp_path}/latin")
    (tmp_path / "misspelt").write_text("--config.loss.kld_wieght=4.0\n")
    assert "'loss.kld_weight'" in refusal(MEDIUM, f"--flagfile={tmp_path}/misspelt")
    (tmp_path / "right").write_text("--config.loss.kld_weight=4.0\n")
    assert config_of(MEDIUM, f"--flagfile={tmp_path}/right").loss.kld_weight == 4.0


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"]])
def test_the_version_is_said(arguments, capsys):
    with pytest.raises(SystemExit) if arguments == ["--version"] else contextlib.nullcontext():
        assert main.main(arguments) == 0
    assert capsys.readouterr().out == f"jaxvae {jaxvae.__version__}\n"
    assert main.launch(["launch.py", "--version"]) == 0
    assert capsys.readouterr().out == f"jaxvae {jaxvae.__version__}\n"


def test_a_misspelt_config_file_gets_its_nearest():
    assert "medium.py" in refusal(f"--config={ROOT}/configs/medum.py").split("did you mean")[1]


@pytest.mark.parametrize(
    ("presets", "part"),
    [
        ("data=musicaps", "'musiccaps'"),
        ("trainer=fast", "quick_test"),
        ("daat=musiccaps", "'data'"),
    ],
)
def test_a_misspelt_preset_is_refused(presets, part):
    assert part in refusal(f"{MEDIUM}:{presets}")


def test_a_broken_config_file_is_one_line(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    assert "ZeroDivisionError" in refusal(f"--config={path}")


def test_every_field_has_a_help_text():
    source = (ROOT / "configs" / "base.py").read_text()
    config = parsing.load_config(str(ROOT / "configs" / "base.py"))
    text = schema.field_help(source, config)
    for name, _ in schema.flatten(config):
        assert re.search(rf"--config\.{re.escape(name)}=.*\n      \S", text), name


def test_every_ranged_field_exists():
    config = parsing.load_config(str(ROOT / "configs" / "base.py"))
    assert set(validation.RANGES) <= dict(schema.flatten(config)).keys()


def test_retired_names_are_not_fields():
    config = parsing.load_config(str(ROOT / "configs" / "base.py"))
    assert not set(schema.RETIRED) & dict(schema.flatten(config)).keys()


@pytest.mark.parametrize("gone", [True, False])
def test_a_working_directory_that_is_gone_is_said(gone, tmp_path):
    (tmp_path / "here").mkdir()
    code = (
        f"import os, sys; sys.path[0] = {str(ROOT)!r}\n"
        "from jaxvae.cli.main import launch\n"
        "os.rmdir(os.getcwd()) if sys.argv.pop() == 'gone' else None\n"
        "sys.exit(launch(sys.argv))"
    )
    config = f"--config={ROOT}/configs/small.py"
    done = subprocess.run(
        [sys.executable, "-c", code, config, "--print_config", "gone" if gone else "there"],
        capture_output=True,
        text=True,
        cwd=tmp_path / "here",
    )
    assert done.returncode == (2 if gone else 0), done.stderr
    said = "jaxvae: the working directory no longer exists; change to another\n"
    assert done.stderr == (said if gone else "")
