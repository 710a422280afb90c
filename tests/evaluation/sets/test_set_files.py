"""Two files of tag sets, compared without a model."""

import functools
import json
import re

import numpy as np
import pytest
import sklearn.ensemble

from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.evaluation.sets import set_files
from jaxvae.evaluation.sets.intervals import bootstrap_intervals
from jaxvae.evaluation.sets.sample_quality import compare_sets, describe_sets
from jaxvae.evaluation.sets.set_files import TagFile, evaluate_set_files
from tests.helpers.commands import refused, shell

TAXONOMY = Taxonomy.from_mapping({"genre": ["jazz", "r&b"], "mood": ["calm", "sad"]}, source="test")


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    boosting = functools.partial(sklearn.ensemble.GradientBoostingClassifier, n_estimators=5)
    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingClassifier", boosting)


def write(path, rows):
    path.write_text(
        "".join(json.dumps({"n": n, "tags": tags}) + "\n" for n, tags in enumerate(rows))
    )
    return TagFile(path)


def test_figures_are_those_of_sample_quality(tmp_path):
    rng = np.random.default_rng(0)
    rows, sets, seen = (
        rng.random((num, 4)) < rate for num, rate in ((60, 0.5), (40, 0.6), (50, 0.5))
    )
    rows[:, 0] = sets[:, 1] = seen[:, 2] = True
    files = [
        write(tmp_path / f"{n}.jsonl", [TAXONOMY.names(np.flatnonzero(row)) for row in some])
        for n, some in enumerate((sets, rows, seen))
    ]
    judged = evaluate_set_files(*files[:2], taxonomy=TAXONOMY, train=files[2], seed=3)
    expected = compare_sets(
        {"sets": sets}, rows, seen, tags=TAXONOMY.spellings, concepts=TAXONOMY.concepts, seed=3
    )["sets"]
    assert {name: judged[f"sets/{name}"] for name in expected} == expected
    assert judged["files"]["rows"]["compared"] == 60
    # Other rows of the training's rates: as many, and hardly any that training has not.
    assert judged["train_rows/unseen_fraction"] == 0.0
    assert judged["independent/marginal_mae"] < judged["sets/marginal_mae"]
    alone = evaluate_set_files(*files[:2], taxonomy=TAXONOMY, seed=3)
    assert alone["sets/marginal_mae"] == expected["marginal_mae"]
    among = {*map(bytes, rows)}
    unseen = np.mean([bytes(row) not in among for row in sets])
    assert alone["sets/unseen_fraction"] == pytest.approx(unseen)


def test_figures_by_hand(tmp_path):
    rows = write(tmp_path / "rows.jsonl", [["jazz", "calm"], ["Jazz", "sad"], ["r&b"], ["polka"]])
    sets = write(tmp_path / "sets.jsonl", [["jazz", "calm"], ["jazz", "calm"], ["sad"], []])
    judged = evaluate_set_files(sets, rows, taxonomy=TAXONOMY)
    assert judged["files"] == {
        "sets": {"path": str(sets.path), "rows": 4, "without_known_tag": 1, "unreadable": 0, "unknown_tags": 0, "compared": 3},
        "rows": {"path": str(rows.path), "rows": 4, "without_known_tag": 1, "unreadable": 0, "unknown_tags": 1, "compared": 3},
    }  # fmt: skip
    # Rates 2/3, 0, 2/3, 1/3 beside 2/3, 1/3, 1/3, 1/3.
    assert judged["sets/marginal_mae"] == pytest.approx((1 / 3 + 1 / 3) / 4)
    assert judged["sets/tags_per_set_mean"] == pytest.approx(5 / 3)
    assert judged["sets/distinct_fraction"] == pytest.approx(2 / 3)
    assert judged["sets/unseen_fraction"] == pytest.approx(1 / 3)
    assert judged["sets/nearest_train_distance"] == pytest.approx(1 / 3)  # of sad from jazz, sad
    worst = {
        tag["tag"]: (tag["rate_samples"], tag["rate_data"]) for tag in judged["sets/worst_tags"]
    }
    assert {*[*worst][:2]} == {"r&b", "calm"}
    by_hand = {
        "jazz": (2 / 3, 2 / 3),
        "r&b": (0, 1 / 3),
        "calm": (2 / 3, 1 / 3),
        "sad": (1 / 3,) * 2,
    }
    assert worst == {tag: pytest.approx(rates) for tag, rates in by_hand.items()}
    assert judged["sets/tags_per_set_of_concept"] == {"genre": pytest.approx(2 / 3), "mood": 1.0}
    # Without a taxonomy the tag that only the rows have counts too.
    judged = evaluate_set_files(sets, rows)
    assert judged["tags"] == 5
    assert judged["files"]["rows"]["compared"] == 4


def test_of_large_files_some_rows_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(set_files, "_LEAST", 5)
    monkeypatch.setattr(set_files, "_SETS", 10)
    file = write(tmp_path / "rows.jsonl", [["jazz"], ["calm"]] * 20)
    counts = evaluate_set_files(file, file, taxonomy=TAXONOMY)["files"]
    assert [counts[name]["compared"] for name in ("sets", "rows")] == [10, 40]


def test_the_command_prints_a_table_or_json(capsys, tmp_path):
    rows, sets = (tmp_path / f"{name}.csv" for name in ("rows", "sets"))
    rows.write_text("tags\n" + '"jazz, calm"\n"r&b, sad"\n' * 10)
    sets.write_text("tags\n" + '"jazz, sad"\n"r&b, calm"\n' * 10)
    command = ("evaluate-sets", sets, "--against", rows)
    table = shell(capsys, *command)
    assert "two-sample AUC, logistic                      1.000" in table
    assert "sets not among the rows                       1.000" in table
    judged = json.loads(shell(capsys, *command, "--json", "--train", rows))
    assert judged["sets/auc_logistic"] == 1.0
    assert judged["train_rows/unseen_fraction"] == 0.0


def test_what_can_not_be_compared_is_a_line(capsys, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("tags\njazz\n")
    (tmp_path / "other.csv").write_text("tags\npolka\n")
    (tmp_path / "t.json").write_text(json.dumps(TAXONOMY.to_file()))
    others = ("--against", tmp_path / "other.csv", "--taxonomy", tmp_path / "t.json")
    for arguments, message in (
        ((tmp_path / "none.csv", "--against", rows), "no file"),
        (("embedded", "--against", rows), "embedded: no such file"),
        ((rows, "--against", "user/data"), "user/data: no such file"),
        ((rows, "--against", rows, "--column", "tag"), "no column 'tag' (did you mean 'tags'?)"),
        ((rows, "--against", rows, "--column", "tag"), "tags by --column, several as a,b,c\n"),
        ((rows, "--against", rows, "--against-column", "x"), "by --against-column, several"),
        ((rows, *others), "other.csv: none of its 1 rows has a tag of"),
        ((rows, "--against", rows, "--seed", -1), "seed -1"),
    ):
        assert message in refused(capsys, "evaluate-sets", *arguments)


def test_files_of_too_many_tags_need_a_taxonomy(tmp_path, monkeypatch):
    monkeypatch.setattr(set_files, "_COMMON", 1)
    file = write(tmp_path / "rows.jsonl", [["jazz"], ["calm"]])
    with pytest.raises(InputError, match=r"have 2 tags, too many .*--taxonomy"):
        evaluate_set_files(file, file)
    evaluate_set_files(file, file, taxonomy=TAXONOMY)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.3, 0.2, 0.7, 0.4, 0.1])
    moved = rates + 0.15
    held = {"tags_per_set_mean": 0, "marginal_mae": 0}
    truth = {"tags_per_set_mean": moved.sum(), "marginal_mae": 0.15}
    widths = []
    for seed in range(60):
        sets, rows = rng.random((300, 6)) < moved, rng.random((200, 6)) < rates
        intervals = bootstrap_intervals(sets, rows, rows, seed=seed, resamples=100)
        widths.append(np.diff(intervals["tags_per_set_mean"])[0])
        for name in held:
            low, high = intervals[name]
            held[name] += low <= truth[name] <= high
    assert min(held.values()) >= 50  # 57 of 60 are expected, 50 or fewer one time in a thousand
    sd = np.sqrt((moved * (1.0 - moved)).sum() / 300)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * sd, rel=0.1)


def test_intervals_of_errors_take_out_the_noise_of_resampling():
    rng = np.random.default_rng(0)
    sets, rows = rng.random((100, 6)) < 0.5, rng.random((100, 6)) < 0.5
    error = np.abs(sets.mean(axis=0) - rows.mean(axis=0)).mean()
    low, high = bootstrap_intervals(sets, rows, rows, seed=0)["marginal_mae"]
    assert (low + high) / 2.0 < error


@pytest.mark.parametrize("num_tags", [6, 200])
def test_every_interval_has_its_estimate_and_that_of_no_error_the_truth(num_tags):
    rng = np.random.default_rng(1)
    rates, with_truth = rng.uniform(0.02, 0.3, num_tags), 0
    for seed in range(10):
        sets, rows = rng.random((150, num_tags)) < rates, rng.random((100, num_tags)) < rates
        measures = describe_sets(sets, rows, rows, tags=[*map(str, range(num_tags))])
        for name, (low, high) in bootstrap_intervals(sets, rows, rows, seed=seed).items():
            assert low <= measures[name] <= high, name
            with_truth += name == "marginal_mae" and low == 0.0
    assert with_truth >= 8  # the files are draws from the same rates


def test_two_files_of_the_same_rows_are_closer_than_two_draws_would_be(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("rows", "sets"):
        names = [[f"tag {v}" for v in np.flatnonzero(row)] for row in rng.random((200, 12)) < 0.4]
        write(tmp_path / f"{name}.jsonl", names)
    command = ("evaluate-sets", tmp_path / "rows.jsonl", "--against")
    for name, is_said in (("rows", True), ("sets", False)):
        against = (tmp_path / f"{name}.jsonl", "--output", tmp_path / f"{name}.html")
        table = shell(capsys, *command, *against)
        assert ("beware: an AUC of" in table) == is_said
        assert ("the same rows in both files; 100.0 %" in table) == is_said
        page = (tmp_path / f"{name}.html").read_text()
        assert ("closer than two draws" in page) == is_said
        assert bool(re.search(r"sets that equal one of the rows +1\.000", table)) == is_said
