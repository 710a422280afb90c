"""What a run keeps to itself: tokens, the network, memory, files."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import arguments, finish, start

TOKEN = "hf_plantedTokenThatMustNotTravel0123456789"
NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")

NO_NETWORK = """
import socket

def refuse(*arguments, **options):
    open({marker!r}, "a").write(repr(arguments) + chr(10))
    raise OSError("no network in this test")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.socket.sendto = refuse
socket.getaddrinfo = refuse
"""


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_token_reaches_the_folder_or_the_log(clips, tmp_path, record_property):
    planted = dict.fromkeys(NAMES, TOKEN)
    command = [*arguments(clips, **{"trainer.max_epochs": 3}), "--workdir=run"]
    log = finish(start(*command, cwd=tmp_path, **planted))
    assert TOKEN not in log
    files = contents(tmp_path)
    assert len(files) > 30
    assert not [path for path, data in files.items() if TOKEN.encode() in data]
    # The search would find it.
    (tmp_path / "run" / "notes").write_text(f"token={TOKEN}")
    assert [p for p, data in contents(tmp_path).items() if TOKEN.encode() in data]
    record_property("files searched for a planted token", len(files))


def test_a_run_on_local_data_uses_no_network(clips, tmp_path):
    marker = tmp_path / "used"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK.format(marker=str(marker)))
    path = {"PYTHONPATH": str(tmp_path / "site")}
    command = [*arguments(clips, **{"trainer.max_epochs": 3}), "--workdir=run"]
    finish(start(*command, cwd=tmp_path, **path))
    assert not marker.exists()
    probe = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", probe], env={**os.environ, **path}, check=True)
    assert marker.exists()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "", ".", "..", "a\\b", "x" * 65])
def test_a_name_can_not_leave_its_folder(name, clips, tmp_path):
    command = [*arguments(clips), "--workdir=run", f"--config.model_name={name}"]
    error = finish(start(*command, cwd=tmp_path), expect=2)
    assert "model_name" in error
    assert not list(tmp_path.iterdir())


LONG = """
import json, os, sys
from pathlib import Path
from jaxvae.config import parsing
from jaxvae.train.choices import CHOICES
from jaxvae.train.trainer import train_and_evaluate

page = os.sysconf("SC_PAGE_SIZE")
seen = []

def watch(epoch, line, state):
    if epoch % 1000 == 0:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((epoch, pages * page, len(os.listdir("/proc/self/fd"))))

config = parsing.parse(sys.argv, define=lambda flags: None, choices=CHOICES)[0]
train_and_evaluate(config, "run", hooks=[watch])
print(json.dumps(seen))
"""


def test_twenty_thousand_epochs(clips, tmp_path, record_property):
    values = {
        "trainer.max_epochs": 20_000,
        "trainer.checkpoint_every_seconds": 1.0,
        "trainer.check_val_every_n_epoch": 20,
        "model.hidden_dim": 8,
    }
    done = subprocess.run(
        [sys.executable, "-c", LONG, *arguments(clips, **values)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert [epoch for epoch, _, _ in seen] == list(range(1000, 20_001, 1000))
    warm = [memory for epoch, memory, _ in seen if epoch >= 5000]
    growth = warm[-1] / warm[0] - 1
    record_property("memory growth from epoch 5,000 to 20,000, %", round(100 * growth, 1))
    assert growth < 0.05
    files = [number for epoch, _, number in seen if epoch >= 5000]
    assert max(files) <= files[0] + 2
    kept = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir()]
    assert len(kept) == 2
