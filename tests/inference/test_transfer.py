"""A trained model's parameters under another taxonomy: what both know is answered as before."""

import numpy as np
import pytest
from flax import nnx

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import queries, transfer
from jaxvae.models.trained import rebuild_model
from jaxvae.models.vae import VAE
from tests.helpers import networks

OTHER = Taxonomy.from_mapping(
    {"mood": ["sad", "a,b", "Calm"], "place": ["club"], "genre": ["R&B", "  Jazz", "naïve ♫"]},
    source="other",
)
"""Two tags more than `networks.TAXONOMY`, two fewer, in another order and spelling."""
LOG_ODDS = np.linspace(-3.0, -1.0, 7).astype(np.float32)
RATES = np.linspace(0.05, 0.3, 7)
SHARED = [1, 2, 4, 5, 6]  # columns of OTHER
THEIRS = [6, 4, 1, 0, 5]  # the same tags in networks.TAXONOMY
NEW = [0, 3]


def fresh(run, tied=False, **changes) -> dict:
    network = run.network
    options = {
        "num_tags": OTHER.num_tags,
        "latent_dim": network.latent_dim,
        "hidden_dim": network.hidden_dims[0],
        "use_batch_norm": network.use_batch_norm,
        "use_layer_norm": network.use_layer_norm,
        "prior": network.prior,
        "num_components": 3,
        "tied_weights": tied,
        "rngs": nnx.Rngs(1),
    }
    return nnx.to_pure_dict(nnx.state(VAE(**(options | changes)), nnx.Param))


def transferred(run, params=None):
    start = transfer.match_tags(run, OTHER, source="runs/a")
    params = fresh(run) if params is None else params
    return transfer.transfer_params(start, params, log_odds=LOG_ODDS, rates=RATES)


@pytest.mark.long
@pytest.mark.parametrize(("prior", "batch_norm", "layer_norm"), networks.VARIED)
def test_shared_tags_are_answered_as_before_and_new_ones_by_their_log_odds(
    prior, batch_norm, layer_norm, tmp_path
):
    run = networks.make_run(prior, batch_norm, layer_norm, tmp_path)
    network = rebuild_model(*transferred(run))
    sets = np.random.default_rng(0).random((20, 7)) < 0.5
    before = np.zeros_like(sets)
    before[:, THEIRS] = sets[:, SHARED]  # a dropped tag is in no row, a new one in some

    def posterior(network, rows):
        columns = [np.flatnonzero(row).tolist() for row in rows]
        padded = np.full((len(rows), 7), 7)
        for row, found in zip(padded, columns, strict=True):
            row[: len(found)] = found
        return queries.posterior(network, padded)

    mean, logvar = posterior(run.network, before)
    for found, expected in zip(posterior(network, sets), (mean, logvar), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    logits = queries.logits(network, mean)
    np.testing.assert_allclose(
        logits[:, SHARED], queries.logits(run.network, mean)[:, THEIRS], atol=1e-6
    )
    np.testing.assert_array_equal(logits[:, NEW], np.tile(LOG_ODDS[NEW], (20, 1)))
    if prior != "vamp":  # whose components lose what their pseudo-inputs had of dropped tags
        z = np.random.default_rng(1).normal(size=(20, 4))
        np.testing.assert_allclose(
            queries.log_prior(network, z), queries.log_prior(run.network, z), atol=1e-5
        )


def test_pseudo_inputs_keep_their_tags_and_have_new_ones_at_their_rate(tmp_path):
    run = networks.make_run("vamp", False, False, tmp_path)
    params, _ = transferred(run)
    old, new = (np.asarray(each["prior"]["pseudo_inputs"]) for each in (run.network.params, params))
    np.testing.assert_array_equal(new[:, SHARED], old[:, THEIRS])
    np.testing.assert_allclose(new[:, NEW], np.tile(RATES[NEW], (3, 1)), rtol=1e-6)
    # With every tag that the model has, its prior is as it was.
    more = Taxonomy.from_mapping(
        {"new": ["club", "sad"], **networks.TAXONOMY.to_mapping()}, source="more"
    )
    start = transfer.match_tags(run, more, source="runs/a")
    params, stats = transfer.transfer_params(
        start, fresh(run, num_tags=9), log_odds=np.zeros(9), rates=np.full(9, 0.2)
    )
    z = np.random.default_rng(1).normal(size=(20, 4))
    np.testing.assert_allclose(
        queries.log_prior(rebuild_model(params, stats), z),
        queries.log_prior(run.network, z),
        atol=1e-5,
    )


def test_what_is_shared_new_and_dropped_is_recorded(tmp_path):
    run = networks.make_run("normal", False, False, tmp_path)
    start = transfer.match_tags(run, OTHER, source="runs/a")
    assert start.record["tags"] == {
        "shared": 5,
        "new": ["sad", "club"],
        "dropped": ["drum'n'bass", 'the "new" wave'],
    }
    assert start.record["epoch"] == 3
    digest = start.record["parameters"]
    assert start.describe() == (
        f"Starting from runs/a (parameters {digest[:12]}): 5 tags shared, 2 new, 2 of its own "
        f"dropped"
    )
    same = transfer.match_tags(run, networks.TAXONOMY, source="runs/a")
    assert same.describe().endswith(": 7 tags shared, 0 new")
    other = networks.make_run("normal", False, True, tmp_path)
    assert transfer.match_tags(other, OTHER, source="runs/a").record["parameters"] != digest


def test_tied_layers_start_from_tied_ones_alone(tmp_path):
    run = networks.make_run("normal", False, False, tmp_path)
    with pytest.raises(InputError, match="first and last layer differ"):
        transferred(run, fresh(run, tied=True))
    run.network.params["fc4"]["kernel"] = run.network.params["fc1"]["kernel"].T
    params, _ = transferred(run, fresh(run, tied=True))
    assert "kernel" not in params["fc4"]
    old = np.asarray(run.network.params["fc1"]["kernel"])
    np.testing.assert_array_equal(params["fc1"]["kernel"][SHARED], old[THEIRS])
    assert not params["fc1"]["kernel"][NEW].any()


def test_other_sizes_are_named_with_both_numbers(tmp_path):
    run = networks.make_run("mixture", True, False, tmp_path)
    start = transfer.match_tags(run, OTHER, source="runs/a")
    model = {
        "latent_dim": 4,
        "hidden_dim": 128,
        "hidden_dims": (9,),  # one width, written as several
        "use_batch_norm": True,
        "use_layer_norm": False,
        "prior": "mixture",
        "prior_components": 3,
    }
    transfer.check_sizes(start, model)
    transfer.check_sizes(start, model | {"hidden_dim": 9, "hidden_dims": ()})
    for field, value, said in (
        ("latent_dim", 5, "model.latent_dim is 4 there, 5 here"),
        ("hidden_dims", (), "model.hidden_dim is 9 there, 128 here"),
        ("hidden_dims", (9, 5), r"model.hidden_dims is \[\] there, \[9, 5\] here"),
        ("use_batch_norm", False, "model.use_batch_norm is True there, False here"),
        ("use_layer_norm", True, "model.use_layer_norm is False there, True here"),
        ("prior", "flow", "model.prior is mixture there, flow here"),
        ("prior_components", 4, "model.prior_components is 3 there, 4 here"),
    ):
        with pytest.raises(InputError, match=f"^--config.init_from=runs/a: {said}; set them"):
            transfer.check_sizes(start, model | {field: value})
    # What no field names is noticed all the same.
    with pytest.raises(InputError, match=r"it has no ln1\.\w+ of shape \[9\]"):
        transferred(run, fresh(run, use_layer_norm=True))
    with pytest.raises(InputError, match=r"it has no fc\S+ of shape \[5\]"):
        transferred(run, fresh(run, latent_dim=5))


def test_without_a_tag_in_common_there_is_nothing_to_start_from(tmp_path):
    run = networks.make_run("normal", False, False, tmp_path)
    strange = Taxonomy.from_mapping({"colour": ["red", "blue"]}, source="colours.json")
    with pytest.raises(InputError, match=r"none of its 7 tags is in colours\.json"):
        transfer.match_tags(run, strange, source="runs/a")
