"""How time and memory grow with the data and the model: `python -m benchmarks.scaling`.

Rows, rows that stream through the device, vocabulary, sizes of the model, and members of a
population trained in one program; one thing grows at a time. The sizes take turns in every round,
and a time counts by its ratio to the others of its round.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import Epoch, jaxvae_epoch, trainer, xla_floor
from benchmarks.problems import Problem, machine
from jaxvae.runtime.devices import make_mesh
from jaxvae.runtime.row_stream import RowStream
from jaxvae.runtime.sharding import Sharding

WIDE_ROWS = 2560


def synthetic_rows(num_rows: int, num_tags: int, longest: int, mean: float) -> np.ndarray:
    """Rows `[N, K]` of 1 to `longest` distinct tags whose frequencies fall off as Zipf's law."""
    rng = np.random.default_rng(0)
    cumulative = np.cumsum(1.0 / np.arange(1, num_tags + 1))
    kind = np.min_scalar_type(num_tags)
    blocks = []
    for start in range(0, num_rows, 10**6):
        shape = min(10**6, num_rows - start), longest
        drawn = np.searchsorted(cumulative, rng.random(shape, np.float32) * cumulative[-1])
        drawn = np.sort(np.minimum(drawn, num_tags - 1).astype(kind), axis=1)
        sizes = np.clip(1 + rng.poisson(mean - 1, shape[0]), 1, longest)
        keep = np.arange(longest) < sizes[:, None]
        keep[:, 1:] &= drawn[:, 1:] != drawn[:, :-1]
        blocks.append(np.sort(np.where(keep, drawn, kind.type(num_tags)), axis=1))
    return np.concatenate(blocks)


def in_turns(makers: dict[Any, Callable[[], tuple[Epoch, int]]], rounds: int, least: int) -> dict:
    """Seconds per example of each, `rounds` of each; an epoch is repeated up to `least` rows."""
    epochs = {name: make() for name, make in makers.items()}
    for epoch, _ in epochs.values():
        epoch()
    seconds: dict[Any, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, (epoch, rows) in epochs.items():
            repeats = -(-least // rows)
            started = time.perf_counter()
            for _ in range(repeats):
                epoch()
            seconds[name].append((time.perf_counter() - started) / (repeats * rows))
    return seconds


def beside(epoch: Epoch, floor: Epoch, num_rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds per example of an epoch and of its floor, both of so many rows, in turns."""
    makers = {"seconds": lambda: (epoch, num_rows), "floor_seconds": lambda: (floor, num_rows)}
    return in_turns(makers, rounds, least=num_rows)


def problem(rows: np.ndarray, num_tags: int, latent: int, hidden: int, batch: int) -> Problem:
    """A problem without a validation split."""
    return Problem(rows, rows[:1], num_tags, latent, hidden, batch)


def rows_axis(rounds: int, largest: int) -> Iterator[dict]:
    """Rows from a thousand up: the small model, batches of 256."""
    counts = [n for n in (10**3, 10**4, 10**5, 10**6, 10**7) if n <= largest]
    rows = synthetic_rows(counts[-1], 200, 14, 3.65)
    seconds = in_turns(
        {n: lambda n=n: (jaxvae_epoch(problem(rows[:n], 200, 32, 128, 256)), n) for n in counts},
        rounds,
        least=10**6,
    )
    bytes_a_row = rows[0].nbytes
    for n in counts:
        yield {"axis": "rows", "size": n, "seconds": seconds[n], "device_bytes_a_row": bytes_a_row}


def streamed_axis(rounds: int, largest: int) -> Iterator[dict]:
    """Epochs of 200,000 rows out of ever more: the medium model, batches of 2,048.

    Its floor is an epoch of as many rows that stay where they are.
    """
    share = 2 * 10**5
    for size in (n for n in (10**6, 10**7, 5 * 10**7) if n <= largest):
        rows = synthetic_rows(size, 200, 14, 3.65)
        part = problem(rows[:share], 200, 64, 256, 2048)
        yield {
            "axis": "rows streamed",
            "size": size,
            **beside(streamed_epoch(part, rows), jaxvae_epoch(part), share, rounds),
        }


def streamed_epoch(part: Problem, rows: np.ndarray) -> Epoch:
    """An epoch whose rows were not there at the last one."""
    train, state, numbers, _ = trainer(part)
    sharding = Sharding(make_mesh(accelerator="auto", num_devices=1))
    stream = RowStream(
        np.arange(len(rows), dtype=np.uint32),
        per_epoch=len(part.rows),
        shuffle=True,
        seed=0,
        place=lambda share: sharding.place_rows(rows, share, num_tags=part.num_tags),
    )
    number = 0

    def epoch() -> None:
        nonlocal state, number
        state, sums = train(state, numbers, stream(number))
        number += 1
        jax.block_until_ready(sums)

    return epoch


def vocabulary_axis(rounds: int, largest: int) -> Iterator[dict]:
    """Vocabularies from 200 tags up: hidden 512, batches of 256, up to 20 tags a row."""
    sizes = [v for v in (200, 1000, 5000, 20_000, 100_000) if v <= largest]
    for size in sizes:
        part = problem(synthetic_rows(WIDE_ROWS, size, 20, 15.0), size, 64, 512, 256)
        yield {
            "axis": "vocabulary",
            "size": size,
            **beside(jaxvae_epoch(part), decoder_floor(part), WIDE_ROWS, rounds),
            "program_mib": program_bytes(part) / 2**20,
        }


def model_axis(rounds: int) -> Iterator[dict]:
    """Hidden sizes from 128 up, the latent a quarter of it: batches of 32, 200 tags."""
    rows = synthetic_rows(4096, 200, 14, 3.65)
    for hidden in (128, 256, 512, 1024, 2048):
        part = problem(rows, 200, hidden // 4, hidden, 32)
        yield {
            "axis": "hidden size",
            "size": hidden,
            **beside(jaxvae_epoch(part), xla_floor(part), len(rows), rounds),
        }


def population_axis(rounds: int) -> Iterator[dict]:
    """Members of a population in one program: the small model, batches of 32."""
    rows = synthetic_rows(4096, 200, 14, 3.65)
    part = problem(rows, 200, 32, 128, 32)
    sizes = (1, 2, 4, 8, 16)
    seconds = in_turns(
        {n: lambda n=n: (population_epoch(part, n), n * len(rows)) for n in sizes}, rounds, least=1
    )
    for n in sizes:
        yield {"axis": "members", "size": n, "seconds": seconds[n]}


def decoder_floor(part: Problem) -> Epoch:
    """The three products of the widest layer, `[B, H]` by `[H, V]`, forward and backward."""
    rng = np.random.default_rng(0)
    h, kernel = (
        jnp.asarray(rng.normal(0.0, 0.05, shape), jnp.float32)
        for shape in (
            (part.batch_size, part.hidden_dim),
            (part.hidden_dim, part.num_tags),
        )
    )

    @jax.jit
    def run(h, kernel):
        def step(h, _):
            logits = jax.lax.optimization_barrier(h @ kernel)
            parts = jax.lax.optimization_barrier((h.T @ logits, logits @ kernel.T))
            return h + 1e-12 * sum(each[0, 0] for each in parts), None

        return jax.lax.scan(step, h, length=part.steps)[0]

    return lambda: jax.block_until_ready(run(h, kernel))


def program_bytes(part: Problem) -> int:
    """Memory of the training program by XLA's own account: state, rows and working memory."""
    train, *arguments = trainer(part)
    memory = train.lower(*arguments).compile().memory_analysis()
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes


def population_epoch(part: Problem, members: int) -> Epoch:
    """An epoch of several models that differ by a number, in one program."""
    train, state, numbers, rows = trainer(part)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * members), state)
    weights = jnp.linspace(0.5, 2.0, members)
    many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, members), numbers)
    many = many._replace(loss=many.loss._replace(kld_weight=weights))
    step = jax.jit(jax.vmap(train, in_axes=(0, 0, None)))

    def epoch() -> None:
        nonlocal states
        states, sums = step(states, many, rows)
        jax.block_until_ready(sums)

    return epoch


def plot(results: list[dict], path: Path) -> None:
    """A panel for each axis: microseconds per example against the size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    axes_names = list(dict.fromkeys(result["axis"] for result in results))
    figure, axes = plt.subplots(
        1, len(axes_names), figsize=(3.4 * len(axes_names), 3.2), squeeze=False, layout="tight"
    )
    for axis, name in zip(axes[0], axes_names, strict=True):
        part = [result for result in results if result["axis"] == name]
        sizes = [result["size"] for result in part]
        for key, label in (("seconds", "epoch"), ("floor_seconds", "floor")):
            if key in part[0]:
                values = np.array([result[key] for result in part]) * 1e6
                axis.plot(sizes, np.median(values, axis=1), "o-", label=label)
                axis.fill_between(sizes, values.min(axis=1), values.max(axis=1), alpha=0.2)
        axis.set_xscale("log", base=2 if name in ("hidden size", "members") else 10)
        axis.xaxis.set_minor_formatter(NullFormatter())
        if "floor_seconds" in part[0]:
            axis.set_yscale("log")
            axis.legend(frameon=False)
        else:
            axis.set_ylim(bottom=0)
        axis.set(xlabel=name, ylabel="µs per example" if axis is axes[0][0] else "")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures, prints a table, and writes JSON and a plot if asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10**7, help="the most rows")
    parser.add_argument("--tags", type=int, default=100_000, help="the widest vocabulary")
    axes = ["rows", "streamed", "vocabulary", "model", "population"]
    parser.add_argument("--axes", nargs="+", default=axes, choices=axes)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    measured = {
        "rows": lambda: rows_axis(options.rounds, options.rows),
        "streamed": lambda: streamed_axis(options.rounds, options.rows),
        "vocabulary": lambda: vocabulary_axis(options.rounds, options.tags),
        "model": lambda: model_axis(options.rounds),
        "population": lambda: population_axis(options.rounds),
    }
    results: list[dict] = []
    print(f"{machine()}\n")
    print("| axis | size | µs per example | least-most | times the floor | memory |")
    print("|---|---|---|---|---|---|")
    for name in options.axes:
        for result in measured[name]():
            results.append(result)
            seconds = np.array(result["seconds"]) * 1e6
            floor = np.array(result.get("floor_seconds", [np.nan])) * 1e6
            memory = f"{result['program_mib']:,.0f} MiB" if "program_mib" in result else ""
            times = f"{np.median(seconds / floor):.2f}" if np.isfinite(floor).all() else ""
            print(
                f"| {result['axis']} | {result['size']:,} | {np.median(seconds):.2f} | "
                f"{seconds.min():.2f}-{seconds.max():.2f} | {times} | {memory} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=1))
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
