"""Places of files to write: none over what is read, and none where nothing can be written."""

import os

import pytest

from jaxvae.errors import InputError
from jaxvae.storage import manifest
from jaxvae.storage.places import check_outputs


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "final").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "card.md"):
        (folder / name).write_text("{}")
    manifest.seal(folder, ["config.json", "card.md"])
    return folder


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "report.html", "final/t.csv", "SHA256SUMS", "card.md", "../run/config.json"]
)  # fmt: skip
def test_no_file_of_a_run_is_written_over(run_folder, name):
    with pytest.raises(InputError, match="is a file of"):
        check_outputs({"output": run_folder / name}, [run_folder])


def test_other_files_of_its_folder_are(run_folder):
    (run_folder / "tags.csv").write_text("older")
    check_outputs({"output": run_folder / "tags.csv", "record": run_folder / "new.json"}, [run_folder])  # fmt: skip
    check_outputs({"output": run_folder / "metrics.jsonl"})  # of which nothing is read


def test_an_input_is_known_by_any_of_its_names(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("tags\n")
    os.link(rows, tmp_path / "hard.csv")
    (tmp_path / "soft.csv").symlink_to(rows)
    for name in ("rows.csv", "hard.csv", "soft.csv"):
        with pytest.raises(InputError, match=r"record .*is the input file too"):
            check_outputs({"output": tmp_path / "t.csv", "record": tmp_path / name}, [rows])
    with pytest.raises(InputError, match=r"output .*is the card too"):
        check_outputs({"output": tmp_path / "t.csv", "card": tmp_path / "." / "t.csv"}, [rows])
    check_outputs({"output": tmp_path / "t.csv"}, [rows, tmp_path / "missing.csv"])


def test_what_can_not_be_written_is_said_and_nothing_is_left(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path / "folder.csv", "it is a folder"),
        (tmp_path / "file" / "t.csv", "file is no folder"),
        ("/proc/new/t.csv", "/proc"),
    ):
        with pytest.raises(InputError, match="can't be written.*" + message):
            check_outputs({"output": type(tmp_path)(path)})
    check_outputs({"output": tmp_path / "new" / "folders" / "t.csv"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv"]
