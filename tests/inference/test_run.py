"""A finished run, asked from Python as its user would."""

import numpy as np
import pytest

import jaxvae
from jaxvae.errors import InputError
from jaxvae.inference import sampling
from jaxvae.inference.sampling import calibrate, sample_prior
from tests.helpers.exact_likelihood import network


@pytest.mark.long
def test_encoding_is_deterministic_and_ignores_order_and_spelling(run):
    first = run.encode([["jazz", "slow tempo"], ["rock"]])
    assert first.shape == (2, 32)
    assert (first == run.encode([["Slow  Tempo", "JAZZ", "jazz"], ["rock"]])).all()
    mean, logvar = run.posterior([["rock"]])
    np.testing.assert_allclose(mean[0], first[1], atol=1e-6)
    assert logvar.shape == (1, 32)
    hot = np.zeros((1, run.taxonomy.num_tags), bool)
    hot[0, run.taxonomy.column("rock")] = True
    np.testing.assert_allclose(run.encode(hot), mean)


def test_unknown_tags_are_errors_with_the_nearest_or_skipped(run):
    with pytest.raises(InputError, match=r"jazzz.*did you mean 'jazz'"):
        run.encode([["jazzz"]])
    got = run.encode([["jazzz", "rock"]], on_unknown="ignore")
    np.testing.assert_allclose(got, run.encode([["rock"]]))


@pytest.mark.parametrize("decode", ["bernoulli", "threshold", "calibrated", "top_k"])
def test_every_decoding_samples_by_its_seed(run, decode):
    sets = run.sample(50, decode=decode, seed=3)
    assert len(sets) == 50
    assert sets == run.sample(50, decode=decode, seed=3)
    if decode != "threshold":
        assert all(sets)
    if decode == "top_k":
        assert len({len(tags) for tags in sets}) == 1


def test_calibrated_samples_have_tags_at_the_rates_asked_for():
    net = network(2)
    parts = (net.graphdef, net.params, net.batch_stats)
    rates = np.array([0.5, 0.05, 0.3, 0.6])
    cuts = calibrate(*parts, rates=rates)
    drawn = sample_prior(
        *parts, num_samples=20_000, decode="calibrated", threshold=cuts, seed=1
    ).multi_hot
    assert drawn.any(axis=1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), rates, atol=0.02)
    half = sample_prior(
        *parts, num_samples=20_000, decode="threshold", threshold=0.5, seed=1
    ).multi_hot
    assert np.abs(half.mean(axis=0) - rates).max() > 0.1


def test_calibration_is_to_validation_and_a_little_to_training(run, monkeypatch):
    rows = {"train": np.full((10, 1), 1), "val": np.full((30, 1), 0)}
    rows["test"] = np.full((30, 1), 2)
    found = []
    monkeypatch.setattr(type(run), "rows", lambda self, split: rows[split])
    monkeypatch.setattr(
        sampling, "calibrate", lambda *parts, rates, temperature: found.append(rates) or rates
    )
    run.sample(1, decode="calibrated", seed=1)
    # 30 rows of validation with the first tag, and training's as if it were 20 with the second.
    assert found[0][:3].tolist() == [0.6, 0.4, 0.0]


def test_a_pth_answers_as_its_run_does(run, folder):
    other = jaxvae.load(folder.parent / "models" / "vae_small.pth")
    np.testing.assert_allclose(other.encode([["jazz"]]), run.encode([["jazz"]]), atol=1e-6)
    assert other.sample(5, seed=1) == run.sample(5, seed=1)
    for refused_ in (
        lambda: other.rows("test"),
        lambda: other.sample(1, decode="calibrated"),
        lambda: other.sample(1, decode="top_k"),
    ):
        with pytest.raises(InputError, match="import"):
            refused_()


def test_completions_are_consistent_and_ranked(run):
    done = run.complete(present=["jazz"], absent=["fast tempo"], num=7)
    assert len(done.sets) == 7
    assert all("jazz" in tags and "fast tempo" not in tags for tags in done.sets)
    assert done.probability == sorted(done.probability, reverse=True)
    listed = [tag for ranked in done.tags.values() for tag, _ in ranked]
    assert len(listed) == run.taxonomy.num_tags - 2
    for ranked in done.tags.values():
        assert [p for _, p in ranked] == sorted((p for _, p in ranked), reverse=True)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda run: run.complete(["jazz"], ["JAZZ"]), "both present and absent: jazz"),
        (lambda run: run.complete([], []), "nothing to complete"),
        (lambda run: run.complete("jazz"), "list of tags"),
        (lambda run: run.complete(["jazz"], num=0), "num 0"),
        (lambda run: run.sample(0), "num 0"),
        (lambda run: run.sample(10**9), "num 1000000000"),
        (lambda run: run.sample(1, temperature=0.0), "temperature 0"),
        (lambda run: run.sample(1, temperature=float("nan")), "temperature nan"),
        (lambda run: run.sample(1, decode="topk"), "top_k"),
        (lambda run: run.sample(1, decode="top_k", top_k=999), "top_k 999"),
        (lambda run: run.sample(1, seed=-1), "seed -1"),
        (lambda run: run.encode([]), "no tag sets"),
        (lambda run: run.encode("jazz"), "one text"),
        (lambda run: run.encode(np.zeros((2, 3))), r"\[2, 3\]"),
        (lambda run: run.probabilities(np.zeros((2, 3))), r"\[2, 3\]"),
        (lambda run: run.reconstruct([["jazz"]], threshold=1.0), "threshold"),
        (lambda run: run.log_likelihood([["jazz"]], num_importance_samples=0), "importance"),
        (lambda run: run.rows("tset"), "did you mean 'test'"),
    ],
)
def test_what_makes_no_sense_is_refused(run, ask, says):
    with pytest.raises(InputError, match=says):
        ask(run)


def test_likelihood_of_the_export_by_torch(run, folder, torch):
    """PyTorch's own importance sampling from the .pth agrees within its error."""
    tensors = torch.load(folder / "model.pth", weights_only=True)
    hot = torch.tensor(run.sets("test")[:20].astype(np.float32))
    linear = torch.nn.functional.linear

    def layer(name, x):
        return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    torch.manual_seed(0)
    h = torch.relu(layer("fc1", hot))
    q = torch.distributions.Normal(layer("fc2_mu", h), torch.exp(0.5 * layer("fc2_logvar", h)))
    z = q.sample((4000,))
    logits = layer("fc4", torch.relu(layer("fc3", z)))
    log_p = -torch.nn.functional.binary_cross_entropy_with_logits(
        logits, hot.expand_as(logits), reduction="none"
    ).sum(-1)
    weights = (
        log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1) - q.log_prob(z).sum(-1)
    )
    theirs = (torch.logsumexp(weights, 0) - np.log(4000)).numpy()
    ours = run.row_likelihood(run.rows("test")[:20], 4000, 0)
    assert (np.abs(ours.log_likelihood - theirs) < 6 * np.sqrt(2 * ours.variance) + 1e-4).all()
