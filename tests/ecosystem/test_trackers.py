"""wandb, trackio and MLflow, each with its own files: every epoch once, whatever happens."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jaxvae.storage.epoch_metrics import read_epochs
from tests.conftest import ROOT, lacking
from tests.ecosystem.tracked import (
    TRACKERS,
    Popen,
    environment,
    finish,
    of_mlflow,
    of_trackio,
    of_wandb,
    start,
    wandb_files,
    wandb_records,
)
from tests.faults.conftest import EPOCHS, arguments, steps_in, wait_for
from tests.helpers import warm_start
from tests.helpers.commands import command
from tests.helpers.jobs import end, launch
from tests.helpers.training import write_clips

ATTACHED = ["metrics.json", "model.json", "model.pth", "model.safetensors"]


@pytest.fixture(scope="session", autouse=True)
def _installed():
    for name in TRACKERS:
        try:
            __import__(name)
        except ImportError:
            lacking(f"{name} is not installed")


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("clips"))


def in_all(place: Path) -> dict[str, dict]:
    (trackio,), (mlflow,) = of_trackio(place), of_mlflow(place)
    return {"wandb": of_wandb(place), "trackio": trackio, "mlflow": mlflow}


def agrees_with_the_log(place: Path, num_epochs: int = EPOCHS) -> dict[str, dict]:
    lines = read_epochs(place / "run")
    assert [line["epoch"] for line in lines] == list(range(1, num_epochs + 1))
    losses = [(line["epoch"], line["train/loss"]) for line in lines]
    metrics = json.loads((place / "run" / "metrics.json").read_text())
    found = in_all(place)
    for has in found.values():
        assert has["epochs"] == losses
        assert has["val"] == [line["val/loss"] for line in lines]
    test_loss = metrics["test"]["test/loss"]
    assert found["wandb"]["final"] == test_loss
    assert found["trackio"]["final"] == found["mlflow"]["final"] == [test_loss]
    assert found["wandb"]["ended"] == [0]
    assert found["mlflow"]["status"] == "FINISHED"
    return found


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> Path:
    """A run that nothing happened to, without artifacts."""
    place = tmp_path_factory.mktemp("whole")
    finish(start(clips, place, seed=3))
    return place


def test_a_run_is_in_all_of_them_once(whole):
    found = agrees_with_the_log(whole)
    for name, has in found.items():
        assert has["name"].startswith("vae_small dataset_name=clips.csv taxonomy_path=words.json")
        assert has["files"] == [], name
    config = json.loads((whole / "run" / "config.json").read_text())
    assert {k: v for k, v in found["wandb"]["config"].items() if k != "_wandb"} == config
    assert config.items() <= found["trackio"]["config"].items()
    assert found["mlflow"]["config"]["seed"] == "3"
    assert found["mlflow"]["config"]["trainer.optimizer.betas"] == "[0.9, 0.999]"
    assert found["wandb"]["project"] == found["mlflow"]["project"] == "jaxvae"


def test_started_again_a_finished_run_is_there_once_and_files_can_be_added(whole, clips):
    before = agrees_with_the_log(whole)
    (whole / "run" / "report.html").write_text("<p>a report</p>")
    options = {"seed": 3, "logger.artifacts": True}
    finish(start(clips, whole, **options))
    finish(start(clips, whole, **options))
    after = agrees_with_the_log(whole)
    assert after["wandb"]["id"] == before["wandb"]["id"]
    for has in after.values():
        assert has["files"] == sorted([*ATTACHED, "report.html"])


@pytest.mark.parametrize("seconds", [0.0, 1e6])
def test_killed_again_and_again_every_epoch_is_there_once(seconds, clips, tmp_path):
    # Without checkpoints epochs are quick: enough of them, so that none of the killed comes to the end.
    num_epochs = 400 if seconds else EPOCHS
    options = {
        "trainer.checkpoint_every_seconds": seconds,
        "trainer.max_epochs": num_epochs,
        "logger.artifacts": True,
    }
    log = tmp_path / "run" / "metrics.jsonl"

    def epochs():
        return log.read_bytes().splitlines() if log.exists() else []

    for more in (4, 9, 15):
        before = epochs()
        process = start(clips, tmp_path, **options)
        until = more if not seconds else 12
        # An epoch of this process: without checkpoints it trains those before anew.
        wait_for(lambda until=until, before=before: {*epochs()[until - 1 :]} - {*before}, process)
        time.sleep(0.6 if more == 9 else 0.0)  # long enough for trackio's thread to have written
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(clips, tmp_path, **options))
    found = agrees_with_the_log(tmp_path, num_epochs)
    for has in found.values():
        assert has["files"] == ATTACHED


def test_a_run_that_goes_on_longer_goes_on_in_its_trackers(clips, tmp_path):
    finish(start(clips, tmp_path, **{"trainer.max_epochs": 5}))
    with_five = {name: has["final"] for name, has in in_all(tmp_path).items()}
    finish(start(clips, tmp_path, **{"trainer.max_epochs": 8}))
    found = in_all(tmp_path)
    for has in found.values():
        assert [epoch for epoch, _ in has["epochs"]] == list(range(1, 9))
    # A second final value is another epoch's.
    assert found["mlflow"]["final"][:1] == with_five["mlflow"]
    assert len(found["mlflow"]["final"]) == len(found["trackio"]["final"]) == 2


def test_a_tracker_asked_for_later_gets_what_was_before(clips, tmp_path):
    options = {"trainer.max_epochs": 5}
    finish(start(clips, tmp_path, names=("trackio",), **options))
    assert not (tmp_path / "run" / "wandb").exists()
    assert not (tmp_path / "mlflow.db").exists()
    finish(start(clips, tmp_path, **options))
    agrees_with_the_log(tmp_path, 5)


def services_of(process) -> list[int]:
    """W&B's service for a process: a process, in a session of its own, that is told whose it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "wandb-core" in words[0] and f"--pid {process.pid} " in " ".join(words) + " ":
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_and_its_trackers(signum, clips, tmp_path):
    process = start(clips, tmp_path, **{"trainer.max_epochs": 100_000})
    wait_for(lambda: max(steps_in(tmp_path / "run"), default=0) >= 5, process)
    assert services_of(process)
    process.send_signal(signum)
    finish(process, expect=128 + signum)
    assert not services_of(process)
    lines = read_epochs(tmp_path / "run")
    found = in_all(tmp_path)
    for has in found.values():
        assert has["epochs"] == [(line["epoch"], line["train/loss"]) for line in lines]
    assert found["mlflow"]["status"] == "KILLED"
    assert found["wandb"]["ended"] == [1]


def break_wandb(place, process):
    for number in services_of(process):
        os.kill(number, signal.SIGKILL)


def break_database(path):
    for file in path.parent.glob(path.name + "*"):
        file.write_bytes(b"not a database, and long enough to be looked at" * 1000)


def test_a_file_that_breaks_within_a_transaction_is_no_traceback(tmp_path):
    """By the pool of connections, which tells of it by its logger."""
    tell = "import logging; logging.getLogger('sqlalchemy.pool.impl.QueuePool').error('told')"
    open_run = (
        "import pathlib; from jaxvae.train.loggers.mlflow_tracker import open_run\n"
        "open_run(name='a', key='0' * 32, config={}, folder=pathlib.Path(), project='p',"
        " offline=True)\n"
    )
    for code, told in (("import mlflow\n" + tell, True), (open_run + tell, False)):
        done = command("-c", code, cwd=tmp_path)
        assert ("told" in done.stderr) == told


def take_database_away(path, process):
    """For a writer that opens it anew each time: one that is open just now can't write it back."""
    wait_for(path.exists, process)  # the writer is a thread, and starts when it likes
    path.unlink()
    path.mkdir()


BREAK = {
    "wandb": break_wandb,
    "trackio": lambda place, process: take_database_away(place / "trackio" / "jaxvae.db", process),
    "mlflow": lambda place, process: break_database(place / "mlflow.db"),
}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_fails_does_not_take_the_run_along(name, clips, tmp_path):
    options = {"trainer.max_epochs": 500, "model.hidden_dim": 8}
    process = start(clips, tmp_path, **{**options, "trainer.checkpoint_every_seconds": 1.0})
    log = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") >= 20, process)
    assert process.poll() is None
    BREAK[name](tmp_path, process)
    error = finish(process)
    said = [line for line in error.splitlines() if "the run goes on without it" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{name} failed")
    assert [line["epoch"] for line in read_epochs(tmp_path / "run")] == list(range(1, 501))
    others = {
        "wandb": of_wandb if name != "wandb" else None,
        "trackio": (lambda place: of_trackio(place)[0]) if name != "trackio" else None,
        "mlflow": (lambda place: of_mlflow(place)[0]) if name != "mlflow" else None,
    }
    for read in filter(None, others.values()):
        assert len(read(tmp_path)["epochs"]) == 500


@pytest.mark.parametrize(
    ("name", "env", "said"),
    [
        ("wandb", {}, "wandb login"),
        ("mlflow", {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, "can't be opened"),
        ("trackio", {"TRACKIO_SERVER_URL": "http://127.0.0.1:9"}, "can't be opened"),
    ],
)
def test_one_that_fails_at_the_start_is_refused(name, env, said, clips, tmp_path):
    options = {"logger.offline": False}
    error = finish(start(clips, tmp_path, env=env, names=(name,), **options), expect=2)
    last = error.splitlines()[-1]
    assert last.startswith(f"jaxvae: --config.logger.name={name}")
    assert said in last
    assert not (tmp_path / "run").exists()
    # The same on this machine is no trouble.
    finish(start(clips, tmp_path, env=env, names=(name,), **{"trainer.max_epochs": 2}))


def test_one_that_is_refused_leaves_nothing_of_the_others(clips, tmp_path):
    env = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    options = {"env": env, "names": ("wandb", "mlflow"), "logger.offline": False}
    error = finish(start(clips, tmp_path, **options), expect=2)
    assert error.splitlines()[-1].startswith("jaxvae: --config.logger.name=mlflow")
    assert not (tmp_path / "run").exists()


TOKEN = "0123456789plantedTokenThatMustNotTravel0"
KEYS = (
    *("WANDB_API_KEY", "HF_TOKEN", "TRACKIO_WRITE_TOKEN"),
    *("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "DATABRICKS_TOKEN"),
)


class Listener:
    """Stands for every server there is; remembers who came."""

    def __enter__(self):
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                asked.append(self.requestline)
                self.send_error(503)

            do_GET = do_POST = do_PUT = do_CONNECT = do_HEAD = answer

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url),
            "NO_PROXY": "",
            "no_proxy": "",
            "WANDB_BASE_URL": url,
            "HF_ENDPOINT": url,
            "MLFLOW_TRACKING_URI": url,
            "TRACKIO_SERVER_URL": url,
            **dict.fromkeys(KEYS, TOKEN),
        }
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


def test_offline_nothing_leaves_and_no_token_is_written(clips, tmp_path):
    (tmp_path / "tmp").mkdir()
    with Listener() as listener:
        env = {**listener.env, "TMPDIR": str(tmp_path / "tmp"), "WANDB_MODE": "online"}
        options = {"logger.artifacts": True, "trainer.max_epochs": 5}
        error = finish(start(clips, tmp_path, env=env, **options))
    assert listener.asked == []
    assert TOKEN not in error
    agrees_with_the_log(tmp_path, 5)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_without_a_tracker_s_name_its_keys_and_servers_mean_nothing(clips, tmp_path):
    with Listener() as listener:
        options = {"logger.offline": False, "trainer.max_epochs": 2}
        finish(start(clips, tmp_path, env=listener.env, names=("tensorboard",), **options))
    assert listener.asked == []
    assert not (tmp_path / "run" / "trackers.json").exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "trackio").exists()


@pytest.mark.parametrize("name", TRACKERS)
def test_the_listener_would_hear_of_it(name, clips, tmp_path):
    with Listener() as listener:
        options = {"logger.offline": False, "trainer.max_epochs": 2}
        process = start(clips, tmp_path, env=listener.env, names=(name,), **options)
        # trackio keeps for later what a server does not take.
        error = finish(process, expect=0 if name == "trackio" else 2)
    assert listener.asked
    assert TOKEN not in error


def test_local_trackio_does_not_ask_the_hub_who_this_is(clips, tmp_path):
    with Listener() as listener:
        env = {name: value for name, value in listener.env.items() if "TRACKIO_S" not in name}
        options = {"logger.offline": False, "trainer.max_epochs": 2}
        finish(start(clips, tmp_path, env=env, names=("trackio",), **options))
        assert listener.asked == []
        ask = "import trackio; trackio.init('p', embed=False); trackio.finish()"
        command = [sys.executable, "-c", ask]
        subprocess.run(command, env=environment(tmp_path, **env), capture_output=True, check=True)
        assert listener.asked  # by itself it does


def test_two_runs_of_one_name_are_two(clips, tmp_path):
    for folder in ("a", "b"):
        process = start(clips, tmp_path, **{"trainer.max_epochs": 2})
        finish(process)
        (tmp_path / "run").rename(tmp_path / folder)
    assert len({has["name"] for has in of_mlflow(tmp_path)}) == 1
    for found in (of_mlflow(tmp_path), of_trackio(tmp_path)):
        assert [[epoch for epoch, _ in has["epochs"]] for has in found] == [[1, 2], [1, 2]]


def test_the_environment_s_places_are_taken(clips, tmp_path):
    env = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/elsewhere.db",
        "WANDB_DIR": str(tmp_path / "w"),
        "WANDB_MODE": "offline",
    }
    options = {"trainer.max_epochs": 2, "logger.offline": False, "logger.project": "songs"}
    finish(start(clips, tmp_path, env=env, **options))
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "run" / "wandb").exists()
    (file,) = (tmp_path / "w" / "wandb").glob("offline-run-*/*.wandb")
    assert sum(record.HasField("history") for record in wandb_records(file)) == 2
    assert len(of_trackio(tmp_path, "songs")) == 1


def test_of_several_processes_the_first_alone_is_tracked(clips, tmp_path, monkeypatch):
    base = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    options = {"logger.name": "mlflow,trackio", "trainer.max_epochs": 3}
    end(launch(clips, tmp_path, 2, **options))
    for (has,) in (of_mlflow(tmp_path), of_trackio(tmp_path)):
        assert [epoch for epoch, _ in has["epochs"]] == [1, 2, 3]
    assert not (tmp_path / "host1" / "run" / "trackers.json").exists()


def test_seeds_are_a_tracked_run_each(clips, tmp_path):
    values = {"trainer.max_epochs": 3, "logger.name": "wandb,trackio,mlflow"}
    command = [*arguments(clips, **values), "--config.logger.offline=True"]
    done = warm_start.run(
        [sys.executable, "-m", "jaxvae", "seeds", *command, "--num=2", "--workdir=out"],
        cwd=tmp_path,
        env={**environment(tmp_path), "PYTHONPATH": str(ROOT)},
        popen=Popen,
    )
    assert done.returncode == 0, done.stderr
    for found in (of_mlflow(tmp_path), of_trackio(tmp_path)):
        assert len(found) == 2
        assert len({has["final"][0] for has in found}) == 2
        for has in found:
            assert [epoch for epoch, _ in has["epochs"]] == [1, 2, 3]
    assert len(list(tmp_path.glob("out/*/wandb/offline-run-*/*.wandb"))) == 2
    assert not wandb_files(tmp_path)


def test_runs_that_start_at_once_share_a_new_database(tmp_path):
    """What MLflow does to an empty SQLite file ends badly where two processes do it."""
    code = (
        "import sys, pathlib; from jaxvae.train.loggers import mlflow_tracker\n"
        "sys.stdin.read(1)\n"
        "run = mlflow_tracker.open_run(name='r', key=sys.argv[1], config={'a': 1},\n"
        "    folder=pathlib.Path('.'), project='new', offline=True)\n"
        "run.append(1, {'train/loss': 2.0, 'val/loss': 2.0}); run.finish({}, [], 1)\n"
    )
    started = [
        Popen(
            [sys.executable, "-c", code, str(key)],
            cwd=tmp_path, env=environment(tmp_path, PYTHONPATH=str(ROOT)),
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for key in range(3)
    ]  # fmt: skip
    for process in started:
        process.stdin.write("x")
        process.stdin.flush()
    errors = [process.communicate(timeout=180)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    found = of_mlflow(tmp_path)
    assert [has["epochs"] for has in found] == [[(1, 2.0)]] * 3
    assert {has["status"] for has in found} == {"FINISHED"}
