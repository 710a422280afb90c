"""The installed package: a wheel, unpacked far from any clone, with its configs and its command."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, lacking
from tests.helpers import clone

pytestmark = pytest.mark.ecosystem


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What pip would unpack into site-packages."""
    if not (ROOT / ".git").exists():
        lacking("not a git checkout")
    return clone.unpack(tmp_path_factory.mktemp("installed"))


def start(site, cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "jaxvae", *arguments],
        cwd=cwd, env={"PYTHONPATH": str(site), "PATH": "", "HOME": str(cwd), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True,
    )  # fmt: skip


def test_it_holds_what_it_needs_and_nothing_else(site):
    names = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    for needed in ("data/taxonomy.json", "reports/explorer.html", "py.typed", "shipped/configs/medium.py",
                   "shipped/configs/search/default.py"):  # fmt: skip
        assert f"jaxvae/{needed}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxvae"}
    (entry,) = site.glob("*.dist-info/entry_points.txt")
    assert "jaxvae = jaxvae.__main__:main" in entry.read_text()
    (licence,) = site.glob("*.dist-info/licenses/LICENSE")
    assert "Apache License" in licence.read_text()


def test_it_trains_by_the_configs_it_brings(site, tmp_path):
    done = start(site, tmp_path, "train", "--config=configs/small.py:trainer=quick_test",
                 "--config.trainer.max_epochs=1", "--workdir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.pth").is_file()
    sampled = start(site, tmp_path, "sample", "run", "--num", "2")
    assert len(sampled.stdout.splitlines()) == 2


def test_its_help_and_its_refusals_are_its_own(site, tmp_path):
    helped = start(site, tmp_path, "train", "--help")
    assert "python -m jaxvae train --config=configs/medium.py" in helped.stdout
    assert "--config.model.latent_dim=" in helped.stdout
    wrong = start(site, tmp_path, "train", "--config=configs/medum.py")
    assert wrong.returncode == 2
    assert "did you mean 'configs/medium.py'" in wrong.stderr
    own = tmp_path / "configs"
    own.mkdir()
    (own / "medium.py").write_text("def get_config(presets=''): raise ValueError('mine')\n")
    assert "mine" in start(site, tmp_path, "train", "--config=configs/medium.py").stderr


def test_its_search_takes_a_space_it_brings(site, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    done = start(site, tmp_path, "search", "--config=configs/small.py", "--trials=1",
                 "--space=configs/search/default.py", "--config.trainer.max_epochs=1",
                 "--workdir=study")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "def get_space" in (tmp_path / "study" / "space.py").read_text()


def test_a_config_of_ones_own_starts_from_one_it_brings(site, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    own = tmp_path / "deep" / "er" / "own.py"
    own.write_text(
        "from configs import small\n\n\ndef get_config(presets=''):\n"
        "    c = small.get_config(presets)\n    c.model_name = 'own'\n    return c\n"
    )
    done = start(site, tmp_path, "train", f"--config={own}", "--print_config")
    assert done.returncode == 0, done.stderr
    assert '"model_name": "own"' in done.stdout
