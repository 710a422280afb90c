"""Priors and architectures of a user's own files: `model.prior` and `model.architecture`."""

import json
import shutil

import jax
import numpy as np
import pytest
from scipy import stats

import jaxvae
from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.evaluation.evaluate_run import evaluate_run
from jaxvae.inference.load import import_model
from jaxvae.inference.verify import verify
from jaxvae.reports import explorer, publish
from tests.helpers.training import killed, parameters, run, same, timeless, write_clips

OWN = """
import jax
import jax.numpy as jnp
from flax import nnx

from jaxvae.models.architecture import Architecture
from jaxvae.models.priors import MixturePrior, Prior
from jaxvae.models.vae import VAE

class Gaussian(MixturePrior):
    factorized = True

    def __init__(self, *, latent_dim, **unused):
        self.centre = nnx.Param(jnp.zeros((latent_dim,)))
        self.spread = nnx.Param(jnp.zeros((latent_dim,)))

    def components(self, encode):
        return self.centre[...][None], self.spread[...][None], jnp.zeros((1,))

class Laplace(Prior):
    def __init__(self, *, latent_dim, **unused):
        self.log_scale = nnx.Param(jnp.zeros((latent_dim,)))

    def log_prob(self, z, encode):
        scale = jnp.broadcast_to(jnp.exp(self.log_scale[...]), z.shape)
        return jnp.sum(-jnp.abs(z) / scale - jnp.log(2.0 * scale), axis=-1)

    def draw(self, key, num, encode):
        scale = jnp.exp(self.log_scale[...])
        return scale[None] * jax.random.laplace(key, (num, len(scale)))

class Deep(Architecture):
    def __init__(self, *, num_tags, latent_dim, hidden_dim, rngs, **options):
        self.inwards = getattr(nnx, "List", list)([  # flax before 0.12 takes a list
            nnx.Linear(num_tags, hidden_dim, rngs=rngs),
            nnx.Linear(hidden_dim, 2 * latent_dim, rngs=rngs),
        ])
        self.norm = nnx.BatchNorm(hidden_dim, rngs=rngs)
        self.outwards = nnx.Linear(latent_dim, num_tags, rngs=rngs)
        super().__init__(num_tags=num_tags, latent_dim=latent_dim, rngs=rngs, **options)

    def encode(self, x, *, mask=None, train=False, keep=None):
        first, second = self.inwards
        h = self.norm(first(x), use_running_average=not train, mask=None)
        return jnp.split(second(jax.nn.gelu(h)), 2, axis=-1)

    def decode(self, z, *, mask=None, train=False, keep=None):
        return self.outwards(z)

class Same(VAE):
    pass

class Narrow(Deep):
    def decode(self, z, **options):
        return super().decode(z, **options)[:, 1:]

class Odd(Deep):
    def decode(self, z, **options):
        logits = super().decode(z, **options)
        return logits if logits.shape[-1] % 2 else logits[:, 1:]

class Random(Deep):
    def __init__(self, *, rngs, **options):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        super().__init__(rngs=rngs, **options)

class Inside(Laplace):
    def __init__(self, *, latent_dim, **unused):
        self.inner = nnx.Linear(latent_dim, 1, rngs=unused["rngs"])
        super().__init__(latent_dim=latent_dim)

class Few(Laplace):
    def __init__(self, *, latent_dim):
        super().__init__(latent_dim=latent_dim)

class Wrong(Laplace):
    def draw(self, key, num, encode):
        return super().draw(key, num, encode)[0]

class Broken(Laplace):
    def log_prob(self, z, encode):
        return z.undefined

def call(epoch, metrics, state):
    pass

def prior(**arguments):
    return Laplace(**arguments)
"""
KINDS = {
    "gaussian": {"model__prior": "own.py:Gaussian", "loss__objective": "free_bits"},
    "deep": {"model__prior": "own.py:Laplace", "model__architecture": "own.py:Deep"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind, whose own file is gone since."""
    folder = write_clips(tmp_path_factory.mktemp("own"))
    (folder / "own.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind, options in KINDS.items():
            run(folder, kind, trainer__max_epochs=3, **options)
    (folder / "own.py").rename(folder / "moved.py")
    return folder


@pytest.fixture
def clips(tmp_path, monkeypatch):
    write_clips(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_enough_by_itself(trained, kind):
    opened = jaxvae.load(trained / kind)
    assert verify(trained / kind)[1] == []
    (copy,) = (trained / kind / "extensions").iterdir()
    assert copy.read_text() == OWN
    judged = evaluate_run(opened, split="test", num_importance_samples=200)
    assert judged["rate"] == pytest.approx(-judged["elbo"] - judged["distortion"])
    assert -judged["nll_iw"] > judged["elbo"] - 0.05
    assert all(opened.sample(20))
    done = opened.complete(present=[opened.taxonomy.tags[0]], num=2)
    assert all(opened.taxonomy.tags[0] in tags for tags in done.sets)
    assert timeless(trained / kind)[-1]["train/loss"] < timeless(trained / kind)[0]["train/loss"]


@pytest.mark.long
def test_a_density_of_ones_own_is_what_the_run_computes_with(trained):
    model = jaxvae.load(trained / "deep").network.model
    scale = np.exp(np.asarray(model.prior.log_scale[...]))
    assert np.abs(scale - 1.0).max() > 0.0  # it learns
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    expected = stats.laplace.logpdf(z, scale=scale).sum(axis=1)
    np.testing.assert_allclose(model.log_prior(z), expected, rtol=1e-5)
    centre, variance = model.prior_moments()  # of draws
    np.testing.assert_allclose(centre, 0.0, atol=0.2)
    np.testing.assert_allclose(variance, 2.0 * scale**2, rtol=0.2)


def test_a_resumed_run_ends_as_one_without_a_stop(trained, clips):
    killed(clips, "deep", after=2, trainer__max_epochs=3, **KINDS["deep"])
    (clips / "own.py").unlink()  # the run's copy is taken
    run(clips, "deep", trainer__max_epochs=3, **KINDS["deep"])
    assert timeless(clips / "deep") == timeless(trained / "deep")
    weights = [folder / "deep" / "model.safetensors" for folder in (clips, trained)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_is_of_one_content(clips):
    killed(clips, after=2, trainer__max_epochs=3, **KINDS["gaussian"])
    (clips / "own.py").write_text(OWN + "\n")
    with pytest.raises(InputError, match=r"another content of own\.py"):
        run(clips, trainer__max_epochs=3, **KINDS["gaussian"])
    with pytest.raises(InputError, match=r"model\.prior \(was own\.py:Gaussian, now normal\)"):
        run(clips, trainer__max_epochs=3, loss__objective="free_bits")


@pytest.mark.long
def test_a_subclass_that_changes_nothing_trains_the_same_bits(clips):
    run(clips, "builtin", trainer__max_epochs=1)
    _, folder = run(clips, "own", trainer__max_epochs=1, model__architecture="own.py:Same")
    assert timeless(folder) == timeless(clips / "builtin")
    assert same(parameters(folder), parameters(clips / "builtin"))


def test_a_changed_copy_is_noticed(trained, tmp_path):
    folder = shutil.copytree(trained / "gaussian", tmp_path / "run")
    assert verify(folder)[1] == []
    (copy,) = (folder / "extensions").iterdir()
    copy.write_text(OWN + "\n")
    assert verify(folder)[1] == [f"{copy} is not what was run"]
    with pytest.raises(InputError, match="is not what the model was trained with"):
        jaxvae.load(folder)


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "name"),
    [("gaussian", "m.pth"), ("gaussian", "m.safetensors"), ("deep", "m.safetensors")],
)
def test_an_exported_file_runs_its_code_only_when_told(trained, tmp_path, kind, name):
    original = jaxvae.load(trained / kind)
    original.export(tmp_path / name)
    with pytest.raises(InputError, match=r"own\.py:.*not run unasked.*--trust-code") as caught:
        jaxvae.load(tmp_path / name)
    assert "\n" not in str(caught.value)
    exported = jaxvae.load(tmp_path / name, trust_code=True)
    rows = original.rows("test")
    for ours, theirs in zip(
        original.row_likelihood(rows, 20, 0), exported.row_likelihood(rows, 20, 0), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    sidecar = tmp_path / "m.json"
    content = json.loads(sidecar.read_text())
    (copy,) = content["extensions"]
    content["extensions"] = {copy: OWN + "\n"}
    sidecar.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not what the model was trained with"):
        jaxvae.load(tmp_path / name, trust_code=True)


def test_formats_that_can_not_express_it_say_so(trained, tmp_path):
    gaussian, deep = (jaxvae.load(trained / kind) for kind in ("gaussian", "deep"))
    for name, what in (
        ("pth", "architecture=own.py:Deep; safetensors and stablehlo can"),
        ("onnx", "architecture=own.py:Deep"),
        ("torch_module", "architecture=own.py:Deep"),
        ("stablehlo", "prior=own.py:Laplace"),
    ):
        ending = "" if name == "torch_module" else f".{name}"
        pytest.importorskip("flatbuffers")
        with pytest.raises(InputError, match=f"--format {name}: can't express") as caught:
            deep.export(tmp_path / f"m{ending}", format=name)
        assert what in str(caught.value)
    with pytest.raises(InputError, match=r"torch_module: can't express .*prior=own\.py:Gaussian"):
        gaussian.export(tmp_path / "module", format="torch_module")
    assert list(tmp_path.iterdir()) == []
    assert not (trained / "deep" / "model.pth").exists()
    assert (trained / "gaussian" / "model.pth").exists()


def test_a_mixture_of_ones_own_goes_where_mixtures_go(trained, tmp_path):
    pytest.importorskip("flatbuffers")
    original = jaxvae.load(trained / "gaussian")
    original.export(tmp_path / "m.stablehlo")
    from jax import export

    draw = export.deserialize(bytearray((tmp_path / "m.prior.stablehlo").read_bytes()))
    noise = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    prior = original.network.model.prior
    centre, spread = np.asarray(prior.centre[...]), np.asarray(prior.spread[...])
    expected = centre + np.exp(0.5 * spread) * noise
    np.testing.assert_allclose(draw.call(noise, np.full(3, 0.5, np.float32)), expected, rtol=1e-5)
    assert '"kind":"mixture"' in explorer.make_page(original)
    with pytest.raises(InputError, match=r"the page can't compute .*architecture=own\.py:Deep"):
        explorer.make_page(jaxvae.load(trained / "deep"))


def test_a_published_model_and_an_imported_one_carry_their_code(trained, tmp_path):
    pytest.importorskip("huggingface_hub")
    original = jaxvae.load(trained / "deep")
    published = tmp_path / "published"
    publish.write_folder(original, published, repository="me/deep", license=None)
    assert "trust_code=True" in (published / "README.md").read_text()
    assert "no code of this repository" not in (published / "README.md").read_text()
    with pytest.raises(InputError, match="not run unasked"):
        jaxvae.load(published)
    sets = original.sample(10)
    assert jaxvae.load(published, trust_code=True).sample(10) == sets
    original.export(tmp_path / "m.safetensors")
    options = {"taxonomy_path": None, "output": tmp_path / "imported"}
    with pytest.raises(InputError, match="not run unasked"):
        import_model(tmp_path / "m.safetensors", **options)
    imported = import_model(tmp_path / "m.safetensors", **options, trust_code=True)
    assert imported.sample(10) == sets
    assert jaxvae.load(imported.folder).sample(10) == sets
    assert verify(imported.folder)[1] == []


def test_a_command_is_told_to_trust(trained, tmp_path, capsys):
    shutil.copy(trained / "gaussian" / "model.pth", tmp_path / "model.pth")
    shutil.copy(trained / "gaussian" / "model.json", tmp_path / "model.json")
    command = ["sample", str(tmp_path / "model.pth"), "--num=2"]
    assert main.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main.main([*command, "--trust-code"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"model__prior": "own.py:Wrong"}, "own.py:Wrong: its draw returns float32[2], not float3"),
        ({"model__prior": "own.py:Few"}, "pseudo_inputs=, rngs=), and that does not fit"),
        ({"model__prior": "own.py:Inside"}, "must have its arrays by itself"),
        ({"model__prior": "own.py:Broken"}, "own.py:Broken, line 82: it fails with 23 tags"),
        ({"model__prior": "own.py:call"}, "and that does not fit"),
        ({"model__prior": "own.py:prior"}, "must be a subclass of jaxvae.models.priors.Prior"),
        ({"model__prior": "own.py:Gauss"}, "has no 'Gauss' (did you mean 'Gaussian'?)"),
        ({"model__prior": "none.py:Gaussian"}, "none.py can't be read: No such file"),
        ({"model__prior": "gaussian"}, "or of your own, my_priors.py:Name"),
        (
            {"model__architecture": "own.py:Narrow"},
            "own.py:Narrow: its decode returns float32[5, 22], not float32[5, 23]",
        ),
        ({"model__architecture": "own.py:Random"}, "and a run keeps nnx.Param and nnx.BatchStat"),
        ({"model__architecture": "own.py:Laplace"}, "must be a subclass of jaxvae.models.archi"),
        (
            {"model__prior": "own.py:Laplace", "loss__objective": "free_bits"},
            "needs a KL for each dimension, which --config.model.prior=own.py:Laplace does not",
        ),
        (
            {"model__prior": "vamp", "loss__objective": "free_bits"},
            "needs a KL for each dimension, which --config.model.prior=vamp does not",
        ),
        (
            {"model__prior": "own.py:Gaussian", "trainer__callbacks": ("own.py:call",)},
            "the file of --config.model.prior has the same name",
        ),
    ],
)
def test_what_is_wrong_is_said_before_rows_are_read(clips, fields, says):
    shutil.move("clips.csv", "elsewhere.csv")
    with pytest.raises(InputError) as caught:
        run(clips, **fields)
    assert says in str(caught.value)
    assert not (clips / "run").exists()
    with pytest.raises(InputError, match=r"clips\.csv"):  # a control
        run(clips, **KINDS["gaussian"])


def test_what_is_wrong_with_the_datas_tags_alone_is_one_line(clips):
    with pytest.raises(InputError, match=r"own\.py:Odd: its decode returns float32\[5, 11\]"):
        run(clips, model__architecture="own.py:Odd")
    assert not (clips / "run" / "config.json").exists()


@pytest.mark.long
def test_seeds_and_frontiers_train_them(clips, capsys):
    command = [
        f"--config={write_config(clips)}",
        "--config.model.prior=own.py:Laplace",
        "--config.model.architecture=own.py:Deep",
    ]
    assert main.main(["seeds", *command, "--num=1", "--workdir=seeds"]) == 0
    assert jaxvae.load("seeds/seed_0").sample(2)
    weights = ["--kld_weights=1.0", "--seeds=1", "--workdir=frontier"]
    assert main.main(["frontier", *command, *weights]) == 0
    (point,) = json.loads((clips / "frontier" / "frontier.json").read_text())["points"]
    assert np.isfinite(point["val/nll_iw"]["mean"])
    (clips / "own.py").write_text(OWN + "\n")
    capsys.readouterr()
    assert main.main(["seeds", *command, "--num=2", "--workdir=seeds"]) == 2
    assert "another content of own.py" in capsys.readouterr().err
    wrong = [*command[:1], "--config.model.prior=own.py:Wrong"]
    shutil.move("clips.csv", "elsewhere.csv")
    assert main.main(["frontier", *wrong, *weights]) == 2
    assert "its draw returns" in capsys.readouterr().err


def write_config(clips):
    """A config file of the smallest model on the clips."""
    (clips / "tiny.py").write_text(
        "from configs import base\n\n"
        "def get_config(presets=''):\n"
        "    c = base.get_config(presets)\n"
        "    c.data.dataset_name, c.data.taxonomy_path = 'clips.csv', 'words.json'\n"
        "    c.data.val_fraction = c.data.test_fraction = 0.2\n"
        "    c.data.batch_size, c.trainer.max_epochs = 14, 2\n"
        "    c.model.hidden_dim, c.model.latent_dim = 8, 2\n"
        "    c.logger.name = ()\n"
        "    return c\n"
    )
    return "tiny.py"


def test_no_number_of_a_draw_is_a_users(trained):
    """The moments of a prior that gives none are of one key: the same at every call."""
    model = jaxvae.load(trained / "deep").network.model
    for ours, again in zip(model.prior_moments(), model.prior_moments(), strict=True):
        np.testing.assert_array_equal(ours, again)
    other = np.asarray(model.draw_prior(jax.random.key(1), 5))
    assert not np.array_equal(other, model.draw_prior(jax.random.key(2), 5))
