"""Runs in trackers as a user would start them, and what the trackers have of them.

Everything is read from the trackers' own files, in their formats: `.wandb` is a log of LevelDB's
format with protocol buffers in it, trackio and MLflow have SQLite.
"""

import binascii
import contextlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.conftest import arguments
from tests.helpers import optimization, warm_start

TRACKERS = ("wandb", "trackio", "mlflow")
NAMES = ("WANDB_", "TRACKIO_", "MLFLOW_", "HF_", "PYTEST_")


class Popen(warm_start.Popen):
    """With what trackers import of others, which is half of what they take to start."""

    libraries = (
        *warm_start.LIBRARIES,
        *("PIL.Image", "alembic.command", "fastapi", "httpx", "opentelemetry.sdk.trace", "pandas"),
        *("pyarrow", "pydantic", "requests", "scipy.stats", "sqlalchemy.orm", "uvicorn"),
    )


def environment(place: Path, **more) -> dict[str, str]:
    """A user's who has set nothing: not one of a CI machine, where MLflow is silent by itself."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(NAMES)
    }
    home = {"HOME": str(place / "home"), "TRACKIO_DIR": str(place / "trackio")}
    return {**kept, "XLA_FLAGS": optimization.LITTLE_OPTIMIZED, **home, **more}


def start(clips: Path, place: Path, *, env=None, names=TRACKERS, **fields) -> subprocess.Popen:
    """A small run in `place`/run, offline and in all trackers if nothing else is said."""
    values = {"logger.name": ",".join(names), "logger.offline": True, **fields}
    command = [*arguments(clips, **values), "--workdir=run"]
    return Popen(
        [sys.executable, str(ROOT / "launch.py"), *command],
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(place, **(env or {})),
    )


def finish(process: subprocess.Popen, *, expect: int = 0) -> str:
    """Waits; returns standard error. Nothing is printed by anyone but us, or left running."""
    try:
        output, error = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == expect, error
    assert "Traceback" not in error, error
    assert output == ""
    assert not [line for line in error.splitlines() if line.startswith(("wandb:", "*", "20"))], (
        error
    )
    return error


def wandb_files(place: Path) -> list[Path]:
    return sorted((place / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


def wandb_records(path: Path) -> list:
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, at, whole = [], 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        crc, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part = data[at + 7 : at + 7 + length]
        assert crc == binascii.crc32(part, binascii.crc32(bytes([kind])))
        whole = part if kind in (1, 2) else whole + part
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(whole))
        at += 7 + length
    return records


def of_wandb(place: Path) -> dict:
    """What the one folder that is left has of the run, as `wandb sync` would send it."""
    (path,) = wandb_files(place)
    records = wandb_records(path)

    def items(found):
        return {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in found
        }

    kinds = [record.WhichOneof("record_type") for record in records]
    history = [items(r.history.item) for r in records if r.HasField("history")]
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    run = next(record.run for record in records if record.HasField("run"))
    files = [
        entry.path
        for record in records
        if record.HasField("request") or record.HasField("artifact")
        for entry in (
            record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact
        ).manifest.contents
    ]
    return {
        "epochs": [(line["_step"], line["train/loss"]) for line in history],
        "val": [line["val/loss"] for line in history],
        "config": items(run.config.update),
        "name": run.display_name,
        "project": run.project,
        "id": run.run_id,
        "final": summary.get("test/loss"),
        "files": sorted(files),
        "ended": [r.exit.exit_code for r in records if r.HasField("exit")],
        "kinds": kinds,
    }


def of_trackio(place: Path, project="jaxvae") -> list[dict]:
    """Each of its runs."""
    with contextlib.closing(sqlite3.connect(place / "trackio" / f"{project}.db")) as base:
        found = []
        for (run,) in base.execute("select distinct run_id from metrics order by id").fetchall():
            rows = base.execute(
                "select step, metrics from metrics where run_id = ? order by step", (run,)
            ).fetchall()
            lines = [(step, json.loads(text)) for step, text in rows]
            ((name, config),) = base.execute(
                "select run_name, config from configs where run_id = ?", (run,)
            ).fetchall()
            files = base.execute(
                "select artifacts.name from artifacts join artifact_versions on "
                "artifact_versions.artifact_id = artifacts.id where producer_run_id = ?",
                (run,),
            ).fetchall()
            found.append(
                {
                    "epochs": [
                        (s, line["train/loss"]) for s, line in lines if "train/loss" in line
                    ],
                    "val": [line["val/loss"] for _, line in lines if "val/loss" in line],
                    "config": json.loads(config),
                    "name": name,
                    "final": [line["test/loss"] for _, line in lines if "test/loss" in line],
                    "files": sorted(file.partition("-")[2] for (file,) in files),
                }
            )
    return found


def of_mlflow(place: Path) -> list[dict]:
    """Each of its runs."""
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as base:
        found = []
        for run, name, status, uri, project in base.execute(
            "select run_uuid, runs.name, status, artifact_uri, experiments.name from runs "
            "join experiments on runs.experiment_id = experiments.experiment_id"
        ).fetchall():

            def values(key, run=run):
                return base.execute(
                    "select step, value from metrics where run_uuid = ? and key = ? order by step",
                    (run, key),
                ).fetchall()

            params = base.execute("select key, value from params where run_uuid = ?", (run,))
            folder = Path(uri.removeprefix("file://"))
            found.append(
                {
                    "epochs": values("train/loss"),
                    "val": [value for _, value in values("val/loss")],
                    "config": dict(params.fetchall()),
                    "name": name,
                    "project": project,
                    "final": [value for _, value in values("test/loss")],
                    "files": sorted(p.name for p in folder.glob("*")) if folder.exists() else [],
                    "status": status,
                }
            )
    return found
