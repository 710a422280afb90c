"""Runs that start from another: `init_from`."""

import json
import shutil

import jax
import numpy as np
import pytest

import jaxvae
from jaxvae.data.dataset import load_from_config
from jaxvae.data.encoding import tag_counts
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.export.hub_files import without_paths
from jaxvae.inference import transfer
from jaxvae.storage import manifest, run_dir
from jaxvae.sweeps.trials import TrialRunner, share_devices
from jaxvae.train import model_setup
from tests.helpers import networks
from tests.helpers.training import (
    WORDS,
    Killed,
    killed,
    parameters,
    run,
    same,
    small,
    timeless,
    write_clips,
)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder with clips and `old`, a run that knows 10 of their 12 tags and one of its own."""
    clips = write_clips(tmp_path_factory.mktemp("old"))
    known = {concept: [tag for tag in tags if tag not in ("dark", "drums")]
             for concept, tags in reversed(WORDS.items())}  # fmt: skip
    known["genre"].append("waltz")
    (clips / "known.json").write_text(json.dumps(known))
    run(clips, "old", data__taxonomy_path=str(clips / "known.json"))
    return clips


@pytest.fixture
def clips(old, tmp_path):
    return shutil.copytree(old, tmp_path / "clips")


@pytest.mark.long
@pytest.mark.parametrize("source", ["old", "old/model.pth", "old/model.safetensors"])
def test_the_first_state_is_the_others_and_new_tags_have_their_log_odds(old, source):
    config = small(old, init_from=str(old / source), trainer__ema_decay=0.9)
    taxonomy = Taxonomy.from_mapping(WORDS, source="words")
    rows = np.array([[0, 4, 12], [5, 10, 12], [5, 12, 12], [1, 5, 10]])
    start = model_setup.load_start(config, taxonomy)
    state = model_setup.build_model(config, taxonomy, len(rows), start=start).initial(config, rows)
    network = jaxvae.load(old / "old").network
    dark, drums = taxonomy.columns(["dark", "drums"])
    shared = [v for v in range(12) if v not in (dark, drums)]
    theirs = [start.run.taxonomy.column(taxonomy.tags[v]) for v in shared]
    for layer, name, axis in (("fc1", "kernel", 0), ("fc4", "kernel", 1), ("fc4", "bias", 0)):
        found, expected = np.asarray(state.params[layer][name]), network.params[layer][name]
        np.testing.assert_array_equal(
            np.take(found, shared, axis), np.take(np.asarray(expected), theirs, axis)
        )
        if name == "kernel":
            assert not np.take(found, [dark, drums], axis).any()
    # Of four rows 3 have "dark" and 2 "drums", and one of eight halves is added to each side.
    assert tag_counts(rows, 12)[[dark, drums]].tolist() == [3, 2]
    np.testing.assert_allclose(
        state.params["fc4"]["bias"][np.array([dark, drums])], np.log([3.5 / 1.5, 1.0]), atol=1e-6
    )
    np.testing.assert_array_equal(state.params["fc3"]["kernel"], network.params["fc3"]["kernel"])
    for layer, arrays in state.params.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(state.average[layer][name], array)


@pytest.mark.long
def test_a_run_says_and_records_its_start_and_needs_it_no_more(clips, capsys):
    options = {"init_from": str(clips / "old"), "trainer__max_epochs": 4,
               "trainer__checkpoint_every_seconds": 0.0}  # fmt: skip
    _, whole = run(clips, "whole", **options)
    line = f"Starting from {clips / 'old'} (parameters "
    said = capsys.readouterr()
    assert (said.out + said.err).count(line) == 1
    record = json.loads((whole / "init_from.json").read_text())
    assert record["tags"] == {"shared": 10, "new": ["dark", "drums"], "dropped": ["waltz"]}
    assert not list(manifest.damaged(whole))
    kept = (whole / "init_from.json").read_text()
    (whole / "init_from.json").write_text(kept.replace("dark", "bark"))
    assert "init_from.json" in " ".join(manifest.damaged(whole))
    (whole / "init_from.json").write_text(kept)

    killed(clips, "halves", after=3, **options)
    capsys.readouterr()
    shutil.rmtree(clips / "old")
    _, halves = run(clips, "halves", **options)
    said = capsys.readouterr()
    assert line not in said.out + said.err
    assert timeless(halves) == timeless(whole)
    assert same(parameters(halves), parameters(whole))
    assert json.loads((halves / "init_from.json").read_text()) == record
    # Finished, it is left as it is; from another start it would be another run.
    run(clips, "halves", **options)
    with pytest.raises(InputError, match=r"init_from \(was .*, now \)"):
        run(clips, "halves", **options | {"init_from": ""})


def test_without_a_checkpoint_yet_it_begins_again_from_the_same(clips):
    options = {"init_from": str(clips / "old")}
    _, whole = run(clips, "whole", **options)
    for name in ("same", "gone", "other"):
        killed(clips, name, **options)
    _, again = run(clips, "same", **options)
    assert same(parameters(again), parameters(whole))
    shutil.move(clips / "old", clips / "away")
    with pytest.raises(InputError, match=f"{clips / 'old'}: not a run's folder"):
        run(clips, "gone", **options)
    shutil.copytree(whole, clips / "old")
    with pytest.raises(InputError, match="is not the model that it began with; restore that"):
        run(clips, "other", **options)


def test_what_cannot_be_a_start_is_refused_before_anything_is_written(clips):
    for source, changes, says in (
        (clips / "old", {"model__prior": "flow"}, "model.prior is normal there, flow here"),
        (clips / "old", {"model__latent_dim": 3}, "latent_dim is 2 there, 3 here"),
        (clips / "nothing", {}, "not a run's folder"),
    ):
        with pytest.raises(InputError, match=says):
            run(clips, "refused", init_from=str(source), **changes)
        assert not (clips / "refused").exists()


def test_running_statistics_and_a_learned_prior_are_the_others(tmp_path):
    other = networks.make_run("mixture", True, False, tmp_path)
    config = small(tmp_path, model__latent_dim=4, model__hidden_dim=9, model__use_batch_norm=True,
                   model__prior="mixture", model__prior_components=3)  # fmt: skip
    start = transfer.match_tags(other, other.taxonomy, source="other")
    rows = np.array([[0, 1], [2, 7]])
    state = model_setup.build_model(config, other.taxonomy, 2, start=start).initial(config, rows)
    network = other.network
    for found, expected in (
        (state.params, network.params), (state.batch_stats, network.batch_stats)
    ):  # fmt: skip
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found, expected)))


def test_the_runs_of_a_sweep_start_from_it_too(clips, tmp_path, monkeypatch, capsys):
    config = small(clips, init_from=str(clips / "old"))
    dataset = load_from_config(config)
    trials = TrialRunner(dataset.taxonomy, dataset, share_devices("cpu", 1), 1)
    members = []
    for seed in (0, 1):
        config = config.copy_and_resolve_references()
        config.seed = seed
        members.append(trials.member(seed, config))
    said = capsys.readouterr()
    assert (said.out + said.err).count(f"Starting from {clips / 'old'} (parameters ") == 1
    before = jaxvae.load(clips / "old").network.params
    for member in members:
        after = member.fresh().params
        np.testing.assert_array_equal(after["fc3"]["kernel"], before["fc3"]["kernel"])
    written = {}

    def write_start(folder, **arguments):
        written.update(arguments)
        raise Killed

    monkeypatch.setattr(run_dir, "write_start", write_start)
    with pytest.raises(Killed):
        trials.write_run(tmp_path / "member", config, members[1], {}, overrides={})
    assert written["init_from"]["tags"]["shared"] == 10
    config = config.copy_and_resolve_references()
    config.model.latent_dim = 3
    with pytest.raises(InputError, match="latent_dim is 2 there, 3 here"):
        trials.member(2, config)


def test_a_published_config_names_no_folder():
    assert without_paths({"init_from": "/home/me/runs/a"})["init_from"] == "a"
    assert without_paths({"init_from": "hf://me/tags@main"})["init_from"] == "hf://me/tags@main"
    assert without_paths({"init_from": ""}) == {"init_from": ""}
