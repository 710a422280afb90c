"""Time and memory of training on machines one may not have: `python -m benchmarks.predict`.

A step's operations, FLOPs and bytes come from the compiled program's own cost analysis; a machine
is four numbers. The first table is this machine, whose numbers are measured here: predicted beside
measured, so that it shows how far to trust the others, whose numbers are their makers'.
"""

import argparse
import functools
import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import machine
from jaxvae.models.layers import FULL_PRECISION
from jaxvae.models.vae import VAE
from jaxvae.runtime.sharding import append_empty_rows
from jaxvae.train.plan.hyperparams import make_hyperparams
from jaxvae.train.steps.train_epoch import make_train_epoch
from jaxvae.train.train_state import create_train_state

SIZES = {"small": (32, 128), "medium": (64, 256), "large": (128, 512)}
NUM_TAGS, LONGEST = 200, 14
DATA = {"MusicCaps": 4_542, "MSD": 500_000, "10^8 rows": 10**8, "10^9 rows": 10**9}


class Machine(NamedTuple):
    """What a prediction needs to know of one device, and of the links between them.

    Attributes:
      flops: FLOP a second of matrix products as this package asks for them.
      bandwidth: bytes a second of its memory.
      overhead: seconds to start one operation of a compiled loop.
      link: bytes a second a device can send while it receives.
      latency: seconds of the smallest exchange among all devices.
      memory: bytes.
      devices: how many.
    """

    flops: float
    bandwidth: float
    overhead: float
    link: float = 0.0
    latency: float = 0.0
    memory: float = 0.0
    devices: int = 1


# FLOPs, bandwidths and memory as the makers state them: all digits of a float32 product are six
# passes of a TPU's bfloat16 units, and the plain ones of an H100; half of the FLOPs is assumed. An
# H100's overhead is what a step of medium, 32 rows, took on one (82 µs), by the operations of a
# CPU's program (its own has 77 where that has 266); a TPU's, and latencies, are assumptions.
MACHINES = {
    "TPU v5e-8": Machine(0.5 * 197e12 / 6, 819e9, 1.5e-6, 100e9, 10e-6, 16e9, 8),
    "TPU v5e-64": Machine(0.5 * 197e12 / 6, 819e9, 1.5e-6, 100e9, 30e-6, 16e9, 64),
    "H100": Machine(0.5 * 67e12, 3350e9, 0.31e-6, 450e9, 0.0, 80e9, 1),
    "8 H100": Machine(0.5 * 67e12, 3350e9, 0.31e-6, 450e9, 20e-6, 80e9, 8),
}


class Step(NamedTuple):
    """What one step of training costs one device."""

    flops: float
    bytes: float
    operations: int
    parameters: int


def program(size: str, batch: int, num_rows: int) -> tuple[Callable, tuple]:
    """A compiled epoch over synthetic rows, and what to call it with."""
    latent, hidden = SIZES[size]
    graphdef, state = create_train_state(
        lambda rngs: VAE(num_tags=NUM_TAGS, latent_dim=latent, hidden_dim=hidden, rngs=rngs), seed=0
    )
    drawn = np.random.default_rng(0).integers(0, NUM_TAGS, (num_rows, LONGEST))
    rows = append_empty_rows(np.sort(drawn, axis=1).astype(np.uint8), num_tags=NUM_TAGS)
    train = make_train_epoch(
        graphdef, num_rows=num_rows, num_tags=NUM_TAGS, latent_dim=latent, batch_size=batch
    )
    hyperparams = make_hyperparams(model={"dropout_p": 0.3}, trainer={"gradient_clip_val": 1.0})
    return train, (state, hyperparams, jnp.asarray(rows))


def cost(size: str, batch: int) -> Step:
    """A step's cost, of the program that has one step in its epoch."""
    train, (state, hyperparams, rows) = program(size, batch, batch)
    compiled = train.lower(state, hyperparams, rows).compile()
    analysis = compiled.cost_analysis()
    found = analysis[0] if isinstance(analysis, list) else analysis
    operations = sum(
        len(re.findall(r" = .*? (?:fusion|dot|custom-call|reduce|scatter|sort|copy|call)\(", body))
        for body in compiled.as_text().split("\n\n")
        if not re.match(r"\s*%(?:fused|wrapped|parallel)", body)  # the inside of one operation
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Step(found["flops"], found["bytes accessed"], operations, parameters)


def seconds_a_step(step: Step, machine: Machine) -> dict[str, float]:
    """What a step's time is made of; arithmetic and memory overlap, the rest does not."""
    parts = {
        "operations": step.operations * machine.overhead,
        "arithmetic": step.flops / machine.flops,
        "memory": step.bytes / machine.bandwidth,
        "exchange": 0.0,
    }
    if machine.devices > 1:
        ring = 2 * (machine.devices - 1) / machine.devices * 4 * step.parameters / machine.link
        parts["exchange"] = machine.latency + ring
    longest = max(parts["arithmetic"], parts["memory"])
    return {**parts, "total": parts["operations"] + longest + parts["exchange"]}


def best_of(function: Callable[[], object], repeats: int = 5) -> float:
    """Least seconds of a call."""
    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return min(times)


def this_machine() -> Machine:
    """Its numbers, measured: a large product, a large copy, and a loop of small operations."""
    n, times = 2048, 4
    a = jnp.full((n, n), 1.0 / n, jnp.float32)
    product = functools.partial(jnp.matmul, precision=FULL_PRECISION)
    # Several, and below operations, to a turn of a loop: as in a step, and not a start of each.
    products = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: product(x, a), x))
    flops = 2 * times * n**3 / best_of(lambda: products(a))
    # As large as a small model's step: on a CPU that stays in its caches.
    some = jnp.ones((2**20,), jnp.float32)
    pass_over = jax.jit(lambda x: jax.lax.fori_loop(0, 100, lambda _, x: x + 1.0, x))
    bandwidth = 200 * some.nbytes / best_of(lambda: pass_over(some))
    small = jnp.ones((8, 8), jnp.float32)

    def operations(_, x):
        for _ in range(32):
            x = jnp.tanh(product(x, x)) * 0.5  # a product and a fusion
        return x

    chain = jax.jit(lambda x: jax.lax.fori_loop(0, 300, operations, x))
    overhead = best_of(lambda: chain(small)) / (300 * 64)
    return Machine(flops, bandwidth, overhead)


def measured(size: str, batch: int) -> float:
    """Seconds a step of training takes here."""
    steps = max(4, min(200, 2**17 // batch))
    train, (state, hyperparams, rows) = program(size, batch, steps * batch)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        state, sums = train(state, hyperparams, rows)
        jax.block_until_ready(sums)
        times.append((time.perf_counter() - started) / steps)
    return min(times[1:])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256, 2048, 16384])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args()
    here = this_machine()
    print(machine())
    print(
        f"\nThis machine: {here.flops / 1e9:,.0f} GFLOP/s, {here.bandwidth / 1e9:.0f} GB/s, "
        f"{here.overhead * 1e6:.2f} µs an operation\n"
    )
    print("| model | batch | predicted ms a step | measured | ratio | largest part |")
    print("|---|---|---|---|---|---|")
    wanted = [(size, batch) for size in options.sizes for batch in options.batches]
    costs = {each: cost(*each) for each in wanted}
    for (size, batch), step in costs.items():
        parts = seconds_a_step(step, here)
        total, real = parts.pop("total"), measured(size, batch)
        largest = max(parts, key=lambda name: parts[name])
        print(
            f"| {size} | {batch:,} | {1e3 * total:.3f} | {1e3 * real:.3f} | {total / real:.2f} | "
            f"{largest} |"
        )
    size = "medium" if "medium" in options.sizes else options.sizes[0]
    print(
        f"\n{size.capitalize()}, an epoch in seconds; every device has a batch as large as given.\n"
    )
    print(f"| machine | batch a device | ms a step | largest part | {' | '.join(DATA)} |")
    print(f"|---|---|---|---|{'---|' * len(DATA)}")
    for name, other in MACHINES.items():
        for batch in options.batches:
            parts = seconds_a_step(costs[size, batch], other)
            total = parts.pop("total")
            largest = max(parts, key=lambda part: parts[part])
            epochs = []
            for num_rows in DATA.values():
                steps = -(-num_rows // (batch * other.devices))
                room = num_rows * LONGEST / other.devices < 0.8 * other.memory
                epochs.append(f"{steps * total:,.3g}" if room else "not resident")
            print(f"| {name} | {batch:,} | {1e3 * total:.3f} | {largest} | {' | '.join(epochs)} |")


if __name__ == "__main__":
    main()
