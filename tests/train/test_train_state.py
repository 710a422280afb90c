"""Learning rates and the freeze."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvae.models.vae import VAE
from jaxvae.train.optimizer import learning_rate_schedule
from jaxvae.train.plan.hyperparams import Lengths
from jaxvae.train.train_state import apply_gradients, create_train_state, eval_params
from tests.helpers.states import hyperparams

STEPS = np.arange(0, 120)


def rates(*, warmup=0, final_fraction=1.0):
    """Of a cosine that ends at step 100; one that ends where it began is constant."""
    lengths = Lengths(warmup=warmup, decay=100 - warmup)
    numbers = hyperparams(lengths, lr=0.1, final_fraction=final_fraction)
    return jax.vmap(lambda step: learning_rate_schedule(numbers, step))(
        jnp.asarray(STEPS, jnp.int32)
    )


def test_constant():
    np.testing.assert_allclose(rates(), 0.1, rtol=1e-6)


def test_warm_up_rises_in_equal_steps_to_the_peak():
    got = rates(warmup=10)
    np.testing.assert_allclose(got[:10], 0.01 * np.arange(1, 11), rtol=1e-5)
    np.testing.assert_allclose(got[10:], 0.1, rtol=1e-6)


def test_cosine_is_optax_cosine():
    schedule = optax.cosine_decay_schedule(0.1, 100, alpha=0.2)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        expected = [float(schedule(step)) for step in STEPS]
    got = rates(final_fraction=0.2)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_cosine_after_warm_up_starts_at_the_peak_and_ends_with_the_run():
    got = rates(warmup=20, final_fraction=0.0)
    assert got[20] == pytest.approx(0.1, rel=1e-6)
    assert got[60] == pytest.approx(0.05, rel=1e-5)
    assert got[100] == pytest.approx(0.0, abs=1e-8)


def test_warm_up_and_cosine_are_optax_from_the_peak_on():
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 20, 100, end_value=0.03)
    with jax.numpy_dtype_promotion("standard"):
        expected = np.array([float(schedule(step)) for step in STEPS])
    got = np.asarray(rates(warmup=20, final_fraction=0.3))
    np.testing.assert_allclose(got[20:], expected[20:], rtol=1e-5)
    # While it warms up ours is a step ahead, so that no step is taken with a rate of 0.
    np.testing.assert_allclose(got[:20], expected[1:21], rtol=1e-5)


def small_state(seed=0):
    def build(rngs):
        return VAE(num_tags=5, latent_dim=2, hidden_dim=4, use_batch_norm=True, rngs=rngs)

    return create_train_state(build, seed=seed)[1]


def leaves(state):
    """Every array but the random key and the report of the bad step."""
    parts = (state.params, state.batch_stats, state.opt_state, state.step)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(parts)]


@pytest.mark.parametrize("device", ["cpu", "default"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_freezes_the_state_for_good(monkeypatch, where, device):
    """By the branch that CPUs take, and by what is compiled for accelerators."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *given, **ways: ways[device](*given))
    numbers = hyperparams(lr=0.1, gradient_clip_val=1.0)
    good = jax.tree.map(jnp.ones_like, small_state().params)
    bad = jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), good)

    @jax.jit
    def advance(state, gradients, loss):
        return apply_gradients(
            state,
            gradients,
            batch_stats=jax.tree.map(lambda x: x + jnp.ones_like(x), state.batch_stats),
            loss=loss,
            hyperparams=numbers,
        )

    start = small_state()
    once = advance(start, good, jnp.float32(1.0))
    assert int(once.step) == 1
    assert int(once.bad_step) == -1
    assert not np.array_equal(once.params["fc1"]["kernel"], start.params["fc1"]["kernel"])
    assert int(once.batch_stats["bn1"]["count"]) == 1

    inputs = (bad, jnp.float32(1.0)) if where == "gradient" else (good, jnp.float32(jnp.inf))
    frozen = advance(once, *inputs)
    assert int(frozen.bad_step) == 1
    assert all(np.array_equal(a, b) for a, b in zip(leaves(frozen), leaves(once), strict=True))

    later = advance(frozen, good, jnp.float32(1.0))
    assert int(later.bad_step) == 1
    assert all(np.array_equal(a, b) for a, b in zip(leaves(later), leaves(once), strict=True))


def test_the_seed_makes_the_state():
    same = zip(leaves(small_state(1)), leaves(small_state(1)), strict=True)
    assert all(np.array_equal(a, b) for a, b in same)
    other = zip(leaves(small_state(1)), leaves(small_state(2)), strict=True)
    assert not all(np.array_equal(a, b) for a, b in other)


def steps(state, count, *, decoupled=False, **options):
    """Parameters after each of some steps with gradients that depend on the step."""
    numbers = hyperparams(lr=0.1, **options)

    @jax.jit
    def advance(state):
        gradients = jax.tree.map(
            lambda x: jnp.cos(x + state.step.astype(jnp.float32)), state.params
        )
        return apply_gradients(
            state,
            gradients,
            batch_stats=state.batch_stats,
            loss=jnp.float32(1.0),
            hyperparams=numbers,
            decoupled=decoupled,
        )

    found = []
    for _ in range(count):
        state = advance(state)
        found.append(state)
    return found


def averaged_state(**options):
    return create_train_state(
        lambda rngs: VAE(num_tags=5, latent_dim=2, hidden_dim=4, rngs=rngs), seed=0, **options
    )[1]


def test_the_average_by_hand():
    """The decay is (1 + t) / (10 + t) until it reaches the one asked for."""
    start = averaged_state(average=True)
    average = np.asarray(start.params["fc1"]["kernel"])
    for number, state in enumerate(steps(start, 8, ema_decay=0.4)):
        decay = min(0.4, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * np.asarray(state.params["fc1"]["kernel"])
        np.testing.assert_allclose(state.average["fc1"]["kernel"], average, rtol=1e-5)
    assert eval_params(state)["params"] is state.average
    plain = steps(averaged_state(), 8)[-1]
    assert eval_params(plain)["params"] is plain.params
    assert np.array_equal(plain.params["fc4"]["bias"], state.params["fc4"]["bias"])


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_is_torchs(decoupled, torch):
    start = averaged_state(decoupled=decoupled)
    theirs = {
        (layer, name): torch.nn.Parameter(torch.tensor(np.array(array)))
        for layer, arrays in start.params.items()
        for name, array in arrays.items()
    }
    kernels = [p for (_, name), p in theirs.items() if name == "kernel"]
    rest = [p for (_, name), p in theirs.items() if name != "kernel"]
    if decoupled:
        groups = [{"params": kernels}, {"params": rest, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3)
    else:
        optimizer = torch.optim.Adam(kernels + rest, lr=0.1, weight_decay=0.3)
    for number, state in enumerate(steps(start, 5, decoupled=decoupled, weight_decay=0.3)):
        for parameter in theirs.values():
            parameter.grad = torch.cos(parameter.detach() + number)
        optimizer.step()
        for (layer, name), parameter in theirs.items():
            np.testing.assert_allclose(
                state.params[layer][name], parameter.detach().numpy(), rtol=1e-4, atol=1e-5
            )
