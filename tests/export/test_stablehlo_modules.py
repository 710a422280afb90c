"""Exported StableHLO in a process that has JAX and not this package."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxvae.inference import queries
from jaxvae.models import trained
from tests.helpers.documents import python_block
from tests.helpers.exports import check_stablehlo
from tests.helpers.networks import VARIED, make_run

pytestmark = pytest.mark.ecosystem

CHILD = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jaxvae", "flax"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
"""


def alone(code, folder):
    """Runs code where neither this package nor flax can be imported."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_computes_the_same(run, tmp_path):
    run.export(tmp_path / "model.stablehlo")
    x = run.sets("test")[:33].astype(np.float32)
    noise = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32)
    np.savez(tmp_path / "given.npz", x=x, noise=noise)
    alone(
        "import numpy as np\n"
        "from jax import export\n"
        "parts = [export.deserialize(bytearray(open(f'model.{p}.stablehlo', 'rb').read()))\n"
        "         for p in ('encoder', 'decoder', 'prior')]\n"
        "encoder, decoder, prior = parts\n"
        "given = np.load('given.npz')\n"
        "mean, logvar = encoder.call(given['x'])\n"
        "one = encoder.call(given['x'][:1])[0]\n"
        "np.savez('found.npz', mean=mean, logvar=logvar, one=one,\n"
        "         logits=decoder.call(mean), z=prior.call(given['noise']))\n"
        "assert 'jaxvae' not in sys.modules\n",
        tmp_path,
    )
    with np.load(tmp_path / "found.npz") as file:
        found = dict(file)
    mean, logvar = queries.posterior(run.network, run.rows("test")[:33])
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["one"], mean[:1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["logvar"], logvar, rtol=1e-4, atol=1e-5)
    expected = trained.reconstruction_logits(run.network, x)
    np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["z"], noise)


@pytest.mark.parametrize("architecture", VARIED)
def test_every_prior_for_every_platform(architecture, tmp_path):
    check_stablehlo(make_run(*architecture, tmp_path), tmp_path)


def test_the_documented_lines_run(run, tmp_path):
    run.export(tmp_path / "model.stablehlo")
    code = python_block("export.md", "stablehlo")
    out = alone(
        code + "\nimport json\nprint(json.dumps([logits.tolist(), list(sampled_logits.shape)]))",
        tmp_path,
    )
    logits, shape = json.loads(out)
    x = np.zeros((1, 224), np.float32)
    x[0, run.taxonomy.column("jazz")] = 1.0
    np.testing.assert_allclose(
        logits, trained.reconstruction_logits(run.network, x), rtol=1e-4, atol=1e-5
    )
    assert shape == [20, 224]
