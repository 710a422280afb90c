"""Exports: names and endings, what is there already, what is missing, and nothing half-written."""

import builtins
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

import jaxvae
from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.export import formats, network_tensors
from jaxvae.export.network_tensors import to_state_dict
from tests.helpers.commands import tool
from tests.helpers.documents import python_block
from tests.helpers.networks import VARIED, make_run

pytestmark = pytest.mark.ecosystem

FILES = {
    ("model.pth", None): {"model.json", "model.pth", "model.safetensors"},
    ("model.safetensors", None): {"model.json", "model.safetensors"},
    ("model.stablehlo", None): {
        *("model.json", "model.encoder.stablehlo", "model.decoder.stablehlo"),
        "model.prior.stablehlo",
    },
    ("there/model.v2.pth", "pth"): {"model.v2.json", "model.v2.pth", "model.v2.safetensors"},
    ("there", "torch_module"): {"model.json", "model.pth", "model.py", "model.safetensors"},
}


def names(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("asked", FILES)
def test_each_format_is_these_files(asked, tmp_path):
    output, name = asked
    run = make_run("normal", True, True, tmp_path)
    (tmp_path / output).parent.mkdir(exist_ok=True)
    files, difference = run.export(tmp_path / output, format=name)
    assert {path.name for path in files} == FILES[asked] == names(tmp_path)
    assert 0.0 <= difference < 1e-5


@pytest.mark.parametrize("architecture", VARIED)
def test_safetensors_alone_hold_the_model(architecture, tmp_path):
    run = make_run(*architecture, tmp_path)
    run.export(tmp_path / "m.safetensors")
    expected = to_state_dict(run.network)
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    back = jaxvae.load(tmp_path / "m.safetensors")
    assert back.network.prior == architecture[0]
    tags = [["jazz", "calm"]]
    np.testing.assert_array_equal(back.encode(tags), run.encode(tags))
    assert back.sample(5, seed=2) == run.sample(5, seed=2)


def test_the_documented_lines_run(tmp_path, monkeypatch):
    make_run("normal", False, False, tmp_path).export(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(python_block("export.md", "pth, safetensors"), found)
    assert (found["hidden_dim"], found["num_tags"]) == (9, 7)


def test_a_safetensors_is_imported_as_a_pth_is(tmp_path):
    from jaxvae.inference.load import import_model

    run = make_run("vamp", True, False, tmp_path)
    run.export(tmp_path / "m.safetensors")
    made = import_model(tmp_path / "m.safetensors", taxonomy_path=None, output=tmp_path / "made")
    tags = [["jazz", "calm"]]
    np.testing.assert_array_equal(made.encode(tags), run.encode(tags))


@pytest.mark.parametrize(
    ("output", "name", "needles"),
    [
        ("model.pt", None, [".pth, .safetensors, .onnx, .stablehlo"]),
        ("model", None, ["--format torch_module"]),
        ("model.pth", "onnx", [".onnx"]),
        ("model.onnx", "torch_module", ["folder"]),
        ("model.onnx", "onxx", ["did you mean 'onnx'", "torch_module"]),
        ("model.pth", "", ["must be one of"]),
    ],
)
def test_names_and_endings_that_do_not_fit(output, name, needles):
    with pytest.raises(InputError) as caught:
        formats.format_of(output, name)
    for needle in needles:
        assert needle in str(caught.value)


def test_what_is_there_is_not_replaced_unless_it_is_the_same(tmp_path):
    run, other = (make_run("normal", False, norm, tmp_path) for norm in (False, True))
    run.export(tmp_path / "m.pth")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run.export(tmp_path / "m.pth")
    run.export(tmp_path / "m.safetensors")  # the same bytes
    with pytest.raises(InputError, match=r"m\.pth: exists already"):
        other.export(tmp_path / "m.pth")
    (tmp_path / "taken").write_text("x")
    with pytest.raises(
        InputError, match=r"taken: is a file, and --format torch_module is a folder"
    ):
        run.export(tmp_path / "taken", format="torch_module")
    with pytest.raises(InputError, match=r"/x{250}\.stablehlo: File name too long"):
        run.export(tmp_path / f"{'x' * 250}.stablehlo")
    with pytest.raises(InputError, match="taken"):
        run.export(tmp_path / "taken" / "m.pth")
    (tmp_path / "taken").unlink()
    (tmp_path / "m.stablehlo").mkdir()
    (tmp_path / "m.decoder.stablehlo").mkdir()
    with pytest.raises(InputError, match="exists already"):
        run.export(tmp_path / "m.stablehlo")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_disk_that_refuses_leaves_nothing(tmp_path, monkeypatch):
    run = make_run("normal", False, False, tmp_path)

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "write_text", full)
    with pytest.raises(InputError, match="No space left on device"):
        run.export(tmp_path / "there", format="torch_module")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_hold_the_model_gets_no_name(tmp_path, monkeypatch):
    run = make_run("normal", False, False, tmp_path)
    whole = network_tensors.to_state_dict

    def wrong(network):
        return {name: array * np.float32(1.01) for name, array in whole(network).items()}

    monkeypatch.setattr(network_tensors, "to_state_dict", wrong)
    for output in ("m.pth", "m.safetensors"):
        with pytest.raises(
            InputError, match=rf"{tmp_path}/{output}: written, but its logits differ"
        ):
            run.export(tmp_path / output)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ending", "package"), [("onnx", "onnx"), ("stablehlo", "flatbuffers")])
def test_a_missing_package_is_one_line(ending, package, folder, tmp_path, monkeypatch, capsys):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(main, "quiet_libraries", lambda: None)
    code = main.main(["export", str(folder), "--output", str(tmp_path / f"m.{ending}")])
    assert code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"jaxvae: [^\n]*pip install {package}[^\n]*\n", printed.err)
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_a_process_of_its_own(folder, tmp_path):
    done = tool("export", folder, "--output", "m.safetensors", cwd=tmp_path)
    assert re.fullmatch(r"m\.json, m\.safetensors: the best checkpoint of [^\n]+\n", done.stdout)
    assert json.loads((tmp_path / "m.json").read_text())["taxonomy"]
    before = names(tmp_path)
    for arguments in (
        ("--output", "m.pt"),
        ("--output", "m.pth", "--format", "pht"),
        ("--output", "m.safetensors", "--checkpoint", "last"),  # of the second epoch as well
    ):
        code = 0 if "last" in arguments else 2
        tool("export", folder, *arguments, cwd=tmp_path, expect=code)
    assert names(tmp_path) == before


@pytest.mark.parametrize("output", ["new/m.pth", "new/deep/m.onnx", "new/folder", "file/m.pth"])
def test_no_folder_is_made_for_an_export_but_the_one_it_is(output, folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    given = ["export", str(folder), "--output", str(tmp_path / output)]
    given += ["--format", "torch_module"] if output == "new/folder" else []
    assert main.main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jaxvae: --output {tmp_path / output}: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
