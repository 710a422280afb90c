"""Same weights, same inputs, same numbers as PyTorch, to float32 accuracy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erfinv

from jaxvae.models import distributions
from jaxvae.models.layers import BatchNorm
from jaxvae.train import objectives
from jaxvae.train.plan.hyperparams import make_hyperparams
from jaxvae.train.steps import train_epoch
from jaxvae.train.steps.forward import forward
from tests.helpers.random_rows import (
    HIDDEN,
    LATENT,
    LONGEST,
    ROWS,
    TAGS,
    build,
    random_rows,
    with_empty_row,
)

# Sums of some tens of float32 products, in another order than torch's.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


@pytest.fixture(params=[False, True], ids=["plain", "batch norm"])
def pair(request, torch):
    """(graphdef, state, twin with the same weights)."""
    from tests.helpers.torch_twin import Twin

    graphdef, state = build(request.param)
    twin = Twin(
        num_tags=TAGS, latent_dim=LATENT, hidden_dim=HIDDEN, use_batch_norm=request.param
    ).take(state.params, state.batch_stats)
    return graphdef, state, twin


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), **CLOSE)


def assert_trees_close(ours, theirs):
    assert jax.tree.structure(jax.tree.map(np.asarray, ours)) == jax.tree.structure(theirs)
    jax.tree.map(assert_close, ours, theirs)


def test_posterior_and_logits_in_evaluation(pair, torch):
    graphdef, state, twin = pair
    model = nnx.merge(graphdef, state.params, state.batch_stats)
    _, hot = random_rows()
    twin.eval()
    with torch.no_grad():
        mean, logvar = twin.encode(torch.from_numpy(hot))
        logits = twin.decode(mean)
    ours = model.encode(jnp.asarray(hot))
    assert_close(ours[0], mean)
    assert_close(ours[1], logvar)
    assert_close(model.decode(ours[0]), logits)


def test_each_loss_term(torch):
    rng = np.random.default_rng(1)
    _, hot = random_rows()
    logits = rng.normal(0.0, 5.0, (ROWS, TAGS)).astype(np.float32)
    mean, logvar = (rng.normal(0.0, 1.5, (ROWS, LATENT)).astype(np.float32) for _ in range(2))
    target, theirs = torch.from_numpy(hot), torch.from_numpy(logits)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(theirs, target, reduction="none")
    assert_close(distributions.bernoulli_nll(jnp.asarray(logits), jnp.asarray(hot)), bce.sum(1))
    squared = torch.nn.functional.mse_loss(torch.sigmoid(theirs), target, reduction="none")
    assert_close(distributions.squared_error(jnp.asarray(logits), jnp.asarray(hot)), squared.sum(1))
    posterior = torch.distributions.Normal(
        torch.from_numpy(mean), torch.exp(0.5 * torch.from_numpy(logvar))
    )
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert_close(distributions.gaussian_kl(jnp.asarray(mean), jnp.asarray(logvar)), kl)


def torch_loss(torch, twin, hot, noise, *, kld_weight, bce=True):
    x = torch.from_numpy(hot)
    mean, logvar = twin.encode(x)
    logits = twin.decode(mean + torch.exp(0.5 * logvar) * torch.from_numpy(noise))
    if bce:
        data = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    else:
        data = torch.nn.functional.mse_loss(torch.sigmoid(logits), x, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return (data + kld_weight * kl) / len(hot)


def step_noise(state, step, batch_size):
    """The noise of a step, from the documented keys: root, noise stream, step."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), step)
    least = np.nextafter(np.float32(-1), np.float32(0))
    shape = (1, batch_size, LONGEST + LATENT)
    uniform = np.array(jax.random.uniform(key, shape, minval=least, maxval=1.0))[0, :, LONGEST:]
    return (np.sqrt(2.0) * erfinv(uniform.astype(np.float64))).astype(np.float32)


@pytest.mark.parametrize("bce", [True, False], ids=["BCE", "MSE"])
def test_gradients_of_every_parameter(pair, torch, bce):
    from tests.helpers.torch_twin import gradients

    graphdef, state, twin = pair
    rows, hot = random_rows()
    noise = np.random.default_rng(2).normal(size=(ROWS, LATENT)).astype(np.float32)
    weights = make_hyperparams(loss={"kld_weight": 2.0}).loss

    def loss(params):
        terms = forward(
            nnx.merge(graphdef, params, state.batch_stats),
            jnp.asarray(rows),
            objective=objectives.Objective(use_binary_cross_entropy=bce),
            noise=jnp.asarray(noise),
            mask=jnp.ones(ROWS, bool),
            train=True,
        )
        each = objectives.elbo(terms, weights, ROWS)
        return objectives.masked_mean(each, terms.mask, jnp.float32(ROWS))

    twin.train()
    theirs = torch_loss(torch, twin, hot, noise, kld_weight=2.0, bce=bce)
    theirs.backward()
    ours, grads = jax.value_and_grad(loss)(state.params)
    assert_close(ours, theirs.detach())
    assert_trees_close(grads, gradients(twin))


@pytest.mark.parametrize(
    ("clip", "weight_decay", "betas"),
    [
        (0.05, 0.0, (0.9, 0.999)),
        (0.05, 0.1, (0.8, 0.95)),
        (0.0, 0.1, (0.9, 0.999)),
        (1e3, 0.0, (0.9, 0.999)),
    ],
    ids=["clipped", "clipped, L2", "L2 alone", "never clipped"],
)
def test_an_epoch_of_adam_steps(pair, torch, clip, weight_decay, betas):
    """40 rows in batches of 16: three steps, the last one short."""
    graphdef, state, twin = pair
    batch, lr = 16, 1e-3
    rows, hot = random_rows()
    run_epoch = train_epoch.make_train_epoch(
        graphdef,
        num_rows=ROWS,
        num_tags=TAGS,
        latent_dim=LATENT,
        batch_size=batch,
        shuffle=False,
    )
    hyperparams = make_hyperparams(
        optimizer={"lr": lr, "betas": betas, "weight_decay": weight_decay},
        trainer={"gradient_clip_val": clip},
        loss={"kld_weight": 2.0},
    )
    noises = [step_noise(state, step, batch) for step in range(3)]

    adam = torch.optim.Adam(twin.parameters(), lr=lr, betas=betas, weight_decay=weight_decay)
    twin.train()
    total = 0.0
    for step, noise in enumerate(noises):
        part = hot[step * batch : (step + 1) * batch]
        adam.zero_grad()
        loss = torch_loss(torch, twin, part, noise[: len(part)], kld_weight=2.0)
        loss.backward()
        if clip:
            norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
            assert (norm > clip) == (clip < 1.0)  # else the case is not what its name says
        adam.step()
        total += float(loss.detach()) * len(part)

    state, sums = run_epoch(state, hyperparams, with_empty_row(rows))
    assert sums.compute()["loss"] == pytest.approx(total / ROWS, rel=1e-5)
    theirs = {name: value.numpy() for name, value in twin.state_dict().items()}
    for layer, arrays in state.params.items():
        weight = arrays["kernel"].T if "kernel" in arrays else arrays["scale"]
        # A thousandth of a step: parameters of size 1 have float32 digits down to 1e-7 only.
        close = {"rtol": 1e-6, "atol": lr / 1000}
        np.testing.assert_allclose(weight, theirs[f"{layer}.weight"], **close)
        np.testing.assert_allclose(arrays["bias"], theirs[f"{layer}.bias"], **close)
    for layer, arrays in state.batch_stats.items():
        close = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(arrays["mean"], theirs[f"{layer}.running_mean"], **close)
        np.testing.assert_allclose(arrays["var"], theirs[f"{layer}.running_var"], **close)
        assert int(arrays["count"]) == int(theirs[f"{layer}.num_batches_tracked"]) == 3


def test_batch_norm_statistics(torch):
    x = np.random.default_rng(0).normal(3.0, 2.0, (12, 5)).astype(np.float32)
    theirs, ours = torch.nn.BatchNorm1d(5).train(), BatchNorm(5)
    for part in (x[:7], x[7:]):
        expected = theirs(torch.from_numpy(part)).detach()
        assert_close(ours(jnp.asarray(part), mask=None, train=True), expected)
    assert_close(ours.mean[...], theirs.running_mean)
    assert_close(ours.var[...], theirs.running_var)
    theirs.eval()
    assert_close(ours(jnp.asarray(x), mask=None, train=False), theirs(torch.from_numpy(x)).detach())


def test_batch_norm_sees_only_rows_of_the_mask(torch):
    x = np.random.default_rng(0).normal(3.0, 2.0, (9, 5)).astype(np.float32)
    mask = np.array([True] * 6 + [False] * 3)
    theirs, ours = torch.nn.BatchNorm1d(5).train(), BatchNorm(5)
    expected = theirs(torch.from_numpy(x[mask])).detach()
    x[~mask] = 100.0  # not even rows like these
    out = ours(jnp.asarray(x), mask=jnp.asarray(mask), train=True)
    assert_close(out[:6], expected)
    assert_close(ours.mean[...], theirs.running_mean)
    assert_close(ours.var[...], theirs.running_var)
