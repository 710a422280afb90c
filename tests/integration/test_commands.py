"""The README's commands on real input: as processes of their own where the process matters."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.export.torch import pth
from tests.conftest import ROOT, lacking
from tests.helpers.commands import command, tool
from tests.helpers.optimization import NOT_OPTIMIZED

pytestmark = pytest.mark.filterwarnings("default")


def launch(*arguments, **options):
    return command(ROOT / "launch.py", *arguments, **options)


def called(run, *arguments, cwd, expect=0):
    """The same in this process: `main.launch` or `main.main`, whose exit code the process ends with."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    done = subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
    assert code == expect, done.stderr
    if expect == 2:
        assert re.fullmatch(r"jaxvae: [^\n]+\n", done.stderr), done.stderr
        assert done.stdout == ""
    return done


def launched(*arguments, **options):
    return called(main.launch, "launch.py", *arguments, **options)


def tooled(*arguments, **options):
    return called(main.main, *arguments, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, shared_data):
    """A short run on MusicCaps, made as the README says; the folder it was started in."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "clips.csv").write_bytes((shared_data / "musiccaps-public.csv").read_bytes())
    (folder / "concepts_to_tags.json").write_bytes(
        (shared_data / "concepts_to_tags.json").read_bytes()
    )
    launch(
        f"--config={ROOT}/configs/small.py:trainer=quick_test",
        "--config.data.dataset_name=clips.csv",
        "--config.data.taxonomy_path=concepts_to_tags.json",
        cwd=folder,
    )
    return folder


@pytest.mark.long
def test_the_default_workdir_is_named_by_date_and_time(trained):
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", run.name)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 10
    assert (trained / "models" / "vae_small.pth").read_bytes() == (run / "model.pth").read_bytes()


def test_the_counts_on_musiccaps(trained):
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    report = json.loads((run / "data_report.json").read_text())
    assert report["rows_read"] == 5521
    assert report["rows_kept"] == 5046
    assert report["rows_without_known_tag"] == 475
    assert report["rows_unreadable"] == 0
    with np.load(run / "rows.npz") as kept:
        assert np.bincount(kept["split"]).tolist() == [4542, 252, 252]  # train, val, test


def test_the_export_loads_in_torch_and_computes_the_same(trained, torch):
    from jaxvae.inference.load import load
    from jaxvae.models.trained import reconstruction_logits
    from tests.helpers.torch_twin import Twin

    (folder,) = (trained / "outputs" / "vae_training").iterdir()
    weights = torch.load(folder / "model.pth", weights_only=True, mmap=True)
    twin = Twin(num_tags=200, latent_dim=32, hidden_dim=128, use_batch_norm=False)
    twin.load_state_dict(weights, strict=True)
    twin.eval()
    run = load(folder)
    x = np.zeros((50, 201), np.float32)
    x[np.arange(50)[:, None], run.rows("test")[:50]] = 1.0
    x = x[:, :200]
    with torch.no_grad():
        mean, _ = twin.encode(torch.from_numpy(x))
        logits = twin.decode(mean).numpy()
    assert np.allclose(reconstruction_logits(run.network, x), logits, rtol=1e-5, atol=1e-5)


def test_export_and_import_keep_every_bit(trained):
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    tool("export", run, "--output", "model.pth", cwd=trained)
    assert (trained / "model.pth").read_bytes() == (run / "model.pth").read_bytes()
    tool(
        *("import", "model.pth", "--taxonomy", "concepts_to_tags.json"),
        *("--output", "imported_run"),
        cwd=trained,
    )
    tooled("export", "imported_run", "--output", "again.pth", cwd=trained)
    assert (trained / "again.pth").read_bytes() == (run / "model.pth").read_bytes()
    tooled("export", run, "--output", "last.pth", "--checkpoint", "last", cwd=trained)
    last, best = (pth.read_pth(trained / name) for name in ("last.pth", "model.pth"))
    assert last.keys() == best.keys()


def test_import_needs_the_right_taxonomy(trained):
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    (trained / "other.json").write_text('{"genre": ["jazz", "rock"]}')
    done = tooled(
        *("import", run / "model.pth", "--taxonomy", "other.json", "--output", "no_run"),
        cwd=trained,
        expect=2,
    )
    assert "200" in done.stderr
    assert "2 tags" in done.stderr
    assert not (trained / "no_run").exists()


def test_what_is_no_run_is_told_apart(tmp_path):
    for name in ("seed_1", "seed_0"):
        (tmp_path / "study" / name).mkdir(parents=True)
        (tmp_path / "study" / name / "config.json").write_text("{}")
    done = tooled("explore", "study", cwd=tmp_path, expect=2)
    assert "study: holds 2 runs; name one of them, such as study/seed_0" in done.stderr
    done = tooled("import", "hf://user/name", "--output", "made", cwd=tmp_path, expect=2)
    assert "hf://user/name: commands take it as it is" in done.stderr


def test_import_refuses_a_folder_that_exists(trained):
    (trained / "full").mkdir()
    (trained / "full" / "file").touch()
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    tooled("import", run / "model.pth", "--output", "full", cwd=trained, expect=2)


def test_export_of_nothing_is_refused(tmp_path):
    assert "not a run" in tooled("export", "x", "--output", "m.pth", cwd=tmp_path, expect=2).stderr


def test_the_data_report_alone(trained):
    arguments = (
        "data",
        f"--config={ROOT}/configs/medium.py",
        "--config.data.dataset_name=clips.csv",
        "--config.data.taxonomy_path=concepts_to_tags.json",
    )
    text = tool(*arguments, cwd=trained).stdout
    assert "5,046" in text
    assert "475" in text
    report = json.loads(tooled(*arguments, "--json", cwd=trained).stdout)
    assert report["rows_kept"] == 5046


@pytest.mark.long
def test_overrides_and_a_relative_workdir(tmp_path):
    launched(
        f"--config={ROOT}/configs/beta_default.py",
        "--config.loss.kld_weight=4.0",
        "--config.trainer.max_epochs=2",
        "--config.data.batch_size=64",
        "--config.trainer.optimizer.lr=1e-3",
        "--workdir=runs/a",
        cwd=tmp_path,
    )
    run = tmp_path / "runs" / "a"
    assert json.loads((run / "overrides.json").read_text()) == {
        "loss.kld_weight": 4.0,
        "trainer.max_epochs": 2,
        "data.batch_size": 64,
        "trainer.optimizer.lr": 0.001,
    }
    config = json.loads((run / "config.json").read_text())
    assert config["trainer"]["optimizer"]["lr"] == 0.001
    done = launched(
        f"--config={ROOT}/configs/beta_default.py", "--workdir=runs/a", cwd=tmp_path, expect=2
    )
    assert "data.batch_size (was 64, now 32)" in done.stderr


def test_a_preset_that_has_changed_since_does_not_stop_an_older_run(tmp_path):
    """A field that the run is too old to know keeps doing what was done, until someone asks."""
    command = (f"--config={ROOT}/configs/beta_default.py", "--workdir=run")
    small = ("--config.trainer.max_epochs=1", "--config.data.batch_size=64")
    launched(*command, *small, "--config.trainer.monitor=val/loss", cwd=tmp_path)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["trainer"]["monitor"]
    path.write_text(json.dumps(config))
    longer = ("--config.trainer.max_epochs=2", small[1])
    asked = "--config.trainer.monitor=val/nll_iw"
    done = launched(*command, *longer, asked, cwd=tmp_path, expect=2)
    assert "trainer.monitor (was val/loss, now val/nll_iw)" in done.stderr
    done = launched(*command, *longer, cwd=tmp_path)
    line = "goes on as it began; from now on give --config.trainer.monitor=val/loss"
    assert done.stderr.count(line) == 1
    again = json.loads(path.read_text())
    assert (again["trainer"]["monitor"], again["trainer"]["max_epochs"]) == ("val/loss", 2)
    done = launched(*command, *longer, "--config.trainer.monitor=val/loss", cwd=tmp_path)
    assert "is finished and whole" in done.stderr


def test_print_config_prints_it_and_trains_nothing(tmp_path):
    done = launch(
        f"--config={ROOT}/configs/medium.py:data=musiccaps", "--print_config", cwd=tmp_path
    )
    assert json.loads(done.stdout)["data"]["dataset_name"] == "google/MusicCaps"
    assert list(tmp_path.iterdir()) == []


def test_help_lists_every_field(tmp_path):
    text = launch("--help", cwd=tmp_path).stdout
    assert "--config.loss.kld_weight=1.0\n      weight of the KL term" in text
    assert "--workdir" in text
    assert "2026" not in text
    commands = tool("--help", cwd=tmp_path).stdout
    for name in ("data", "export", "import"):
        assert name in commands
        with pytest.raises(SystemExit) if name != "data" else contextlib.nullcontext() as ended:
            assert "usage" in tooled(name, "--help", cwd=tmp_path).stdout
        assert ended is None or ended.value.code == 0


def test_help_and_print_config_load_nothing_slow(tmp_path):
    for flags in ("--help", "--print_config"):
        code = (
            f"import sys; sys.argv = ['{ROOT}/launch.py', '--config={ROOT}/configs/medium.py',"
            f" '{flags}']\n"
            "from jaxvae.cli.main import launch\n"
            "launch(sys.argv)\n"
            "assert not {'jax', 'numpy', 'flax', 'datasets'} & sys.modules.keys()\n"
        )
        command("-c", code, cwd=tmp_path, popen=subprocess.Popen)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--config=configs/medium.py"),
        (["--config=nope.py"], "nope.py"),
        (["--config={medium}", "--config.loss.kld_wieght=4.0"], "loss.kld_weight"),
        (["--config={medium}", "--config.data.shuffle", "False"], "'False'"),
        (["--config={medium}", "--config.model.dropout_p=1.0"], "dropout_p=1.0"),
        (["--config={medium}", "--config.data.dataset_name=missing.csv"], "missing.csv"),
        (["--config={medium}", "--config.data.taxonomy_path=no.json"], "no.json"),
        (["--config={medium}", "--config.data.val_fraction=0.0001"], "val"),
        (["--config={medium}", "--config.trainer.accelerator=tpu"], "tpu"),
        (["--config={medium}", "--config.trainer.devices=9"], "only 2"),
    ],
)
def test_a_mistake_is_one_line_exit_2_and_leaves_nothing(arguments, part, tmp_path):
    filled = [text.replace("{medium}", f"{ROOT}/configs/medium.py") for text in arguments]
    done = launched(*filled, "--workdir=run", cwd=tmp_path, expect=2)
    assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("devices", ["1", "9"])
def test_a_process_ends_with_the_same_line_and_code(devices, tmp_path):
    """Before and after JAX is imported, with as many devices as it finds by itself."""
    arguments = [f"--config={ROOT}/configs/medium.py", f"--config.trainer.devices={devices}"]
    if devices == "1":
        arguments.append("--config.loss.kld_wieght=4.0")
    done = launch(*arguments, "--workdir=run", cwd=tmp_path, expect=2)
    assert ("loss.kld_weight" if devices == "1" else "only 1") in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_finite_is_exit_1(tmp_path):
    done = launched(
        f"--config={ROOT}/configs/small.py:trainer=quick_test",
        "--config.trainer.optimizer.lr=1e30",
        "--workdir=run",
        cwd=tmp_path,
        expect=1,
    )
    assert "stopped being finite" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def wrapper(tmp_path_factory):
    """The shell wrapper in a copy of the project whose environment is this one."""
    root = tmp_path_factory.mktemp("clone") / "project"
    tracked = subprocess.run(
        ["git", "ls-files", "jaxvae", "configs", "scripts", "launch.py", "requirements*.txt"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if tracked.returncode or not tracked.stdout:
        lacking("not a git checkout")
    for name in tracked.stdout.split():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
        target.chmod((ROOT / name).stat().st_mode)

    def call(*arguments, cwd, expect=0):
        done = subprocess.run(
            [str(root / "scripts" / "run_vae_training.sh"), *arguments],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **NOT_OPTIMIZED},
            check=False,
        )
        assert done.returncode == expect, done.stderr
        return done

    call.root = root
    return call


def test_the_wrapper_explains_itself(wrapper, tmp_path):
    text = wrapper("--help", cwd=tmp_path).stdout
    for option in ("--model", "--trainer", "--data", "--epochs", "--batch-size", "--lr"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--modle", "medium"], "--modle"),
        (["--model", "medum"], "medum"),
        (["--epochs"], "--epochs"),
        (["--run-name", "../x"], "../x"),
        (["--resume"], "--run-name"),
        (["--resume", "--run-name", "fresh"], "nothing to resume"),
    ],
)
def test_the_wrapper_refuses_what_it_does_not_know(arguments, part, wrapper, tmp_path):
    done = wrapper(*arguments, cwd=tmp_path, expect=2)
    assert part in done.stderr
    assert not (wrapper.root / ".venv").exists()


@pytest.mark.long
def test_the_wrapper_passes_its_options_on(wrapper, tmp_path):
    # An environment that is already there, as at a second start: nothing is installed.
    (wrapper.root / ".venv" / "bin").mkdir(parents=True)
    python = wrapper.root / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    stamp = subprocess.run(
        ["bash", "-c", "cat requirements*.txt requirements.txt | cksum | cut -d ' ' -f 1"],
        capture_output=True,
        text=True,
        cwd=wrapper.root,
        check=True,
    ).stdout.strip()
    (wrapper.root / ".venv" / f".installed-{stamp}-requirements").touch()
    done = wrapper(
        *("--model", "small", "--trainer", "quick_test", "--data", "embedded"),
        *("--epochs", "2", "--batch-size", "64", "--lr", "1e-3", "--run-name", "my_experiment"),
        *("--", "--config.seed=3"),
        cwd=tmp_path,
    )
    assert "Installing" not in done.stderr
    run = tmp_path / "outputs" / "vae_training" / "my_experiment"
    config = json.loads((run / "config.json").read_text())
    assert config["trainer"]["max_epochs"] == 2
    assert config["data"]["batch_size"] == 64
    assert config["trainer"]["optimizer"]["lr"] == 1e-3
    assert config["seed"] == 3
    assert "--resume" in wrapper("--run-name", "my_experiment", cwd=tmp_path, expect=2).stderr


def test_a_run_without_a_checkpoint_has_no_last_one(tmp_path, trained):
    (run,) = (trained / "outputs" / "vae_training").iterdir()
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints").mkdir()
    done = tooled(
        "export", "run", "--output", "m.pth", "--checkpoint", "last", cwd=tmp_path, expect=2
    )
    assert "no checkpoint yet" in done.stderr
