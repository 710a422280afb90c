"""`python -m jaxvae verify RUN` names the file that is not what was written, whatever it is."""

import os
import shutil

import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.export import model_files
from jaxvae.inference import load
from jaxvae.models import trained
from jaxvae.storage import manifest, run_dir, run_files
from jaxvae.storage.atomic_files import read_json, write_json
from jaxvae.storage.final_params import load_params, save_params


@pytest.fixture
def copy(folder, tmp_path):
    """A finished run that may be damaged."""
    return shutil.copytree(folder, tmp_path / "run")


@pytest.fixture
def verify(capsys):
    def verify(path) -> tuple[int, list[str], list[str]]:
        """(exit code, what held, what is wrong)"""
        code = main.main(["verify", str(path)])
        lines = capsys.readouterr().out.splitlines()
        held = [line.removeprefix("ok     ") for line in lines if line.startswith("ok     ")]
        wrong = [line.removeprefix("wrong  ") for line in lines if line.startswith("wrong  ")]
        assert len(held) + len(wrong) == len(lines)
        return code, held, wrong

    return verify


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_finished_run_is_what_was_written(copy, verify):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    code, held, wrong = verify(copy)
    assert (code, wrong) == (0, [])
    for title in (
        "files",
        "checkpoint 1",
        "checkpoint 2",
        "final",
        "parameters",
        "rows",
        "metrics",
    ):
        assert any(line.startswith(title) for line in held), title
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_so_is_an_imported_one_which_has_neither_rows_nor_epochs(folder, tmp_path, verify):
    load.import_model(folder / "model.pth", taxonomy_path=None, output=tmp_path / "imported")
    code, held, wrong = verify(tmp_path / "imported")
    assert (code, len(held), wrong) == (0, 2, [])


@pytest.mark.parametrize(
    "name", [*sorted({*run_files.SEALED} - {run_files.INIT_FROM, run_files.RESOLVED}), "SHA256SUMS"]
)
@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()])
def test_each_file_of_a_run_is_checked(name, damage, copy, verify):
    damage(copy / name)
    if name == "config.json" and not (copy / name).exists():
        assert verify(copy) == (2, [], [])  # it makes the folder a run's
        return
    code, _, wrong = verify(copy)
    assert code == 1
    assert f"{copy / name} " in wrong[0] or name == "SHA256SUMS"
    assert all(str(copy) in line for line in wrong)


@pytest.mark.parametrize("group", ["checkpoints/1", "checkpoints/2", "final"])
def test_each_file_of_a_checkpoint_is_checked(group, folder, copy, verify):
    paths = sorted(path for path in (folder / group).rglob("*") if path.is_file())
    assert len(paths) > 5
    for path in paths:
        damaged = copy / path.relative_to(folder)
        damaged.unlink() if path.stat().st_size < 2 else flip(damaged)
        code, _, wrong = verify(copy)
        assert code == 1
        # In the damaged place itself, and nowhere else.
        assert any(str(damaged) in line for line in wrong)
        assert all(str(copy / group) in line for line in wrong)
        shutil.copy(path, damaged)
    assert verify(copy)[0] == 0


def test_what_a_survived_fault_leaves_beside_the_checkpoints_is_no_damage(copy, verify):
    (copy / "checkpoints" / "1").rename(copy / "checkpoints" / "1.damaged")
    assert verify(copy)[0] == 0


# With its manifest made anew, only what the files say can show that they are not a run's.


def without_an_epoch(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[1:]))


def with_an_epoch_twice(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join([lines[0], *lines]))


def with_a_last_epoch_more(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(
        "".join([*lines, lines[0].replace('"epoch": 1', '"epoch": 3')])
    )


def with_a_line_that_is_no_epoch(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[3]\n")


def with_another_order_of_tags(folder):
    mapping = read_json(folder / "taxonomy.json")
    write_json(folder / "taxonomy.json", {name: tags[::-1] for name, tags in mapping.items()})


def with_other_rows(folder):
    with np.load(folder / "rows.npz") as stored:
        kept = dict(stored)
    kept["rows"] = kept["rows"][::-1]
    np.savez(folder / "rows.npz", **kept)


def with_a_row_in_no_split(folder):
    with np.load(folder / "rows.npz") as stored:
        kept = dict(stored)
    kept["split"][7] = 3
    np.savez(folder / "rows.npz", **kept)


def changed_by_one_bit(folder):
    params, batch_stats, facts = load_params(folder / "final")
    bias = params["fc4"]["bias"].copy()
    bias.view(np.uint32)[0] ^= 1
    params["fc4"] = {**params["fc4"], "bias": bias}
    return params, batch_stats, facts


def with_another_export(folder, *, spared):
    kept = (folder / spared).read_bytes()
    params, batch_stats, _ = changed_by_one_bit(folder)
    run = load.load(folder)
    options = {
        "taxonomy": run.taxonomy,
        "config": run.config,
        "probe": np.eye(run.taxonomy.num_tags)[:2],
    }
    network = trained.rebuild_model(params, batch_stats)
    model_files.write_model(folder / "model.pth", network, **options)
    (folder / spared).write_bytes(kept)


def with_another_pth(folder):
    with_another_export(folder, spared="model.safetensors")


def with_another_safetensors(folder):
    with_another_export(folder, spared="model.pth")


def with_another_final(folder):
    params, batch_stats, facts = changed_by_one_bit(folder)
    save_params(folder / "final", params, batch_stats, facts)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without_an_epoch, ["metrics.jsonl"]),
        (with_an_epoch_twice, ["metrics.jsonl"]),
        (with_a_last_epoch_more, ["metrics.jsonl"]),
        (with_a_line_that_is_no_epoch, ["metrics.jsonl"]),
        (with_another_order_of_tags, ["taxonomy.json", "rows.npz"]),
        (with_other_rows, ["rows.npz"]),
        (with_a_row_in_no_split, ["rows.npz"]),
        (with_another_pth, ["model.pth"]),
        (with_another_safetensors, ["model.safetensors"]),
        (with_another_final, ["final", "model.pth", "model.safetensors"]),
    ],
)
def test_what_the_files_say_is_checked_too(change, named, copy, verify):
    change(copy)
    assert verify(copy)[0] == 1
    run_dir.seal(copy)
    code, held, wrong = verify(copy)
    assert code == 1
    assert "files: each is what was written" in held
    assert len(wrong) == len(named)
    assert all(str(copy / name) in line for name, line in zip(named, wrong, strict=True))


def test_a_manifest_made_anew_hides_nothing_by_itself(copy, verify):
    (copy / "SHA256SUMS").unlink()
    assert verify(copy)[0] == 1
    run_dir.seal(copy)
    assert verify(copy)[0] == 0


def test_a_folder_that_is_no_run_is_refused(tmp_path, verify, capsys):
    assert main.main(["verify", str(tmp_path)]) == 2
    assert "not a run's folder" in capsys.readouterr().err


def test_the_parameters_are_read_once(copy, verify, monkeypatch):
    calls = []

    def counted(folder):
        calls.append(folder)
        return load_params(folder)

    monkeypatch.setattr("jaxvae.inference.verify.load_params", counted)
    assert verify(copy)[0] == 0
    assert len(calls) == 1


def test_a_run_that_was_stopped_is_said_to_be_unfinished(copy, verify):
    for name in ("SHA256SUMS", "summary.json", "metrics.json", "model.pth", "samples.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "final")
    code, held, wrong = verify(copy)
    assert code == 1
    assert len(wrong) == 1
    assert "has not finished" in wrong[0]
    assert "checkpoint 2" in held


@pytest.mark.parametrize(
    "name", ["model.pth", "rows.npz", "metrics.jsonl", "SHA256SUMS", "final/record.json"]
)
def test_a_pipe_in_a_file_s_place_is_named_and_not_waited_for(name, copy, verify):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert verify(copy) == (1, [], [f"{copy / name} is no regular file"])


def test_nor_is_a_pipe_taken_for_a_run_that_has_not_finished(copy):
    (copy / "SHA256SUMS").unlink()
    os.mkfifo(copy / "SHA256SUMS")
    assert manifest.is_sealed(copy)
    with pytest.raises(InputError, match=r"SHA256SUMS is damaged: .*no regular file"):
        manifest.check(copy)
    (copy / "SHA256SUMS").unlink()
    assert not manifest.is_sealed(copy)
