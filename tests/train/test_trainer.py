"""Whole runs in this process: every config, every option, resuming, stopping."""

import dataclasses
import functools
import json
import math
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvae.config import monitor, parsing, schema
from jaxvae.data.embedded_corpus import build_corpus
from jaxvae.data.splits import SPLITS
from jaxvae.errors import InputError
from jaxvae.inference.load import load
from jaxvae.runtime import signals
from jaxvae.storage import lock, manifest, run_dir
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train.steps import train_epoch
from jaxvae.train.trainer import TrainingFailed, train_and_evaluate
from tests.conftest import ROOT
from tests.helpers.configs import CONFIGS
from tests.helpers.training import (
    WORDS,
    killed,
    logged,
    parameters,
    run,
    same,
    timeless,
    write_clips,
)


@pytest.fixture
def clips(tmp_path):
    """A CSV of 70 clips and its taxonomy, as a user would have them."""
    return write_clips(tmp_path)


@pytest.fixture(scope="module")
def some_of_the_corpus(tmp_path_factory):
    """A file with rows of the embedded corpus: its 800 to train on are 25 batches, none short."""
    path = tmp_path_factory.mktemp("corpus") / "rows.json"
    rows = build_corpus().draw(seed=0).tags[:888]
    path.write_text(json.dumps([{"aspect_list": list(tags)} for tags in rows]))
    return path


@pytest.mark.long
@pytest.mark.parametrize("name", CONFIGS)
def test_every_shipped_config_trains(name, tmp_path, some_of_the_corpus):
    config = parsing.load_config(str(ROOT / "configs" / f"{name}.py"))
    config.trainer.max_epochs = 2
    config.trainer.lr_scheduler.warmup_epochs = min(1.0, config.trainer.lr_scheduler.warmup_epochs)
    config.inference.num_samples = 100
    if not name.startswith("best"):  # whose loss needs more of them to fall
        config.data.dataset_name = str(some_of_the_corpus)
    metrics = train_and_evaluate(config, tmp_path / "run", models_dir=tmp_path / "models")
    first, second = read_epochs(tmp_path / "run")
    assert second["train/loss"] < first["train/loss"]
    assert math.isfinite(metrics["test"]["test/loss"])
    assert (tmp_path / "models" / f"vae_{name.removesuffix('_0')}.pth").exists()


def test_a_run_leaves_what_the_readme_says(clips):
    _, folder = run(clips, logger__name=("tensorboard",))
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "SHA256SUMS",
        *("checkpoints", "final", "tensorboard"),
        *("config.json", "overrides.json", "environment.json", "taxonomy.json"),
        *("data_report.json", "rows.npz", "samples.json"),
        *("model.pth", "model.safetensors", "model.json"),
        *("metrics.jsonl", "metrics.json", "summary.json"),
    }
    copies = {str(path.relative_to(clips / "models")) for path in (clips / "models").rglob("*.*")}
    assert copies == {
        *("vae_small.pth", "vae_small.safetensors", "vae_small.json"),
        *("metrics/vae_small_metrics.json", "metrics/vae_small_summary.json"),
    }


def test_logged_names_are_the_originals(clips):
    metrics, folder = run(clips)
    line = read_epochs(folder)[-1]
    assert {"train/loss", "train/bce", "train/kld"} <= line.keys()
    assert {"epoch", "step", "seconds", "seconds_eval", "examples_per_second"} <= line.keys()
    names = ["loss", "bce", "kld", "hamming_loss", "jaccard_index", "silhouette_score"]
    names += ["active_units_num_active_units", "active_units_pct_active_units"]
    assert {f"val/{name}" for name in names} <= line.keys()
    names += ["diversity_unique_combinations", "diversity_pct_unique_combinations"]
    names += ["diversity_entropy", "diversity_gini_coefficient"]
    for kind in ("cosine_similarity", "kl_divergence", "hellinger_distance", "pearson_correlation"):
        names.append(f"cooccurrence_{kind}")
    assert {f"test/{name}" for name in names} <= metrics["test"].keys()
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"train", "val", "test", "inference"}


def test_the_loss_is_the_weighted_sum_of_its_terms(clips):
    _, folder = run(clips, loss__kld_weight=2.5, loss__bce_weight=0.5)
    for line in read_epochs(folder):
        for stage in ("train", "val"):
            terms = 0.5 * line[f"{stage}/bce"] + 2.5 * line[f"{stage}/kld"]
            assert line[f"{stage}/loss"] == pytest.approx(terms, rel=1e-5)


def test_rows_and_splits_are_kept(clips):
    _, folder = run(clips)
    with np.load(folder / "rows.npz") as stored:
        rows, source_row, split = stored["rows"], stored["source_row"], stored["split"]
    assert np.bincount(split).tolist() == [42, 14, 14]
    assert rows.shape == (70, 4)
    assert rows.dtype == np.uint8
    assert source_row.tolist() == list(range(70))
    assert load(folder).rows("val").tolist() == rows[split == 1].tolist()


# Every field, a value other than its default, and where its effect must show.
EFFECTS = {
    "seed": (1, "training"),
    "init_from": ("missing", "refusal"),
    "model_name": ("mine", "copies"),
    "model.architecture": ("own.py:Deep", "own test"),
    "model.latent_dim": (3, "training"),
    "model.hidden_dim": (9, "training"),
    "model.hidden_dims": ((8, 4), "training"),
    "model.dropout_p": (0.0, "training"),
    "model.use_batch_norm": (True, "training"),
    "model.use_layer_norm": (True, "training"),
    "model.tied_weights": (True, "training"),
    "model.hidden_dropout_p": (0.5, "training"),
    "model.dropout_per_row": (True, "training"),
    "model.decoder_bias": ("log_odds", "training"),
    "model.prior": ("mixture", "training"),
    "model.prior_components": (3, "training with a mixture"),
    "data.aspect_column": ("other", "refusal"),
    "data.min_tag_rows": (3, "own test"),
    "data.dataset_config": ("small", "refusal"),
    "data.layout": ("one_hot", "refusal"),
    "data.separator": ("|", "own test"),
    "data.group_by": ("nothing", "refusal"),
    "data.weight_column": ("nothing", "refusal"),
    "data.min_weight": (1.0, "refusal"),
    "data.split_column": ("nothing", "refusal"),
    "data.val_from": ("missing.csv", "refusal"),
    "data.test_from": ("missing.csv", "refusal"),
    "data.dataset_split": ("test", "refusal"),
    "data.hub_streaming": (True, "refusal"),
    "data.dataset_name": ("missing.csv", "refusal"),
    "data.taxonomy_path": ("missing.json", "refusal"),
    "data.max_unreadable_fraction": (0.5, "own test"),
    "data.val_fraction": (0.3, "training"),
    "data.test_fraction": (0.3, "training"),
    "data.split_by": ("set", "training"),
    "data.split_seed": (43, "training"),
    "data.batch_size": (32, "training"),
    "data.rows_per_epoch": (20, "training"),
    "data.shuffle": (False, "training"),
    "loss.bce_weight": (2.0, "training"),
    "loss.kld_weight": (4.0, "training"),
    "loss.use_binary_cross_entropy": (False, "training"),
    "loss.objective": ("tcvae", "training with beta 4"),
    "loss.kld_schedule": ("cosine", "training with warm-up"),
    "loss.kld_warmup": (0.9, "training with warm-up"),
    "loss.kld_cycles": (2, "training with cycles"),
    "loss.free_bits": (1.0, "training with free bits"),
    "loss.capacity": (1.0, "training with capacity"),
    "loss.num_importance_samples": (2, "training with iw"),
    "trainer.max_epochs": (3, "training"),
    "trainer.max_minutes": (0.01, "own test"),
    "trainer.max_steps": (4, "training"),
    "trainer.accelerator": ("tpu", "refusal"),
    "trainer.devices": (2, "environment"),
    "trainer.mesh.data": (1, "refusal on 2 devices"),
    "trainer.mesh.model": (2, "refusal"),
    "trainer.scale_batch_with_devices": (True, "training on 2 devices"),
    "trainer.precision": ("bf16", "training"),
    "trainer.gradient_clip_val": (0.01, "training"),
    "trainer.accumulate_grad_batches": (2, "training"),
    "trainer.check_val_every_n_epoch": (2, "log"),
    "trainer.deterministic": (True, "environment"),
    "trainer.optimizer.lr": (1e-2, "training"),
    "trainer.optimizer.betas": ((0.5, 0.9), "training"),
    "trainer.ema_decay": (0.9, "training with validation"),
    "trainer.optimizer.decoupled_weight_decay": (True, "training with decay"),
    "trainer.optimizer.weight_decay": (0.1, "training"),
    "trainer.lr_scheduler.name": ("cosine", "training"),
    "trainer.lr_scheduler.warmup_epochs": (1.0, "training"),
    "trainer.lr_scheduler.final_fraction": (0.5, "training with a cosine"),
    "trainer.monitor": ("val/elbo", "own test"),
    "trainer.monitor_mode": ("max", "own test"),
    "trainer.early_stopping_patience": (1, "own test"),
    "trainer.early_stopping_min_delta": (0.1, "own test"),
    "trainer.checkpoint_every_seconds": (0.0, "own test"),
    "trainer.callbacks": (("a.py:b",), "own test"),
    "trainer.enable_progress_bar": (True, "own test"),
    "inference.enabled": (False, "inference"),
    "inference.num_samples": (60, "inference"),
    "inference.temperature": (0.5, "inference"),
    "inference.decode": ("threshold", "inference"),
    "inference.threshold": (0.9, "test metrics"),
    "inference.seed": (1, "inference"),
    "inference.quick_baseline": (True, "own test"),
    "logger.name": (("tensorboard",), "own test"),
    "logger.project": ("another", "own test"),
    "logger.offline": (True, "own test"),
    "logger.artifacts": (True, "own test"),
}


def test_every_field_has_an_effect_to_show():
    config = parsing.load_config(str(ROOT / "configs" / "base.py"))
    assert dict(schema.flatten(config)).keys() == EFFECTS.keys()


def observed(clips, name, where, **overrides):
    """What a run shows at the place where an option must have its effect."""
    if where.endswith("on 2 devices"):
        overrides["trainer__devices"] = 2
    if where.startswith("refusal"):
        try:
            run(clips, name, **overrides)
        except InputError as error:
            return str(error)
        return "accepted"
    # What some options need to be on before they can matter.
    overrides |= {
        "training with a cosine": {"trainer__lr_scheduler__name": "cosine"},
        "training with a mixture": {"model__prior": "mixture"},
        "training with beta 4": {"loss__kld_weight": 4.0},
        "training with warm-up": {"loss__kld_schedule": "linear", "loss__kld_warmup": 0.5},
        "training with cycles": {"loss__kld_schedule": "cyclical", "loss__kld_warmup": 0.9},
        "training with free bits": {"loss__objective": "free_bits"},
        "training with capacity": {"loss__objective": "capacity"},
        "training with iw": {"loss__objective": "iw"},
        "training with decay": {"trainer__optimizer__weight_decay": 0.1},
        "training with validation": {"trainer__ema_decay": 0.0},
    }.get(where, {}) | overrides
    if where.startswith("training"):
        # What follows training takes longer than these epochs, and is not looked at; nor is the
        # validation, a program of its own, but of what acts on nothing else.
        last = overrides.get("trainer__max_epochs", 2)
        if "trainer__ema_decay" not in overrides and last == 2:
            overrides |= {"trainer__max_epochs": 3, "trainer__check_val_every_n_epoch": 3}
        return timeless(killed(clips, name, after=last, **overrides))
    metrics, folder = run(clips, name, **overrides)
    return {
        "log": lambda: [sorted(line) for line in timeless(folder)],
        "copies": lambda: sorted(path.name for path in (clips / "models").glob("*.pth")),
        "environment": lambda: json.loads((folder / "environment.json").read_text()),
        "inference": lambda: metrics.get("inference"),
        "test metrics": lambda: metrics["test"],
    }[where]()


@pytest.fixture(scope="module")
def without_it(tmp_path_factory):
    """What a run shows without any option changed, computed once for each place to look."""
    folder = write_clips(tmp_path_factory.mktemp("without"))

    @functools.cache
    def look(where):
        return observed(folder, where.replace(" ", "-"), where)

    return look


@pytest.mark.parametrize(
    "field",
    [
        # Most that show in training are a program of their own.
        pytest.param(name, marks=pytest.mark.long if where.startswith("training") else ())
        for name, (_, where) in EFFECTS.items()
        if where != "own test"
    ],
)
def test_an_option_has_its_effect(field, clips, without_it, monkeypatch):
    jax.devices()  # found with the flags of the suite
    monkeypatch.setenv("XLA_FLAGS", "")
    value, where = EFFECTS[field]
    plain = without_it(where)
    assert observed(clips, "with", where, **{field.replace(".", "__"): value}) != plain


def test_the_same_run_twice_is_the_same(clips):
    _, first = run(clips, "first")
    _, second = run(clips, "second")
    assert timeless(first) == timeless(second)
    assert same(parameters(first), parameters(second))


@pytest.mark.parametrize("when", [1, 3])
@pytest.mark.parametrize("rows_per_epoch", [0, 16])  # of 42, so that passes end within epochs
def test_an_interrupted_run_resumes_to_the_same_end(clips, when, rows_per_epoch):
    options = {"trainer__max_epochs": 5, "trainer__checkpoint_every_seconds": 0.0}
    options |= {"data__rows_per_epoch": rows_per_epoch}
    _, whole = run(clips, "whole", **options)

    assert len(read_epochs(killed(clips, "halves", after=when, **options))) == when
    _, halves = run(clips, "halves", **options)
    assert timeless(halves) == timeless(whole)
    assert same(parameters(halves), parameters(whole))


def test_the_best_epoch_before_a_stop_is_that_of_the_whole_run(clips):
    """No tag becomes probable, so that no epoch is better than the first."""
    options = {"trainer__max_epochs": 3, "trainer__checkpoint_every_seconds": 0.0}
    options |= {"trainer__monitor": "val/jaccard_index", "trainer__monitor_mode": "max"}
    options |= {"model__decoder_bias": "log_odds", "trainer__optimizer__lr": 1e-5}
    _, whole = run(clips, "whole", **options)
    assert [line["val/jaccard_index"] for line in read_epochs(whole)] == [0.0] * 3
    killed(clips, "halves", after=2, **options)
    _, halves = run(clips, "halves", **options)
    assert same(parameters(halves), parameters(whole))


def test_a_longer_run_resumes_a_shorter_one(clips):
    run(clips, "run", trainer__max_epochs=2)
    _, longer = run(clips, "run", trainer__max_epochs=4)
    _, whole = run(clips, "whole", trainer__max_epochs=4)
    assert timeless(longer) == timeless(whole)


def test_a_run_of_an_older_version_resumes(clips):
    """Its config knows fewer fields; what they do was not done then."""
    _, folder = run(clips, "run", trainer__max_epochs=2)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["data"]["rows_per_epoch"], config["model"]["hidden_dims"]
    path.write_text(json.dumps(config))
    with np.load(folder / "rows.npz") as stored:
        kept = dict(stored)
    split = kept.pop("split")
    np.savez(folder / "rows.npz", **kept)
    splits = {name: np.flatnonzero(split == n).tolist() for n, name in enumerate(SPLITS)}
    (folder / "splits.json").write_text(json.dumps(splits))
    manifest.seal(folder, ["config.json", "taxonomy.json"])
    assert len(load(folder).rows("train")) == 42
    for wrong, says in (
        ({"train": 7}, "expected lists"),
        ({"other": [1]}, "expected lists"),
        ({"train": [70]}, "expected lists"),
        (splits | {"val": splits["val"][1:]}, "does not put each of 70 rows in one split"),
        (splits | {"val": [*splits["val"], 0]}, "does not put each of 70 rows in one split"),
    ):
        (folder / "splits.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=rf"splits.json: damaged: {says}"):
            load(folder).rows("train")
    with pytest.raises(InputError, match=r"data.rows_per_epoch \(was 0, now 16\)"):
        run(clips, "run", trainer__max_epochs=4, data__rows_per_epoch=16)
    _, longer = run(clips, "run", trainer__max_epochs=4)
    _, whole = run(clips, "whole", trainer__max_epochs=4)
    assert timeless(longer) == timeless(whole)


@pytest.mark.parametrize("damage", ["cut", "flipped", "lost"])
def test_a_damaged_line_of_an_epoch_behind_is_said(clips, damage, capsys):
    options = {"trainer__max_epochs": 3}
    _, folder = run(clips, **options)
    run(clips, **options)
    assert "it lacks" not in capsys.readouterr().err
    first, second, third = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    second = {"cut": second[:50] + b"\n", "flipped": b"\xff" + second[1:], "lost": b""}[damage]
    (folder / "metrics.jsonl").write_bytes(first + second + third)
    run(clips, **options)
    assert "of 3 epochs it lacks 1, the first is 2" in capsys.readouterr().err
    assert [line["epoch"] for line in read_epochs(folder)] == [1, 3]


def test_another_config_in_the_same_folder_is_refused(clips):
    run(clips)
    with pytest.raises(InputError, match=r"loss\.kld_weight \(was 1\.0, now 4\.0\)"):
        run(clips, loss__kld_weight=4.0)
    run(clips, inference__seed=5)  # changes nothing that was trained


def test_other_rows_in_the_same_folder_are_refused(clips):
    run(clips)
    with (clips / "clips.csv").open("a") as file:
        file.write("70,\"['jazz']\"\n")
    with pytest.raises(InputError, match="other rows"):
        run(clips)


def test_a_taxonomy_in_another_order_is_refused(clips):
    run(clips)
    reordered = {concept: tags[::-1] for concept, tags in WORDS.items()}
    (clips / "words.json").write_text(json.dumps(reordered))
    with pytest.raises(InputError, match="another taxonomy"):
        run(clips)


def change_rows(path):
    with np.load(path) as stored:
        kept = dict(stored)
    kept["rows"] = kept["rows"][::-1]
    np.savez(path, **kept)


def move_rows(path):
    with np.load(path) as stored:
        kept = dict(stored)
    kept["source_row"] = kept["source_row"] + 1
    np.savez(path, **kept)


def split_otherwise(path, split=2):
    with np.load(path) as stored:
        kept = dict(stored)
    kept["split"][np.flatnonzero(kept["split"] == 1)[0]] = split
    np.savez(path, **kept)


DAMAGES = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:99]), "damaged"),
    "missing": (lambda path: path.unlink(), "missing"),
    "changed": (change_rows, "other rows"),
    "moved": (move_rows, "elsewhere in the source"),
    "split otherwise": (split_otherwise, "in another way"),
    "in no split": (lambda path: split_otherwise(path, 3), "each of 70 rows in one split"),
}


def test_damage_to_the_rows_that_a_run_keeps_is_said_before_it_is_repaired(clips, capsys):
    options = {"trainer__max_epochs": 1}
    _, folder = run(clips, **options)
    path = folder / "rows.npz"
    whole = path.read_bytes()
    report = json.loads((folder / "data_report.json").read_text())
    assert "written again" not in capsys.readouterr().err
    run(clips, **options)
    assert "written again" not in capsys.readouterr().err
    for damage, says in DAMAGES.values():
        damage(path)
        assert whole != (path.exists() and path.read_bytes())
        run(clips, **options)
        said = [line for line in capsys.readouterr().err.splitlines() if "written again" in line]
        assert len(said) == 1
        assert said[0].startswith(f"{path}: ")
        assert says in said[0]
        now = f"written again from {report['source']} (fingerprint {report['fingerprint'][:12]})"
        assert said[0].endswith(now)
        before = re.search(r"other rows \(fingerprint ([0-9a-f]{12})\)", said[0])
        assert bool(before) == (says == "other rows")
        assert not before or before[1] != report["fingerprint"][:12]
        assert path.read_bytes() == whole


def test_nothing_is_written_when_the_data_are_wrong(clips):
    with pytest.raises(InputError):
        run(clips, data__aspect_column="nope")
    assert not (clips / "run").exists()
    assert not (clips / "models").exists()


def test_early_stopping_waits_for_its_patience(clips):
    _, folder = run(
        clips,
        trainer__max_epochs=40,
        trainer__early_stopping_patience=2,
        trainer__early_stopping_min_delta=100.0,
    )
    # The first validation sets the mark; two more without a gain of 100 nats end it.
    assert len(read_epochs(folder)) == 3
    assert json.loads((folder / "summary.json").read_text())["best_epoch"] > 1
    _, free = run(clips, "free", trainer__max_epochs=5, trainer__early_stopping_min_delta=100.0)
    assert len(read_epochs(free)) == 5


@pytest.mark.parametrize("name", monitor.MODES)
def test_the_epoch_that_is_kept_is_the_monitors(clips, name):
    # A weight of the KL under which the loss prefers another epoch than the likelihood does.
    options = {
        "trainer__monitor": name,
        "trainer__monitor_mode": monitor.MODES[name],
        "loss__kld_weight": 20.0,
        "trainer__optimizer__lr": 3e-2,
        "trainer__max_epochs": 6,
    }
    seen = {}

    def remember(epoch, metrics, state):
        seen[epoch] = np.asarray(state.params["fc4"]["bias"])

    _, folder = run(clips, hooks=[remember], **options)
    values = [line[name] for line in read_epochs(folder)]
    best = 1 + int(np.argmin(values) if monitor.MODES[name] == "min" else np.argmax(values))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best_epoch"] == best
    assert np.array_equal(parameters(folder)["fc4.bias"], seen[best])
    if name == "val/elbo":
        for line in read_epochs(folder):
            assert line[name] == pytest.approx(line["val/bce"] + line["val/kld"], rel=1e-6)
    else:
        assert ("val/nll_iw" in read_epochs(folder)[0]) == (name == "val/nll_iw")


def test_monitors_choose_different_epochs_and_end_runs_by_themselves(clips):
    options = {
        "loss__kld_weight": 20.0,
        "trainer__optimizer__lr": 3e-2,
        "trainer__max_epochs": 8,
        "trainer__early_stopping_patience": 2,
    }
    ends = {}
    for name in ("val/loss", "val/jaccard_index"):
        chosen = {"trainer__monitor": name, "trainer__monitor_mode": monitor.MODES[name]}
        _, folder = run(clips, name.replace("/", "-"), **chosen, **options)
        lines = read_epochs(folder)
        ends[name] = len(lines)
        values = [line[name] for line in lines]
        best = max(values) if name == "val/jaccard_index" else min(values)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["best_epoch"] == 1 + values.index(best)
        assert ends[name] in (summary["best_epoch"] + 2, 8)
    # So heavy a KL leaves tags without a probability above a half: Jaccard never gains again.
    assert ends["val/jaccard_index"] < ends["val/loss"]


def test_a_bound_that_chooses_is_the_same_however_training_went(clips):
    """Stopped and resumed, and on two devices."""
    options = {"trainer__monitor": "val/nll_iw", "trainer__max_epochs": 3}
    _, whole = run(clips, "whole", **options)
    often = {"trainer__checkpoint_every_seconds": 0.0}
    killed(clips, "resumed", **often, **options)
    _, resumed = run(clips, "resumed", **often, **options)
    assert timeless(resumed) == timeless(whole)
    _, two = run(clips, "two", trainer__devices=2, **options)
    for line, other in zip(read_epochs(whole), read_epochs(two), strict=True):
        assert line["val/nll_iw"] == pytest.approx(other["val/nll_iw"], rel=1e-5)
        # 50 draws bound the likelihood more tightly than one.
        assert line["val/nll_iw"] < line["val/bce"] + line["val/kld"]


def test_a_run_that_stopped_early_stays_stopped(clips):
    options = {
        "trainer__max_epochs": 40,
        "trainer__early_stopping_patience": 2,
        "trainer__early_stopping_min_delta": 100.0,
    }
    _, folder = run(clips, **options)
    before = timeless(folder)
    run(clips, **options)
    assert timeless(folder) == before


def test_the_best_parameters_are_exported_not_the_last(clips):
    seen = {}

    def remember(epoch, metrics, state):
        seen[epoch] = (
            metrics["val/loss"],
            jax.tree.map(lambda leaf: np.array(leaf), state.params),
        )

    # A rate so high that the loss goes up again.
    metrics, folder = run(
        clips, hooks=[remember], trainer__max_epochs=12, trainer__optimizer__lr=0.3
    )
    best = min(seen, key=lambda epoch: seen[epoch][0])
    assert best != 12
    exported = load(folder)
    assert exported.facts["epoch"] == best
    for layer, arrays in seen[best][1].items():
        for name, array in arrays.items():
            assert np.array_equal(exported.network.params[layer][name], array)
    last = load(folder, checkpoint="last").network.params
    assert np.array_equal(last["fc4"]["bias"], seen[12][1]["fc4"]["bias"])
    assert metrics["val"]["val/loss"] == pytest.approx(seen[best][0], rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(clips):
    with pytest.raises(TrainingFailed) as caught:
        run(clips, trainer__optimizer__lr=1e30, trainer__max_epochs=5)
    message = str(caught.value)
    assert "epoch" in message
    assert "step" in message
    assert "lr" in message
    # What is kept is finite, and the folder says the same again instead of training on.
    with pytest.raises(TrainingFailed, match="new --workdir"):
        run(clips, trainer__optimizer__lr=1e30, trainer__max_epochs=5)


def test_the_best_survives_a_loss_that_is_not_finite(clips, monkeypatch):
    poison = {"at": 3}

    def overflow(programs, state, watched, line):
        line |= {"val/loss": math.nan, "val/bce": 0.0, "val/kld": 0.0}
        return [0.0, 0.0]

    def spoil(epoch, metrics, state):
        if epoch == poison["at"]:
            monkeypatch.setattr("jaxvae.train.loop._validate", overflow)

    with pytest.raises(TrainingFailed, match=r"best parameters \(epoch \d\) are kept"):
        run(clips, hooks=[spoil], trainer__max_epochs=6)
    with pytest.raises(TrainingFailed, match="best parameters"):
        run(clips, trainer__max_epochs=6)
    last = load_last(clips / "run")
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(last))


def test_a_step_that_is_not_finite_after_a_saved_epoch_says_so(clips, monkeypatch):
    make = train_epoch.make_train_epoch

    def poisoned(*arguments, **options):
        train_epoch, calls = make(*arguments, **options), []

        def third_fails(state, *rest):
            calls.append(1)
            state, sums = train_epoch(state, *rest)
            bad_step = jnp.where(len(calls) == 3, state.step, state.bad_step)
            return dataclasses.replace(state, bad_step=bad_step), sums

        return third_fails

    monkeypatch.setattr("jaxvae.train.steps.train_epoch.make_train_epoch", poisoned)
    with pytest.raises(TrainingFailed, match=r"epoch 3, step .*best parameters \(epoch \d\)"):
        run(clips, trainer__max_epochs=6, trainer__checkpoint_every_seconds=0.0)
    assert all(np.isfinite(array).all() for array in jax.tree.leaves(load_last(clips / "run")))


def load_last(folder):
    # The run has no final/ yet, so only the checkpoint can be opened.
    return load(folder, checkpoint="last").network.params


def test_checkpoints_follow_the_clock(clips):
    saved = []

    def count(epoch, metrics, state):
        folder = clips / saved_in["name"] / "checkpoints"
        saved.append(sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()))

    saved_in = {"name": "often"}
    run(clips, "often", hooks=[count], trainer__max_epochs=4, trainer__checkpoint_every_seconds=0.0)
    assert saved == [[], [1], [1, 2], [2, 3]]
    saved.clear()
    saved_in["name"] = "rarely"
    run(
        clips, "rarely", hooks=[count], trainer__max_epochs=4, trainer__checkpoint_every_seconds=1e6
    )
    assert saved == [[], [1], [1], [1]]


def test_hooks_see_every_epoch(clips):
    seen = []
    run(clips, hooks=[lambda epoch, metrics, state: seen.append((epoch, int(state.step)))])
    assert seen == [(1, 3), (2, 6)]  # 42 rows in batches of 16


def test_tensorboard_files_can_be_read_back(clips):
    _, folder = run(clips, logger__name=("tensorboard",))
    lines = [(line["epoch"], np.float32(line["val/loss"])) for line in read_epochs(folder)]
    assert logged(folder, "val/loss") == lines
    assert len(lines) == 2
    _, without = run(clips, "without")
    assert not (without / "tensorboard").exists()


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.0, 1e6])
def test_tensorboard_shows_each_epoch_of_a_resumed_run_once(clips, seconds):
    options = {
        "trainer__max_epochs": 5,
        "trainer__checkpoint_every_seconds": seconds,
        "logger__name": ("tensorboard",),
    }
    _, whole = run(clips, "whole", **options)
    expected = logged(whole, "train/loss")
    assert [epoch for epoch, _ in expected] == [1, 2, 3, 4, 5]

    for stop in (3, 4):
        killed(clips, "parts", after=stop, **options)
        assert [epoch for epoch, _ in logged(clips / "parts", "train/loss")] == [
            1,
            2,
            3,
            4,
        ][:stop]
    _, parts = run(clips, "parts", **options)
    assert logged(parts, "train/loss") == expected
    # They are in the files more than once: it is the mark that makes them count once.
    # A file for each start, and one for the final metrics.
    written = [path.read_bytes() for path in (parts / "tensorboard").glob("events.out.*")]
    assert len(written) == 4
    assert sum(content.count(b"train/loss") for content in written) > 5


def test_a_collapsed_model_is_announced(clips, capsys):
    run(clips, loss__kld_weight=200.0)
    assert "collapsed" in capsys.readouterr().err
    summary = json.loads((clips / "run" / "summary.json").read_text())
    assert summary["collapsed"] is True


def test_a_latent_that_carries_information_is_not(clips, capsys):
    run(
        clips,
        trainer__max_epochs=150,
        trainer__optimizer__lr=1e-2,
        model__dropout_p=0.0,
        loss__kld_weight=0.3,
    )
    assert "collapsed" not in capsys.readouterr().err


def test_two_devices_train_as_one(clips):
    _, one = run(clips, "one")
    _, two = run(clips, "two", trainer__devices=2)
    for a, b in zip(timeless(one), timeless(two), strict=True):
        # float32 sums over devices are added in another order.
        assert a["val/loss"] == pytest.approx(b["val/loss"], rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trainer__max_steps": 3},
        {"trainer__max_steps": 3, "trainer__lr_scheduler__warmup_epochs": 1.0},
        {"trainer__max_steps": 3, "loss__kld_schedule": "linear", "loss__kld_warmup": 1.0},
    ],
)
def test_what_a_run_of_a_larger_batch_was_trained_by_judges_it(clips, options):
    """An epoch has 2 steps on two devices and would have 3 on one, as long as `max_steps`."""
    options = {"loss__kld_weight": 2.5, "trainer__devices": 2, **options}
    scaled = {**options, "trainer__scale_batch_with_devices": True}
    if len(options) > 3:
        with pytest.raises(InputError, match="a warm-up of 3 steps would never end"):
            run(clips, "one", **options)
    metrics, folder = run(clips, "scaled", **scaled)
    assert [line["step"] for line in read_epochs(folder)] == [
        2,
        options.get("trainer__max_steps", 4),
    ]
    for stage in ("val", "test"):
        values = metrics[stage]
        terms = values[f"{stage}/bce"] + 2.5 * values[f"{stage}/kld"]
        assert values[f"{stage}/loss"] == pytest.approx(terms, rel=1e-5)
    assert (folder / "model.pth").exists()
    assert run(clips, "scaled", **scaled)[0] == metrics


def test_a_run_goes_on_with_other_devices(clips):
    _, whole = run(clips, "whole", trainer__max_epochs=4)
    run(clips, "moved", trainer__max_epochs=2, trainer__devices=2)
    _, moved = run(clips, "moved", trainer__max_epochs=4)
    assert len(read_epochs(moved)) == 4
    for a, b in zip(timeless(whole), timeless(moved), strict=True):
        assert a["val/loss"] == pytest.approx(b["val/loss"], rel=1e-5)


def test_a_run_whose_batch_is_its_devices_does_not(clips):
    scaled = {"trainer__scale_batch_with_devices": True}
    run(clips, "scaled", trainer__max_epochs=2, trainer__devices=2, **scaled)
    with pytest.raises(InputError, match=r"trainer\.devices \(was 2, now 1\)"):
        run(clips, "scaled", trainer__max_epochs=3, trainer__devices=1, **scaled)
    # All devices, which are fewer by now.
    path = clips / "scaled" / "config.json"
    config = json.loads(path.read_text())
    config["trainer"]["devices"] = 1
    path.write_text(json.dumps(config))
    with pytest.raises(
        InputError, match="has 4 steps behind it in 2 epochs, but an epoch has 3 on"
    ):
        run(clips, "scaled", trainer__max_epochs=3, trainer__devices=1, **scaled)


def test_bfloat16_stays_near_float32(clips):
    _, full = run(clips, "full")
    _, half = run(clips, "half", trainer__precision="bf16")
    a, b = read_epochs(full)[-1]["val/loss"], read_epochs(half)[-1]["val/loss"]
    assert a == pytest.approx(b, rel=0.02)  # bfloat16 keeps 8 bits
    assert all(array.dtype == jnp.float32 for array in parameters(half).values())


@pytest.mark.parametrize(("room", "writes"), [(lock, "_take"), (run_dir, "write_rows")])
def test_a_signal_while_the_folder_is_made_leaves_a_run_or_nothing(
    clips, monkeypatch, room, writes
):
    before = getattr(room, writes)

    def stopped(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return before(*arguments)

    monkeypatch.setattr(room, writes, stopped)
    with pytest.raises(signals.Interrupted):
        run(clips)
    if room is lock:
        assert not (clips / "run").exists()
    else:
        assert (clips / "run" / "config.json").exists()
    monkeypatch.undo()
    metrics, folder = run(clips)
    assert metrics["test"]
    assert (folder / "config.json").exists()
    assert not (folder / lock.NAME).exists()
