"""Many models in one program against one by one: `python -m benchmarks.population`.

An epoch of a population against as many epochs of one member, in turns; then a whole search, with
its start, compilation, likelihoods and the best run's tail, against single commands.
"""

import argparse
import functools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np

from benchmarks.contenders import trainer
from benchmarks.problems import load_problem, machine, source
from jaxvae.runtime import devices, sharding
from jaxvae.sweeps.population import Population
from jaxvae.train.plan.hyperparams import make_hyperparams
from jaxvae.train.steps import eval_epoch, train_epoch
from jaxvae.train.train_state import create_train_state

ROOT = Path(__file__).resolve().parent.parent
SPACE = """
def get_space(s):
    s.log("trainer.optimizer.lr", 1e-3, 2e-2)
    s.uniform("model.dropout_p", 0.0, 0.4)
    s.uniform("loss.kld_weight", 0.6, 1.1)
"""


def _alone(size: str, pipe: Connection) -> None:
    """Trains one member an epoch at a time, when told to, as `launch.py` would: on one device."""
    train, state, hyperparams, rows = trainer(load_problem(size, 32))
    while pipe.recv():
        started = time.perf_counter()
        state, sums = train(state, hyperparams, rows)
        jax.block_until_ready(sums)
        pipe.send(time.perf_counter() - started)


def _many(size: str, members: int):
    problem = load_problem(size, 32)
    graphdef, _ = create_train_state(problem.build, seed=0)
    sizes = {"num_tags": problem.num_tags, "latent_dim": problem.latent_dim}
    empty = functools.partial(sharding.append_empty_rows, num_tags=problem.num_tags)
    mesh = devices.make_mesh(accelerator="auto", num_devices=min(members, len(jax.devices())))
    population = Population(
        train_epoch=train_epoch.make_train_epoch(
            graphdef, num_rows=len(problem.rows), batch_size=32, **sizes
        ),
        validate=eval_epoch.make_eval_pass(
            graphdef, num_rows=len(problem.val_rows), batch_size=len(problem.val_rows), **sizes
        ),
        mesh=mesh,
        slots=-(-members // mesh.size) * mesh.size,
        train_rows=empty(problem.rows),
        val_rows=empty(problem.val_rows),
    )
    hyperparams = make_hyperparams(
        model={"dropout_p": 0.3}, trainer={"gradient_clip_val": 1.0}, optimizer={"lr": 5e-4}
    )
    for seed in range(members):
        population.admit(create_train_state(problem.build, seed=seed)[1], hyperparams)
    return population.train


def epochs(size: str, members: list[int], rounds: int) -> dict[int, list[float]]:
    """Of each number of members: a population's epoch divided by as many epochs of one."""
    runs = {number: _many(size, number) for number in members}
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_alone, args=(size, there))
    process.start()

    def alone() -> float:
        here.send(True)
        return here.recv()

    alone()
    for run in runs.values():
        run()
    ratios: dict[int, list[float]] = {number: [] for number in members}
    for _ in range(rounds):
        one = np.median([alone() for _ in range(10)])
        for number, run in runs.items():
            ratios[number].append(_seconds(run) / (number * one))
    here.send(False)
    process.join()
    return ratios


def _seconds(run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def commands(trials: int, timed: int) -> tuple[float, list[float]]:
    """Seconds of a search of so many trials, and of single commands, one after the other."""
    file, taxonomy, _ = source()
    data = [f"--config.data.dataset_name={file}", f"--config.data.taxonomy_path={taxonomy}"]
    config = [f"--config={ROOT / 'configs' / 'small.py'}", "--config.trainer.max_epochs=50"]
    config += data if file else []
    with TemporaryDirectory() as scratch:
        space = Path(scratch) / "space.py"
        space.write_text(SPACE)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": f"{scratch}/cache"}
        run = functools.partial(
            subprocess.run, cwd=scratch, env=environment, check=True, capture_output=True
        )

        def launch() -> None:
            run([sys.executable, str(ROOT / "launch.py"), *config])

        launch()  # their compiled programs are on the disk from here on, unlike the search's
        half = timed // 2
        singles = [_seconds(launch) for _ in range(half)]
        options = ["--space", str(space), "--trials", str(trials), "--pruner", "none"]
        search = [sys.executable, "-m", "jaxvae", "search", *config, *options]
        together = _seconds(lambda: run(search))
        singles += [_seconds(launch) for _ in range(timed - half)]
    return together, singles


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="benchmarks.population", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "medium", "large"])
    parser.add_argument("--members", nargs="+", type=int, default=[2, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=64, help="0 leaves the commands out")
    parser.add_argument("--timed", type=int, default=8, help="single commands to time")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    devices.expose_cpu_cores()
    print(f"{source()[2]}; {machine()}\n")
    print("| size | members | an epoch, divided by as many epochs of one |\n|---|---|---|")
    results: dict = {"epochs": {}}
    for size in options.sizes:
        for members, ratios in epochs(size, options.members, options.rounds).items():
            low, high = min(ratios), max(ratios)
            print(f"| {size} | {members} | {np.median(ratios):.2f} ({low:.2f}-{high:.2f}) |")
            results["epochs"][f"{size} {members}"] = ratios
    if options.trials:
        together, singles = commands(options.trials, options.timed)
        ratio = options.trials * np.median(singles) / together
        print(
            f"\n{options.trials} trials of small, 50 epochs: {together:.1f} s; a single command "
            f"{np.median(singles):.1f} s ({min(singles):.1f}-{max(singles):.1f}), so as many take "
            f"{ratio:.1f} times as long"
        )
        results |= {"search": together, "singles": singles}
    if options.json:
        document = {"data": source()[2], "machine": machine(), "results": results}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
