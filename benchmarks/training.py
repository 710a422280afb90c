"""Times a training epoch against others, round by round: `python -m benchmarks.training`.

Single timings drift with the machine, so the contenders take turns in every round, and what is
reported is the median over the rounds of each one's time divided by jaxvae's in the same round.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import contenders, lightning
from benchmarks.problems import SIZES, Problem, load_problem, machine, source

PAUSE = 0.3
"""Seconds before a turn: the threads of BLAS and OpenMP spin on after a call, into the next one."""


def measure(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Seconds of an epoch of each contender, `rounds` of each, taken in turns."""
    with contextlib.ExitStack() as stack:
        epochs = {name: make(problem) for name, make in contenders().items()}
        for workers in (4, 0):
            name = f"Lightning, {workers} workers"
            epochs[name] = stack.enter_context(lightning(problem, workers=workers))
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
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    print(f"{source()[2]}; {machine()}\n")
    print("| size | batch | contender | epoch, ms | rows/s | times jaxvae's epoch |")
    print("|---|---|---|---|---|---|")
    for size in options.sizes:
        for batch_size in options.batches:
            problem = load_problem(size, batch_size)
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
                    f"{len(problem.rows) / middle:,.0f} | "
                    f"{ratio[0]:.2f} ({ratio[1]:.2f}-{ratio[2]:.2f}) |",
                    flush=True,
                )
    if options.json:
        document = {"data": source()[2], "machine": machine(), "results": results}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
