"""Sets drawn under constraints: exactly the model's, as sums over all sets and all z have it."""

import warnings

import jax
import numpy as np
import pytest

import jaxvae
from jaxvae.data.encoding import to_multi_hot
from jaxvae.data.splits import SPLITS
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import queries, sampling
from jaxvae.inference.generation import conditioning, draws, variants
from jaxvae.inference.generation.balancing.exclusive import BalancedGeneration
from jaxvae.inference.generation.balancing.shares import divide_within, shares_of
from jaxvae.inference.generation.constraints import make_constraints
from jaxvae.inference.generation.drawing import Generation
from jaxvae.inference.generation.latents import run_pilot
from jaxvae.inference.generation.order import Order, Task
from jaxvae.inference.generation.pairs import PairedGeneration
from jaxvae.inference.generation.request import start_generation
from jaxvae.inference.generation.splits import SHARES, identify
from jaxvae.inference.generation.variants import LikeRows, Variants, around_rows, around_way
from tests.helpers import exact_likelihood
from tests.helpers.networks import VARIED, make_run

pytestmark = pytest.mark.usefixtures("optimized")

TAXONOMY = Taxonomy.from_mapping(
    {"genre": list("abcde"), "mood": list("fghi"), "tempo": list("jkl")}, source="test"
)
SETS = exact_likelihood.all_sets(12)
KINDS = {
    "nothing": {},
    "present": {"present": "bg"},
    "absent": {"absent": "acj"},
    "one of a concept": {"count": {"tempo": 1}},
    "ranges of two": {"count": {"genre": (1, 2), "mood": (2, None)}},
    "none of a concept": {"count": {"genre": 0}},
    "so many in all": {"tags": (3, 5)},
    "at least so many": {"tags": (6, None)},
    "a few": {
        "present": "h",
        "absent": "k",
        "count": {"genre": (1, 3), "tempo": 1},
        "tags": (4, 6),
    },
    "hot": {"present": "a", "count": {"mood": (0, 2)}, "tags": (None, 4), "temperature": 2.0},
}


@pytest.fixture(scope="module")
def network():
    return exact_likelihood.network(2, num_tags=12, seed=5)


def constraints_of(*, present="", absent="", **options):
    return make_constraints(TAXONOMY, present=list(present), absent=list(absent), **options)


def allowed(*, present="", absent="", count=None, tags=(None, None)):
    """Which of all sets meet constraints, said once more in another way."""
    names = "abcdefghijkl"
    good = SETS.any(axis=1)
    for tag in names:
        if tag in present:
            good = good & SETS[:, names.index(tag)]
        if tag in absent:
            good = good & ~SETS[:, names.index(tag)]
    within = {"genre": SETS[:, :5], "mood": SETS[:, 5:9], "tempo": SETS[:, 9:]}
    for part, span in [*((within[name], of) for name, of in (count or {}).items()), (SETS, tags)]:
        least, most = (span, span) if isinstance(span, int) else span
        size = part.sum(axis=1)
        good = good & (size >= (least or 0)) & (size <= (12 if most is None else most))
    return good


def exactly(network, temperature, good, points=81):
    """p(set) of all sets, zero for those that are not good, by integration over z."""
    axis = np.linspace(-6.0, 6.0, points)
    z = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = np.exp(-0.5 * np.square(z).sum(axis=1))
    logits = queries.logits(network, z).astype(np.float64) / temperature
    p = np.zeros(len(SETS))
    for some in np.array_split(np.arange(len(z)), 8):
        given = logits[some] @ SETS[good].T - np.logaddexp(0.0, logits[some]).sum(axis=1)[:, None]
        p[good] += mass[some] / mass.sum() @ np.exp(given)
    return p


def excess(network, options, num, *, exact_temperature=None):
    """Total variation from the exact distribution beyond that of exact draws; and log p by both."""
    options = dict(options)
    temperature = options.pop("temperature", 1.0)
    p = exactly(network, exact_temperature or temperature, allowed(**options))
    total, p = p.sum(), p / p.sum()
    generation = Generation(
        Task(network, constraints_of(**options), Order(num, temperature=temperature, seed=1))
    )
    counts = np.zeros(len(SETS))
    for sets in generation.blocks():
        np.add.at(counts, sets @ (1 << np.arange(11, -1, -1)), 1)
    assert counts.sum() == num
    assert not counts[p == 0.0].any()
    assert generation.tally.effective_draws > 0.9 * num
    ideal = np.random.default_rng(0).multinomial(num, p)
    distance, noise = (0.5 * np.abs(of / num - p).sum() for of in (counts, ideal))
    return distance - noise, generation.log_probability, np.log(total)


@pytest.mark.parametrize("kind", KINDS)
def test_sets_have_the_distribution_of_a_sum_over_all(kind, network):
    excess_distance, log_p, exact_log_p = excess(network, KINDS[kind], 20_000)
    assert excess_distance < 0.015  # noise alone is up to 0.1, the same within 0.005
    assert log_p == pytest.approx(exact_log_p, abs=0.05)


def test_a_distribution_that_is_not_quite_the_one_is_noticed(network):
    assert excess(network, KINDS["hot"], 20_000, exact_temperature=1.0)[0] > 0.03


def test_sets_have_it_where_the_proposals_are_fitted():
    sharp = exact_likelihood.network(2, num_tags=12, seed=5, scale=20.0)
    rare = {"present": "abl", "tags": (3, 4)}
    pilot = run_pilot(sharp, constraints_of(**rare).tables(), temperature=1.0, seed=1)
    assert pilot.proposal.share > 0.0
    excess_distance, log_p, exact_log_p = excess(sharp, rare, 20_000)
    assert excess_distance < 0.015
    assert log_p == pytest.approx(exact_log_p, abs=0.05)


@pytest.mark.ecosystem
@pytest.mark.parametrize("kind", KINDS)
def test_two_million_sets_have_it_within_a_two_hundredth(kind, network):
    assert excess(network, KINDS[kind], 2_000_000)[0] <= 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_given_z_the_constraints_probability_is_a_sum(kind):
    options = {name: value for name, value in KINDS[kind].items() if name != "temperature"}
    logits = np.random.default_rng(3).normal(0.0, 3.0, (8, 12)).astype(np.float32)
    tables = constraints_of(**options).tables()
    given = np.exp(logits @ SETS.T - np.logaddexp(0.0, logits).sum(axis=1)[:, None])
    np.testing.assert_allclose(
        jax.jit(conditioning.probability)(logits, tables),
        given[:, allowed(**options)].sum(axis=1),
        rtol=1e-5,
    )


@pytest.mark.long
@pytest.mark.parametrize("prior", VARIED)
def test_sets_are_those_that_rejection_leaves(prior, tmp_path):
    run = make_run(*prior, tmp_path)
    samples = sampling.sample_prior(
        *run.network[:3], num_samples=30_000, temperature=0.8, seed=4
    ).multi_hot
    size = samples.sum(axis=1)
    good = samples[:, 0] & ~samples[:, 5] & (size >= 2) & (samples[:, :4].sum(axis=1) <= 2)
    rejected = samples[good]
    constraints = make_constraints(
        run.taxonomy, present=["jazz"], absent=["naïve ♫"], count={"genre": (0, 2)}, tags=(2, None)
    )
    generation = Generation(Task(run.network, constraints, Order(len(rejected), temperature=0.8)))
    drawn = np.concatenate(list(generation.blocks()))
    counts = np.stack([
        np.bincount(sets @ (1 << np.arange(7)), minlength=128) for sets in (rejected, drawn)
    ])  # fmt: skip
    both = counts.sum(axis=0)
    chi_square = (np.square(counts[0] - counts[1])[both > 0] / both[both > 0]).sum()
    freedom = (both > 0).sum() - 1
    assert chi_square < freedom + 5.0 * np.sqrt(2.0 * freedom)
    # p(constraints) counts empty draws too, which `sample_prior` leaves out.
    assert generation.log_probability == pytest.approx(np.log(good.mean()), abs=0.2)


def drawn(network, num, *, train=None, seed=0, **options):
    order = {name: options.pop(name) for name in ("distinct", "unseen") if name in options}
    constraints = constraints_of(**options)
    generation = Generation(Task(network, constraints, Order(num, seed=seed, **order), train))
    return np.concatenate(list(generation.blocks())), generation.tally


def test_numbers_of_numpy_are_numbers():
    assert constraints_of(tags=np.int64(2), count={"mood": (np.int32(0), None)}).tags == (2, 2)
    with pytest.raises(InputError, match="neither a whole number"):
        constraints_of(tags=True)


def test_fewer_sets_are_the_first_of_more_and_the_seed_fixes_them(network):
    few, _ = drawn(network, 10, present="a")
    many, _ = drawn(network, 5000, present="a")
    assert np.array_equal(few, many[:10])
    assert not np.array_equal(few, drawn(network, 10, present="a", seed=1)[0])


def test_distinct_sets_are_the_first_occurrences(network):
    every, _ = drawn(network, 5000, present="a")
    first = list(dict.fromkeys(map(bytes, every)))
    distinct, tally = drawn(network, len(first), present="a", distinct=True)
    assert list(map(bytes, distinct)) == first
    assert tally.draws - tally.repeats == tally.kept == len(first)
    assert tally.repeats > 1000


@pytest.mark.parametrize("least", [1, 2, 3])
def test_sets_keep_their_distance_from_training_rows(network, least):
    every, _ = drawn(network, 3000, tags=(2, None))
    train = every[:20]
    rows = np.where(train, np.arange(12), 12)
    far, tally = drawn(network, 500, tags=(2, None), train=rows, unseen=least)
    distance = (every[:, None] ^ train[None]).sum(axis=2).min(axis=1)
    assert np.array_equal(far, every[distance >= least][:500])
    assert tally.near_training == tally.draws - 500 > 0


def test_when_there_are_no_more_sets_it_ends_and_says_how_many(network):
    few = {"present": "abc", "tags": (4, 4)}  # and one of nine others
    assert len(drawn(network, 9, distinct=True, **few)[0]) == 9
    with pytest.raises(InputError, match=r"only 9 such sets in .*ask for at most 9 sets"):
        drawn(network, 10, distinct=True, **few)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"present": ["jaz"]}, "unknown tag 'jaz' (did you mean 'jazz'"),
        ({"count": {"genr": 1}}, "unknown concept 'genr' (did you mean 'genre'?)"),
        ({"count": {"genre": 5}}, "count genre=5: genre has only 4 tags"),
        ({"count": {"genre": (2, 1)}}, "count genre=2..1: the range is empty"),
        ({"count": {"genre": (-1, 1)}}, "no negative count"),
        ({"count": {"genre": 1.5}}, "neither a whole number nor"),
        ({"count": {"genre": (1, 2, 3)}}, "neither a whole number nor"),
        ({"tags": (0, 3)}, "tags=0..3: no set is empty"),
        ({"tags": (3, 8)}, "tags=3..8: there are only 7 tags"),
        ({"present": ["jazz"], "absent": ["Jazz"]}, "both present and absent: jazz"),
        ({"present": ["jazz", "r&b"], "count": {"genre": 1}}, "count genre=1 and all that must be present: jazz, r&b"),
        ({"absent": ["calm", "a,b"], "count": {"mood": (2, 3)}}, "count mood=2..3: the absent tags leave 1 of 3"),
        ({"present": ["jazz"], "count": {"mood": 2}, "tags": (1, 2)}, "tags 1..2: the present tags and the counts of concepts need at least 3"),
        ({"count": {"genre": 1, "mood": (0, 1)}, "tags": 3}, "tags 3: the absent tags and the counts of concepts leave at most 2"),
        ({"count": {"genre": 0, "mood": 0}}, "leave at most 0"),
    ],
)  # fmt: skip
def test_wrong_constraints_are_refused_in_a_line(options, message, tmp_path):
    run = make_run(*VARIED[0], tmp_path)
    with pytest.raises(InputError) as caught:
        make_constraints(run.taxonomy, **options)
    assert message in str(caught.value)


def test_a_constraint_that_is_hardly_ever_met_is_named(network):
    rare = network._replace(
        params=network.params
        | {"fc4": network.params["fc4"] | {"bias": network.params["fc4"]["bias"].at[3].set(-60.0)}}
    )
    assert len(drawn(rare, 5, present="a")[0]) == 5
    with pytest.raises(
        InputError, match=r"present d: fewer than one set in 1,000,000,000 .*one set in"
    ):
        drawn(rare, 5, present="ad")


def test_constraints_that_are_too_rare_only_together_are_all_named(network):
    bias = network.params["fc4"]["bias"].at[3].set(-60.0).at[4].set(-60.0)
    rare = network._replace(params=network.params | {"fc4": network.params["fc4"] | {"bias": bias}})
    with pytest.raises(
        InputError, match=r"present d, present e, tags 3\.\.4: .*loosen several"
    ) as caught:
        drawn(rare, 5, present="de", tags=(3, 4))
    assert "inf" not in str(caught.value)


def test_a_split_to_which_no_set_of_a_tag_belongs_is_named(tmp_path):
    run = make_run(*VARIED[0], tmp_path)  # 7 tags, so 8 sets of each genre
    with pytest.raises(InputError, match=r"balance, jazz: none of [\d,]+ draws belongs to "):
        run.generate(400, balance="genre")
    assert len(run.generate(400, balance="genre", splits=(1.0, 0.0, 0.0)).sets) == 400


@pytest.mark.long
def test_a_run_generates_by_names(run):
    genre = dict(run.taxonomy.concepts)["genre"]
    ordered = run.generate(
        200, present=["Jazz"], absent=["fast tempo"], count={"genre": (1, 2)}, tags=(3, 12),
        distinct=True, unseen=True,
    )  # fmt: skip
    rows = run.to_rows(ordered.sets)
    assert len({*map(tuple, rows.tolist())}) == 200
    for tags in ordered.sets:
        assert "jazz" in tags
        assert "fast tempo" not in tags
        assert 3 <= len(tags) <= 12
        assert 1 <= len({*run.taxonomy.columns(tags)} & {*genre}) <= 2
    train = {tuple(tags) for tags in run.names(run.sets("train"))}
    assert not train & {*map(tuple, ordered.sets)}
    assert ordered.draws == 200 + ordered.repeats + ordered.near_training
    assert -20.0 < ordered.log_probability < 0.0
    assert ordered.effective_draws > 0.9 * ordered.draws


@pytest.mark.long
def test_a_model_without_rows_says_that_unseen_needs_them(run, folder):
    exported = jaxvae.load(folder / "model.pth")
    assert exported.generate(3).sets == run.generate(3).sets
    with pytest.raises(InputError, match=r"no rows\.npz"):
        exported.generate(3, unseen=True)


def test_balanced_sets_are_equally_many_in_every_split_and_else_the_models(network):
    shares = (0.5, 0.3, 0.2)
    constraints = constraints_of(present="b", absent="k", tags=(3, 5))
    order = Order(2002, splits=shares)
    generation = BalancedGeneration(
        Task(network, constraints, order), shares_of(constraints, "mood")
    )
    sets = np.concatenate(list(generation.blocks()))
    moods = sets[:, 5:9]
    assert (moods.sum(axis=1) == 1).all()
    assert moods.sum(axis=0).tolist() == [501, 501, 500, 500]
    split = [identify(TAXONOMY, np.flatnonzero(row), shares)[1] for row in sets]
    for name, share in zip(("train", "val", "test"), shares, strict=True):
        counts = moods[np.array(split) == name].sum(axis=0)
        assert np.abs(counts - 500 * share).max() <= 1
    # Of each tag the sets are the model's, and so is the share of each before balancing.
    weights = []
    for mood, column in zip("fghi", range(5, 9), strict=True):
        others = "fghi".replace(mood, "")
        p = exactly(network, 1.0, allowed(present="b" + mood, absent="k" + others, tags=(3, 5)))
        weights.append(p.sum())
        rates = p @ SETS / p.sum()
        drawn_rates = sets[moods[:, column - 5]].mean(axis=0)
        assert np.abs(rates - drawn_rates).max() < 5 * 0.5 / np.sqrt(500)
    found = generation.describe()["balance"]["shares_in_model"]
    assert list(found.values()) == pytest.approx(np.array(weights) / sum(weights), rel=0.05)
    assert generation.log_probability == pytest.approx(np.log(sum(weights)), abs=0.05)
    assert generation.tally.kept == 2002


def balance(network, num, tags_to_balance, *, present="", absent="", **options):
    return start_generation(
        network, TAXONOMY, num, train_rows=list, balance=tags_to_balance,
        present=list(present), absent=list(absent), **options,
    )  # fmt: skip


def balanced(*arguments, **options):
    return np.concatenate(list(balance(*arguments, **options).blocks()))


def test_an_absent_tag_of_a_concept_is_not_balanced(network):
    sets = balanced(network, 30, "mood", absent="f")
    assert sets[:, 5:9].sum(axis=0).tolist() == [0, 10, 10, 10]


def test_shares_of_tags_are_met_exactly(network):
    sets = balanced(network, 101, {"a": 0.2, "c": 0.5, "f": 0.3}, tags=(2, None))
    of_each = sets[:, [0, 2, 5]]
    assert (of_each.sum(axis=1) == 1).all()
    assert of_each.sum(axis=0).tolist() == [20, 51, 30]


@pytest.mark.parametrize(
    ("count", "shares"),
    [
        pytest.param((1, 3), dict.fromkeys("fghi", 0.25), marks=pytest.mark.long),
        ((1, 3), {"f": 0.1, "g": 0.4, "h": 0.3, "i": 0.2}),
        ((1, 2), {"f": 0.5, "i": 0.5}),  # sets with g and h alone would meet the count
        pytest.param(
            (0, 2), {"f": 0.5, "i": 0.5}, marks=pytest.mark.long
        ),  # and may be had where none need be
    ],
)
def test_sets_with_several_tags_are_the_models_reweighted(network, count, shares):
    options = {"count": {"mood": count}, "tags": (2, 5)}
    generation = balance(network, 20_000, shares, seed=1, **options)
    sets = np.concatenate(list(generation.blocks()))
    described = generation.describe()["balance"]
    columns = ["abcdefghijkl".index(tag) for tag in shares]
    good = allowed(**options)
    if count[0]:
        good = good & SETS[:, columns].any(axis=1)
    p = exactly(network, 1.0, good)
    assert generation.log_probability == pytest.approx(np.log(p.sum()), abs=0.05)
    before = p @ SETS[:, columns] / p.sum()
    assert [*described["rates_in_model"].values()] == pytest.approx(before, rel=0.05)
    tilted = p * np.prod(np.where(SETS[:, columns], [*described["factors"].values()], 1.0), axis=1)
    tilted /= tilted.sum()
    rates, wanted = tilted @ SETS[:, columns], np.array([*shares.values()])
    assert rates / rates.sum() == pytest.approx(wanted, rel=0.05)
    assert rates.sum() == pytest.approx(before.sum(), rel=0.03)  # as many of them in a set
    # Without factors the shares would be others.
    assert np.abs(before / before.sum() / wanted - 1.0).max() > 0.1
    counts = np.bincount(sets @ (1 << np.arange(11, -1, -1)), minlength=len(SETS))
    ideal = np.random.default_rng(0).multinomial(len(sets), tilted)
    distance, noise = (0.5 * np.abs(of / len(sets) - tilted).sum() for of in (counts, ideal))
    assert distance - noise < 0.015
    # Independent draws would have counts with noise of their square root, about a hundred.
    found = sets[:, columns].sum(axis=0)
    assert [*described["rates"].values()] == pytest.approx(found / len(sets))
    assert found == pytest.approx(found.sum() * wanted, abs=12)
    first = sets[:4000]
    names = np.array([identify(TAXONOMY, np.flatnonzero(row), SHARES)[1] for row in first])
    for split in SPLITS:
        of_split = first[names == split][:, columns].sum(axis=0)
        assert of_split == pytest.approx(of_split.sum() * wanted, abs=8), split


@pytest.mark.long
def test_where_a_share_is_too_large_sets_have_fewer_of_the_tags(network):
    """Of sets with two moods, as the model's nearly have, not 0.7 of the moods can be f."""
    shares, options = {"f": 0.7, "g": 0.1, "h": 0.1, "i": 0.1}, {"count": {"mood": (1, 3)}}
    p = exactly(network, 1.0, allowed(**options))
    assert 0.7 * (p @ SETS[:, 5:9] / p.sum()).sum() > 1.0
    counts = balanced(network, 1000, shares, **options)[:, 5:9].sum(axis=0)
    assert counts == pytest.approx(counts.sum() * np.array([0.7, 0.1, 0.1, 0.1]), abs=12)
    assert counts.sum() < 1000 / 0.7


@pytest.mark.parametrize(("seen", "is_refused"), [("fa", False), ("f", True)])
def test_a_tag_of_which_no_set_is_left_is_named(network, seen, is_refused):
    """Training has all sets with f, or those that have a besides, which others make good."""
    columns = ["abcdefghijkl".index(tag) for tag in seen]
    rows = [np.flatnonzero(row) for row in SETS if row[columns].all()]
    train = np.array([np.pad(row, (0, 12 - len(row)), constant_values=12) for row in rows])
    generation = start_generation(
        network, TAXONOMY, 400, train_rows=lambda: train, unseen=1, balance="mood",
        count={"mood": (1, 2)},
    )  # fmt: skip
    if is_refused:
        with pytest.raises(
            InputError, match=r"^balance, f: only 0 of \d+ sets that are due in train"
        ):
            list(generation.blocks())
    else:
        counts = np.concatenate(list(generation.blocks()))[:, 5:9].sum(axis=0)
        assert counts == pytest.approx(np.full(4, counts.mean()), abs=8)
        assert generation.tally.near_training > 20


@pytest.mark.parametrize(
    ("num", "tags", "options", "message"),
    [
        (9, "moods", {}, "balance: unknown concept 'moods' (did you mean 'mood'?)"),
        (9, "mood", {"count": {"mood": 0}}, "balance mood: by count, sets have no tag of it"),
        (9, {"f": 0.9, "g": 0.1}, {"count": {"mood": 2}, "absent": "hi"}, "balance, g: no weights of the model's sets give it a share of 0.1; the nearest is 0.5"),
        (9, {"a": 0.5, "b": 0.4}, {}, "balance a=0.5, b=0.4: shares sum to 1, not 0.9"),
        (9, {"a": 1.5, "b": -0.5}, {}, "balance a=1.5: a share is above 0 and at most 1"),
        (9, {"a": 0.5, "A": 0.5}, {}, "balance, a: the tag comes twice"),
        (9, {"a": 0.5, "q": 0.5}, {}, "unknown tag 'q'"),
        (9, {"a": 0.01, "b": 0.99}, {}, "balance, a: its share of num 9 is no set"),
        (9, ["a", "q"], {}, "unknown tag 'q'"),
        (9, ["f", "g"], {"count": {"mood": 0}}, "balance, f: by count mood=0, sets have no tag of mood"),
        (9, ["f", "g"], {"count": {"mood": (1, 2)}, "absent": "f"}, "balance, f: the tag must be absent"),
        (9, "mood", {"count": {"mood": (0, 2)}, "present": "a", "tags": 1}, "fewer than one in 10,000 has any of the tags to balance"),
        (9, "a", {}, "balance a: one tag alone can't be balanced; give two or more, or a concept: genre"),
        (9, ["a", "b", "A"], {}, "balance, a: the tag comes twice"),
        (1, ["a", "b"], {"present": "b"}, "balance, a: each set has one of the tags alone, but b must be present"),
        (9, ["a"], {}, "1 tags to balance; there must be two or more"),
        (9, ["a", "b"], {"absent": "b"}, "balance, b: the tag must be absent"),
        (9, ["a", "b"], {"present": "b"}, "balance, a: each set has one of the tags alone, but b must be present"),
        (3, "mood", {"count": {"mood": (1, 2)}}, "num 3: fewer than the 4 tags to balance"),
        (9, {}, {}, "0 tags to balance; there must be two or more"),
        (3, "mood", {}, "num 3: fewer than the 4 tags to balance"),
        (200, ["a", "b"], {"present": "fg", "tags": 3, "distinct": True}, "100 with the tag are to be: leave it out of the balance, do without distinct"),
    ],
)  # fmt: skip
def test_what_can_not_be_balanced_is_a_line(network, num, tags, options, message):
    with pytest.raises(InputError) as caught:
        balanced(network, num, tags, **options)
    assert message in str(caught.value)


@pytest.mark.long
def test_sets_at_several_temperatures_are_those_of_each_alone(run):
    options = {"present": ["jazz"], "seed": 3}
    drawn = run.generate(40, temperature=(2.0, 0.5), **options)
    assert drawn.labels["temperature"] == [2.0] * 40 + [0.5] * 40
    alone = [run.generate(40, temperature=value, **options) for value in (2.0, 0.5)]
    assert drawn.sets == alone[0].sets + alone[1].sets
    assert drawn.draws == 80
    mean = np.mean([np.exp(part.log_probability) for part in alone])
    assert drawn.log_probability == pytest.approx(np.log(mean))
    few = {"distinct": True, "tags": 2, **options}  # so few that the temperatures share some
    distinct = run.generate(40, temperature=(2.0, 0.5), **few)
    first, second = (run.generate(40, temperature=value, **few).sets for value in (2.0, 0.5))
    assert {*map(tuple, first)} & {*map(tuple, second)}
    assert len({*map(tuple, distinct.sets)}) == 80


@pytest.mark.parametrize(
    ("temperature", "message"),
    [((1.0, 1.0), "one of them comes twice"), ((1.0, -2.0), "temperature -2.0"), ((), "at least one")],
)  # fmt: skip
def test_temperatures_that_can_not_be_are_a_line(run, temperature, message):
    with pytest.raises(InputError, match=message):
        run.generate(3, temperature=temperature)


PAIRED = {"absent": "k", "count": {"genre": (1, 3)}, "tags": (2, 6)}


def pairs_of(network, tag, num, *, train=None, **options):
    order = {name: options.pop(name) for name in ("distinct", "unseen") if name in options}
    task = Task(network, constraints_of(**options), Order(num, **order), train)
    generation = PairedGeneration(task, "abcdefghijkl".index(tag))
    return generation, np.concatenate([part.sets for part in generation.labelled()])


def rests(network, tag, **options):
    """p(rest with the tag) and p(rest without it) of all sets, one more way."""
    column, number = "abcdefghijkl".index(tag), 1 << np.arange(11, -1, -1)
    without = SETS.copy()
    without[:, column] = False
    good = allowed(**options)[without @ number]
    p = exactly(network, 1.0, good)
    masses = []
    for having in (True, False):
        chosen = good & (SETS[:, column] == having)
        masses.append(np.bincount(without[chosen] @ number, p[chosen], minlength=len(SETS)))
    return masses


def test_the_rests_of_pairs_are_half_of_each_kind():
    network = exact_likelihood.network(2, num_tags=12, seed=5, scale=12.0)
    generation, sets = pairs_of(network, "d", 10_000, **PAIRED)
    having, without = sets[::2], sets[1::2]
    assert having[:, 3].all()
    assert ((having ^ without).sum(axis=1) == 1).all()
    with_, no = rests(network, "d", **PAIRED)
    counts = np.bincount(without @ (1 << np.arange(11, -1, -1)), minlength=len(SETS))
    for share, agrees in ((0.5, True), (0.8, False)):
        p = share * with_ / with_.sum() + (1.0 - share) * no / no.sum()
        assert not counts[p == 0.0].any()
        ideal = np.random.default_rng(0).multinomial(10_000, p)
        distance, noise = (0.5 * np.abs(of / 10_000 - p).sum() for of in (counts, ideal))
        assert (distance - noise < 0.015) == agrees
    assert generation.log_probability == pytest.approx(np.log((with_ + no).sum()), abs=0.05)
    share_with = generation.describe()["pairs"]["share_with_tag_in_model"]
    assert share_with == pytest.approx(with_.sum() / (with_ + no).sum(), abs=0.02)


def test_both_sets_of_a_pair_keep_their_distance_and_rests_are_distinct(network):
    train = np.zeros((2, 12), bool)
    train[0, [0, 1, 5]], train[1, [3, 6]] = True, True
    rows = np.where(train, np.arange(12), 12)
    _, sets = pairs_of(network, "b", 200, train=rows, unseen=2, distinct=True)
    assert (sets[:, None] ^ train[None]).sum(axis=2).min() >= 2
    assert len({*map(bytes, sets)}) == 400
    assert sets[1::2].any(axis=1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "jaz"}, "unknown tag 'jaz'"),
        ({"pairs": "jazz", "present": ["Jazz"]}, "pairs jazz: the tag must not be among present"),
        ({"pairs": "jazz", "balance": "mood"}, "balance and pairs: give one of them"),
    ],
)
def test_pairs_that_can_not_be_are_a_line(run, options, message):
    with pytest.raises(InputError, match=message):
        run.generate(3, **options)


@pytest.mark.long
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_variants_have_the_distribution_of_the_posterior_given_the_constraints(distance):
    network = exact_likelihood.network(2, num_tags=12, seed=5, scale=12.0)
    rows = np.full((8192, 2), [3, 7], np.int32)
    around = around_rows(network, LikeRows(rows, np.arange(8192), {}), per_row=1, distance=distance)
    generation = Variants(Task(network, constraints_of(**PAIRED), Order(8192)), around)
    counts = np.zeros(len(SETS))
    for sets in generation.blocks():
        np.add.at(counts, sets @ (1 << np.arange(11, -1, -1)), 1)
    assert counts.sum() == generation.tally.kept == 8192
    mean, logvar = (part[0] for part in queries.posterior(network, rows[:1]))
    axis = np.linspace(-5.0, 5.0, 41)
    noise = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    mass = np.exp(-0.5 * np.square(noise).sum(axis=1))
    for factor, agrees in ((distance, True), (2.5 - distance, False)):
        logits = queries.logits(network, mean + factor * np.exp(0.5 * logvar) * noise)
        logits = logits.astype(np.float64)
        given = np.exp(logits @ SETS.T - np.logaddexp(0.0, logits).sum(axis=1)[:, None])
        p = mass @ given * allowed(**PAIRED)
        p /= p.sum()
        ideal = np.random.default_rng(0).multinomial(8192, p)
        excess_distance = 0.5 * (np.abs(counts / 8192 - p) - np.abs(ideal / 8192 - p)).sum()
        assert (excess_distance < 0.015) == agrees


def test_a_way_goes_from_one_posterior_to_the_other(network):
    ends = np.array([[0, 5], [3, 12]], np.int32)
    around = around_way(network, ends, 5)
    mean, logvar = queries.posterior(network, ends)
    deviation = np.exp(0.5 * logvar)
    np.testing.assert_allclose(around.centre[[0, -1]], mean, rtol=1e-6)
    np.testing.assert_allclose(around.scale[[0, -1]], deviation, rtol=1e-5)
    np.testing.assert_allclose(around.scale[2], deviation.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(around.centre[2], mean.mean(axis=0), rtol=1e-5)
    assert around.values.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.long
def test_variants_say_their_row_and_keep_what_is_asked(run):
    like = run.names(run.sets("train")[:70])
    drawn = run.generate(3, like=like, present=["jazz"], distinct=True, unseen=2, seed=1)
    assert drawn.labels["source_row"] == np.repeat(np.arange(70), 3).tolist()
    assert all("jazz" in tags for tags in drawn.sets)
    assert len({*map(tuple, drawn.sets)}) == 210
    train = run.sets("train")
    sets = to_multi_hot(run.to_rows(drawn.sets), train.shape[1])
    assert min((one ^ train).sum(axis=1).min() for one in sets) >= 2
    way = run.generate(2, between=(["jazz"], ["rock"]), steps=3)
    assert way.labels["position"] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": [["jaz"]]}, "unknown tag 'jaz'"),
        ({"like": [["jazz"]], "distance": -1.0}, "distance -1.0: must be"),
        ({"like": [["jazz"]], "distance": 1e25}, "source_row 0: (so far away|no set near it)"),
        ({"like": [["jazz"]], "distance": 1e30}, "source_row 0: (so far away|no set near it)"),
        ({"like": [["jazz"]], "distance": 1e300}, r"distance 1e\+300: too large"),
        ({"like": [["jazz"]], "temperature": 1e300}, r"temperature 1e\+300: must be from"),
        ({"like": [["jazz"]], "between": (["jazz"], ["rock"])}, "like and between: give one"),
        ({"like": [["jazz"]], "pairs": "jazz"}, "pairs and like or between: give one"),
        ({"between": (["jazz"], ["rock"]), "steps": 1}, "steps 1: both ends"),
        ({"between": (["jazz"], [])}, "between: set 2 of 2 has no tag"),
        ({"like": [[]]}, "like: set 1 of 1 has no tag"),
        ({"like": [["jazz"]], "seed": True}, "seed True: must be"),
        ({"between": "jazz"}, "between: expected two tag sets"),
        ({"between": [["jazz"]]}, "between: give two tag sets"),
        pytest.param(
            {"like": [["jazz"]], "tags": 1, "distinct": True},
            r"source_row 0: only \d+ of 300 such sets near it in [2-9],\d00 draws",
            marks=pytest.mark.long,
        ),
    ],
)
def test_variants_that_can_not_be_are_a_line(run, options, message):
    with pytest.raises(InputError, match=message), warnings.catch_warnings(action="error"):
        run.generate(300 if "tags" in options else 3, **options)


@pytest.mark.parametrize("num", [30, 47, 500, 501, 9999])
@pytest.mark.parametrize("splits", [(0.9, 0.05, 0.05), (0.8, 0.1, 0.1), (1.0, 0.0, 0.0), (0.5, 0.3, 0.2)])  # fmt: skip
@pytest.mark.parametrize("shares", [[1 / 10] * 10, [1 / 3] * 3, [0.7, 0.2, 0.1]])
def test_tags_and_splits_have_their_shares_as_nearly_as_whole_numbers_can(num, splits, shares):
    numbers = divide_within(num, dict(enumerate(shares)), dict(zip(SPLITS, splits, strict=True)))
    table = np.array([[of_tag[split] for split in SPLITS] for of_tag in numbers.values()])
    assert table.sum() == num
    for axis, wanted in ((1, shares), (0, splits)):
        assert np.abs(table.sum(axis=axis) - num * np.array(wanted)).max() < 1.0
    # As the product of shares, so that tags of equal shares differ by one.
    assert np.abs(table - num * np.outer(shares, splits)).max() < 1.0 + 1e-9
    if len({*shares}) == 1:
        assert np.ptp(table, axis=0).max() <= 1


def test_balanced_sets_are_in_every_split_however_few_a_tag_has(network):
    generation = balance(network, 100, "genre")
    sets = np.concatenate(list(generation.blocks()))
    splits = [identify(TAXONOMY, np.flatnonzero(row), generation.order.splits)[1] for row in sets]
    assert [splits.count(name) for name in SPLITS] == [90, 5, 5]
    # Sets of which a split had enough are no draws of these.
    assert generation.tally.draws == generation.tally.kept == 100
    assert 0.0 < generation.tally.effective_draws <= 100.0


def test_no_set_that_breaks_a_constraint_is_kept(network, monkeypatch):
    every = SETS[1:]
    for options in KINDS.values():
        options = {name: value for name, value in options.items() if name != "temperature"}
        met = constraints_of(**options).met_by(every)
        assert np.array_equal(met, allowed(**options)[1:])
    program = conditioning.draw_sets
    monkeypatch.setattr(conditioning, "draw_sets", lambda *args: program(*args) & False)
    for compiled in (draws._program, variants._program):
        compiled.cache_clear()
    around = around_rows(
        network, LikeRows(np.array([[3, 7]]), np.arange(1), {}), per_row=2, distance=1.0
    )
    for source in (Generation, lambda task: Variants(task, around)):
        with pytest.raises(InputError, match="does not meet the constraints"):
            list(source(Task(network, constraints_of(), Order(2))).blocks())
    for compiled in (draws._program, variants._program):
        compiled.cache_clear()


def test_each_variant_has_a_latent_vector_of_its_own_but_at_distance_0(network):
    rows = np.array([[3, 7], [0, 12]])
    for distance, effective in ((0.0, 2.0), (1.0, 600.0)):
        around = around_rows(
            network, LikeRows(rows, np.arange(2), {}), per_row=300, distance=distance
        )
        generation = Variants(Task(network, constraints_of(), Order(600)), around)
        assert len(np.concatenate(list(generation.blocks()))) == 600
        assert generation.tally.effective_draws == pytest.approx(effective)
