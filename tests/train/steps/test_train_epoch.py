"""The compiled epoch: exact, reproducible, traced once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxvae.models import distributions
from jaxvae.models.layers import dropout_mask, multi_hot
from jaxvae.models.vae import reparameterize
from jaxvae.train.plan.hyperparams import Lengths
from jaxvae.train.plan.progress import steps_per_epoch
from jaxvae.train.steps.batches import EpochPlan
from jaxvae.train.steps.eval_epoch import make_eval_pass
from jaxvae.train.steps.train_epoch import make_train_epoch
from jaxvae.train.train_state import apply_gradients
from tests.helpers import states
from tests.helpers.random_rows import LATENT, LONGEST, ROWS, TAGS, build, random_rows
from tests.helpers.random_rows import with_empty_row as padded

RATE = 1e-2


def trainer(graphdef, *, num_rows=ROWS, batch_size=16, **options):
    return make_train_epoch(
        graphdef,
        num_rows=num_rows,
        num_tags=TAGS,
        latent_dim=LATENT,
        batch_size=batch_size,
        **options,
    )


def hyperparams(lengths=None, **numbers):
    """No clipping but L2, so that the size of a gradient matters: Adam alone undoes a factor."""
    defaults = {"lr": RATE, "weight_decay": 0.1, "dropout_p": 0.3}
    return states.hyperparams(lengths, **{**defaults, **numbers})


def fresh(state):
    """A copy: a training epoch takes its state's memory."""
    return jax.tree.map(jnp.copy, state)


@pytest.fixture
def set_constant(monkeypatch):
    """Sets what programs are made by and is no argument of them: those made before don't count."""

    def forget():
        make_train_epoch.cache_clear()
        make_eval_pass.cache_clear()

    def change(name, value):
        monkeypatch.setattr(f"jaxvae.{name}", value)
        forget()

    yield change
    forget()


def assert_close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=RATE / 1000), a, b)


def test_steps_cover_the_rows():
    assert steps_per_epoch(40, 16) == 3
    assert steps_per_epoch(32, 16) == 2
    assert steps_per_epoch(33, 16, accumulate=2) == 2
    assert steps_per_epoch(5, 16) == 1


def test_an_epoch_counts_every_row():
    graphdef, state = build(False)
    state, sums = trainer(graphdef)(state, hyperparams(), padded(random_rows()[0]))
    assert float(sums.count) == ROWS
    assert int(state.step) == 3


def test_every_row_weighs_the_same_in_an_epochs_sums():
    """Nothing is learned and dropped; the decoder's only signal is its bias.

    Then a row's loss is the sum of its tags' costs, whatever batch the row is in.
    """
    rows, hot = random_rows()
    graphdef, state = build(False)
    logits = np.random.default_rng(4).normal(-2.0, 1.0, TAGS).astype(np.float32)
    params = jax.tree.map(jnp.zeros_like, state.params)
    params["fc4"]["bias"] = jnp.asarray(logits)
    state = dataclasses.replace(state, params=params)
    _, sums = trainer(graphdef)(state, hyperparams(lr=0.0, dropout_p=0.0), padded(rows))
    by_hand = (np.log1p(np.exp(logits)) - hot * logits).sum()
    assert float(sums.loss) == pytest.approx(by_hand, rel=1e-5)
    assert float(sums.kld) == 0.0


def test_a_wide_vocabulary_trains_alike(set_constant):
    """Looked up in tables or multiplied: the same epoch and the same validation."""
    rows = padded(random_rows()[0])
    found = []
    for wide in (TAGS + 1, TAGS):
        set_constant("models.vae.SPARSE_LOOKUP_MIN_TAGS", wide)
        set_constant("train.steps.forward.SPARSE_LOOKUP_MIN_TAGS", wide)
        graphdef, state = build(False)
        state, sums = trainer(graphdef)(state, hyperparams(), rows)
        validate = make_eval_pass(
            graphdef,
            num_rows=ROWS,
            num_tags=TAGS,
            latent_dim=LATENT,
            batch_size=16,
        )
        weights = hyperparams().loss
        total = validate(state.params, {}, weights, np.float32(0.5), state.key, rows)
        found.append((state.params, sums.loss, total))
    assert_close(*found, rtol=2e-5)


@pytest.mark.parametrize(
    ("use_batch_norm", "worth_compiling"), [(False, 0), (True, 0), (True, 1 << 17)]
)
def test_two_epochs_are_a_plain_loop_of_steps(set_constant, use_batch_norm, worth_compiling):
    """Written once more without scan, padding or masks, from the documented keys.

    The last of three batches, of 8 rows, is cut to them or padded to 16.
    """
    set_constant("train.steps.batches._WORTH_COMPILING", worth_compiling)
    rows, _ = random_rows()
    graphdef, start = build(use_batch_norm)
    options = hyperparams(kld_weight=2.0)

    def loss_fn(params, batch_stats, part, dropped, noise):
        model = nnx.merge(graphdef, params, batch_stats)
        x = multi_hot(part, jnp.ones(part.shape), TAGS)
        mean, logvar = model.encode(multi_hot(part, dropped, TAGS), train=True)
        logits = model.decode(reparameterize(mean, logvar, noise), train=True)
        kl = distributions.gaussian_kl(mean, logvar).sum(axis=1)
        loss = jnp.mean(distributions.bernoulli_nll(logits, x) + 2.0 * kl)
        return loss, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    @jax.jit
    def single(state, part, dropped, noise):
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.batch_stats, part, dropped, noise
        )
        return apply_gradients(
            state, grads, batch_stats=stats, loss=loss, hyperparams=options
        ), loss

    state, means = fresh(start), []
    for number in range(6):
        epoch, place = divmod(number, 3)
        order_key = jax.random.fold_in(jax.random.fold_in(start.key, 0), epoch)
        order = np.argsort(np.asarray(jax.random.bits(order_key, (ROWS,))), kind="stable")
        part = rows[order[16 * place : 16 * (place + 1)]]
        assert len(part) == (16 if place < 2 else 8)
        key = jax.random.fold_in(jax.random.fold_in(start.key, 1), number)
        u = jax.random.uniform(
            key, (1, 16, LONGEST + LATENT), minval=np.nextafter(np.float32(-1), 0), maxval=1.0
        )[0]
        dropped = dropout_mask((u[:, :LONGEST] + 1) / 2, options.model.dropout_p)
        noise = jnp.sqrt(2.0) * jax.scipy.special.erfinv(u[:, LONGEST:])
        state, loss = single(state, part, dropped[: len(part)], noise[: len(part)])
        means.append(float(loss))

    train_epoch, got = trainer(graphdef), fresh(start)
    for epoch in range(2):
        got, sums = train_epoch(got, options, padded(rows))
        expected = np.average(means[3 * epoch : 3 * epoch + 3], weights=[16, 16, 8])
        assert sums.compute()["loss"] == pytest.approx(expected, rel=1e-5)
    assert_close(got.params, state.params)
    assert_close(got.batch_stats, state.batch_stats)


@pytest.mark.parametrize("waste", [1.0, 0.0])
def test_padding_changes_nothing(set_constant, waste):
    """40 rows in one batch of 40, or of 64 with 24 masked rows, or one of 64 that is cut to 40."""
    set_constant("train.steps.batches._WASTE", waste)
    set_constant("train.steps.batches._WORTH_COMPILING", 0)
    rows, _ = random_rows()
    graphdef, state = build(True)
    options = hyperparams(dropout_p=0.0)
    # The noise of a row does not depend on how many rows follow it.
    exact, a = trainer(graphdef, batch_size=40, shuffle=False)(fresh(state), options, padded(rows))
    wide, b = trainer(graphdef, batch_size=64, shuffle=False)(fresh(state), options, padded(rows))
    assert_close(wide.params, exact.params)
    assert_close(wide.batch_stats, exact.batch_stats)
    assert b.compute() == pytest.approx(a.compute(), rel=1e-5)


def test_steps_without_rows_change_nothing(set_constant):
    """Five steps: in one turn, or in three of two, whose last step has no rows."""
    rows, _ = random_rows()
    graphdef, state = build(True)
    batch = 8
    one, a = trainer(graphdef, batch_size=batch)(fresh(state), hyperparams(), padded(rows))
    set_constant("train.steps.batches._DRAWN", 2 * batch * (LONGEST + LATENT))
    three, b = trainer(graphdef, batch_size=batch)(fresh(state), hyperparams(), padded(rows))
    assert int(three.step) == int(one.step) == 5
    assert_close(three.params, one.params)
    assert_close(three.batch_stats, one.batch_stats)
    assert int(three.batch_stats["bn1"]["count"]) == 5
    assert b.compute() == pytest.approx(a.compute(), rel=1e-5)


@pytest.mark.parametrize(
    ("sizes", "last"),
    [
        ((4542, 2048, 1, 200), 446),  # 1,602 rows would be padding
        ((4542, 2048, 2, 200), 0),  # a step of 4,096: batches of a step have one size
        ((4542, 32, 1, 200), 0),  # 2 of 4,544
        ((70_000, 4096, 1, 200), 0),  # 3,728 of 73,728, a twentieth
        ((1000, 700, 1, 200), 0),  # 400 rows: compiling takes longer than a run spends on them
        ((1000, 700, 1, 2000), 300),  # not where rows are that wide
        ((32, 16, 1, 10**6), 0),
    ],
)
def test_a_last_batch_of_mostly_padding_is_cut(sizes, last):
    names = ("num_rows", "batch_size", "accumulate", "num_tags")
    assert EpochPlan.of(**dict(zip(names, sizes, strict=True))).last == last


def test_two_batches_of_16_accumulated_are_one_of_32():
    rows, _ = random_rows()
    graphdef, state = build(False)
    one, a = trainer(graphdef, batch_size=32)(fresh(state), hyperparams(), padded(rows))
    two, b = trainer(graphdef, batch_size=16, accumulate=2)(
        fresh(state), hyperparams(), padded(rows)
    )
    assert int(one.step) == int(two.step) == 2
    assert_close(two.params, one.params)
    assert a.compute() == pytest.approx(b.compute(), rel=1e-5)


def test_running_statistics_follow_each_batch_that_is_accumulated():
    """Nothing is learned or dropped: two steps see the same three batches as three steps do."""
    rows = padded(random_rows()[0])
    graphdef, state = build(True)
    still = hyperparams(lr=0.0, dropout_p=0.0)
    three, _ = trainer(graphdef, batch_size=16, shuffle=False)(fresh(state), still, rows)
    two, _ = trainer(graphdef, batch_size=16, accumulate=2, shuffle=False)(
        fresh(state), still, rows
    )
    assert (int(three.step), int(two.step)) == (3, 2)
    assert int(two.batch_stats["bn1"]["count"]) == 3
    # Not those of the decoder: it sees z, whose noise is another.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        two.batch_stats["bn1"],
        three.batch_stats["bn1"],
    )


def test_a_program_is_traced_once_whatever_the_numbers():
    rows = padded(random_rows()[0])
    graphdef, state = build(False)
    train_epoch = trainer(graphdef)
    for options in (
        hyperparams(),
        hyperparams(kld_weight=4.0),
        hyperparams(Lengths(warmup=3, decay=6), lr=1e-3, final_fraction=0.0),
        hyperparams(dropout_p=0.0, gradient_clip_val=1.0, weight_decay=0.0, betas=(0.5, 0.9)),
    ):
        state, _ = train_epoch(state, options, rows)
    assert train_epoch._cache_size() == 1


# Inside a vmap the epoch's own donation has nothing to take.
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_population_is_a_vmap_over_the_numbers():
    rows = padded(random_rows()[0])
    graphdef, state = build(False)
    train_epoch = trainer(graphdef)
    members = [
        hyperparams(kld_weight=w, dropout_p=p) for w, p in ((0.5, 0.0), (1.0, 0.3), (4.0, 0.5))
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    many, sums = jax.vmap(lambda n: train_epoch(fresh(state), n, rows))(stacked)
    for number, member in enumerate(members):
        single, alone = train_epoch(fresh(state), member, rows)
        assert_close(jax.tree.map(lambda leaf, i=number: leaf[i], many.params), single.params)
        assert float(sums.loss[number]) == pytest.approx(float(alone.loss), rel=1e-5)


def test_a_loss_that_is_not_finite_is_reported_with_its_step():
    rows = padded(random_rows()[0])
    graphdef, state = build(False)
    train_epoch = trainer(graphdef)
    state, _ = train_epoch(state, hyperparams(), rows)
    state, _ = train_epoch(state, hyperparams(lr=1e30), rows)
    assert int(state.bad_step) == 4  # the step after the first one of the second epoch
    assert int(state.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def planted():
    """Two factors of five values each, three tags for every value, in rows of six tags."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(5) for b in range(5)]
    pairs += [pairs[number] for number in rng.permutation(25)[: ROWS - 25]]
    rows = [[*range(3 * a, 3 * a + 3), *range(15 + 3 * b, 18 + 3 * b)] for a, b in pairs]
    return np.array(rows, np.uint8)


def test_it_learns_a_planted_structure():
    rows = planted()
    graphdef, state = build(False)
    train_epoch = trainer(graphdef)
    history = []
    for _ in range(600):
        state, sums = train_epoch(state, hyperparams(dropout_p=0.0, weight_decay=0.0), padded(rows))
        history.append(sums.compute())
    # 10 rows seen once and 15 twice have this entropy, 3.2 nats, the least that any model pays for
    # a row; without a latent, 30 tags of these frequencies cost 15 nats.
    best = (10 * np.log(40) + 30 * np.log(20)) / 40
    p = np.bincount(rows.ravel(), minlength=TAGS) / ROWS
    independent = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum()
    final = {name: np.mean([line[name] for line in history[-50:]]) for name in history[0]}
    assert history[0]["loss"] > independent
    assert best < final["loss"] < independent - 0.65 * (independent - best)
    # The KL bounds what z says about a row, and a row can only be told from all 25 with 3.2 nats.
    assert final["kld"] > best


def evaluated(graphdef, state, rows, batch_size):
    eval_pass = make_eval_pass(
        graphdef,
        num_rows=len(rows),
        num_tags=TAGS,
        latent_dim=LATENT,
        batch_size=batch_size,
    )
    weights = hyperparams(kld_weight=2.0).loss
    threshold = np.float32(0.5)
    return jax.device_get(
        eval_pass(
            state.params, state.batch_stats, weights, threshold, jax.random.key(7), padded(rows)
        )
    )


@pytest.mark.parametrize("batch_size", [7, 64])
def test_evaluation_does_not_depend_on_the_batch_size(batch_size):
    rows, _ = random_rows()
    graphdef, state = build(True)
    whole, mean, logvar = evaluated(graphdef, state, rows, ROWS)
    total, other_mean, other_logvar = evaluated(graphdef, state, rows, batch_size)
    assert total.compute() == pytest.approx(whole.compute(), rel=1e-4)
    np.testing.assert_allclose(other_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other_logvar, logvar, rtol=1e-5, atol=1e-6)


def test_evaluation_by_hand():
    rows, hot = random_rows()
    graphdef, state = build(True)
    total, mean, logvar = evaluated(graphdef, state, rows, 7)
    model = nnx.merge(graphdef, state.params, state.batch_stats)
    expected_mean, expected_logvar = model.encode(jnp.asarray(hot))
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logvar, expected_logvar, rtol=1e-5, atol=1e-6)
    kl = 0.5 * (mean**2 + np.exp(logvar) - 1.0 - logvar)
    values = total.compute()
    assert values["kld"] == pytest.approx(kl.sum(axis=1).mean(), rel=1e-4)
    assert values["loss"] == pytest.approx(values["bce"] + 2.0 * values["kld"], rel=1e-5)
    decoded = np.asarray(model.decode(jnp.asarray(mean))) > 0.0
    x = hot > 0.5
    assert values["hamming_loss"] == pytest.approx((decoded != x).mean(), rel=1e-6)
    pooled = (decoded & x).sum() / (decoded | x).sum()
    assert values["jaccard_index"] == pytest.approx(pooled, rel=1e-6)
