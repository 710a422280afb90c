"""Answers about every row of a file, against sums over every set."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from pyarrow import parquet

from jaxvae.data import encoding
from jaxvae.data.encoding import TagBlock
from jaxvae.data.layouts import columns
from jaxvae.data.sources import Source
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.inference import likelihood, pool, queries
from jaxvae.inference.ensemble import Ensemble
from jaxvae.inference.files import row_files
from jaxvae.inference.run import Run
from tests.helpers.exact_likelihood import exact, network
from tests.helpers.tables import read_column

TAXONOMY = Taxonomy.from_mapping({"letters": ["a", "b", "c", "d"]}, source="test")
PRIORS = {"normal": {}, "mixture": {"prior": "mixture", "num_components": 5}}


def opened(tmp_path, net) -> Run:
    return Run(tmp_path, {}, TAXONOMY, net, {})


def write_sets(tmp_path, sets):
    path = tmp_path / "rows.csv"
    cells = [json.dumps([tag for tag, has in zip("abcd", row, strict=True) if has]) for row in sets]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["aspect_list"], *([cell] for cell in cells)])
    return path


def read(path):
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [
            {name: json.loads(value) if value else None for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def marginals_given(sets, probability, row):
    fits = sets[:, row].all(axis=1)
    return probability[fits] @ sets[fits] / probability[fits].sum()


@pytest.mark.parametrize("prior", PRIORS)
def test_missing_tags_have_their_conditional_probability(prior, tmp_path):
    net = network(2, **PRIORS[prior])
    sets, probability = exact(net, 301)
    output = tmp_path / "out.parquet"
    opened(tmp_path, net).complete_file(write_sets(tmp_path, sets), output, top=4)
    for row, found in zip(sets[1:], read(output)[1:], strict=True):
        truth = marginals_given(sets, probability, row)
        missing = TAXONOMY.columns(found["tags"])
        assert set(missing) == set(np.flatnonzero(~row))
        assert found["probabilities"] == sorted(found["probabilities"], reverse=True)
        for tag, p in zip(found["tags"], found["probabilities"], strict=True):
            expected = truth[TAXONOMY.column(tag)]
            error = np.sqrt(expected * (1.0 - expected) / found["effective_draws"])
            assert abs(p - expected) < 5.0 * error + 1e-5
            assert error < 0.02  # else anything would pass


def test_effective_draws_are_the_share_of_the_pool_that_agrees(tmp_path):
    net = network(1)
    axis = np.linspace(-7.0, 7.0, 20_001)[:, None]
    p = 1.0 / (1.0 + np.exp(-queries.logits(net, axis.astype(np.float32)).astype(np.float64)))
    mass = np.exp(-0.5 * np.square(axis[:, 0]))
    mass /= mass.sum()
    row = np.array([True, False, True, False])
    weights = p[:, row].prod(axis=1)
    share = (mass @ weights) ** 2 / (mass @ np.square(weights))
    assert share < 0.9
    output = tmp_path / "out.jsonl"
    run = opened(tmp_path, net)
    run.complete_file(write_sets(tmp_path, [row]), output, draws=50_000)
    assert read(output)[0]["effective_draws"] == pytest.approx(50_000 * share, rel=0.03)


@pytest.mark.parametrize("prior", PRIORS)
def test_likelihoods_agree_with_integration(prior, tmp_path):
    net = network(2, **PRIORS[prior])
    sets, probability = exact(net, 301)
    output, run = tmp_path / "out.parquet", opened(tmp_path, net)
    counts = run.likelihood_file(write_sets(tmp_path, sets), output, num_importance_samples=2000)
    assert counts[:4] == (16, 1, 0, 0)
    empty, *found = read(output)
    assert empty == {name: 0 if name == "row" else None for name in row_files.LIKELIHOODS}
    for row, line, truth in zip(sets[1:], found, probability[1:], strict=True):
        assert line["known_tags"] == row.sum()
        error = line["standard_error"]
        assert error < 0.2
        assert abs(line["log_likelihood"] - np.log(truth)) < 5.0 * error
        rest = line["log_likelihood_nonempty"] - line["log_likelihood"]
        assert rest == pytest.approx(-np.log1p(-probability[0]), abs=0.01)
        relative_variance = 2000 * error**2  # of one draw's weight, so that n / (1 + it) is Kish's
        assert line["effective_draws"] == pytest.approx(2000 / (1 + relative_variance), rel=2e-3)


def test_one_draw_has_no_standard_error(tmp_path):
    output = tmp_path / "out.csv"
    source = write_sets(tmp_path, [[True, False, False, False]])
    opened(tmp_path, network(2)).likelihood_file(source, output, num_importance_samples=1)
    (line,) = read(output)
    assert line["standard_error"] is None
    assert line["effective_draws"] == 1.0


def test_an_ensembles_answers_are_the_mixtures(tmp_path):
    nets = [network(1, seed=3), network(1, seed=5, scale=8.0)]
    sets, first = exact(nets[0], 20_001)
    _, second = exact(nets[1], 20_001)
    mixture = 0.5 * (first + second)
    row = np.array([True, False, False, False])
    shares = [
        each[sets[:, 0]].sum() / (2.0 * mixture[sets[:, 0]].sum()) for each in (first, second)
    ]
    assert abs(shares[0] - 0.5) > 0.1  # or an even mixture of the answers would pass
    ensemble = Ensemble(tuple(opened(tmp_path, net) for net in nets))
    source, output = write_sets(tmp_path, [row]), tmp_path / "out.jsonl"
    ensemble.complete_file(source, output)
    (found,) = read(output)
    truth = marginals_given(sets, mixture, row)
    for tag, p in zip(found["tags"], found["probabilities"], strict=True):
        assert p == pytest.approx(truth[TAXONOMY.column(tag)], abs=0.01)
    ensemble.likelihood_file(source, output, num_importance_samples=5000)
    (line,) = read(output)
    (at,) = np.flatnonzero((sets == row).all(axis=1))
    assert abs(line["log_likelihood"] - np.log(mixture[at])) < 5 * line["standard_error"] < 0.1
    assert 100 < line["effective_draws"] < 10_000


def test_the_standard_error_and_the_draws_of_a_mixture_by_hand():
    members = [
        likelihood.RowLikelihood(np.log([0.3]), np.array([0.04]), *[np.zeros(1)] * 3),
        likelihood.RowLikelihood(np.log([0.1]), np.array([0.01]), *[np.zeros(1)] * 3),
    ]
    log_p, variance, effective = likelihood.mix(members, 11)
    assert log_p[0] == pytest.approx(np.log(0.2))
    # Shares 3/4 and 1/4; relative variances of a weight 0.04 * 10 and 0.01 * 10.
    assert variance[0] == pytest.approx(0.75**2 * 0.04 + 0.25**2 * 0.01)
    assert effective[0] == pytest.approx(1 / ((0.75**2 * 1.4 + 0.25**2 * 1.1) / 11))
    _, _, alone = likelihood.mix(members[:1], 11)
    assert alone[0] == pytest.approx(11 / 1.4)


@pytest.mark.long
def test_every_format_has_the_same_rows_whatever_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(likelihood, "_ROWS", 8)
    net = network(2)
    sets, _ = exact(net, 3)
    sets = np.concatenate([sets, sets[::-1], sets[3:8]])
    run, source = opened(tmp_path, net), write_sets(tmp_path, sets)
    together = {}
    for ask in ("complete_file", "likelihood_file"):
        getattr(run, ask)(source, tmp_path / "whole.parquet")
        together[ask] = read(tmp_path / "whole.parquet")
    monkeypatch.setattr(row_files, "CHUNK", 8)
    for ask, whole in together.items():
        assert [line["row"] for line in whole] == list(range(len(sets)))
        for suffix in ("csv", "jsonl", "parquet"):
            output = tmp_path / f"out.{suffix}"
            assert getattr(run, ask)(source, output).rows == len(sets)
            lines = read(output)
            for line, expected in zip(lines, whole, strict=True):
                for name, value in expected.items():
                    is_number = isinstance(value, float)
                    close = pytest.approx(value, rel=1e-5) if is_number else value
                    if name == "probabilities" and value is not None:
                        close = pytest.approx(value, rel=1e-5)
                    assert line[name] == close
    known = sets.any(axis=1)
    rows = encoding.pad_tag_ids([np.flatnonzero(row).tolist() for row in sets], 4)
    alone = run.row_likelihood(rows, 100, 0).log_likelihood
    found = [line["log_likelihood"] for line in together["likelihood_file"]]
    assert np.array(found)[known].tolist() == alone[known].tolist()


def test_what_cannot_be_read_is_counted_and_keeps_its_row(tmp_path):
    source, output = tmp_path / "rows.csv", tmp_path / "out.csv"
    source.write_text('tags\n"a, zzz"\nzzz\n"[\'b\', 7]"\n"[\'B\']"\n')
    run = opened(tmp_path, network(2))
    counts = run.complete_file(source, output, column="tags", top=2)
    assert counts == (4, 1, 1, 2, "column tags")
    lines = read(output)
    assert [line["row"] for line in lines] == [0, 1, 2, 3]
    assert [line["tags"] is None for line in lines] == [False, True, True, False]
    assert all(len(lines[at]["tags"]) == 2 for at in (0, 3))
    assert "b" not in lines[3]["tags"]
    # What was written is a column of tags that training reads.
    cells = [cell for _, cell in read_column(output, "tags")]
    assert json.loads(cells[0]) == lines[0]["tags"]


def test_a_file_is_read_as_training_read_its_own(tmp_path):
    source, output = tmp_path / "rows.csv", tmp_path / "out.jsonl"
    source.write_text("item,tags\n1,a\n2,b\n1,c\n")
    data = {"layout": "long", "group_by": "item", "aspect_column": "tags", "min_weight": None}
    run = dataclasses.replace(opened(tmp_path, network(2)), config={"data": data})
    run.likelihood_file(source, output)
    assert [line["known_tags"] for line in read(output)] == [2, 1]
    run.likelihood_file(source, output, column="tags")
    assert [line["known_tags"] for line in read(output)] == [1, 1, 1]
    source.write_text("tags\na|c\nb\n")
    run.config["data"] = {"aspect_column": "tags", "separator": "|", "split_column": "fold"}
    run.likelihood_file(source, output)
    assert [line["known_tags"] for line in read(output)] == [2, 1]


def test_rows_are_answered_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "CHUNK", 8)
    answered, waiting = 0, []

    def likeliest(shared, rows, *, top, ask=pool.likeliest_tags):
        nonlocal answered
        answered += len(rows)
        return ask(shared, rows, top=top)

    def blocks():
        for number in range(20):
            waiting.append(5 * number - answered)
            yield TagBlock(5, ["a"], np.zeros(5, np.int64), np.arange(5), [])

    monkeypatch.setattr(pool, "likeliest_tags", likeliest)
    monkeypatch.setattr(row_files, "open_file", lambda *_: Source(blocks(), "rows.csv"))
    run = opened(tmp_path, network(2))
    counts = run.complete_file(tmp_path / "rows.csv", tmp_path / "out.csv", draws=8)
    assert counts.rows == answered == 100
    assert max(waiting) < 8


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_broken_file_leaves_what_was_there(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(columns, "BLOCK", 8)
    monkeypatch.setattr(row_files, "CHUNK", 8)
    source, output = tmp_path / "rows.csv", tmp_path / f"out.{suffix}"
    output.write_text("before")
    source.write_text("aspect_list\n" + "a\n" * 20 + 'a,b,"c\n')
    run = opened(tmp_path, network(2))
    with pytest.raises(InputError, match=r"rows\.csv"):
        run.complete_file(source, output, draws=8)
    assert output.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "rows.csv"]
    source.write_text("aspect_list\n" + "a\n" * 20)
    run.complete_file(source, output, draws=8)
    assert len(read(output)) == 20


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top": 0}, "top 0"),
        ({"draws": 0}, "draws 0"),
        ({"seed": -1}, "seed -1"),
        ({"column": "mood"}, "mood"),
        ({"output": "out.txt"}, r"must end in \.csv, \.jsonl, \.parquet"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(options, says, tmp_path):
    run = opened(tmp_path, network(2))
    source, output = write_sets(tmp_path, [[True] * 4]), options.pop("output", "out.csv")
    with pytest.raises(InputError, match=says):
        run.complete_file(source, tmp_path / output, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_of_a_wide_vocabulary_the_pool_is_smaller():
    assert pool.default_draws(200) == 32_768
    assert pool.default_draws(1000) == 8388
    assert pool.default_draws(10**6) == 512
    with pytest.raises(InputError, match="5000000: for 100 tags at most 2684354"):
        pool.check_draws(5_000_000, 100)
    pool.check_draws(2_684_354, 100)
