"""Several hidden layers and tied weights: what they compute, and every way out of a run of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxvae
from jaxvae.errors import InputError
from jaxvae.export.network_tensors import to_state_dict
from jaxvae.export.torch.pth import from_torch, to_torch
from jaxvae.inference.load import import_model
from jaxvae.inference.verify import verify
from jaxvae.models.layer_names import resolve_hidden_dims
from jaxvae.models.vae import VAE
from jaxvae.reports import publish
from tests.helpers.networks import DEEPER, make_run
from tests.helpers.training import killed, run, same, timeless, write_clips

TAGS, LATENT, ROWS = 30, 4, 16
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def build(**options):
    sizes = {"num_tags": TAGS, "latent_dim": LATENT, "hidden_dim": 12, **options}
    return VAE(**sizes, rngs=nnx.Rngs(0))


def split(model):
    graphdef, *parts = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, *map(nnx.to_pure_dict, parts)


def multi_hot():
    return (np.random.default_rng(0).random((ROWS, TAGS)) < 0.2).astype(np.float32)


def total(decoded, mean, logvar):
    """A number that every output moves, each its own way."""
    return jnp.sum(jnp.sin(decoded)) + jnp.sum(jnp.cos(mean) * logvar)


# Several hidden layers


def test_hidden_dims_take_the_place_of_hidden_dim():
    assert resolve_hidden_dims(12, ()) == (12,)
    assert resolve_hidden_dims(12, (9, 5)) == (9, 5)
    one, same_one = build(), build(hidden_dim=7, hidden_dims=(12,))
    for a, b in zip(split(one)[1:], split(same_one)[1:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    kernels = {
        name: arrays["kernel"].shape for name, arrays in split(build(hidden_dims=(9, 5)))[1].items()
    }
    assert kernels == {
        **{"fc1": (TAGS, 9), "fc1_2": (9, 5), "fc2_mu": (5, LATENT), "fc2_logvar": (5, LATENT)},
        **{"fc3": (LATENT, 5), "fc3_2": (5, 9), "fc4": (9, TAGS)},
    }


def test_values_gradients_and_statistics_are_torchs(torch):
    from tests.helpers.torch_twin import Twin, gradients

    norms = {"use_batch_norm": True, "use_layer_norm": True}
    graphdef, params, stats = split(build(hidden_dims=DEEPER, **norms))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda array: array + jnp.asarray(0.2 * rng.normal(size=array.shape), jnp.float32), params
    )
    sizes = {"num_tags": TAGS, "latent_dim": LATENT, "hidden_dims": DEEPER}
    twin = Twin(**sizes, **norms).take(params, stats).train()
    x = multi_hot()

    def ours(params):
        model = nnx.merge(graphdef, params, stats)
        mean, logvar = model.encode(jnp.asarray(x), train=True)
        decoded = model.decode(mean, train=True)
        batch_stats = nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))
        return total(decoded, mean, logvar), (decoded, batch_stats)

    value_and_grad = jax.jit(jax.value_and_grad(ours, has_aux=True))
    (_, (decoded, batch_stats)), found = value_and_grad(params)
    mean, logvar = twin.encode(torch.from_numpy(x))
    theirs = twin.decode(mean)
    (torch.sin(theirs).sum() + (torch.cos(mean) * logvar).sum()).backward()
    # Digits are lost in what divides by the deviations of a few rows, six times.
    np.testing.assert_allclose(decoded, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)
    expected = gradients(twin)
    assert found.keys() == expected.keys()
    for layer, arrays in found.items():
        for name, array in arrays.items():
            near = 3e-5 * np.abs(expected[layer][name]).max()
            np.testing.assert_allclose(array, expected[layer][name], rtol=0, atol=near)
    for layer, arrays in batch_stats.items():
        theirs = getattr(twin, layer)
        np.testing.assert_allclose(arrays["mean"], theirs.running_mean, **CLOSE)
        np.testing.assert_allclose(arrays["var"], theirs.running_var, **CLOSE)


def test_each_hidden_layer_has_its_part_of_the_dropout():
    """By hand: a layer of which nothing is kept leaves the next one its bias alone."""
    model = build(hidden_dims=(5, 3))
    x, z = jnp.asarray(multi_hot()), jnp.ones((ROWS, LATENT))
    keep = np.ones((ROWS, 8), np.float32)
    np.testing.assert_array_equal(model.encode(x, keep=jnp.asarray(keep))[0], model.encode(x)[0])
    keep[:, 5:] = 0.0  # the encoder's second layer, of 3
    mean, _ = model.encode(x, keep=jnp.asarray(keep))
    np.testing.assert_allclose(mean, np.tile(model.fc2_mu.bias[...], (ROWS, 1)), rtol=1e-6)
    keep[:] = 1.0
    keep[:, :5] = 0.0  # its first
    h = np.maximum(model.fc1_2.bias[...], 0.0) @ model.fc2_mu.kernel[...]
    mean, _ = model.encode(x, keep=jnp.asarray(keep))
    np.testing.assert_allclose(mean, np.tile(h + model.fc2_mu.bias[...], (ROWS, 1)), rtol=1e-5)
    keep[:] = 1.0
    keep[:, :3] = 0.0  # the decoder's first, of 3
    h = np.maximum(model.fc3_2.bias[...], 0.0) @ model.fc4.kernel[...]
    logits = model.decode(z, keep=jnp.asarray(keep))
    np.testing.assert_allclose(logits, np.tile(h + model.fc4.bias[...], (ROWS, 1)), rtol=1e-5)


def test_the_table_of_names_knows_further_layers(tmp_path):
    network = make_run("mixture", True, True, tmp_path, hidden_dims=(9, 6)).network
    tensors = to_state_dict(network)
    shapes = {name: array.shape for name, array in tensors.items() if array.ndim == 2}
    assert list(shapes) == [
        *("fc1.weight", "fc1_2.weight", "fc2_mu.weight", "fc2_logvar.weight"),
        *("fc3.weight", "fc3_2.weight", "fc4.weight", "prior.means", "prior.logvars"),
    ]
    assert (shapes["fc1_2.weight"], shapes["fc3_2.weight"]) == ((6, 9), (9, 6))
    for name, width in (("bn1", 9), ("ln1_2", 6), ("bn1_2", 6), ("ln2", 6), ("bn2_2", 9)):
        assert tensors[f"{name}.weight"].shape == (width,)
    back = to_torch(from_torch(tensors))
    assert list(back) == list(tensors)
    assert same(back, tensors)
    with pytest.raises(InputError, match=r"fc3_2\.bias has size 8 .* but fc1\.weight has 9"):
        from_torch({**tensors, "fc3_2.bias": np.ones(8, np.float32)})
    without = {name: array for name, array in tensors.items() if not name.startswith("fc3_2")}
    with pytest.raises(InputError, match=r"lacks fc3_2\.weight, fc3_2\.bias"):
        from_torch(without)


# Tied weights


@pytest.mark.parametrize("wide", [TAGS + 1, TAGS])
def test_a_tied_kernel_gets_the_gradients_of_both_its_uses(monkeypatch, wide):
    """As an untied model with the same kernels has them, one after the other; rows are looked up
    in a table, or multiplied."""
    monkeypatch.setattr("jaxvae.models.vae.SPARSE_LOOKUP_MIN_TAGS", wide)
    graphdef, params, _ = split(build(tied_weights=True))
    apart, both, _ = split(build())
    assert params.keys() == both.keys()
    assert set(params["fc4"]) == {"bias"}
    both["fc1"], both["fc4"] = params["fc1"], {**params["fc4"], "kernel": params["fc1"]["kernel"].T}
    columns = jnp.asarray([[0, 7, TAGS - 1], [12, TAGS, TAGS], [TAGS] * 3], jnp.uint8)

    def loss(params, graphdef):
        model = nnx.merge(graphdef, params, {})
        mean, logvar = model.encode_rows(columns)
        decoded = model.decode(mean)
        return total(decoded, mean, logvar), decoded

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    (tied, decoded), (untied, expected) = gradient(params, graphdef), gradient(both, apart)
    np.testing.assert_allclose(decoded, expected, **CLOSE)
    summed = untied["fc1"]["kernel"] + untied["fc4"].pop("kernel").T
    assert np.abs(untied["fc1"]["kernel"] - summed).max() > 0.1  # both uses count
    untied["fc1"]["kernel"] = summed
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), tied, untied)
    program = gradient.lower(params, graphdef).as_text()
    products = [line for line in program.splitlines() if "dot_general" in line]
    assert len(products) >= 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
    # Members of a population, together.
    pair = jax.tree.map(lambda array: jnp.stack([array, 2.0 * array]), params)
    together, _ = jax.vmap(gradient, in_axes=(0, None))(pair, graphdef)
    second, _ = gradient(jax.tree.map(lambda array: array[1], pair), graphdef)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, **CLOSE), together, second)


def test_a_tied_model_starts_as_others_do():
    params, both = split(build(tied_weights=True))[1], split(build())[1]
    del both["fc4"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, params, both)
    bias = jnp.arange(TAGS, dtype=jnp.float32)
    given = split(build(tied_weights=True, decoder_bias=bias))[1]
    np.testing.assert_array_equal(given["fc4"]["bias"], bias)


def test_bfloat16_computes_near_float32_and_answers_in_it():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(8, LATENT)), jnp.float32)
    options = {"tied_weights": True, "hidden_dims": (12, 9)}
    full, half = build(**options), build(**options, compute_dtype=jnp.bfloat16)
    assert half.decode(z).dtype == jnp.float32
    np.testing.assert_allclose(full.decode(z), half.decode(z), atol=0.02)  # it keeps 8 bits
    assert not np.array_equal(full.decode(z), half.decode(z))


# A run of both


OPTIONS = {
    "model__hidden_dims": (8, 6),
    "model__tied_weights": True,
    "model__hidden_dropout_p": 0.1,
    "model__use_batch_norm": True,
    "model__use_layer_norm": True,
    "trainer__ema_decay": 0.9,
    "trainer__checkpoint_every_seconds": 0.0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was killed after its first epoch, and resumed."""
    clips = write_clips(tmp_path_factory.mktemp("deeper"))
    killed(clips, **OPTIONS)
    return run(clips, **OPTIONS)[1]


@pytest.mark.long
def test_it_resumed_to_the_same_end(trained):
    _, whole = run(trained.parent, "whole", **OPTIONS)
    assert timeless(whole) == timeless(trained)
    assert (whole / "model.pth").read_bytes() == (trained / "model.pth").read_bytes()
    first, *_, last = timeless(trained)
    assert last["train/loss"] < first["train/loss"]


def test_what_is_on_disk_fits_together(trained):
    held, wrong = verify(trained)
    assert held
    assert not wrong
    opened, exported = jaxvae.load(trained), jaxvae.load(trained / "model.pth")
    assert opened.network.hidden_dims == (8, 6)
    sets = opened.sets("test")
    np.testing.assert_array_equal(opened.encode(sets), exported.encode(sets))
    assert opened.sample(20) == exported.sample(20)
    last = jaxvae.load(trained, checkpoint="last").network
    assert last.hidden_dims == (8, 6)
    np.testing.assert_array_equal(last.params["fc4"]["kernel"], last.params["fc1"]["kernel"].T)


def test_torch_has_both_kernels_and_the_same_numbers(trained, torch):
    from tests.helpers.torch_twin import check_reconstructions

    opened = jaxvae.load(trained)
    found = torch.load(trained / "model.pth", weights_only=True)
    assert torch.equal(found["fc4.weight"], found["fc1.weight"].T)
    assert opened.network.use_batch_norm
    assert opened.network.use_layer_norm
    check_reconstructions(opened, found)


@pytest.mark.parametrize(
    "format_name",
    [
        *("safetensors", "stablehlo", "torch_module"),
        pytest.param("onnx", marks=pytest.mark.ecosystem),
    ],
)
def test_every_format_holds_it(trained, format_name, tmp_path):
    """Each file's logits are compared with the model's as it is written; here that none refuses."""
    if format_name == "onnx":
        pytest.importorskip("onnx", reason="needs the extra onnx")
    name = "folder" if format_name == "torch_module" else f"m.{format_name}"
    _, difference = jaxvae.load(trained).export(tmp_path / name, format=format_name)
    assert 0.0 <= difference < 1e-5


def test_published_and_imported_it_is_the_same_model(trained, tmp_path):
    opened = jaxvae.load(trained)
    publish.write_folder(opened, tmp_path / "hub", repository="me/it", license=None)
    assert "8 and 6 hidden units" in (tmp_path / "hub" / "README.md").read_text()
    made = import_model(trained / "model.pth", taxonomy_path=None, output=tmp_path / "imported")
    for other in (jaxvae.load(tmp_path / "hub"), made):
        assert other.network.hidden_dims == (8, 6)
        assert other.config["model"]["hidden_dims"] == [8, 6]
        sets = opened.sets("test")
        np.testing.assert_array_equal(other.encode(sets), opened.encode(sets))
