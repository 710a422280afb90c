"""Taxonomies made of the data, the splits that come first, and variants of one tag."""

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from jaxvae.cli import main
from jaxvae.data.dataset import format_report, load_dataset
from jaxvae.data.spelling import normalize
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.data.variants import find_variants
from jaxvae.data.vocabulary import FromData, make_vocabulary
from jaxvae.errors import InputError
from tests.conftest import ROOT


def write_lines(path, rows):
    path.write_text("".join(json.dumps({"tags": row}) + "\n" for row in rows))
    return path


def load(path, minimum=10, **options):
    options = {"val_fraction": 0.1, "test_fraction": 0.1, **options}
    return load_dataset(taxonomy=FromData(minimum), dataset_name=path, **options)


def tags_of(data, split):
    rows = data.rows[data.splits[split]]
    return [data.taxonomy.names(v for v in row if v < data.taxonomy.num_tags) for row in rows]


def test_jamendo_as_published(shared_data):
    path = shared_data / "mtg-jamendo-raw.tsv"
    data = load(path, 1, val_fraction=0.05, test_fraction=0.05)
    counts, concepts = Counter(), defaultdict(set)
    with path.open(encoding="utf-8") as file:
        next(file)
        rows = [line.rstrip("\n").split("\t")[5:] for line in file]
    for row in rows:
        counts.update(set(row))
        for tag in row:
            concepts[tag.partition("---")[0]].add(tag)
    assert len(rows) == data.report["rows_read"] == data.report["rows_kept"] == 11_101
    assert data.report["coverage"]["rows_per_tag"] == counts
    assert {name: set(tags) for name, tags in data.taxonomy.to_mapping().items()} == concepts
    sizes = {name: len(columns) for name, columns in data.taxonomy.concepts}
    assert sizes == {"genre": 87, "instrument": 40, "mood/theme": 56}


@pytest.mark.parametrize("split_by", ["row", "set"])
def test_tags_are_counted_in_the_training_rows_alone(tmp_path, split_by):
    rng = np.random.default_rng(0)
    rows = [
        [["Rock", "rock ", "jazz", "dub", "polka"][n] for n in rng.choice(5, 1 + n % 3, False)]
        for n in range(200)
    ]
    rows += [[f"once {n}"] for n in range(40)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    raw = load_dataset(  # all tags are kept, so that no row leaves
        taxonomy=FromData(0),
        dataset_name=path,
        val_fraction=0.1,
        test_fraction=0.1,
        split_by=split_by,
    )
    data = load(path, 40, split_by=split_by)
    train = Counter(tag for row in tags_of(raw, "train") for tag in row)
    assert set(data.taxonomy.spellings) == {tag for tag, count in train.items() if count >= 40}
    for split in ("train", "val", "test"):
        expected = [[tag for tag in row if train[tag] >= 40] for row in tags_of(raw, split)]
        kept = [sorted(row) for row in tags_of(data, split)]
        assert kept == [sorted(row) for row in expected if row]
        left = data.report["taxonomy_from_data"]["rows_left_without_tag"][split]
        assert left == len(expected) - len(kept)
    assert data.report["rows_without_known_tag"] == 240 - len(data.rows)
    text = format_report(data.report)
    assert "Tags left out, with fewer than 40 training rows: 4" in text
    assert "rows that had no other tag, and left: train" in text


def test_the_rows_of_validation_and_test_do_not_count(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [["rock", "jazz"]] * 30 + [["rock"]] * 70)
    counted = Counter(tag for row in tags_of(load(path, 1), "train") for tag in row)
    assert counted["jazz"] < 30
    assert load(path, counted["jazz"]).taxonomy.tags == ("rock", "jazz")
    assert load(path, counted["jazz"] + 1).taxonomy.tags == ("rock",)


def test_a_set_that_differs_by_a_rare_tag_is_another_set(tmp_path):
    """The raw sets are compared, before rare tags go."""
    rows = [["a", f"rare {n // 2}"] for n in range(100)] + [["a", "b"]] * 100
    data = load(write_lines(tmp_path / "a.jsonl", rows), 20, split_by="set")
    split_of = {n: name for name, positions in data.splits.items() for n in positions.tolist()}
    pairs = [(split_of[n], split_of[n + 1]) for n in range(0, 100, 2)]
    assert all(first == second for first, second in pairs)
    assert len({first for first, _ in pairs}) == 3
    assert len({split_of[n] for n in range(100, 200)}) == 1


@pytest.mark.parametrize(
    ("tags", "concepts"),
    [
        (["genre---rock", "genre---jazz", "mood/theme---calm", "mood/theme---dark"], 2),
        (["genre:rock", "genre:jazz", "mood: calm", "mood: dark"], 2),
        (["a::b:c", "a::d:c", "e::f:g", "e::h"], 2),
        (["rock", "jazz", "genre:dub", "2:30"], 1),
        (["a:b", "c:d", "e:f", "g:h"], 1),  # no two tags share a prefix
        ([":rock", ":jazz", ":dub", ":pop"], 1),
        ([*(f"genre:{n}" for n in range(19)), "odd"], 2),
    ],
)
def test_concepts_by_prefix(tags, concepts):
    made = make_vocabulary(
        FromData(1),
        tags=tags,
        spellings=tags,
        concepts=None,
        num_rows=np.ones(len(tags), int),
        source="here",
    )
    found = made.taxonomy.to_mapping()
    assert len(found) == concepts
    if concepts == 1:
        assert set(found) == {"tags"}
    for name, listed in found.items():
        assert all(name == "tags" or tag.startswith(name) for tag in listed)


def test_the_commonest_spelling_is_shown(tmp_path):
    rows = (
        [["HIP HOP"]] * 3
        + [[" Hip  Hop"]] * 20
        + [["Hip Hop"]] * 40
        + [["hip hop"]] * 50
        + [["x"]] * 30
    )
    assert load(write_lines(tmp_path / "a.jsonl", rows)).taxonomy.spellings == ("Hip Hop", "x")


def test_too_few_rows_are_said(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [["rock"]] * 9 + [["jazz"]] * 9)
    with pytest.raises(InputError, match=r"no tag has 10 training rows, the commonest has \d; low"):
        load(path)
    with pytest.raises(InputError, match="none of 30 rows has a tag"):
        load(write_lines(tmp_path / "b.jsonl", [[]] * 30))


def test_the_reports_name_the_way_where_the_taxonomy_knows_little(tmp_path):
    known = Taxonomy.from_mapping({"all": ["rock"]}, source="mine.json")
    options = {"taxonomy": known, "val_fraction": 0.1, "test_fraction": 0.1}
    few = write_lines(tmp_path / "a.jsonl", [["rock", "jazz", "dub"]] * 40)
    report = load_dataset(dataset_name=few, **options).report
    assert "33% of the tags read are known to mine.json" in report["hints"][0]
    assert "--config.data.taxonomy_path=from_data" in " ".join(format_report(report).split())
    half = write_lines(tmp_path / "b.jsonl", [["rock", "jazz"]] * 40)
    assert load_dataset(dataset_name=half, **options).report["hints"] == []
    none = write_lines(tmp_path / "c.jsonl", [["jazz"]] * 40)
    with pytest.raises(InputError, match="taxonomy_path=from_data"):
        load_dataset(dataset_name=none, **options)


@pytest.mark.parametrize("kind", ["words", "truth", "files"])
def test_given_splits(tmp_path, kind):
    words = ["train"] * 50 + ["Validation"] * 10 + ["TEST"] * 20
    rows = [
        {"id": n, "tags": [f"t{n}"], "split": word, "is_eval": word == "TEST"}
        for n, word in enumerate(words)
    ]
    lines = [json.dumps(row) for row in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    options = {"split_column": "split" if kind == "words" else "is_eval"}
    if kind == "files":
        bounds = {"train": (0, 50), "val": (50, 60), "test": (60, 80)}
        for name, (start, stop) in bounds.items():
            (tmp_path / f"{name}.jsonl").write_text("\n".join(lines[start:stop]))
        path = tmp_path / "train.jsonl"
        options = {f"{name}_from": str(tmp_path / f"{name}.jsonl") for name in ("val", "test")}
    known = Taxonomy.from_mapping({"all": [f"t{n}" for n in range(80)]}, source="test")
    data = load_dataset(taxonomy=known, dataset_name=path, val_fraction=0.1, **options)
    found = {
        name: sorted(data.rows[positions, 0].tolist()) for name, positions in data.splits.items()
    }
    assert found["test"] == list(range(60, 80))
    if kind == "truth":  # validation is drawn from the others
        assert len(found["val"]) == 6
        assert sorted(found["val"] + found["train"]) == list(range(60))
    else:
        assert found["val"] == list(range(50, 60))
    assert (
        data.report["split_by"]
        == {"words": "column split", "truth": "column is_eval", "files": "val_from and test_from"}[
            kind
        ]
    )


def test_splits_that_are_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "tags,split,is_odd,is_not_test\n" + "rock,train,True,True\n" * 30 + "rock,some,False,0\n"
    )
    for column, message in (
        ("split", "line 32: 'some' in column 'split' is no split"),
        ("is_odd", "line 2: 'True' in column 'is_odd' is no split"),
        ("is_not_test", "line 2: 'True' in column 'is_not_test' is no split"),
        ("spilt", "no column 'spilt' (did you mean 'split'?)"),
    ):
        with pytest.raises(InputError) as caught:
            load(path, split_column=column)
        assert message in str(caught.value)
    path.write_text("tags,split\n" + "rock,test\n" * 30)
    with pytest.raises(InputError, match="no row is given as training"):
        load(path, split_column="split")
    with pytest.raises(InputError, match="both say how rows are split"):
        load(path, split_column="split", val_from="b.csv")


def test_musiccaps_own_split(shared_data):
    path = shared_data / "musiccaps-public.csv"
    data = load(path, split_column="is_audioset_eval")
    with path.open(encoding="utf-8", newline="") as file:
        wanted = [row["is_audioset_eval"] == "True" for row in csv.DictReader(file)]
    is_test = np.zeros(len(data.rows), bool)
    is_test[data.splits["test"]] = True
    assert is_test.tolist() == [wanted[n] for n in data.source_row]


def test_variants():
    counts = {
        "hip hop": 300,
        "hip-hop": 30,
        "HipHop": 20,
        "hip hops": 2,
        "melancholic": 200,
        "melanchloic": 3,
        "melancholics": 1,
        "80s": 50,
        "90s": 4,
        "bass": 90,
        "brass": 3,
        "trance": 100,
        "dance": 90,
        "melody": 40,
        "melodies": 30,
        "glass": 4,
        "jazz": 9,
        "electronics": 20,
        "electronic": 400,
        "electronicc": 39,
        "electroni": 81,
    }
    assert find_variants(counts.items()) == {
        "hip-hop": "hip hop",
        "HipHop": "hip hop",
        "hip hops": "hip hop",
        "melanchloic": "melancholic",
        "melancholics": "melancholic",
        "melodies": "melody",
        "electronics": "electronic",
        "electronicc": "electronic",
    }


def test_the_command_writes_a_taxonomy_for_editing(tmp_path, capsys):
    rows = [["hip hop", "calm"], ["hip-hop"], ["calm", "rare"]] * 20 + [["hiphop"]] * 3
    path = write_lines(tmp_path / "clips.jsonl", rows)
    output = tmp_path / "concepts.json"
    config = [f"--config={ROOT}/configs/small.py", f"--config.data.dataset_name={path}"]
    assert main.main(["taxonomy", *config, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "likely variants, under aliases: 2" in printed
    contents = json.loads(output.read_text())
    (main_tag,) = {"hip hop", "hip-hop"} & set(contents["concepts"]["tags"])
    other = ({"hip hop", "hip-hop"} - {main_tag}).pop()
    assert contents["aliases"] == {other: main_tag, "hiphop": main_tag}
    assert main.main(["data", *config, f"--config.data.taxonomy_path={output}", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["coverage"]["rows_per_tag"][main_tag] == 43
    assert main.main(["taxonomy", *config, "--output", str(tmp_path / "a.csv")]) == 2


def test_aliases_of_a_taxonomy(tmp_path):
    sections = {"concepts": {"genre": ["Hip Hop", "jazz"]}, "aliases": {"Hip-Hop": "hip hop"}}
    path = tmp_path / "taxonomy.json"
    path.write_text(json.dumps(sections))
    taxonomy = Taxonomy.load(path)
    assert taxonomy.column("HIP-HOP") == 0
    assert taxonomy.digest == Taxonomy.from_mapping(sections["concepts"], source="flat").digest
    again = Taxonomy.from_mapping(taxonomy.to_file(), source="again")
    assert again.aliases == taxonomy.aliases == (("Hip-Hop", 0),)
    flat = Taxonomy.from_mapping({"concepts": ["a"], "aliases": ["b"]}, source="flat")
    assert flat.tags == ("a", "b")  # two concepts that are called so
    for aliases, message in (
        ({"dub": "polka"}, "alias 'dub' stands for 'polka', which is no tag"),
        ({"JAZZ": "hip hop"}, "alias 'JAZZ' is itself a tag"),
        ({"dub": "jazz", "Dub": "hip hop"}, "stands for two tags"),
        ({" ": "jazz"}, "is blank"),
        ({"dub": 3}, "must be text"),
        (["dub"], "'aliases' must be an object"),
    ):
        with pytest.raises(InputError, match=message):
            Taxonomy.from_mapping({**sections, "aliases": aliases}, source="here")
    with pytest.raises(InputError, match="unknown section 'alias'"):
        Taxonomy.from_mapping({**sections, "alias": {}}, source="here")


def test_normal_forms_of_concepts_are_one():
    tags = ["Genre:rock", "genre:jazz", "genre:dub"]
    made = make_vocabulary(
        FromData(1),
        tags=list(map(normalize, tags)),
        spellings=tags,
        concepts=None,
        num_rows=np.array([3, 2, 1]),
        source="here",
    )
    assert made.taxonomy.to_mapping() == {"Genre": tags}
