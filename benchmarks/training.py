"""Times a training epoch against others, round by round: `python -m benchmarks.training`.

Single timings drift with the machine, so the contenders take turns in every round, and what is
reported is the median over the rounds of each one's time divided by jaxvae's in the same round.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.contenders import CONTENDERS, Problem
from jaxvae.dataset import load_dataset
from jaxvae.taxonomy import Taxonomy

PAUSE = 0.3
"""Seconds before a turn: the threads of BLAS and OpenMP spin on after a call, into the next one."""
SIZES = {"small": (32, 128), "medium": (64, 256), "large": (128, 512)}


def load_rows() -> tuple[np.ndarray, int, str]:
    """The training rows of MusicCaps if `JAXVAE_SHARED` has it, else of the embedded corpus."""
    shared = os.environ.get("JAXVAE_SHARED")
    if shared:
        data = Path(shared) / "data"
        taxonomy = Taxonomy.load(data / "concepts_to_tags.json")
        dataset = load_dataset(taxonomy=taxonomy, dataset_name=data / "musiccaps-public.csv")
        name = "MusicCaps"
    else:
        taxonomy, name = Taxonomy.load(None), "the embedded corpus"
        dataset = load_dataset(taxonomy=taxonomy)
    return dataset.rows[dataset.splits["train"]], taxonomy.num_tags, name


def measure(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of each contender, `rounds` of each, taken in turns."""
    epochs = {name: make(problem) for name, make in CONTENDERS.items()}
    for epoch in epochs.values():
        epoch()
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measures every chosen size and batch, and prints a table or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 256, 2048])
    parser.add_argument("--rounds", type=int, default=7, help="at least five (7)")
    parser.add_argument("--json", help="also write the numbers to this file")
    options = parser.parse_args()
    rows, num_tags, data = load_rows()
    results: list[dict[str, Any]] = []
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "torch", "numpy"))
    print(
        f"{data}, {len(rows):,} rows of {num_tags} tags; {os.cpu_count()} CPUs, "
        f"{platform.machine()}, JAX on {jax.devices()[0].platform}; {packages}\n"
    )
    print("| size | batch | contender | epoch, ms | rows/s | times jaxvae's epoch |")
    print("|---|---|---|---|---|---|")
    for size in options.sizes:
        for batch_size in options.batches:
            problem = Problem(rows, num_tags, *SIZES[size], batch_size)
            seconds = measure(problem, max(5, options.rounds))
            ours = np.array(seconds["jaxvae"])
            for name, values in seconds.items():
                ratio = np.quantile(np.array(values) / ours, [0.5, 0.25, 0.75])
                middle = float(np.median(values))
                results.append(
                    {
                        "size": size,
                        "batch": batch_size,
                        "contender": name,
                        "seconds": values,
                        "ratio": float(ratio[0]),
                    }
                )
                print(
                    f"| {size} | {batch_size} | {name} | {middle * 1e3:.1f} | "
                    f"{len(rows) / middle:,.0f} | {ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f}) |",
                    flush=True,
                )
    if options.json:
        Path(options.json).write_text(
            json.dumps({"data": data, "packages": packages, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()
