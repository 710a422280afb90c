"""What of the trackers needs none of them: TensorBoard's pages, names, refusals, giving up."""

import argparse
import sys

import numpy as np
import pytest

from jaxvae.config import parsing
from jaxvae.errors import InputError
from jaxvae.inference.load import load
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.storage.saved_rows import load_saved_rows
from jaxvae.train.choices import CHOICES
from jaxvae.train.loggers import trackers
from jaxvae.train.loggers.trackers import run_name
from tests.helpers.configs import MEDIUM, refusal
from tests.helpers.training import killed, logged, run, write_clips


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run with TensorBoard's files: (metrics, folder)."""
    clips = write_clips(tmp_path_factory.mktemp("shown"))
    return run(clips, logger__name=("tensorboard",), trainer__check_val_every_n_epoch=2)


def accumulated(folder):
    event = "tensorboard.backend.event_processing"
    module = pytest.importorskip(f"{event}.event_accumulator")
    return module.EventAccumulator(str(folder / "tensorboard"), {"histograms": 0}).Reload()


def test_the_kl_of_each_dimension_is_a_histogram_of_the_validations(shown):
    _, folder = shown
    (event,) = accumulated(folder).Histograms("val/kl_per_dimension")
    line = read_epochs(folder)[-1]
    found = event.histogram_value
    assert event.step == line["epoch"] == 2
    assert found.num == sum(found.bucket) == 2  # the latent dimensions of this model
    assert found.sum == pytest.approx(line["val/kld"], rel=1e-5)
    assert found.min <= line["val/kld"] / 2 <= found.max == found.bucket_limit[-1]


def context_of(folder):
    """TensorBoard's own reading of a folder of runs, as its server has it."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder)).Reload()
    return base_plugin.TBContext(
        logdir=str(folder),
        multiplexer=multiplexer,
        data_provider=data_provider.MultiplexerDataProvider(multiplexer, str(folder)),
        flags=argparse.Namespace(generic_data="true"),
    )


def test_hparams_has_the_fields_and_the_final_metrics(shown):
    pytest.importorskip("tensorboard")
    from tensorboard.context import RequestContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    metrics, folder = shown
    context = backend_context.Context(context_of(folder.parent))
    experiment = context.experiment_from_metadata(
        RequestContext(), "", True, context.hparams_metadata(RequestContext(), ""), []
    )
    fields = {info.name for info in experiment.hparam_infos}
    assert {"seed", "loss.kld_weight", "model.latent_dim", "data.dataset_name"} <= fields
    columns = [
        api_pb2.ColParams(metric=info.name, include_in_result=True)
        for info in experiment.metric_infos
    ] + [api_pb2.ColParams(hparam=field, include_in_result=True) for field in sorted(fields)]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=columns,
        include_metrics=True,
    )
    handler = list_session_groups.Handler(RequestContext(), context, "", request)
    (group,) = handler.run().session_groups
    assert group.hparams["model.latent_dim"].number_value == 2
    assert group.hparams["data.shuffle"].bool_value is True
    assert group.hparams["loss.objective"].string_value == "elbo"
    values = {value.name.tag: value.value for value in group.metric_values}
    assert values["test/loss"] == np.float32(metrics["test"]["test/loss"])
    assert values["inference/num_samples"] == 50


def test_final_metrics_are_there_once_however_often_a_run_is_judged(shown, tmp_path):
    clips = write_clips(tmp_path)
    options = {"logger__name": ("tensorboard",)}
    metrics, folder = run(clips, **options)
    expected = [(3, np.float32(metrics["test"]["test/loss"]))]
    assert logged(folder, "test/loss") == expected
    run(clips, **options)
    assert logged(folder, "test/loss") == expected
    metrics, folder = run(clips, **options, trainer__max_epochs=4)
    assert logged(folder, "test/loss") == [(5, np.float32(metrics["test"]["test/loss"]))]
    for name in ("train/loss", "val/loss"):
        assert [epoch for epoch, _ in logged(folder, name)] == [1, 2, 3, 4]
    histograms = accumulated(folder).Histograms("val/kl_per_dimension")
    assert [event.step for event in histograms] == [1, 2, 3, 4]


def test_histograms_of_a_killed_run_are_there_once(tmp_path):
    clips = write_clips(tmp_path)
    options = {"logger__name": ("tensorboard",), "trainer__max_epochs": 4}
    killed(clips, after=3, **options, trainer__checkpoint_every_seconds=1e6)
    _, folder = run(clips, **options)
    histograms = accumulated(folder).Histograms("val/kl_per_dimension")
    assert [event.step for event in histograms] == [1, 2, 3, 4]


def test_the_projector_shows_posterior_means_and_their_tags(shown):
    pytest.importorskip("tensorboard")
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
    from werkzeug.test import Client

    _, folder = shown
    plugin = ProjectorPlugin(context_of(folder.parent))
    plugin._update_configs()
    (name,) = [name for name in plugin._configs if name.endswith("tensorboard")]
    (embedding,) = plugin._configs[name].embeddings

    def served(app):
        query = {"run": name, "name": embedding.tensor_name}
        return Client(app).get("/", query_string=query).get_data()

    opened = load(folder)
    kept = load_saved_rows(folder, opened.taxonomy)
    rows = kept.rows[kept.positions("train")]
    tags = [[opened.taxonomy.tags[c] for c in row if c < 12] for row in rows]
    tensor = np.frombuffer(served(plugin._serve_tensor), np.float32).reshape(-1, 2)
    np.testing.assert_allclose(tensor, opened.encode(tags), rtol=1e-3, atol=1e-5)
    header, *lines = served(plugin._serve_metadata).decode().splitlines()
    assert header.split("\t") == ["tags", "number of tags", "concept of most tags", "first tag"]
    assert [line.split("\t")[0].split(", ") for line in lines] == tags
    drums = lines[tags.index(["techno", "synth", "drums"])]
    assert drums.split("\t")[1:] == ["3", "instrument", "techno"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, "vae"),
        ({"loss.kld_weight": 4.0, "seed": 3}, "vae kld_weight=4.0 seed=3"),
        ({"seed": 3, "inference.seed": 4}, "vae seed=3 inference.seed=4"),
        ({"data.dataset_name": "/home/me/private/clips.csv"}, "vae dataset_name=clips.csv"),
        ({"trainer.optimizer.betas": (0.9, 0.99)}, "vae betas=0.9,0.99"),
        ({"logger.name": ("wandb",), "logger.offline": True, "model_name": "vae"}, "vae"),
    ],
)
def test_a_run_is_called_what_the_user_typed(overrides, expected):
    assert run_name("vae", overrides) == expected


def test_a_long_name_is_cut():
    name = run_name("vae", {f"data.field{number}": "x" * 20 for number in range(9)})
    assert len(name) == 120
    assert name.endswith("…")


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_one_that_is_not_installed_is_refused_before_anything_is_written(
    name, tmp_path, monkeypatch
):
    clips = write_clips(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)  # so that nobody can import it
    with pytest.raises(InputError, match=rf"logger\.name={name}: .*pip install {name}"):
        run(clips, logger__name=("tensorboard", name))
    assert not (clips / "run").exists()


@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("--config.logger.name=tensorboard,wandbb", "'wandb'"),
        ("--config.logger.name=wandb,wandb", "twice"),
        ("--config.logger.project=a/b", "logger.project=a/b"),
        ("--config.logger.project=", "logger.project="),
        ("--config.logger.offline=perhaps", "True or False"),
    ],
)
def test_wrong_options_are_refused(argument, part):
    assert part in refusal(MEDIUM, argument)


@pytest.mark.parametrize("typed", ["wandb,mlflow", "('wandb', 'mlflow')"])
def test_names_can_be_typed_without_quotes(typed):
    argv = ["launch.py", MEDIUM, f"--config.logger.name={typed}"]
    config, _, _ = parsing.parse(argv, define=lambda flags: None, choices=CHOICES)
    assert config.logger.name == ("wandb", "mlflow")


class Memory:
    """A tracker that keeps what it is given, and fails when it is told to."""

    key, adds_final = "k", True

    def __init__(self, last_epoch=0, fails_at=None):
        self.last_epoch, self.fails_at = last_epoch, fails_at
        self.epochs, self.final, self.closed = [], [], 0

    def append(self, epoch, values):
        if epoch == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.epochs.append((epoch, values))

    def sync(self):
        pass

    def finish(self, metrics, files, epoch):
        self.final.append((metrics, [file.name for file in files], epoch))

    def close(self):
        self.closed += 1


def line(epoch):
    return {"epoch": epoch, "step": 3 * epoch, "train/loss": 1.0 / epoch, "val/loss": None}


def track(kept=None, **opened):
    said = []
    kept = kept or {name: {} for name in opened}
    return trackers.TrackerGroup(opened, say=said.append, kept=kept, keep=lambda: None), said


def test_each_gets_the_epochs_that_it_lacks():
    new, old, ahead = Memory(), Memory(2), Memory(5)
    tracked, _ = track(new=new, old=old, ahead=ahead)
    tracked.catch_up([line(1), line(2), line(3)])
    for epoch in (4, 5, 6):
        tracked.append(line(epoch))
    assert [epoch for epoch, _ in new.epochs] == [1, 2, 3, 4, 5, 6]
    assert [epoch for epoch, _ in old.epochs] == [3, 4, 5, 6]
    assert [epoch for epoch, _ in ahead.epochs] == [6]
    assert new.epochs[0][1] == {"train/step": 3, "train/loss": 1.0}


def test_one_that_fails_is_given_up_and_said_once():
    bad, good = Memory(fails_at=2), Memory()
    tracked, said = track(bad=bad, good=good)
    for epoch in (1, 2, 3):
        tracked.append(line(epoch))
    tracked.close()
    assert said == [
        "bad failed, and the run goes on without it: ConnectionError: the server is gone"
    ]
    assert [epoch for epoch, _ in bad.epochs] == [1]
    assert [epoch for epoch, _ in good.epochs] == [1, 2, 3]
    assert bad.closed == good.closed == 1


def test_the_end_is_told_once_and_files_only_when_asked(tmp_path):
    for name in ("model.pth", "metrics.json", "rows.npz"):
        (tmp_path / name).write_text("x")
    stages = {
        "train": {"train/loss": 1.0},
        "val": {"val/loss": 2.0},
        "test": {"test/loss": 3.0, "test/x": None},
    }
    kept = {"a": {}}
    for artifacts, again in ((False, False), (True, True)):
        memory = Memory()
        tracked, _ = track(kept, a=memory)
        tracked.finish(stages, folder=tmp_path, artifacts=artifacts, epoch=9)
        tracked.close()
        files = ["model.pth", "metrics.json"] if artifacts else []
        final = {} if again else {"best/val/loss": 2.0, "test/loss": 3.0}
        assert memory.final == [(final, files, 9)]
        assert memory.closed == 0
    assert kept == {"a": {"final": 9}}


def test_a_run_in_no_tracker_keeps_no_list_of_them(shown):
    assert not (shown[1] / trackers.FILE).exists()
