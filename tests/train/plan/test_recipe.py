"""Fields that follow the data: what fills them in, and that a run stays what it began as."""

import json

import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.config import parsing, schema
from jaxvae.data.dataset import load_from_config
from jaxvae.errors import InputError
from jaxvae.inference.load import load
from jaxvae.inference.verify import verify
from jaxvae.storage import manifest
from jaxvae.train.plan import recipe
from tests.conftest import ROOT
from tests.helpers.training import parameters, run, same, small, write_clips

FOLLOW_ALL = {name.replace(".", "__"): value for name, value in schema.FOLLOWS_DATA.items()}
SIZES = {
    "model.latent_dim": 2,
    "model.hidden_dim": 8,
    "model.dropout_p": 0.25,
    "model.prior_components": 7,
    "data.batch_size": 14,
    "loss.objective": "iw",
    "trainer.optimizer.weight_decay": 0.125,
    "trainer.max_epochs": 2,
}


@pytest.fixture
def clips(tmp_path):
    return write_clips(tmp_path)


@pytest.fixture
def of_few_rows(monkeypatch):
    """A rule whose models train in no time."""
    monkeypatch.setattr(recipe, "rule", lambda size: dict(SIZES))


NAMES = (
    *("model.hidden_dim", "model.latent_dim", "model.prior_components", "model.dropout_p"),
    *("data.batch_size", "loss.objective", "trainer.optimizer.weight_decay", "trainer.max_epochs"),
)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (300, (128, 32, 75, 0.1, 128, "elbo", 1.0, 320)),
        (750, (128, 32, 187, 0.1, 128, "elbo", 1.0, 261)),
        (2_000, (128, 32, 500, 0.1, 128, "elbo", 0.2296, 160)),
        (4_315, (256, 32, 500, 0.1, 128, "elbo", 0.0725, 109)),
        (9_000, (512, 64, 500, 0.1, 256, "elbo", 0.0241, 80)),
        (20_400, (1024, 64, 500, 0.192, 512, "iw", 0.007, 79)),
        (43_672, (1024, 64, 500, 0.042, 512, "iw", 0.0023, 46)),
        (500_000, (1024, 64, 500, 0.0, 512, "iw", 0.0001, 8)),
    ],
)
def test_sizes_of_the_rule(rows, expected):
    values = recipe.rule(recipe.DataSize(rows, 200, 4.0))
    assert tuple(values[name] for name in NAMES) == expected
    assert {*values} == {*schema.FOLLOWS_DATA}


@pytest.mark.parametrize(
    ("rows", "tags", "expected"),
    [
        # hidden, latent, components, dropout, batch, objective, decay, epochs
        (20_000, 1000, (1024, 64, 500, 0.2, 512, "iw", 0.0073, 80)),
        (20_000, 1001, (1024, 64, 500, 0.3, 512, "elbo", 0.0073, 40)),
        (20_000, 4096, (1024, 64, 500, 0.3, 512, "elbo", 0.0073, 40)),
        (20_000, 5000, (512, 64, 500, 0.3, 256, "elbo", 0.0073, 40)),
        (20_000, 10**6, (128, 32, 500, 0.3, 128, "elbo", 0.0073, 40)),
        (500_000, 5000, (512, 64, 500, 0.3, 256, "elbo", 0.0001, 4)),
        (2000, 10**6, (128, 32, 500, 0.1, 128, "elbo", 0.2296, 160)),
    ],
)
def test_a_wide_vocabulary(rows, tags, expected):
    values = recipe.rule(recipe.DataSize(rows, tags, 4.0))
    assert tuple(values[name] for name in NAMES) == expected


@pytest.mark.parametrize("rows", [1, 17, 999, 10**4, 10**9])
def test_every_number_of_rows_has_values_that_a_config_may_have(rows):
    config = parsing.load_config(str(ROOT / "configs" / "best.py"))
    filled = recipe.fill_in(config, recipe.resolve(config, lambda: recipe.DataSize(rows, 3, 1.0)))
    assert recipe.following(filled) == []
    for name, value in recipe.rule(recipe.DataSize(rows, 3, 1.0)).items():
        assert type(value) is type(schema.FOLLOWS_DATA[name])


def test_rows_to_train_on_are_what_counts(clips):
    dataset = load_from_config(small(clips))
    train = dataset.rows[dataset.splits["train"]]
    tags = sum(len({*row.tolist()} - {12}) for row in train)
    assert recipe.measure(dataset) == (len(train), 12, pytest.approx(tags / len(train)))


def test_a_squared_error_has_no_bound_to_tighten():
    config = parsing.load_config(str(ROOT / "configs" / "best.py"))
    many = recipe.DataSize(100_000, 3, 1.0)
    assert recipe.resolve(config, lambda: many)["loss.objective"] == "iw"
    config.loss.use_binary_cross_entropy = False
    assert recipe.resolve(config, lambda: many)["loss.objective"] == "elbo"


def test_an_objective_that_is_none_names_the_one_that_follows(clips):
    with pytest.raises(InputError, match=r"objective=atuo.*'auto' to follow the data, or of your"):
        run(clips, loss__objective="atuo")


@pytest.mark.long
def test_a_given_field_holds_and_the_others_follow(clips, of_few_rows, capsys):
    _, folder = run(clips, **FOLLOW_ALL | {"model__hidden_dim": 9})
    asked = json.loads((folder / "config.json").read_text())
    resolved = json.loads((folder / "resolved.json").read_text())
    assert asked["model"]["hidden_dim"] == 9
    assert asked["model"]["latent_dim"] == 0
    assert asked["model"]["dropout_p"] == -1.0
    assert resolved == {name: SIZES[name] for name in SIZES if name != "model.hidden_dim"}
    trained = load(folder)
    assert trained.network.hidden_dims == (9,)
    assert trained.network.latent_dim == 2
    assert trained.config["trainer"]["max_epochs"] == 2
    assert json.loads((folder / "summary.json").read_text())["config"]["model"]["latent_dim"] == 2
    assert "Following the data (42 training rows, 12 tags" in capsys.readouterr().err
    assert not verify(folder)[1]


@pytest.mark.long
def test_a_run_that_follows_is_the_run_with_its_values_given(clips, of_few_rows):
    _, following = run(clips, "following", **FOLLOW_ALL)
    given = {name.replace(".", "__"): value for name, value in SIZES.items()}
    _, explicit = run(clips, "explicit", **given)
    assert same(parameters(following), parameters(explicit))
    assert not (explicit / "resolved.json").exists()


@pytest.mark.long
def test_a_resumed_run_keeps_its_values_whatever_the_rule_says(clips, of_few_rows, monkeypatch):
    def stop(epoch, metrics, state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, "stopped", hooks=[stop], trainer__checkpoint_every_seconds=0.0, **FOLLOW_ALL)
    monkeypatch.setattr(recipe, "rule", lambda size: SIZES | {"model.hidden_dim": 11})
    _, resumed = run(clips, "stopped", **FOLLOW_ALL)
    assert load(resumed).network.hidden_dims == (8,)
    _, fresh = run(clips, "fresh", **FOLLOW_ALL)
    assert load(fresh).network.hidden_dims == (11,)


@pytest.mark.long
def test_seeds_that_are_added_have_the_values_of_those_before(clips, of_few_rows, monkeypatch):
    given = {name.replace("__", "."): value for name, value in FOLLOW_ALL.items()}
    fields = dict(schema.flatten(small(clips))) | given
    command = [
        *("seeds", f"--config={ROOT / 'configs' / 'base.py'}", f"--workdir={clips / 'seeds'}"),
        *(f"--config.{name}={value}" for name, value in fields.items() if name != "seed"),
    ]
    assert main.main([*command, "--num=1"]) == 0
    monkeypatch.setattr(recipe, "rule", lambda size: SIZES | {"model.hidden_dim": 11})
    assert main.main([*command, "--num=2"]) == 0
    widths = [load(clips / "seeds" / f"seed_{seed}").network.hidden_dims for seed in (0, 1)]
    assert widths == [(8,), (8,)]
    fresh = [argument.replace("/seeds", "/fresh") for argument in command]
    assert main.main([*fresh, "--num=1"]) == 0
    assert load(clips / "fresh" / "seed_0").network.hidden_dims == (11,)


def test_a_run_of_fixed_sizes_is_not_resumed_by_a_config_that_follows(clips, of_few_rows):
    _, folder = run(clips)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"latent_dim \(was 2, now 0\).*configs/best_0\.py"):
        run(clips, **FOLLOW_ALL)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_damaged_values_are_refused(clips, of_few_rows):
    _, folder = run(clips, **FOLLOW_ALL)
    path = folder / "resolved.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(InputError, match=r"resolved\.json is not what was written"):
        load(folder)
    assert any("resolved.json" in line for line in verify(folder)[1])
    (folder / manifest.NAME).unlink()
    load(folder)
    for name, value in (("model.latent_dim", '"3"'), ("model.dropout_p", "1"), ("seed", "1")):
        path.write_text(f'{{"{name}": {value}}}')
        with pytest.raises(InputError, match=f"{name} has no value that a run resolves"):
            load(folder)
    path.unlink()
    with pytest.raises(InputError, match="is missing; restore it"):
        load(folder)


@pytest.mark.long
def test_sizes_of_a_model_to_start_from_are_taken_over(clips, of_few_rows):
    _, base = run(clips, "base", model__hidden_dim=10, model__latent_dim=5)
    _, tuned = run(clips, "tuned", init_from=str(base), **FOLLOW_ALL)
    network = load(tuned).network
    assert (network.hidden_dims, network.latent_dim) == ((10,), 5)
    assert json.loads((tuned / "resolved.json").read_text())["data.batch_size"] == 14


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model__latent_dim", -1, "at least 1 and at most 65,536, or 0 to follow the data"),
        ("model__dropout_p", -0.5, "or -1.0 to follow the data"),
        ("trainer__max_epochs", -3, "or 0 to follow the data"),
    ],
)
def test_other_values_out_of_range_are_refused(clips, field, value, message):
    with pytest.raises(InputError, match=message):
        run(clips, **{field: value})


def test_a_warm_up_longer_than_the_epochs_that_follow_is_refused(clips, of_few_rows):
    with pytest.raises(InputError, match=r"never end within .*max_epochs=2"):
        run(clips, trainer__lr_scheduler__warmup_epochs=3.0, **FOLLOW_ALL)
    assert not (clips / "run").exists()


def test_arrays_of_a_run_have_the_sizes_that_it_resolved(clips, of_few_rows):
    _, folder = run(clips, model__prior="vamp", **FOLLOW_ALL)
    assert np.shape(parameters(folder)["prior.pseudo_inputs"]) == (7, 12)
