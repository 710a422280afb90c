"""Trains one model on meshes of up to eight simulated devices, and prints what each came to.

A process of its own, since the number of devices is settled before JAX is used: its arguments are
some of `CASES`; see `test_sharding.py`.
"""

import hashlib
import json
import os
import re
import sys

if __name__ == "__main__":  # tests import what is below, with devices of their own
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np

from jaxvae.models.vae import VAE
from jaxvae.runtime import devices
from jaxvae.runtime.sharding import Sharding, append_empty_rows
from jaxvae.train.plan.hyperparams import make_hyperparams
from jaxvae.train.steps import batches
from jaxvae.train.steps.eval_epoch import make_eval_pass
from jaxvae.train.steps.train_epoch import make_train_epoch
from jaxvae.train.train_state import create_train_state

MESHES = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (2, 2), (4, 2), (2, 4)]
FEW = [(1, 1), (4, 1), (2, 4)]
CASES = {
    # Neither 515 rows nor batches of 30 divide over 4 or 8 devices.
    "narrow": {"num_tags": 200, "batch_size": 30},
    "wide": {"num_tags": 2000, "batch_size": 30},  # rows are looked up, not multiplied
    "batch norm": {"num_tags": 200, "batch_size": 30, "use_batch_norm": True},
    "accumulated": {"num_tags": 200, "batch_size": 9, "accumulate": 3},
    "vamp": {"num_tags": 200, "batch_size": 30, "prior": "vamp"},
    "deeper, tied": {
        **{"num_tags": 2000, "batch_size": 30},
        **{"hidden_dims": (64, 48), "tied_weights": True},
    },
    "cut": {"num_tags": 200, "batch_size": 300},  # a last batch of its own size: 215
}
NUM_ROWS, LATENT, STEPS = 515, 16, 50
COLLECTIVE = re.compile(
    r"= (?P<type>.*?) (?P<name>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r'(?:-start)?\((?:.*?op_name="(?P<place>[^"]*)")?'
)


def some_rows(num_tags: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = np.full((NUM_ROWS, 6), num_tags, np.uint16)
    for row in rows:
        size = rng.integers(1, 7)
        row[:size] = np.sort(rng.choice(num_tags, size, replace=False))
    return rows


def collectives(text: str) -> list[dict]:
    """Each collective of a compiled program: its name, results, and how many loops it is in.

    XLA knows no place of some that it adds by itself; they count as outside.
    """
    return [
        {
            "name": found["name"],
            "results": re.findall(r"[a-z]+\d*\[[\d,]*\]", found["type"]),
            "loops": (found["place"] or "").split(":")[0].count("while/body"),
        }
        for found in map(COLLECTIVE.search, text.splitlines())
        if found
    ]


def digest(tree) -> str:
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def trained(case: dict, data: int, model: int) -> tuple[dict, dict]:
    case = {"accumulate": 1, **case}
    num_tags, batch_size, accumulate = (
        case.pop(name) for name in ("num_tags", "batch_size", "accumulate")
    )
    rows = some_rows(num_tags)
    if case.get("prior") == "vamp":
        case["pseudo_inputs"] = np.eye(num_tags, dtype=np.float32)[:20]
    graphdef, state = create_train_state(
        lambda rngs: VAE(num_tags=num_tags, latent_dim=LATENT, hidden_dim=64, rngs=rngs, **case),
        seed=0,
    )
    mesh = devices.make_mesh(accelerator="cpu", num_devices=data * model, model=model)
    sharding = Sharding(mesh)
    several = sharding if mesh.size > 1 else None
    shape = {"num_rows": NUM_ROWS, "num_tags": num_tags, "latent_dim": LATENT}
    train_epoch = make_train_epoch(
        graphdef, **shape, batch_size=batch_size, accumulate=accumulate, sharding=several
    )
    placed = sharding.place_rows(rows, np.arange(len(rows)), num_tags=num_tags)
    state = sharding.place(state)
    hyperparams = make_hyperparams(model={"dropout_p": 0.3}, trainer={"gradient_clip_val": 1.0})
    text = train_epoch.lower(state, hyperparams, placed).compile().as_text()
    history = []
    while int(state.step) < STEPS:
        state, sums = train_epoch(state, hyperparams, placed)
        history.append({"count": float(sums.count), **sums.compute()})

    judge = make_eval_pass(graphdef, **shape, batch_size=100, sharding=several)
    weights = make_hyperparams().loss
    total, mean, _ = judge(
        state.params, state.batch_stats, weights, jnp.float32(0.5), state.key, placed
    )
    kernel = state.params["fc1"]["kernel"]
    found = {
        "history": history,
        "judged": {"count": float(total.losses.count), **total.losses.compute()},
        "digest": digest((state.params, state.opt_state, mean)),
        "collectives": collectives(text),
        "rows on a device": placed.addressable_shards[0].data.shape[0],
        "tags on a device": kernel.addressable_shards[0].data.shape[0],
        "moments on a device": state.opt_state[2]
        .mu["fc1"]["kernel"]
        .addressable_shards[0]
        .data.shape[0],
    }
    return found, jax.device_get((state.params, state.batch_stats, mean))


def taken_rows() -> bool:
    """Whether `take` brings every row, and empty ones for the padding, whatever the mesh."""
    rows = some_rows(200)
    numbers = np.random.default_rng(1).integers(0, NUM_ROWS + 1, (3, 2, 16), np.int32)
    whole = append_empty_rows(rows, num_tags=200)
    equal = True
    for data, model in MESHES:
        mesh = devices.make_mesh(accelerator="cpu", num_devices=data * model, model=model)
        sharding = Sharding(mesh)
        placed = sharding.place_rows(rows, np.arange(len(rows)), num_tags=200)
        equal &= bool((jax.jit(sharding.take)(placed, numbers) == whole[numbers]).all())
    return equal


def main(names: list[str]) -> None:
    """Prints what cases came to, and with "narrow" whether rows are found."""
    batches._WORTH_COMPILING = 0  # or so few rows would not be cut
    found: dict = {"rows": taken_rows()} if "narrow" in names else {}
    for name in names:
        case, one = CASES[name], None
        for data, model in MESHES if name == "narrow" else FEW:
            result, arrays = trained(case, data, model)
            one = arrays if one is None else one
            gaps = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), arrays, one)
            result["gap"] = max(jax.tree.leaves(gaps))
            found[f"{name} {data} {model}"] = result
    if "batch norm" in names:
        found["again"] = trained(CASES["batch norm"], 2, 4)[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
