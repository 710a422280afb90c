"""Times whole commands, from the shell to the exported model: `python -m benchmarks.commands`.

The contenders take turns in every round. jaxvae reads, checks and splits the file, trains, judges,
samples and exports; Lightning gets rows that are ready, trains, tests and saves.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.problems import load_problem, machine, source

NAMES = ("jaxvae", "jaxvae, first start", "Lightning, 4 workers", "Lightning, 0 workers")
ROOT = Path(__file__).resolve().parent.parent


class Cost(NamedTuple):
    """Seconds of a command, seconds to the end of its first epoch, and memory at its peak."""

    seconds: float
    first_epoch: float
    peak_mib: float


def _jaxvae(folder: Path, epochs: int) -> tuple[list[str], Path]:
    file, taxonomy, _ = source()
    data = [f"--config.data.dataset_name={file}", f"--config.data.taxonomy_path={taxonomy}"]
    command = [
        str(ROOT / "launch.py"),
        f"--config={ROOT / 'configs' / 'medium.py'}",
        f"--config.trainer.max_epochs={epochs}",
        f"--workdir={folder / 'run'}",
        *(data if file else []),
    ]
    return command, folder / "run" / "metrics.jsonl"


def _lightning(folder: Path, epochs: int, rows: Path, workers: int) -> tuple[list[str], Path]:
    options = ["--epochs", str(epochs), "--workers", str(workers)]
    command = ["-m", "benchmarks.lightning_pipeline", str(rows), str(folder / "run"), *options]
    return command, folder / "run" / "first_epoch"


def _memory(process: psutil.Process) -> float:
    """MiB of a process and its children; what they share counts once."""
    total = 0
    try:
        for part in (process, *process.children(recursive=True)):
            total += getattr(part.memory_full_info(), "pss", 0) or part.memory_info().rss
    except psutil.Error:  # one of them has just ended
        return 0.0
    return total / 2**20


def run(command: list[str], first: Path, *, folder: Path, cache: Path) -> Cost:
    """Runs a command in a folder; its first epoch ends when the file `first` holds a line."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    started = time.perf_counter()
    with open(folder / "log", "wb") as log:
        process = psutil.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log
        )
    first_epoch, peak, looked = float("nan"), 0.0, started
    while process.poll() is None:
        now = time.perf_counter()
        if np.isnan(first_epoch) and first.exists() and first.stat().st_size:
            first_epoch = now - started
        if now - looked > 0.5:
            peak, looked = max(peak, _memory(process)), now
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(
            process.returncode, command, (folder / "log").read_text()[-2000:]
        )
    return Cost(seconds, first_epoch, peak)


def measure(epochs: int, rounds: int) -> dict[str, list[Cost]]:
    """What each command costs, `rounds` times, in turns."""
    costs: dict[str, list[Cost]] = {}
    with TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.npz"
        load_problem("medium", 32).save(rows)
        for number in range(rounds):
            round_ = Path(scratch) / str(number)
            for name in NAMES:
                folder = round_ / name
                folder.mkdir(parents=True)
                if name.startswith("jaxvae"):
                    command = _jaxvae(folder, epochs)
                else:
                    workers = 4 if "4" in name else 0
                    command = _lightning(folder, epochs, rows, workers)
                # The first round's programs serve the later ones; a first start has none.
                cache = folder if "first" in name else Path(scratch) / "cache"
                if number == 0 and name == "jaxvae":
                    run(*command, folder=folder, cache=cache)
                    (folder / "run").rename(folder / "warm-up")
                costs.setdefault(name, []).append(run(*command, folder=folder, cache=cache))
    return costs


def main() -> None:
    """Measures and prints a table, one block for each number of epochs."""
    parser = argparse.ArgumentParser(prog="benchmarks.commands", description=__doc__)
    parser.add_argument("--epochs", nargs="+", type=int, default=[10, 250])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    print(f"medium, {source()[2]}; {machine()}\n")
    print("| epochs | command | seconds | times jaxvae's | first epoch, s | peak, MiB |")
    print("|---|---|---|---|---|---|")
    results = {}
    for epochs in options.epochs:
        costs = measure(epochs, options.rounds)
        ours = np.array([cost.seconds for cost in costs["jaxvae"]])
        for name, all_costs in costs.items():
            seconds, first, peak = np.array(all_costs).T
            ratio = seconds / ours
            print(
                f"| {epochs} | {name} | {np.median(seconds):.1f} | {np.median(ratio):.2f} "
                f"({ratio.min():.2f}-{ratio.max():.2f}) | {np.median(first):.1f} | "
                f"{peak.max():,.0f} |",
                flush=True,
            )
        results[str(epochs)] = {name: [c._asdict() for c in all_] for name, all_ in costs.items()}
    if options.json:
        document = {"data": source()[2], "machine": machine(), "results": results}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
