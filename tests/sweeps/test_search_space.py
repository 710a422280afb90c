"""Search spaces: what is drawn, and what is refused in one line."""

import pytest

from jaxvae.config import parsing
from jaxvae.errors import InputError
from jaxvae.sweeps.search_space import load_space
from tests.conftest import ROOT


def config():
    return parsing.load_config(f"{ROOT}/configs/small.py")


def least(field, dimension):
    return dimension.values[0]


def greatest(field, dimension):
    return dimension.values[-1]


def space(tmp_path, *lines):
    path = tmp_path / "space.py"
    path.write_text("def get_space(s):\n" + "".join(f"    {line}\n" for line in lines))
    return load_space(path)


def test_a_drawn_value_is_the_configs(tmp_path):
    apply = space(
        tmp_path,
        's.log("trainer.optimizer.lr", 1e-3, 1e-2)',
        's.integer("model.latent_dim", 4, 8)',
        's.choice("trainer.optimizer.betas", (0.9, 0.999), (0.5, 0.9))',
        's.uniform("loss.kld_weight", 1, 2)',
        's.choice("data.batch_size", 16, 64)',
    )
    low, high = config(), config()
    drawn = apply(low, least).drawn
    apply(high, greatest)
    assert drawn == {
        "trainer.optimizer.lr": 1e-3,
        "model.latent_dim": 4,
        "trainer.optimizer.betas": (0.9, 0.999),
        "loss.kld_weight": 1.0,
        "data.batch_size": 16,
    }
    assert low.trainer.optimizer.lr == 1e-3
    assert (high.model.latent_dim, high.trainer.optimizer.betas) == (8, (0.5, 0.9))
    assert high.data.batch_size == 64


def test_a_field_may_depend_on_another(tmp_path):
    apply = space(
        tmp_path,
        'if s.choice("model.prior", "normal", "vamp") == "vamp":',
        '    s.integer("model.prior_components", 10, 20)',
        'assert s["model.prior"] in ("normal", "vamp")',
    )
    assert set(apply(config(), least).drawn) == {"model.prior"}
    assert set(apply(config(), greatest).drawn) == {"model.prior", "model.prior_components"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('s.log("trainer.optimizer.lr", 0.0, 1.0)', "zero and less have no logarithm"),
        ('s.log("trainer.optimizer.lr", -1.0, 1.0)', "zero and less have no logarithm"),
        ('s.uniform("loss.kld_weight", 2.0, 1.0)', "from 2.0 to 1.0 is no range"),
        ('s.uniform("loss.kld_weight", 1.0, float("nan"))', "is no range"),
        ('s.uniform("loss.kld_weight", "a", "b")', "is no range"),
        ('s.integer("model.latent_dim", 1.5, 3)', "whole numbers"),
        ('s.uniform("model.latent_dim", 1.2, 3.4)', "is no int"),
        ('s.choice("model.prior")', "a choice among nothing"),
        ('s.uniform("loss.kl_weight", 1.0, 2.0)', "did you mean 'loss.kld_weight'"),
        ('s.choice("model.prior", "normall")', "must be one of"),
        ('s.uniform("model.dropout_p", 1.0, 2.0)', "must be at least 0 and below 1"),
        ('s.choice("data.split_seed", 1, 2)', "must be the same in all trials"),
        ("pass", "draws nothing"),
        ("1 / 0", "ZeroDivisionError"),
        ('s.choice("seed", 1, 2); s.choice("seed", 1, 2)', "drawn twice"),
        ("s.grid('seed')", "AttributeError"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path, line, told):
    apply = space(tmp_path, line)
    with pytest.raises(InputError, match=r"^--space=") as refused:
        apply(config(), least)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_space(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_space(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("def get_space(s:\n")
    with pytest.raises(InputError, match="SyntaxError"):
        load_space(tmp_path / "broken.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match="get_space"):
        load_space(tmp_path / "empty.py")


def test_the_shipped_space_fits_the_shipped_configs():
    for name in ("small", "medium", "large", "best"):
        apply = load_space(ROOT / "configs" / "search" / "default.py")
        for draw in (least, greatest):
            apply(parsing.load_config(f"{ROOT}/configs/{name}.py"), draw)


def test_an_objective_that_needs_another_prior_is_refused_with_the_trial(tmp_path):
    apply = space(
        tmp_path,
        's.choice("loss.objective", "elbo", "free_bits")',
        's.choice("model.prior", "normal", "vamp")',
    )
    with pytest.raises(InputError, match=r"a trial with .*vamp: .*free_bits needs a KL") as caught:
        apply(config(), greatest)
    assert str(caught.value).startswith("--space=")
    assert apply(config(), least).drawn["model.prior"] == "normal"  # a control
