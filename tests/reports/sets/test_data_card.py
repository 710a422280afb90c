"""Cards of generated tables, and what of a table is published."""

import csv
import json
import re

import pytest
import yaml
from huggingface_hub import DatasetCard

from jaxvae.errors import InputError
from jaxvae.evaluation.sets import sample_quality
from jaxvae.reports.sets import data_card, publish_table
from jaxvae.reports.sets.table_record import read_record, without_folders
from tests.helpers.commands import refused, shell
from tests.helpers.networks import VARIED, make_run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A small table of a model without rows, as its record says."""
    place = tmp_path_factory.mktemp("table")
    run = make_run(*VARIED[0], place)
    run.generate_file(
        40, place / "tags.csv", present=["calm"], count={"genre": (1, 2)}, seed=3,
        command=f"jaxvae generate {place}/run --num 40 --output={place}/tags.csv --with calm",
        template="{{ genre }}", distinct=False,
    )  # fmt: skip
    return place / "tags.csv"


@pytest.fixture
def record(table):
    return read_record(table)


def card_of(record, **changes):
    text = data_card.make_card({**record, **changes}, table="tags.csv", repository="me/my-tags", license=None)  # fmt: skip
    _, metadata, page = text.split("---\n", 2)
    return yaml.safe_load(metadata), page


def test_a_card_beside_a_table_has_what_the_record_has(capsys, folder, tmp_path, monkeypatch):
    tests = {"auc_logistic": 0.625, "auc_boosting": 0.5625}
    monkeypatch.setattr(sample_quality, "two_sample_test", lambda *sides, seed: tests)
    out, card = tmp_path / "tags.csv", tmp_path / "README.md"
    command = ("generate", folder, "--num", 60, "--output", out, "--card", card, "--with", "jazz")
    for _ in range(2):  # a card of its own is replaced
        shell(capsys, *command, "--unseen")
    read = DatasetCard.load(card)
    assert read.data.to_dict() == {
        "pretty_name": "tags",
        "size_categories": "n<1K",
        "tags": ["jaxvae", "synthetic", "tags", "multi-label"],
        "configs": [{"config_name": "default", "data_files": "tags.csv"}],
    }
    record = json.loads((tmp_path / "tags.csv.json").read_text())
    with out.open(newline="") as file:
        columns = next(csv.reader(file))
    assert re.findall(r"^\| `(\w+)` \| ", read.text, re.M) == columns == [*record["columns"]]
    assert "60 sets of tags in `tags.csv`" in read.text
    assert "trained on embedded" in read.text
    assert f"| parameters | `{record['parameters']}` |" in read.text
    assert "| tags of every set | jazz |" in read.text
    assert f"({record['log_probability']:.2f} nats)" in read.text
    figures = record["figures"]
    assert f"60 of the sets against {figures['rows']} test rows" in read.text
    assert "| two-sample AUC, logistic | 0.625 | 0.625 | 0.625 |" in read.text
    lift = [f"{figures[f'{side}/lift_error']:.3f}" for side in ("sets", "train_rows", "independent")]  # fmt: skip
    assert f"| log lift, error | {' | '.join(lift)} |" in read.text
    assert "--unseen` was not" not in read.text
    assert "--distinct` was not" in read.text
    assert "stated no license" in read.text
    # Folders of this disk stay here.
    assert str(tmp_path) not in read.text
    card.write_text("# My project\n")
    for path, message in ((card, "exists and is no card"), (tmp_path / "card.txt", "in .md")):
        assert message in refused(capsys, *command[:6], "--card", path)
    assert card.read_text() == "# My project\n"


def test_a_card_names_the_command_without_folders(record):
    _, page = card_of(record)
    line = "jaxvae generate run --num 40 --output=tags.csv --with calm"
    assert f"```bash\n{line}\n```" in page
    assert "| tags of a concept | genre 1 to 2 |" in page
    assert 'datasets.load_dataset("me/my-tags", split="train")' in page
    assert "Not known: nothing was compared." in page


@pytest.mark.parametrize(
    ("command", "published"),
    [
        ("jaxvae generate /home/me/runs/a --like ~/x/clips.csv", "jaxvae generate a --like clips.csv"),
        ("jaxvae generate runs/a --count 'mood/theme=1'", "jaxvae generate runs/a --count mood/theme=1"),
        ("jaxvae generate r --template '{{ genre }}/{{ mood }}'", "jaxvae generate r --template '{{ genre }}/{{ mood }}'"),
        ("jaxvae generate r --output=/tmp/t.csv", "jaxvae generate r --output=t.csv"),
        (None, None),
    ],
)  # fmt: skip
def test_absolute_paths_are_reduced_to_names(command, published):
    assert without_folders(command) == published


@pytest.mark.parametrize(
    ("sets", "size"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**7, "10M<n<100M")],
)  # fmt: skip
def test_sizes_are_the_hubs(record, sets, size):
    assert card_of(record, sets=sets)[0]["size_categories"] == size


def test_names_of_tags_are_no_markup(record):
    constraints = {**record["constraints"], "present": ["<b>|*jazz*"]}
    assert r"| tags of every set | \<b\>\|\*jazz\* |" in card_of(record, constraints=constraints)[1]


def test_a_pushed_table_is_as_it_was_and_its_record_has_no_folders(capsys, table, tmp_path):
    there = tmp_path / "card"
    out = shell(
        capsys, "push", table, "me/my-tags", "--dataset", "--folder", there, "--license", "mit"
    )
    assert out == f"{there}: README.md, tags.csv, tags.csv.json\n"
    assert (there / "tags.csv").read_bytes() == table.read_bytes()
    published, record = (
        json.loads((place / "tags.csv.json").read_text()) for place in (there, table.parent)
    )
    assert str(table.parent) in record.pop("command")
    assert published.pop("command").startswith("jaxvae generate run --num 40")
    assert published == record
    card = DatasetCard.load(there / "README.md")
    assert (card.data.license, card.data.pretty_name) == ("mit", "my-tags")
    mine = tmp_path / "mine.md"
    mine.write_text("---\nlicense: mit\n---\n# Mine\n")
    publish_table.write_table_folder(
        table, tmp_path / "other", repository="me/my-tags", license=None, card=mine
    )
    assert (tmp_path / "other" / "README.md").read_bytes() == mine.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv", "me/tags", "--dataset"), "none.csv: no such file; a table by generate"),
        (("alone.csv", "me/tags", "--dataset"), "alone.csv.json: no such file"),
        (("other.csv", "me/tags", "--dataset"), "it lacks columns, command, constraints"),
        (("tags.csv", "me/tags", "--dataset", "--card", "none.md"), "none.md: no such file"),
        (("tags.csv", "me/tags", "--dataset", "--trust-code"), "are for models"),
        (("tags.csv", "me/tags", "--card", "none.md"), "--card goes with --dataset"),
        (("tags.csv", "tags", "--dataset"), "a repository on the Hub is named user/name"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_not_published(
    capsys, table, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    for name in ("tags.csv", "tags.csv.json"):
        (tmp_path / name).write_bytes((table.parent / name).read_bytes())
    (tmp_path / "alone.csv").write_text("tags\n")
    (tmp_path / "other.csv").write_text("tags\n")
    (tmp_path / "other.csv.json").write_text("{}")
    assert message in refused(capsys, "push", *arguments, "--folder", "card")
    assert not (tmp_path / "card").exists()


def test_a_license_is_not_put_into_a_card_that_is_given(table, tmp_path):
    with pytest.raises(InputError, match="write it into the card"):
        publish_table.write_table_folder(
            table, tmp_path / "x", repository="me/tags", license="mit", card=tmp_path / "card.md"
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": "jaxvae generate 'runs"}, "command is not a command of a shell"),
        ({"command": 3}, "command is not"),
        ({"resumed_by": "'"}, "resumed_by is not"),
        ({"sets": "40"}, "sets is not a whole number"),
        ({"sets": True}, "sets is not"),
        ({"columns": ["id"]}, "columns is not a kind for each column"),
        ({"columns": {"id": None}}, "columns is not"),
        ({"sets_in_split": {"train": None}}, "sets_in_split is not"),
        ({"constraints": {}}, "constraints is not"),
        ({"tags_per_set": None}, "tags_per_set is not a finite number"),
        ({"temperature": ["hot"]}, "temperature is not"),
        ({"figures": {"rows": 3}}, "figures is not"),
        ({"figures": {"rows": 3, "compared": 3, "split": "test", "sets/marginal_mae": "x"}}, "figures is not"),
        ({"by_temperature": [3]}, "by_temperature is not"),
        ({"table_sha256": "0"}, "not the table that tags.csv.json is of"),
        ({}, None),
    ],
)  # fmt: skip
def test_a_record_that_is_damaged_or_of_another_table_is_a_line(
    capsys, table, tmp_path, changes, message
):
    record = json.loads((table.parent / "tags.csv.json").read_text())
    (tmp_path / "tags.csv").write_bytes(table.read_bytes())
    (tmp_path / "tags.csv.json").write_text(json.dumps(record | changes))
    command = ("push", tmp_path / "tags.csv", "me/t", "--dataset", "--folder", tmp_path / "there")
    if message is None:
        shell(capsys, *command)
    else:
        assert message in refused(capsys, *command)
    assert (tmp_path / "there").exists() == (message is None)


def test_a_table_that_was_changed_or_has_another_suffix_is_not_published(capsys, table, tmp_path):
    command = ("me/t", "--dataset", "--folder", tmp_path / "there")
    for name, rows, message in (
        ("tags.csv", b"more\n", "not the table that tags.csv.json is of"),
        ("tags.txt", b"", "the name must end in .csv"),
    ):
        (tmp_path / name).write_bytes(table.read_bytes() + rows)
        (tmp_path / f"{name}.json").write_bytes((table.parent / "tags.csv.json").read_bytes())
        assert message in refused(capsys, "push", tmp_path / name, *command)


def test_of_pairs_the_card_says_whose_split_it_is(record):
    columns = {**record["columns"], "pair": "count"}
    assert "that of the one without the tag" in card_of(record, columns=columns)[1]
    assert "that of the one without the tag" not in card_of(record)[1]
    assert "equal sets share a split" in card_of(record)[1]


def test_the_card_says_what_is_balanced_or_differs(record):
    pairs = {"tag": "jazz", "share_with_tag_in_model": 0.1}
    assert "| the sets of a pair differ in | jazz |" in card_of(record, pairs=pairs)[1]
    balance = {"shares": {"jazz": 0.7, "rock": 0.3}}
    for record_of in ({"balance": balance}, {"by_temperature": [{"balance": balance}]}):
        page = card_of(record, **record_of)[1]
        assert "| balanced tags and their shares | jazz 0.7, rock 0.3 |" in page
    assert "balanced tags" not in card_of(record)[1]
