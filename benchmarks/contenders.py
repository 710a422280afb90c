"""What a training epoch is measured against; each contender is a function that trains one epoch.

All train the same model on the same rows at the same batch size with Adam and clipping; the floors
multiply the step's matrices and do nothing else.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from flax import nnx

from benchmarks.problems import Problem
from jaxvae.data.encoding import to_multi_hot
from jaxvae.models import distributions
from jaxvae.models.vae import reparameterize
from jaxvae.runtime.sharding import append_empty_rows
from jaxvae.train.plan.hyperparams import make_hyperparams
from jaxvae.train.steps.train_epoch import make_train_epoch
from jaxvae.train.train_state import create_train_state

Epoch = Callable[[], None]
LEARNING_RATE, CLIP, DROPOUT = 5e-4, 1.0, 0.3


def trainer(problem: Problem):
    """The compiled training epoch, and what it is called with: state, numbers, rows."""
    graphdef, state = create_train_state(problem.build, seed=0)
    train = make_train_epoch(
        graphdef,
        num_rows=len(problem.rows),
        num_tags=problem.num_tags,
        latent_dim=problem.latent_dim,
        batch_size=problem.batch_size,
    )
    hyperparams = make_hyperparams(
        model={"dropout_p": DROPOUT},
        trainer={"gradient_clip_val": CLIP},
        optimizer={"lr": LEARNING_RATE},
    )
    rows = jax.device_put(append_empty_rows(problem.rows, num_tags=problem.num_tags))
    return train, state, hyperparams, rows


def jaxvae_epoch(problem: Problem) -> Epoch:
    """This project's compiled epoch."""
    train, state, hyperparams, rows = trainer(problem)

    def epoch() -> None:
        nonlocal state
        state, sums = train(state, hyperparams, rows)
        jax.block_until_ready(sums)

    return epoch


def flax_loop(problem: Problem) -> Epoch:
    """A jitted step in a Python loop over dense batches, as flax's examples train."""
    model = problem.build(nnx.Rngs(0))
    optimizer = nnx.Optimizer(
        model,
        optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE)),
        wrt=nnx.Param,
    )
    rows = to_multi_hot(problem.rows, problem.num_tags).astype(np.float32)
    rng = np.random.default_rng(0)

    @nnx.jit
    def step(model, optimizer, x, key):
        dropout_key, noise_key = jax.random.split(key)
        keep = jax.random.uniform(dropout_key, x.shape) >= DROPOUT

        def loss_fn(model):
            mean, logvar = model.encode(x * keep / (1.0 - DROPOUT))
            noise = jax.random.normal(noise_key, mean.shape)
            nll = distributions.bernoulli_nll(model.decode(reparameterize(mean, logvar, noise)), x)
            return jnp.mean(nll + distributions.gaussian_kl(mean, logvar).sum(axis=1))

        loss, gradients = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, gradients)
        return loss

    keys = iter(jax.random.split(jax.random.key(0), 10**6))

    def epoch() -> None:
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), problem.batch_size):
            loss = step(
                model, optimizer, rows[order[start : start + problem.batch_size]], next(keys)
            )
        jax.block_until_ready(loss)

    return epoch


def torch_loop(problem: Problem, *, threads: int, compiled: bool = False) -> Epoch:
    """The leanest PyTorch: rows in one tensor, no loader, fused Adam, nothing logged."""
    torch.set_num_threads(threads)
    rows, params, objective = _in_torch(problem, "cpu")
    optimizer = torch.optim.Adam(params, lr=LEARNING_RATE, fused=True)
    # Inductor builds its kernels for a number of threads and, here, for each shape of a batch.
    loss = torch.compile(objective, dynamic=False) if compiled else objective

    def epoch() -> None:
        torch.set_num_threads(threads)
        for part in torch.randperm(len(rows)).split(problem.batch_size):
            _torch_step(loss, rows[part], params, optimizer)

    return epoch


def torch_gpu_loop(problem: Problem, *, captured: bool) -> Epoch:
    """The same on the GPU; `captured` replays a whole step as one CUDA graph."""
    rows, params, objective = _in_torch(problem, "cuda")
    optimizer = torch.optim.Adam(params, lr=LEARNING_RATE, fused=True, capturable=captured)
    batch = rows[torch.arange(problem.batch_size, device="cuda") % len(rows)]
    graph = torch.cuda.CUDAGraph()
    if captured:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # a first use allocates, which a graph must not
            for _ in range(3):
                _torch_step(objective, batch, params, optimizer)
        torch.cuda.current_stream().wait_stream(aside)
        optimizer.zero_grad()
        with torch.cuda.graph(graph):
            _torch_step(objective, batch, params, optimizer)

    def epoch() -> None:
        for part in torch.randperm(len(rows), device="cuda").split(problem.batch_size):
            if captured and len(part) == problem.batch_size:
                torch.index_select(rows, 0, part, out=batch)
                graph.replay()
            else:
                _torch_step(objective, rows[part], params, optimizer)
        torch.cuda.synchronize()

    return epoch


def _in_torch(problem: Problem, device: str):
    """Rows, parameters and the objective of a batch."""
    sizes = problem.num_tags, problem.hidden_dim, problem.latent_dim
    fc1 = torch.nn.Linear(sizes[0], sizes[1], device=device)
    heads = torch.nn.Linear(sizes[1], 2 * sizes[2], device=device)
    fc3 = torch.nn.Linear(sizes[2], sizes[1], device=device)
    fc4 = torch.nn.Linear(sizes[1], sizes[0], device=device)
    params = [p for layer in (fc1, heads, fc3, fc4) for p in layer.parameters()]
    rows = torch.from_numpy(to_multi_hot(problem.rows, problem.num_tags).astype(np.float32))

    def objective(x: torch.Tensor) -> torch.Tensor:
        mean, logvar = heads(F.relu(fc1(F.dropout(x, DROPOUT)))).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        nll = F.binary_cross_entropy_with_logits(fc4(F.relu(fc3(z))), x, reduction="sum")
        kl = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).sum()
        return (nll + kl) / len(x)

    return rows.to(device), params, objective


def _torch_step(loss, x: torch.Tensor, params: list, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss(x).backward()
    torch.nn.utils.clip_grad_norm_(params, CLIP)
    optimizer.step()


def _products(problem: Problem, multiply, start):
    """The matrix products of a step, forward and backward, each once."""
    x, w1, w2, w3, w4 = start
    latent = problem.latent_dim
    h = multiply(x, w1)
    q = multiply(h, w2)
    g = multiply(q[:, :latent], w3)
    logits = multiply(g, w4)
    d4, dg = multiply(g.T, logits), multiply(logits, w4.T)
    d3, dz = multiply(q[:, :latent].T, dg), multiply(dg, w3.T)
    d2, dh = multiply(h.T, q), multiply(q, w2.T)
    return d4, d3, d2, multiply(x.T, dh), dz


def _matrices(problem: Problem) -> list[np.ndarray]:
    v, h, z, b = problem.num_tags, problem.hidden_dim, problem.latent_dim, problem.batch_size
    rng = np.random.default_rng(0)
    shapes = [(b, v), (v, h), (h, 2 * z), (z, h), (h, v)]
    return [rng.normal(0.0, n**-0.5, (m, n)).astype(np.float32) for m, n in shapes]


def xla_floor(problem: Problem) -> Epoch:
    """A step's matrix products alone, all steps in one compiled program."""
    x, *weights = map(jnp.asarray, _matrices(problem))

    @jax.jit
    def run(x):
        def step(x, _):
            # Behind a barrier no product can be left out or cut; the next step waits for all.
            parts = jax.lax.optimization_barrier(_products(problem, jnp.matmul, (x, *weights)))
            return x + 1e-12 * sum(part[0, 0] for part in parts), None

        return jax.lax.scan(step, x, length=problem.steps)[0]

    def epoch() -> None:
        jax.block_until_ready(run(x))

    return epoch


def blas_floor(problem: Problem) -> Epoch:
    """A step's matrix products alone, by numpy's BLAS."""
    start = _matrices(problem)

    def epoch() -> None:
        for _ in range(problem.steps):
            _products(problem, np.matmul, start)

    return epoch


@contextmanager
def lightning(problem: Problem, *, workers: int) -> Iterator[Epoch]:
    """The Lightning pipeline in a process of its own, which trains an epoch for every line."""
    sizes = {
        "--batch_size": problem.batch_size,
        "--latent_dim": problem.latent_dim,
        "--hidden_dim": problem.hidden_dim,
        "--workers": workers,
    }
    with TemporaryDirectory() as folder:
        problem.save(Path(folder) / "rows.npz")
        arguments = [str(part) for pair in sizes.items() for part in pair]
        command = [sys.executable, "-m", "benchmarks.lightning_pipeline", f"{folder}/rows.npz"]
        process = subprocess.Popen(
            [*command, f"{folder}/run", "--turns", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def wait() -> None:
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("the Lightning pipeline ended; run it alone to see why")

        def epoch() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            wait()

        try:
            wait()
            yield epoch
        finally:
            process.stdin.close()
            process.wait()


def contenders() -> dict[str, Callable[[Problem], Epoch]]:
    """Those that make sense on this machine: on a GPU, PyTorch is on it too."""
    torch_loops: dict[str, Callable[[Problem], Epoch]] = {
        "torch loop, 1 thread": lambda problem: torch_loop(problem, threads=1),
        "torch loop, 2 threads": lambda problem: torch_loop(problem, threads=2),
        "torch.compile, 1 thread": lambda problem: torch_loop(problem, threads=1, compiled=True),
        "torch.compile, 2 threads": lambda problem: torch_loop(problem, threads=2, compiled=True),
        "floor, BLAS": blas_floor,
    }
    if jax.default_backend() == "gpu" and torch.cuda.is_available():
        torch_loops = {
            "torch loop": lambda problem: torch_gpu_loop(problem, captured=False),
            "torch, CUDA graph": lambda problem: torch_gpu_loop(problem, captured=True),
        }
    return {
        "jaxvae": jaxvae_epoch,
        "flax loop": flax_loop,
        **torch_loops,
        "floor, XLA": xla_floor,
    }
