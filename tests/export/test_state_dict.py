"""State dicts as people have them: wrapped, prefixed, among the rest of a checkpoint."""

import argparse
import functools
import json
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.export import model_files, network_tensors
from jaxvae.export.torch.pth import read_pth
from tests.conftest import for_a_module

torch = for_a_module("torch")
save_file = for_a_module("safetensors.torch").save_file
pytestmark = pytest.mark.torch

TAGS = {"genre": ["a", "b", "c", "d", "e", "f"]}


class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.fc2_mu = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
        self.fc2_logvar = torch.nn.Linear(8, 3)
        self.fc3, self.fc4 = torch.nn.Linear(3, 8), torch.nn.Linear(8, 6)

    def forward(self, x):
        hidden = torch.relu(self.fc3(self.fc2_mu(torch.relu(self.fc1(x)))))
        return self.fc4(hidden)


class Holder(torch.nn.Module):
    def __init__(self, model, name="model"):
        super().__init__()
        setattr(self, name, model)


def compiled(model):
    return torch.compile(model, backend="eager")


def trained(model):
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def plain():
    return Module().state_dict()


def lightning(**more):
    state = Holder(compiled(Module())).state_dict()
    facts = {"epoch": 3, "global_step": 7, "callbacks": {}, "lr_schedulers": []}
    return {**facts, "state_dict": state, "hyper_parameters": {"lr": 5e-4, **more}}


def whole_checkpoint():
    model = Module()
    before = model.state_dict()
    before = OrderedDict((name, tensor.clone()) for name, tensor in before.items())
    return {"epoch": 3, "model": before, "optimizer": trained(model), "loss": 0.25, "best": None}


SAVED = {
    "plain": plain,
    "data-parallel": lambda: torch.nn.DataParallel(Module()).state_dict(),
    "compiled": lambda: compiled(Module()).state_dict(),
    "compiled, parallel": lambda: torch.nn.DataParallel(compiled(Module())).state_dict(),
    "parallel, compiled": lambda: compiled(torch.nn.DataParallel(Module())).state_dict(),
    "held": lambda: Holder(torch.nn.DataParallel(compiled(Module())), "vae").state_dict(),
    "held under another name": lambda: Holder(Holder(Module()), "network").state_dict(),
    "a layer compiled": lambda: {
        name.replace("fc1.", "fc1._orig_mod."): tensor for name, tensor in plain().items()
    },
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(Module()).state_dict(),
    "model_state_dict": lambda: {"model_state_dict": plain()},
    "model": lambda: {"model": torch.nn.DataParallel(Module()).state_dict()},
    "model, with a config beside": lambda: {"model": {"hidden": 8}, "weights": plain()},
    "under no usual name": lambda: {"epoch": 3, "generator": plain()},
    "twice": lambda: {"model": {"state_dict": plain(), "kind": "vae"}, "epoch": 1},
    "with its optimizer": whole_checkpoint,
    "lightning": lightning,
}


@pytest.fixture(scope="module")
def expected():
    x = torch.eye(6)
    with torch.no_grad():
        return x.numpy(), Module()(x).numpy()


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_state_dict_is_the_model_that_torch_has(tmp_path, name, expected):
    torch.save(SAVED[name](), tmp_path / "model.pt")
    tensors = read_pth(tmp_path / "model.pt")
    assert set(tensors) == set(plain())
    np.testing.assert_allclose(
        network_tensors.reference_logits(tensors, expected[0]), expected[1], atol=1e-6
    )


@pytest.mark.parametrize("name", ["data-parallel", "model_state_dict", "averaged"])
def test_import_makes_a_run_of_it(tmp_path, capsys, name):
    torch.save(SAVED[name](), tmp_path / "model.pt")
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    parts = ("import", "model.pt", "--taxonomy", "tags.json", "--output", "run")
    arguments = [str(tmp_path / part) if part in parts[1::2] else part for part in parts]
    assert main.main(arguments) == 0, capsys.readouterr().err
    assert "6 tags, 8 hidden units, 3 latent dimensions" in capsys.readouterr().out
    tensors = read_pth(tmp_path / "run" / "model.pth")
    assert all((tensors[name] == tensor.numpy()).all() for name, tensor in plain().items())


def test_safetensors_lose_their_prefixes_too(tmp_path):
    save_file(torch.nn.DataParallel(Module()).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    network, *_ = model_files.read_model(
        tmp_path / "model.safetensors", str(tmp_path / "tags.json")
    )
    assert (network.params["fc1"]["kernel"] == plain()["fc1.weight"].numpy().T).all()


@pytest.fixture
def omegaconf(monkeypatch):
    """The class that Lightning pickles where hyperparameters come from Hydra."""
    module = types.ModuleType("omegaconf.dictconfig")
    kind = type("DictConfig", (), {"__module__": module.__name__, "__qualname__": "DictConfig"})
    module.DictConfig = kind
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return kind


def test_what_is_not_run_names_the_way_out(tmp_path, omegaconf):
    path = tmp_path / "last.ckpt"
    ran = {
        "omegaconf.dictconfig DictConfig": lightning(model=omegaconf()),
        "argparse Namespace": {"args": argparse.Namespace(lr=1.0), "model": plain()},
        "torch.nn.modules.linear Linear": torch.nn.Linear(2, 2),
        "functools partial": {"model": plain(), "loss": functools.partial(print)},
    }
    for asked, value in ran.items():
        torch.save(value, path)
        with pytest.raises(InputError) as caught:
            read_pth(path)
        message = str(caught.value)
        assert message.startswith(f"cannot read {path}: it asks for '{asked}'")
        assert 'torch.save(checkpoint["state_dict"], "weights.pth")' in message
        assert "\n" not in message
    # That way leads somewhere.
    torch.save(lightning(model=omegaconf()), path)
    checkpoint = torch.load(path, weights_only=False)
    torch.save(checkpoint["state_dict"], tmp_path / "weights.pth")
    assert set(read_pth(tmp_path / "weights.pth")) == set(plain())


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    for value in (
        {"a": plain(), "b": plain()},
        {"optimizer": trained(Module()), "epoch": 3},
        [plain(), 3],
    ):
        torch.save(value, tmp_path / "x.pth")
        with pytest.raises(InputError, match="save the state dict alone"):
            read_pth(tmp_path / "x.pth")


def test_names_that_differ_only_by_a_wrapper_stay(tmp_path):
    state = {**plain(), **{f"module.{name}": tensor for name, tensor in plain().items()}}
    torch.save(state, tmp_path / "x.pth")
    assert set(read_pth(tmp_path / "x.pth")) == set(state)
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    with pytest.raises(InputError, match=r"x\.pth: the state dict has unknown 'module\.fc1"):
        model_files.read_model(tmp_path / "x.pth", str(tmp_path / "tags.json"))


def test_of_a_model_beside_other_tensors_only_those_are_unknown(tmp_path):
    model = Holder(Holder(Module()))
    model.register_buffer("pos_weight", torch.ones(6))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    (tmp_path / "tags.json").write_text(json.dumps(TAGS))
    with pytest.raises(InputError) as caught:
        model_files.read_model(tmp_path / "x.pth", str(tmp_path / "tags.json"))
    assert "the state dict has unknown 'pos_weight'; expected layers" in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pointer_in_place_of_a_model_is_named(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(InputError, match=r"is a Git LFS pointer.*git lfs pull"):
        model_files.read_model(path, None)
