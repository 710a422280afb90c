"""Learned priors and training aids from training to every use of a run, and to PyTorch."""

import numpy as np
import pytest

import jaxvae
from jaxvae.errors import InputError
from jaxvae.evaluation.evaluate_run import evaluate_run, name_dimensions
from tests.helpers.training import killed, run, timeless, write_clips

PRIORS = {
    "mixture": {"model__prior": "mixture", "model__prior_components": 4},
    "vamp": {
        "model__prior": "vamp",
        "model__prior_components": 6,
        "model__use_layer_norm": True,
        "model__decoder_bias": "log_odds",
        "trainer__ema_decay": 0.9,
    },
    "flow": {"model__prior": "flow", "model__latent_dim": 4},
}


@pytest.fixture(scope="module", params=PRIORS)
def trained(request, tmp_path_factory):
    clips = write_clips(tmp_path_factory.mktemp(request.param))
    metrics, folder = run(clips, trainer__max_epochs=3, **PRIORS[request.param])
    return request.param, metrics, folder


@pytest.mark.long
def test_a_learned_prior_learns(trained):
    name, metrics, folder = trained
    run = jaxvae.load(folder)
    assert run.network.prior == name
    assert np.isfinite(metrics["test"]["test/kld"])
    last = jaxvae.load(folder, checkpoint="last")
    first = timeless(folder)[0]["train/loss"]
    assert timeless(folder)[-1]["train/loss"] < first
    arrays = last.network.params["prior"]
    fresh = {"mixture": "logits", "vamp": "logits", "flow": "shift_and_scale"}[name]
    assert np.abs(arrays[fresh]).max() > 0.0  # as initialised these are zeros


@pytest.mark.long
def test_every_use_of_a_run_knows_its_prior(trained):
    _, _, folder = trained
    run = jaxvae.load(folder)
    judged = evaluate_run(run, split="test", num_importance_samples=200)
    assert judged["rate"] == pytest.approx(-judged["elbo"] - judged["distortion"])
    # The bound is above the ELBO, and the rate of the rows is not negative.
    assert -judged["nll_iw"] > judged["elbo"] - 0.05
    assert judged["aggregate_kl"] > -0.5
    assert len(name_dimensions(run)) == run.network.latent_dim
    assert all(tags for tags in run.sample(50))
    done = run.complete(present=[run.taxonomy.tags[0]], num=2)
    assert all(run.taxonomy.tags[0] in tags for tags in done.sets)
    # What the completion says of the evidence is what the likelihoods of all sets with it sum to.
    alone = run.complete(present=[run.taxonomy.tags[0]], absent=list(run.taxonomy.tags[1:]), num=1)
    likelihood = run.log_likelihood([[run.taxonomy.tags[0]]], num_importance_samples=20_000)
    assert alone.log_evidence == pytest.approx(likelihood[0], abs=0.1)


def test_the_export_holds_the_prior(trained):
    name, _, folder = trained
    original, exported = jaxvae.load(folder), jaxvae.load(folder / "model.pth")
    assert exported.network.prior == name
    rows = original.rows("test")
    for ours, theirs in zip(
        original.row_likelihood(rows, 50, 0), exported.row_likelihood(rows, 50, 0), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert original.sample(20) == exported.sample(20)


def test_torch_reads_the_export(trained, torch):
    from tests.helpers.torch_twin import check_reconstructions

    _, _, folder = trained
    found = torch.load(folder / "model.pth", weights_only=True)
    own = {key: value for key, value in found.items() if not key.startswith("prior.")}
    assert len(own) < len(found)
    check_reconstructions(jaxvae.load(folder), own)


@pytest.mark.long
def test_a_run_with_averages_resumes_to_the_same_end(tmp_path):
    clips = write_clips(tmp_path)
    options = PRIORS["vamp"] | {
        "trainer__max_epochs": 4,
        "trainer__checkpoint_every_seconds": 0.0,
        "loss__kld_schedule": "linear",
        "loss__kld_warmup": 0.5,
    }
    _, whole = run(clips, "whole", **options)
    killed(clips, "halves", after=2, **options)
    _, halves = run(clips, "halves", **options)
    assert timeless(halves) == timeless(whole)
    assert (halves / "model.pth").read_bytes() == (whole / "model.pth").read_bytes()


@pytest.mark.long
def test_averaged_parameters_are_what_is_judged_and_exported(tmp_path):
    clips = write_clips(tmp_path)
    plain, _ = run(clips, "plain", trainer__max_epochs=3)
    averaged, folder = run(clips, "averaged", trainer__max_epochs=3, trainer__ema_decay=0.999)
    assert plain["train"]["train/loss"] == averaged["train"]["train/loss"]  # trained alike
    assert plain["test"]["test/loss"] != averaged["test"]["test/loss"]
    state = {}

    def look(epoch, metrics, given):
        state["average"] = np.array(given.average["fc1"]["kernel"])

    run(clips, "again", hooks=[look], trainer__max_epochs=3, trainer__ema_decay=0.999)
    last = jaxvae.load(folder, checkpoint="last")
    np.testing.assert_array_equal(last.network.params["fc1"]["kernel"], state["average"])


def test_the_decoder_starts_at_the_tags_log_odds(tmp_path):
    clips = write_clips(tmp_path)
    seen = {}

    def look(epoch, metrics, state):
        seen["bias"] = np.array(state.params["fc4"]["bias"])

    options = {"trainer__max_epochs": 1, "trainer__optimizer__lr": 1e-8}
    _, folder = run(clips, "log_odds", hooks=[look], model__decoder_bias="log_odds", **options)
    sets = jaxvae.load(folder).sets("train")
    rate = (sets.sum(axis=0) + 0.5) / (len(sets) + 1.0)
    np.testing.assert_allclose(seen["bias"], np.log(rate / (1.0 - rate)), atol=1e-5)
    run(clips, "random", hooks=[look], **options)
    assert np.abs(seen["bias"] - np.log(rate / (1.0 - rate))).max() > 0.1


def test_a_pth_with_half_a_prior_is_refused(trained, torch, tmp_path):
    name, _, folder = trained
    tensors = torch.load(folder / "model.pth", weights_only=True)
    first = next(key for key in tensors if key.startswith("prior."))
    path = tmp_path / "half.pth"
    torch.save({key: value for key, value in tensors.items() if key != first}, path)
    with pytest.raises(InputError, match=f"prior.*|{name}"):
        jaxvae.load(path, taxonomy_path=str(folder / "taxonomy.json"))
