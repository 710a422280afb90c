"""Exported files against the model that they hold."""

import importlib.util

import jax
import numpy as np
from jax import export as jax_export

from jaxvae.data import encoding
from jaxvae.export.stablehlo_modules import PLATFORMS
from jaxvae.inference import queries
from jaxvae.models import trained
from tests.helpers.networks import TAXONOMY, rows


def check_stablehlo(run, tmp_path):
    files, _ = run.export(tmp_path / "m.stablehlo")
    parts = {
        path.name.split(".")[1]: jax_export.deserialize(bytearray(path.read_bytes()))
        for path in files
        if path.suffix == ".stablehlo"
    }
    assert all(part.platforms == PLATFORMS == ("cpu", "cuda", "tpu") for part in parts.values())
    x = rows(TAXONOMY.num_tags)
    expected = trained.reconstruction_logits(run.network, x)
    logits = parts["decoder"].call(parts["encoder"].call(x)[0])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    keys = jax.random.split(jax.random.key(3), 2)
    given = [jax.random.normal(keys[1], (4000, 4))]
    if run.network.prior in ("mixture", "vamp"):
        given.append(jax.random.uniform(keys[0], (4000,)))
    z = np.asarray(parts["prior"].call(*given), np.float64)
    ours = queries.draw_prior(run.network, 4000, seed=0)
    for function in (lambda z: z, np.abs, np.square, np.tanh):
        a, b = function(z), function(ours)
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 4000)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.5 * error).all()


def opened(run, folder):
    """Exports a run and imports its `model.py`, as a user would."""
    run.export(folder, format="torch_module")
    spec = importlib.util.spec_from_file_location("exported_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_torch(run, torch, tmp_path):
    module = opened(run, tmp_path / "out")
    model = module.load()
    weights = torch.load(tmp_path / "out" / "model.pth", weights_only=True)
    assert list(model.state_dict()) == list(weights)  # strictly, and in the file's order
    assert model.tags == list(TAXONOMY.tags)
    x = rows(TAXONOMY.num_tags)
    sparse = encoding.pad_tag_ids([np.flatnonzero(row).tolist() for row in x], TAXONOMY.num_tags)
    with torch.no_grad():
        mean, logvar = model.encode(torch.from_numpy(x))
        logits = model.decode(mean).numpy()
        z = model.draw_prior(4000, generator=torch.Generator().manual_seed(0))
        density = model.log_prior(z).numpy()
    expected = queries.posterior(run.network, sparse)
    np.testing.assert_allclose(mean.numpy(), expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logvar.numpy(), expected[1], rtol=1e-4, atol=1e-5)
    expected = trained.reconstruction_logits(run.network, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        density, queries.log_prior(run.network, z.numpy()), rtol=1e-3, atol=1e-3
    )
    # Its draws are from that density: the mean of any function of z agrees with JAX's draws.
    theirs, ours = z.numpy().astype(np.float64), queries.draw_prior(run.network, 4000, seed=0)
    for function in (lambda z: z, np.abs, np.square, np.tanh):
        a, b = function(theirs), function(ours)
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / 4000)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4.5 * error).all()
