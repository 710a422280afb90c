"""Tag sets to order, written from the shell."""

import csv
import errno
import hashlib
import json

import numpy as np
import pytest
from pyarrow import parquet

import jaxvae
from jaxvae.cli import main
from jaxvae.errors import InputError
from jaxvae.evaluation.sets import sample_quality
from jaxvae.evaluation.sets.set_files import TagFile, evaluate_set_files
from jaxvae.inference.generation import draws, latents
from jaxvae.inference.generation.balancing import factors
from jaxvae.inference.generation.draws import Draws
from jaxvae.inference.generation.tables import table
from jaxvae.storage import atomic_files
from tests.helpers.commands import refused, shell

pytestmark = pytest.mark.usefixtures("optimized")

ORDER = ("--with", "jazz", "--without", "fast tempo", "--count", "genre=1..2, tempo=..1", "--tags", "3..12")  # fmt: skip


@pytest.fixture(autouse=True)
def _small_pilots_and_no_trees(monkeypatch):
    monkeypatch.setattr(latents, "_ROUND", 4096)
    monkeypatch.setattr(latents, "_PILOT", 4096)
    monkeypatch.setattr(factors, "_LEAST_POOL", 2048)
    monkeypatch.setattr(factors, "_MOST_POOL", 2048)
    monkeypatch.setattr(sample_quality, "two_sample_test", lambda *sides, seed: {"size": 0})


def lists(row, names):
    return [json.loads(row[name]) for name in names]


@pytest.mark.long
def test_a_table_has_what_was_ordered(capsys, folder, tmp_path):
    out = tmp_path / "tags.csv"
    shell(
        capsys, "generate", folder, "--num", 300, "--output", out, *ORDER, "--distinct", "--unseen",
        "--likelihood", 20, "--splits", "0.6,0.3,0.1",
    )  # fmt: skip
    run = jaxvae.load(folder)
    concepts = [f"{concept}_tags" for concept, _ in run.taxonomy.concepts]
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "tags", *concepts, "temperature", "split", "log_likelihood"]
    for row in rows:
        tags, *by_concept = lists(row, ["tags", *concepts])
        assert tags == [tag for some in by_concept for tag in some]
        normal = sorted(run.taxonomy.tags[v] for v in run.taxonomy.columns(tags))
        assert row["id"] == hashlib.sha256("\n".join(normal).encode()).hexdigest()[:16]
    sets = [json.loads(row["tags"]) for row in rows]
    options = {"count": {"genre": (1, 2), "tempo": (0, 1)}, "tags": (3, 12), "distinct": True}
    ordered = run.generate(300, present=["jazz"], absent=["fast tempo"], unseen=True, **options)
    assert sets == ordered.sets
    nats = [float(row["log_likelihood"]) for row in rows]
    assert nats == pytest.approx(run.log_likelihood(sets, num_importance_samples=20), rel=1e-5)
    splits = [row["split"] for row in rows]
    # Shares of 300 draws, within four standard deviations of 0.6 and 0.1.
    assert abs(splits.count("train") - 180) < 34
    assert abs(splits.count("test") - 30) < 21
    record = json.loads((tmp_path / "tags.csv.json").read_text())
    assert record["constraints"] == {
        "present": ["jazz"], "absent": ["fast tempo"], "count": {"genre": [1, 2], "tempo": [0, 1]},
        "tags": [3, 12],
    }  # fmt: skip
    assert record["sets_in_split"] == {
        name: splits.count(name) for name in ("train", "val", "test")
    }
    assert record["log_probability"] == ordered.log_probability
    assert record["draws"] == 300 + record["repeats"] + record["near_training"]
    assert record["tags_per_set"] == pytest.approx(np.mean([len(tags) for tags in sets]))


@pytest.mark.long
def test_formats_agree_and_chunks_and_parts_make_no_difference(
    capsys, folder, tmp_path, monkeypatch
):
    command = ("generate", folder, "--num", 600, "--temperature", 0.4, "--likelihood", 2)
    for name, chunk, part in (("a.jsonl", 4096, 8), ("b.jsonl", 512, 1), ("a.parquet", 4096, 8)):
        monkeypatch.setattr(table, "CHUNK", chunk)
        monkeypatch.setattr(table, "PART", part)
        shell(capsys, *command, "--output", tmp_path / name)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    rows = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert len(rows) == 600
    for row, line in zip(rows, lines, strict=True):
        assert row.pop("log_likelihood") == pytest.approx(line.pop("log_likelihood"), rel=1e-5)
        assert row == line
    by_set = {}
    for row in rows:  # without --distinct
        by_set.setdefault(tuple(row["tags"]), set()).add((row["id"], row["split"]))
    assert len(by_set) < 600
    assert all(len(pairs) == 1 for pairs in by_set.values())


def test_what_can_not_be_is_a_line_and_leaves_nothing(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "FLOOR", 0.5)
    for arguments, message in (
        (("--with", "jaz"), "did you mean 'jazz'"),
        (("--count", "genr=1"), "unknown concept 'genr' (did you mean 'genre'?)"),
        (("--count", "genre=4..3"), "the range is empty"),
        (("--tags", "3-4"), "--tags '3-4': expected a number, or a range"),
        (("--with", "jazz", "--without", "jazz"), "both present and absent: jazz"),
        (("--with", "jazz"), "present jazz: fewer than one set in 2 of the model's"),
        (("--splits", "0.9,0.2,0.1"), "sum to 1, not 1.2"),
        (("--splits", "0.9,0.1"), "give three shares"),
        (("--splits", "most"), "expected shares"),
        (("--min-distance", -1), "--min-distance -1: must be"),
        (("--min-distance", 0, "--unseen"), "--min-distance 0: must be"),
        (("--likelihood", 0), "--likelihood 0: must be"),
        (("--tags", 3, "--seed", 1, "--tags", 4), "--tags is given twice"),
        (("--count", "genre=1", "--count", "genre=2"), "--count: genre is given twice"),
    ):
        command = ("generate", folder, "--num", 5, "--output", tmp_path / "t.csv", *arguments)
        assert message in refused(capsys, *command)
    for name in ("t.txt", "t"):
        command = ("generate", folder, "--num", 5, "--output", tmp_path / name)
        assert "must end in .csv, .jsonl, .parquet" in refused(capsys, *command)
    model = folder / "model.pth"
    command = ("generate", model, "--num", 5, "--output", tmp_path / "t.csv", "--unseen")
    assert "no rows.npz" in refused(capsys, *command)
    assert not list(tmp_path.iterdir())


def test_a_table_is_not_written_over_the_rows_it_was_trained_on(run, tmp_path):
    rows = tmp_path / "clips.csv"
    rows.write_text("tags\njazz\n")
    run = jaxvae.load(run.folder)
    run.config["data"]["dataset_name"] = str(rows)
    with pytest.raises(InputError, match="is the input file too"):
        run.generate_file(3, rows)
    run.generate_file(3, tmp_path / "others.csv")
    assert rows.read_text() == "tags\njazz\n"


@pytest.mark.parametrize("full", [False, True])
def test_a_full_disk_leaves_nothing_half_written(capsys, folder, tmp_path, monkeypatch, full):
    def fail(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "t.csv").write_text("older\n")
    command = ("generate", folder, "--num", 5, "--output", tmp_path / "t.csv")
    if full:
        monkeypatch.setattr(atomic_files.os, "fsync", fail)
        assert "No space left on device" in refused(capsys, *command)
    else:
        shell(capsys, *command)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.csv.json"][: 2 - full]
    assert ((tmp_path / "t.csv").read_text() == "older\n") == full


@pytest.mark.long
def test_a_balanced_table_has_equally_many_of_each_tag(capsys, folder, tmp_path):
    for number, tags in enumerate(("jazz, rock", '["Jazz", "rock"]')):
        out = tmp_path / f"{number}.jsonl"
        shell(capsys, "generate", folder, "--num", 80, "--balance", tags, "--output", out)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        counts = {
            tag: [line["split"] for line in lines if tag in line["tags"]]
            for tag in ("jazz", "rock")
        }
        assert [splits.count("train") for splits in counts.values()] == [36, 36]
        assert [len(splits) for splits in counts.values()] == [40, 40]
        record = json.loads((tmp_path / f"{number}.jsonl.json").read_text())["balance"]
        assert [*record["shares"].values()] == [0.5, 0.5]
        assert sum(record["shares_in_model"].values()) == pytest.approx(1.0)
    command = ("generate", folder, "--num", 80, "--output", tmp_path / "t.csv", "--balance")
    assert "unknown concept 'genr' (did you mean 'genre'?)" in refused(capsys, *command, "genr")


@pytest.mark.long
def test_the_column_says_which_of_several_temperatures(capsys, folder, tmp_path):
    out = tmp_path / "t.jsonl"
    command = ("generate", folder, "--num", 20, "--output", out, "--temperature")
    shell(capsys, *command, "0.5,1,2", "--balance", "jazz, rock")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["temperature"] for line in lines] == [0.5] * 20 + [1.0] * 20 + [2.0] * 20
    record = json.loads((tmp_path / "t.jsonl.json").read_text())
    assert record["temperature"] == [0.5, 1.0, 2.0]
    assert record["sets"] == 60
    assert [entry["draws"] > 0 for entry in record["by_temperature"]] == [True] * 3
    assert {"shares", "shares_in_model"} <= {*record["by_temperature"][0]["balance"]}
    assert "expected numbers, as 0.5,1,2" in refused(capsys, *command, "hot")


def test_a_table_of_pairs_has_both_and_the_difference(capsys, folder, tmp_path):
    out = tmp_path / "p.jsonl"
    shell(
        capsys, "generate", folder, "--pairs", "Jazz", "--num", 30, "--output", out,
        "--temperature", "1,2", "--likelihood", 5,
    )  # fmt: skip
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["pair"] for line in lines] == [number // 2 for number in range(120)]
    for having, without in zip(lines[::2], lines[1::2], strict=True):
        assert {*having["tags"]} - {*without["tags"]} == {"jazz"}
        assert (having["with_tag"], without["with_tag"]) == (1, 0)
        assert having["split"] == without["split"]
        difference = having["log_likelihood"] - without["log_likelihood"]
        assert having["log_likelihood_difference"] == pytest.approx(difference, abs=1e-3)
        assert having["log_likelihood_difference"] == without["log_likelihood_difference"]
    assert json.loads((tmp_path / "p.jsonl.json").read_text())["sets"] == 120
    command = ("generate", folder, "--output", out)
    assert "--num: say how many" in refused(capsys, *command)


@pytest.mark.long
def test_variants_of_a_file_name_its_rows(capsys, folder, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text('id,tags\n1,"[""jazz"", ""piano"", ""polka""]"\n2,[]\n3,"[""rock""]"\n')
    out, command = tmp_path / "v.jsonl", ("generate", folder, "--output", tmp_path / "v.jsonl")
    like = (*command, "--like", rows, "--column", "tags")
    shell(capsys, *like, "--per-row", 2, "--distance", 0.5, "--without", "rock")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["source_row"] for line in lines] == [0, 0, 2, 2]
    assert not any("rock" in line["tags"] for line in lines)
    record = json.loads((tmp_path / "v.jsonl.json").read_text())
    assert record["like"] == {
        "rows": 2, "without_known_tag": 1, "unreadable": 0, "unknown_tags": 1, "per_row": 2,
        "distance": 0.5,
    }  # fmt: skip
    for temperatures in ("1", "0.5,2"):
        assert main.main([*map(str, like), "--temperature", temperatures]) == 0
        ignored = "2 rows; 1 without a known tag and 0 unreadable left out; 1 unknown tags ignored"
        assert ignored in capsys.readouterr().err
    shell(capsys, *command, "--between", "jazz, piano", "rock", "--steps", 3)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["position"] for line in lines] == [0.0, 0.5, 1.0]
    for arguments, message in (
        (("--num", 3, "--per-row", 2), "--per-row goes with --like"),
        (("--like", rows, "--num", 3), "--num does not go with --like"),
        (("--num", 3, "--steps", 2), "--steps goes with --between"),
        (("--like", rows, "--between", "jazz", "rock"), "like and between: give one of them"),
    ):
        assert message in refused(capsys, *command, *arguments)
    rows.write_text("id,tags\n1,zydeco\n")
    assert "none of its 1 rows, read as column tags, has a tag of" in refused(capsys, *like)
    wrong = refused(capsys, *command, "--like", rows, "--column", "tgas")
    assert "name the column of tags by --column, several as a,b,c\n" in wrong
    for name in ("embedded", "user/data", "nothing", "my.py:rows"):
        assert f"{name}: no such file" in refused(capsys, *command, "--like", name)
        encode = ("encode", folder, "--input", name, "--output", tmp_path / "t.csv")
        assert f"{name}: no such file" in refused(capsys, *encode)
    table_of_rows = ("generate", folder, "--output", rows, "--like", rows)
    assert "is the input file too" in refused(capsys, *table_of_rows)


def write_rows(path, rows):
    path.write_text("".join(json.dumps({"tags": tags}) + "\n" for tags in rows))
    return TagFile(path)


@pytest.mark.long
def test_the_figures_beside_a_table_are_those_of_evaluate_sets(capsys, folder, tmp_path, run):
    out = tmp_path / "t.jsonl"
    shell(capsys, "generate", folder, "--num", 200, "--output", out, "--seed", 2)
    figures = json.loads((tmp_path / "t.jsonl.json").read_text())["figures"]
    sides = {
        name: write_rows(tmp_path / f"{name}.jsonl", run.names(run.sets(name)))
        for name in ("test", "train")
    }
    judged = evaluate_set_files(
        TagFile(out, "tags"), sides["test"], taxonomy=run.taxonomy, train=sides["train"], seed=2
    )
    assert (figures["split"], figures["compared"]) == ("test", 200)
    names = [name for name in judged if name.startswith("sets/") and name != "sets/intervals"]
    assert len(names) > 10
    for name in names:
        assert figures[name] == judged[name], name
    low, high = figures["sets/intervals"]["tags_per_set_mean"]
    assert low < figures["sets/tags_per_set_mean"] < high
    command = ("generate", folder, "--num", 5, "--output", out)
    shell(capsys, *command, "--no-figures")
    assert "figures" not in json.loads((tmp_path / "t.jsonl.json").read_text())
    shell(capsys, "generate", folder / "model.pth", *command[2:])
    record = json.loads((tmp_path / "t.jsonl.json").read_text())
    assert record["figures"] == {"none_because": "the model came without rows"}


def test_of_many_sets_a_sample_is_compared(monkeypatch, run, tmp_path):
    monkeypatch.setattr(table, "_JUDGED", 50)
    monkeypatch.setattr(table, "CHUNK", 64)
    judged = []
    run.generate_file(300, tmp_path / "t.jsonl", judge=lambda sets: judged.append(sets) or {})
    sample = run.names(judged[0])
    every = [tuple(tags) for tags in run.generate(300).sets]
    positions = [every.index(tuple(tags)) for tags in sample]
    assert len(sample) == 50
    assert max(positions) > 200


@pytest.mark.long
def test_a_table_of_shares_and_one_of_reweighted_sets(capsys, folder, tmp_path):
    command = ("generate", folder, "--num", 60, "--output", tmp_path / "t.jsonl", "--balance")
    shell(capsys, *command, "jazz=0.7, rock=0.3")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [sum(tag in line["tags"] for line in lines) for tag in ("jazz", "rock")] == [42, 18]
    assert "shares sum to 1, not 0.8" in refused(capsys, *command, "jazz=0.5, rock=0.3")
    shell(capsys, *command, "tempo", "--count", "tempo=1..2")
    record = json.loads((tmp_path / "t.jsonl.json").read_text())["balance"]
    rates = [*record["rates"].values()]
    assert 60 * (max(rates) - min(rates)) < 15
    assert len(record["factors"]) == len(rates) > 2


def test_no_input_is_written_over_and_nothing_is_drawn_where_nothing_can_be_written(
    capsys, folder, tmp_path, monkeypatch
):
    rows, text = tmp_path / "t.csv.json", tmp_path / "prompt.csv"
    rows.write_text('[{"tags": ["jazz"]}]')
    text.write_text("{{ genre }}")
    (tmp_path / "r.csv.json").mkdir()
    kept = {path: path.read_bytes() for path in (rows, text, folder / "metrics.jsonl")}
    monkeypatch.setattr(Draws, "__init__", lambda *_, **__: pytest.fail("something was drawn"))
    command = ("generate", folder, "--num", 3, "--no-figures", "--output")
    for arguments, message in (
        ((folder / "metrics.jsonl",), "is a file of"),
        ((folder / "checkpoints" / "t.csv",), "is a file of"),
        ((text, "--template", text), "output " + str(text) + ": is the input file too"),
        ((tmp_path / "r.csv",), "r.csv.json: can't be written: it is a folder"),
        ((tmp_path / "u.csv", "--card", "/proc/new/README.md"), "README.md: can't be written"),
    ):
        assert message in refused(capsys, *command, *arguments)
    like = ("generate", folder, "--like", rows, "--output", tmp_path / "t.csv")
    assert "record " + str(rows) + ": is the input file too" in refused(capsys, *like)
    for name in ("encode", "likelihood", "complete"):
        output = folder / ("rows.npz" if name == "encode" else "metrics.jsonl")
        assert "is a file of" in refused(capsys, name, folder, "--input", rows, "--output", output)
    page = tmp_path / "rows.html"
    page.hardlink_to(text)
    command = ("evaluate-sets", text, "--against", text, "--output", page)
    assert "rows.html: is the input file too" in refused(capsys, *command)
    assert {path: path.read_bytes() for path in kept} == kept
    names = ["prompt.csv", "r.csv.json", "rows.html", "t.csv.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_options_that_are_lists_may_be_given_again(capsys, folder, tmp_path):
    out, command = tmp_path / "t.jsonl", ("generate", folder, "--num", 5, "--no-figures")
    lists = ("--with", "jazz", "--without", "rock", "--count", "mood=1", "--with", '["piano"]')
    shell(capsys, *command, "--output", out, *lists, "--without", "calming", "--count", "tempo=0")
    constraints = json.loads((tmp_path / "t.jsonl.json").read_text())["constraints"]
    assert constraints["count"] == {"mood": [1, 1], "tempo": [0, 0]}
    assert sorted(constraints["present"]) == ["jazz", "piano"]
    assert sorted(constraints["absent"]) == ["calming", "rock"]
    both = shell(capsys, "complete", folder, "--with", "jazz", "--with", "piano", "--format", "csv")
    assert both == shell(capsys, "complete", folder, "--with", "jazz, piano", "--format", "csv")
    assert both != shell(capsys, "complete", folder, "--with", "piano", "--format", "csv")


def test_a_tag_of_pairs_may_be_in_quotes(capsys, folder, tmp_path):
    out = tmp_path / "t.jsonl"
    command = ("generate", folder, "--num", 2, "--no-figures", "--output", out, "--pairs")
    shell(capsys, *command, '"jazz"')
    assert json.loads(out.read_text().splitlines()[0])["tags"].count("jazz") == 1
    assert "unknown tag 'jaz'" in refused(capsys, *command, '"jaz"')
