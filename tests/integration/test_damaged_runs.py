"""What became of a run's folder since it was written: said in one line, and never worked with."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.config import parsing
from jaxvae.errors import InputError
from jaxvae.evaluation.baseline_fitting import Baselines, load_baselines, save_baselines
from jaxvae.inference.verify import verify
from jaxvae.storage import manifest
from jaxvae.train.trainer import train_and_evaluate
from tests.conftest import ROOT
from tests.helpers.optimization import NOT_OPTIMIZED


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def refused(capsys, *arguments):
    assert main.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxvae: ")
    assert err.count("\n") == 1
    return err


def resume(folder, **changes):
    config = parsing.load_config(f"{ROOT}/configs/small.py")
    config.trainer.max_epochs = 2
    config.logger.name = ()
    config.update_from_flattened_dict(changes)
    return train_and_evaluate(config, folder, models_dir=folder.parent / "models")


def test_the_control_a_copy_is_whole(copy, capsys):
    assert not verify(copy)[1]
    assert main.main(["sample", str(copy), "--num", "1"]) == 0
    resume(copy)
    assert not verify(copy)[1]


HOSTILE = (
    "[" * 200_000,
    "{}",
    '{"model": null}',
    '{"model": {"latent_dim": "x", "hidden_dim": 3}}',
    '{"model": {"latent_dim": 32, "hidden_dim": 128}, "trainer": []}',
    '{"model": {"latent_dim": 32, "hidden_dim": 128}, "loss": 3}',
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("sealed", [True, False])
def test_another_config_is_noticed(copy, capsys, text, sealed):
    (copy / "config.json").write_text(text)
    if not sealed:  # an interrupted run has no manifest that would tell
        (copy / manifest.NAME).unlink()
    for command in (("sample",), ("sample", "--checkpoint", "last"), ("evaluate",), ("compare",)):
        assert "config.json" in refused(capsys, command[0], copy, *command[1:])


def test_a_changed_result_is_not_compared(copy, capsys):
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["test"]["test/bce"] = 1.0
    (copy / "metrics.json").write_text(json.dumps(metrics))
    assert "metrics.json is not what was written" in refused(capsys, "compare", copy)


@pytest.mark.parametrize("text", ['{"test": []}', '{"test": {"test/bce": "a", "test/kld": "b"}}'])
def test_a_result_of_another_kind_is_no_traceback(copy, capsys, text):
    (copy / manifest.NAME).unlink()
    (copy / "metrics.json").write_text(text)
    (copy / "evaluation_test.json").write_text('{"num_importance_samples": "x", "nll_iw": "y"}')
    assert main.main(["compare", str(copy)]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(copy, capsys):
    assert "named twice" in refused(capsys, "compare", copy, copy / ".." / copy.name)


def test_a_run_without_its_config_does_not_go_on(copy):
    (copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"has checkpoints but no config\.json"):
        resume(copy, **{"trainer.optimizer.lr": 0.01})
    assert not (copy / "config.json").exists()


def test_a_run_without_its_data_report_does_not_go_on(copy):
    (copy / "data_report.json").unlink()
    with pytest.raises(InputError, match=r"data_report\.json"):
        resume(copy)


@pytest.mark.parametrize("fingerprint", [None, 5])
def test_a_fingerprint_of_another_kind_is_another(copy, fingerprint):
    report = json.loads((copy / "data_report.json").read_text())
    (copy / "data_report.json").write_text(json.dumps(report | {"fingerprint": fingerprint}))
    with pytest.raises(InputError, match="other rows"):
        resume(copy)


def test_a_run_without_its_checkpoints_is_not_whole(copy, capsys):
    shutil.rmtree(copy / "checkpoints")
    assert any("has no checkpoint" in line for line in verify(copy)[1])
    resume(copy)
    assert "no checkpoint, though metrics.jsonl has epochs" in capsys.readouterr().err


def test_an_epoch_twice_in_the_log_is_once_after_a_resume(copy):
    path = copy / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[0] + lines[1])
    assert verify(copy)[1]
    resume(copy)
    assert path.read_text() == "".join(lines)
    assert not verify(copy)[1]


@pytest.mark.long
def test_more_epochs_are_refused_where_a_schedule_is_a_share_of_them(tmp_path):
    few = {"data.test_fraction": 0.8}
    place, warmup = tmp_path / "a", few | {"loss.kld_schedule": "linear", "loss.kld_warmup": 0.5}
    resume(place, **warmup)
    with pytest.raises(InputError, match=r"trainer\.max_epochs \(was 2, now 3\)"):
        resume(place, **warmup, **{"trainer.max_epochs": 3})
    # The control: a warm-up in epochs is the same however many follow.
    place, warmup = tmp_path / "b", few | {"loss.kld_schedule": "linear", "loss.kld_warmup": 1.0}
    resume(place, **warmup)
    resume(place, **warmup, **{"trainer.max_epochs": 3})
    with pytest.raises(InputError, match=r"trainer\.max_epochs \(was 3, now 2\)"):
        resume(place, **warmup)


def test_a_taxonomy_beside_an_export_must_be_its_own(copy, capsys, tmp_path):
    path = copy / "model.json"
    beside = json.loads(path.read_text())
    concept = next(iter(beside["taxonomy"]))
    tags = beside["taxonomy"][concept]
    tags[0], tags[1] = tags[1], tags[0]
    path.write_text(json.dumps(beside))
    for command in (("sample",), ("import", "--output", tmp_path / "imported")):
        assert "digest differs" in refused(capsys, command[0], copy / "model.pth", *command[1:])
    assert not (tmp_path / "imported").exists()
    # The control: the right one, given by name.
    assert main.main(["import", str(copy / "model.pth"), "--taxonomy", str(copy / "taxonomy.json"),
                     "--output", str(tmp_path / "imported")]) == 0  # fmt: skip


def test_an_import_that_fails_leaves_nothing(copy, capsys, tmp_path, monkeypatch):
    arguments = ("import", str(copy / "model.pth"), "--output", str(tmp_path / "imported"))
    with monkeypatch.context() as patched:
        patched.setattr(
            "jaxvae.inference.run.Run.export", lambda *_: (_ for _ in ()).throw(InputError("no"))
        )
        assert refused(capsys, *arguments) == "jaxvae: no\n"
    assert not (tmp_path / "imported").exists()
    assert main.main(list(arguments)) == 0


def test_kept_baselines_that_do_not_fit_together_are_fitted_again(run, tmp_path):
    from jaxvae.evaluation.baseline_fitting import fit_baselines

    found = fit_baselines(run.sets("train"), run.sets("val"), components=(2,), smoothings=(0.5,))
    save_baselines(tmp_path / "kept.npz", found, key="k")
    assert isinstance(load_baselines(tmp_path / "kept.npz", key="k"), Baselines)
    with np.load(tmp_path / "kept.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "cut.npz", **(arrays | {"probs": arrays["probs"][:, :-3]}))
    assert load_baselines(tmp_path / "cut.npz", key="k") is None


QUICKLY_COMPILED = os.environ | NOT_OPTIMIZED
COMMAND = (
    sys.executable,
    str(ROOT / "launch.py"),
    f"--config={ROOT}/configs/small.py",
    "--config.logger.name=()",
    "--config.model.hidden_dim=16",
    "--config.data.batch_size=256",
    "--config.trainer.checkpoint_every_seconds=0.5",
)


@pytest.mark.long
def test_a_run_whose_reader_goes_away_trains_on(tmp_path):
    command = [*COMMAND, "--config.trainer.max_epochs=10", f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=QUICKLY_COMPILED, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert not verify(tmp_path / "run")[1]


@pytest.mark.long
def test_a_run_with_nowhere_to_speak_trains_on(tmp_path):
    command = [*COMMAND, "--config.trainer.max_epochs=3", f"--workdir={tmp_path / 'run'}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=QUICKLY_COMPILED, stderr=full, timeout=120, check=False
        )
    assert done.returncode == 0
    assert not verify(tmp_path / "run")[1]


@pytest.mark.long
def test_a_command_without_standard_output(folder):
    command = f"exec {sys.executable} -m jaxvae sample {folder} --num 1 >&-"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def wait_for(holds, process):
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_a_run_whose_folder_became_anothers_ends(tmp_path):
    """It sleeps, its folder is moved away, another run starts there, and it wakes up."""
    # One save, after the first epoch, so that it does not sleep in the middle of another.
    options = (
        "--config.trainer.max_epochs=100000",
        "--config.trainer.checkpoint_every_seconds=1e6",
    )
    command = [*COMMAND, *options, f"--workdir={tmp_path / 'run'}"]
    first = subprocess.Popen(
        command, cwd=tmp_path, env=QUICKLY_COMPILED, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_text().count("\n") > 2, first)
    first.send_signal(signal.SIGSTOP)
    os.rename(tmp_path / "run", tmp_path / "moved")
    second = subprocess.Popen(
        command, cwd=tmp_path, env=QUICKLY_COMPILED, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: log.exists() and log.stat().st_size, second)
        first.send_signal(signal.SIGCONT)
        told = first.communicate(timeout=60)[1].splitlines()[-1]
        assert first.returncode == 2, told
        assert "was moved or replaced" in told
        assert (tmp_path / "run" / ".lock").exists()
        assert second.poll() is None
    finally:
        second.terminate()
        second.communicate(timeout=60)
    epochs = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert epochs == list(range(1, len(epochs) + 1))


@pytest.mark.parametrize(
    "override",
    [
        "model.latent_dim=1000000000",
        f"model.hidden_dim={2**63}",
        "loss.num_importance_samples=1000000000",
        "trainer.accumulate_grad_batches=1000000000000",
        "inference.num_samples=1000000000000",
    ],
)
def test_sizes_that_no_machine_has_are_refused(override, tmp_path, capsys):
    command = [*COMMAND[1:], f"--config.{override}", f"--workdir={tmp_path / 'run'}"]
    assert main.launch(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxvae: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_fit_is_one_line(tmp_path, capsys):
    override = ("--config.model.latent_dim=65536", "--config.model.hidden_dim=1048576")
    assert main.launch([*COMMAND[1:], *override, f"--workdir={tmp_path / 'run'}"]) == 2
    # Of 206,630,420,704 parameters, four bytes each: themselves, the best of them so far, gradients,
    # and Adam's two moments.
    error = capsys.readouterr().err
    assert error.startswith("jaxvae: training this model needs 4,132,608,414,0")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_loading_is_what_it_was(run, copy):
    np.testing.assert_array_equal(jaxvae.load(copy).encode([["jazz"]]), run.encode([["jazz"]]))


def stamps(folder):
    """When each file was written, and which file it is."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in found.items()}


def test_a_finished_run_asked_for_again_is_left_alone(copy, capsys):
    resume(copy)
    before, stages = stamps(copy), json.loads((copy / "metrics.json").read_text())
    capsys.readouterr()
    assert resume(copy, **{"trainer.enable_progress_bar": False}) == stages
    assert stamps(copy) == before
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"{copy} is finished")
    assert "trainer.max_epochs" in said[0]


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["samples.json", "final/record.json", f"checkpoints/2/{manifest.NAME}"]
)
def test_unless_a_file_of_it_is_damaged(copy, capsys, name):
    resume(copy)
    before = (copy / name).read_bytes()
    (copy / name).write_bytes(before[:-2])
    capsys.readouterr()
    resume(copy)
    assert "is finished" not in capsys.readouterr().err
    assert not verify(copy)[1]
    if "checkpoints" not in name:  # one that is damaged is set aside, and its epoch trained again
        assert (copy / name).read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"inference.num_samples": 7}, "samples.json"),
        ({"logger.project": "other"}, "config.json"),
        ({"trainer.max_epochs": 3}, "model.pth"),
    ],
    ids=["samples", "logger", "epochs"],
)
def test_or_something_else_is_asked_for(copy, changes, written, capsys):
    resume(copy)
    before = (copy / written).read_bytes()
    capsys.readouterr()
    resume(copy, **changes)
    assert "is finished" not in capsys.readouterr().err
    assert (copy / written).read_bytes() != before
    assert not verify(copy)[1]


@pytest.mark.parametrize("name", [manifest.NAME, "metrics.json", "summary.json"])
def test_compare_does_not_wait_for_a_pipe(name, copy, capsys):
    assert main.main(["compare", str(copy)]) == 0
    capsys.readouterr()
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert str(copy / name) in refused(capsys, "compare", copy)


def test_a_number_of_thousands_of_digits_is_said_to_be_too_long(copy, capsys):
    (copy / manifest.NAME).unlink()
    (copy / "metrics.json").write_text('{"test": %s}' % ("9" * 10_000))
    error = refused(capsys, "compare", copy)
    assert str(copy / "metrics.json") in error
    assert "a number in it is too long" in error
    assert "sys." not in error
