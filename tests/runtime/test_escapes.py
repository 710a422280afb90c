"""Output in any encoding: what can't be shown is escaped, and JSON and CSV stay what they are."""

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys

import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.data.dataset import load_dataset
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.runtime.escapes import ERRORS, escaped
from jaxvae.storage import atomic_files
from tests.conftest import ROOT

TAGS = {"ジャンル": ["ジャズ", "café"], "mood": ["mellow", "🎷 loud"]}
ENCODINGS = ("ascii", "cp1252", "latin-1", "shift_jis", "utf-8")
CONFIG = f"--config={ROOT}/configs/small.py"
ODD = os.fsdecode(b"odd\xff")
"""A name that is no UTF-8."""


class Stream(io.TextIOWrapper):
    """A stream of an encoding, as the interpreter opens them: strict."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def asked(monkeypatch, encoding, *arguments):
    """What a command prints to a terminal of an encoding."""
    out, err = Stream(encoding), Stream(encoding)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = main.main([str(argument) for argument in arguments])
    return code, out.text(), err.text()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tags.json").write_text(json.dumps(TAGS), encoding="utf-8")
    sets = [["ジャズ", "mellow", "知らない"], ["café", "🎷 loud"], ["ジャズ", "café"]] * 20
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["aspect_list"], *([str(tags)] for tags in sets)])
    shutil.copy("rows.csv", f"{ODD}.csv")
    return tmp_path


def data(name="rows.csv"):
    fields = (f"--config.data.dataset_name={name}", "--config.data.taxonomy_path=tags.json")
    return ["data", CONFIG, *fields]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_data_report_on_any_terminal(files, monkeypatch, encoding):
    code, out, err = asked(monkeypatch, encoding, *data())
    assert (code, err) == (0, "")
    unknown = "知らない"
    assert unknown.encode(encoding, ERRORS).decode(encoding) in out
    code, out, _ = asked(monkeypatch, encoding, *data(), "--json")
    assert code == 0
    assert json.loads(out)["unknown_tags"][0]["tag"] == unknown


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ["日本語 é ± 🎷", ODD, "\ud83c alone", "a\\u00e9"])
def test_json_and_csv_are_the_same_in_every_encoding(monkeypatch, encoding, text):
    from jaxvae.cli.run_options import print_csv, print_json

    def printing(options, rest):
        print_json({text: [text]})
        print_csv(["tags"], [[json.dumps([text], ensure_ascii=False)]])
        return 0

    monkeypatch.setattr(main, "_verify", printing)
    code, out, _ = asked(monkeypatch, encoding, "verify", "x")
    value, end = json.JSONDecoder().raw_decode(out)
    assert (code, value) == (0, {text: [text]})
    _, _, (cell,) = csv.reader(io.StringIO(out[end:], newline=""))
    assert json.loads(cell) == [text]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_help_and_errors_on_any_terminal(monkeypatch, tmp_path, encoding):
    monkeypatch.chdir(tmp_path)
    for command in ("export", "sample"):
        with pytest.raises(SystemExit) as ended:
            asked(monkeypatch, encoding, command, "--help")
        assert ended.value.code == 0
    for name in ("日本語", ODD):
        code, out, err = asked(monkeypatch, encoding, "verify", name)
        assert (code, out) == (2, "")
        assert name.encode(encoding, ERRORS).decode(encoding) in err
        assert err.count("\n") == 1


def test_texts_for_libraries_are_utf_8():
    assert escaped({"a": [ODD, 1, ("é",)]}) == {"a": ["odd\\udcff", 1, ("é",)]}


def test_files_are_utf_8_and_keep_names_that_are_not(tmp_path):
    atomic_files.write_json(tmp_path / "a.json", {"name": ODD, "tag": "日本語"})
    assert atomic_files.read_json(tmp_path / "a.json") == {"name": ODD, "tag": "日本語"}
    assert "日本語" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_every_text_file_is_opened_with_its_encoding():
    """The default is the locale's."""
    wrong = []
    for path in (ROOT / "jaxvae").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            text = name in ("read_text", "write_text") or (
                name == "open"
                and ast.unparse(node.func) not in ("os.open", "webbrowser.open")
                and not any("b" in mode for mode in modes if isinstance(mode, str))
            )
            own = name == "write_text" and len(node.args) == 2  # record's
            if text and not own and "encoding" not in {word.arg for word in node.keywords}:
                wrong.append(f"{path.name}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert not wrong


@pytest.mark.long
def test_a_data_set_whose_name_is_no_utf_8_trains(files, capsys):
    """From the report to the last file and TensorBoard's, which takes UTF-8 alone."""
    arguments = [*data(f"{ODD}.csv")[1:], "--config.trainer.max_epochs=1", "--workdir=a"]
    assert main.main(["train", *arguments]) == 0, capsys.readouterr().err
    assert jaxvae.load("a").config["data"]["dataset_name"] == f"{ODD}.csv"


def test_files_whose_names_are_no_utf_8(files, folder, capsys):
    (files / "rows.csv").write_text("aspect_list\n\"['mellow']\"\n\"['loud']\"\n")
    for ending in ("parquet", "npz", "csv"):
        output = f"{ODD}.{ending}"
        arguments = ("encode", str(folder), "--input=rows.csv", f"--output={output}")
        assert main.main(arguments) == 0, capsys.readouterr().err
        assert (files / output).stat().st_size
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"aspect_list": [["mellow"]] * 60}), "a.parquet")
    shutil.copy("a.parquet", f"{ODD}.parquet")
    taxonomy = Taxonomy.load(files / "tags.json")
    assert len(load_dataset(taxonomy=taxonomy, dataset_name=f"{ODD}.parquet").rows) == 60


@pytest.mark.parametrize("command", ["train", "seeds"])
def test_a_run_folder_must_be_utf_8(files, capsys, command):
    assert main.main([command, *data()[1:], f"--workdir={ODD}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "not UTF-8 text, which checkpoints need" in err
    assert not (files / ODD).exists()


def test_a_run_that_was_copied_there_says_so(files, folder):
    shutil.copytree(folder, files / ODD)
    with pytest.raises(InputError, match="not UTF-8 text"):
        jaxvae.load(ODD)


@pytest.mark.parametrize(
    ("encoding", "environment"),
    [
        ("ascii", {"PYTHONIOENCODING": "ascii"}),
        ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
        ("ascii", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        ("utf-8", {"PYTHONIOENCODING": "utf-8"}),  # a control
    ],
)
def test_a_process_of_another_encoding(files, encoding, environment):
    done = subprocess.run(
        [sys.executable, "-m", "jaxvae", *data()],
        capture_output=True,
        cwd=files,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    expected = "知らない".encode(encoding, ERRORS)
    assert expected in done.stdout
