"""A run keeps its taxonomy's spelling for what is read by others, and compares folded tags."""

import csv
import importlib.util
import io
import json

import numpy as np
import pytest

import jaxvae
from jaxvae.cli import main
from jaxvae.data.cells.tag_lists import parse_tags
from jaxvae.data.spelling import normalize
from jaxvae.data.taxonomy import Taxonomy
from jaxvae.errors import InputError
from jaxvae.evaluation import evaluate_run
from jaxvae.export import hub_files
from jaxvae.inference.load import import_model
from jaxvae.reports import explorer
from jaxvae.storage.epoch_metrics import read_epochs
from jaxvae.train.loggers import tensorboard_projector
from tests.helpers.networks import make_run
from tests.helpers.training import Killed, parameters, same, small, timeless
from tests.train.test_trainer import train_and_evaluate

SPELLED = {"Genre": ["Straße", "Ünïcode Rock", "R&B", "JAZZ"], "mood": ["calm", "Dark, cold"]}
FOLDED = {concept: [normalize(tag) for tag in tags] for concept, tags in SPELLED.items()}
TAGS = tuple(tag for tags in SPELLED.values() for tag in tags)
DIGEST = Taxonomy.from_mapping(FOLDED, source="folded").digest


def write_clips(folder):
    """A file of 90 clips, each tag in any of three spellings, and a taxonomy that has its own."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(90):
        tags = [TAGS[number % 4], TAGS[4 + number % 4 // 2]]
        tags += [tag for tag in TAGS if rng.random() < 0.2]
        rows.append([rng.choice([tag, tag.upper(), normalize(tag)]) for tag in tags])
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["aspect_list"], *([json.dumps(row)] for row in rows)])
    write_words(folder, SPELLED)


def write_words(folder, mapping):
    (folder / "words.json").write_text(json.dumps(mapping, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="module")
def spelled(tmp_path_factory):
    """The run's folder."""
    place = tmp_path_factory.mktemp("spelled")
    write_clips(place)
    train_and_evaluate(small(place), place / "run", models_dir=place / "models")
    return place / "run"


@pytest.fixture(scope="module")
def opened(spelled):
    return jaxvae.load(spelled)


def shell(capsys, *arguments):
    code = main.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def listed(sets):
    return {tag for tags in sets for tag in tags}


@pytest.mark.long
def test_the_files_of_a_run_have_the_taxonomys_spelling(spelled):
    assert read(spelled / "taxonomy.json") == SPELLED
    meaning = read(spelled / "model.json")
    assert (meaning["taxonomy"], meaning["taxonomy_digest"]) == (SPELLED, DIGEST)
    samples = listed(read(spelled / "samples.json"))
    assert "Straße" in samples
    assert samples <= {*TAGS}
    coverage = read(spelled / "data_report.json")["coverage"]
    assert tuple(coverage["rows_per_tag"]) == TAGS
    assert coverage["num_never_seen"] == 0


def test_python_returns_the_spelling_and_takes_any(opened):
    assert opened.taxonomy.tags == tuple(map(normalize, TAGS))
    drawn = listed(opened.sample(200, seed=0))
    assert drawn == {*TAGS}
    done = opened.complete(["STRASSE"], ["dark, cold"], num=3)
    assert all("Straße" in tags for tags in done.sets)
    assert listed(done.sets) <= {*TAGS} - {"Dark, cold"}
    assert {tag for ranked in done.tags.values() for tag, _ in ranked} == {*TAGS} - {
        "Straße", "Dark, cold",
    }  # fmt: skip
    assert listed(opened.reconstruct([["jazz", "calm"]], threshold=1e-9)) == {*TAGS}
    codes = opened.encode([["Straße", "r&b"], ["strasse", "R&B"], ["R&B"]])
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])


@pytest.mark.parametrize("typed", ["Straße, Dark, cold", '["strasse", "DARK, COLD"]'])
def test_complete_prints_the_spelling_whatever_was_typed(capsys, spelled, opened, typed):
    sets = json.loads(shell(capsys, "complete", spelled, "--with", typed, "--format", "json"))
    assert sets
    assert all({"Straße", "Dark, cold"} <= {*each["tags"]} <= {*TAGS} for each in sets)
    text = shell(capsys, "complete", spelled, "--with", typed)
    lines = [line.split(maxsplit=1)[1] for line in text.splitlines()[1 : 1 + len(sets)]]
    assert all("Straße" in line and '"Dark, cold"' in line for line in lines)
    again = [parse_tags(line, opened.taxonomy, option="--with") for line in lines]
    assert again == [each["tags"] for each in sets]
    assert "Ünïcode Rock 0." in text
    assert "strasse" not in text


def test_sample_and_traverse_print_the_spelling(capsys, spelled, opened):
    sets = json.loads(shell(capsys, "sample", spelled, "--num", 60, "--format", "json"))
    assert listed(sets) == {*TAGS}
    lines = shell(capsys, "sample", spelled, "--num", 60).splitlines()
    assert [parse_tags(line, opened.taxonomy, option="--with") for line in lines] == sets
    table = csv.DictReader(
        io.StringIO(shell(capsys, "sample", spelled, "--num", 60, "--format", "csv"))
    )
    assert [json.loads(line["tags"]) for line in table] == sets
    arguments = ("traverse", spelled, "--around", "strasse", "--dim", 0, "--top", len(TAGS))
    for step in json.loads(shell(capsys, *arguments, "--format", "json")):
        assert {each["tag"] for each in step["tags"]} == {*TAGS}
    assert '"Dark, cold" 0.' in shell(capsys, *arguments)


def test_mistakes_are_told_in_the_spelling(opened):
    with pytest.raises(InputError, match=r"'strase' \(did you mean 'Straße'\?\)"):
        opened.encode([["strase"]])
    with pytest.raises(InputError, match=r"unknown tag 'dark' \(did you mean 'Dark, cold'\?\)"):
        opened.encode([["dark"]])
    with pytest.raises(InputError, match="both present and absent: Straße"):
        opened.complete(["Straße"], ["strasse"])


def test_the_data_report_lists_the_spelling(capsys, spelled):
    lines = ["aspect_list", "strasse", '"strase, r&b"', "STRASSE"]
    (spelled.parent / "more.csv").write_text("\n".join(lines))
    text = shell(
        capsys, "data", "--config=configs/small.py", "--config.data.aspect_column=aspect_list",
        f"--config.data.dataset_name={spelled.parent / 'more.csv'}",
        f"--config.data.taxonomy_path={spelled.parent / 'words.json'}",
        "--config.data.val_fraction=0.34", "--config.data.test_fraction=0.34",
    )  # fmt: skip
    assert "commonest: Straße 2, R&B 1" in text
    assert "never: Ünïcode Rock, JAZZ, calm" in text
    assert "strase                                      Straße" in text


def test_pages_show_the_spelling(spelled, opened, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_run, "NUM_SAMPLES", 300)
    path = shell(capsys, "report", spelled, "--num-importance-samples", 5).strip()
    with open(path, encoding="utf-8") as file:
        page = file.read()
    assert "Straße" in page
    assert "R&amp;B" in page
    informs = [
        tag for each in evaluate_run.name_dimensions(opened) for tag, _ in each["informs"][:3]
    ]
    assert ("&quot;Dark, cold&quot; " in page) == ("Dark, cold" in informs)
    assert "strasse" not in page
    data = page_data(opened)
    assert (tuple(data["tags"]), tuple(data["folded"])) == (TAGS, opened.taxonomy.tags)
    named = [tag for each in data["dimensions"] for tag in (*each["rises"], *each["falls"])]
    assert {*named} <= {*TAGS}
    judged = evaluate_run.name_dimensions(opened)
    assert {tag for each in judged for tag, _ in each["rises"]} <= {*TAGS}
    axis = opened.plot.cooccurrence(num_samples=100).axes[0]
    assert {label.get_text() for label in axis.get_xticklabels()} == {*TAGS}
    legend = opened.plot.traversal(0, around=["strasse"])
    assert any(
        "Straße" in text.get_text() for text in legend.findobj(lambda a: hasattr(a, "get_text"))
    )


def page_data(run):
    page = explorer.make_page(run)
    return json.loads(page.split('type="application/json">')[1].split("</script>")[0])


def test_the_projector_shows_the_spelling(tmp_path, opened):
    rows = opened.rows("train")[:9]
    tensorboard_projector.write_projector(
        tmp_path, opened.posterior(opened.sets("train")[:9])[0], rows, opened.taxonomy
    )
    lines = (tmp_path / "metadata.tsv").read_text(encoding="utf-8").splitlines()[1:]
    firsts = {line.split("\t")[3] for line in lines}
    assert "Straße" in firsts
    assert firsts <= {*TAGS}
    # A line of tags reads back, though one of them has a comma.
    for line, row in zip(lines, rows, strict=True):
        columns = [column for column in row if column < opened.taxonomy.num_tags]
        known = [opened.taxonomy.tags[column] for column in columns]
        found = parse_tags(line.split("\t")[0], opened.taxonomy, option="--with")
        assert [normalize(tag) for tag in found] == known
    assert any('"Dark, cold"' in line for line in lines)


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors", "m.stablehlo"])
def test_an_export_says_the_spelling_beside_the_digest_of_folded_tags(name, opened, tmp_path):
    opened.export(tmp_path / name)
    meaning = read(tmp_path / "m.json")
    assert (meaning["taxonomy"], meaning["taxonomy_digest"]) == (SPELLED, DIGEST)
    if name == "m.stablehlo":
        return
    again = jaxvae.load(tmp_path / name).taxonomy
    assert (again.spellings, again.digest) == (TAGS, DIGEST)
    # As an older version wrote it, and as an older one reads it: folded, and the digest holds.
    (tmp_path / "m.json").write_text(json.dumps({**meaning, "taxonomy": FOLDED}))
    again = jaxvae.load(tmp_path / name).taxonomy
    assert (again.spellings, again.digest) == (opened.taxonomy.tags, DIGEST)
    # Another taxonomy is noticed.
    other = {**FOLDED, "mood": FOLDED["mood"][::-1]}
    (tmp_path / "m.json").write_text(json.dumps({**meaning, "taxonomy": other}))
    with pytest.raises(InputError, match="the digest differs"):
        jaxvae.load(tmp_path / name)


def test_an_imported_and_a_published_model_keep_the_spelling(opened, tmp_path):
    opened.export(tmp_path / "m.pth")
    imported = import_model(tmp_path / "m.pth", taxonomy_path=None, output=tmp_path / "imported")
    assert imported.taxonomy.spellings == TAGS
    assert read(tmp_path / "imported" / "taxonomy.json") == SPELLED
    (tmp_path / "published").mkdir()
    facts = {"checkpoint": "best", "epoch": 1}
    hub_files.write_model_files(
        tmp_path / "published",
        opened.network,
        taxonomy=opened.taxonomy,
        config=opened.config,
        facts=facts,
    )
    _, taxonomy, *_ = hub_files.read_model_files(tmp_path / "published", "published")
    assert (taxonomy.spellings, taxonomy.digest) == (TAGS, DIGEST)


@pytest.mark.ecosystem
def test_onnx_names_columns_by_the_spelling(opened, tmp_path):
    onnx = pytest.importorskip("onnx")
    opened.export(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.decoder.onnx")
    found = {each.key: each.value for each in model.metadata_props}
    assert tuple(json.loads(found["tags"])) == TAGS
    assert json.loads(found["taxonomy"]) == SPELLED
    assert found["taxonomy_digest"] == DIGEST


@pytest.mark.ecosystem
def test_the_torch_module_shows_the_spelling_and_takes_any(opened, torch, tmp_path):
    opened.export(tmp_path / "out", format="torch_module")
    spec = importlib.util.spec_from_file_location("spelled_model", tmp_path / "out" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.load()
    assert tuple(model.tags) == TAGS
    assert [module.fold(tag) for tag in TAGS] == [*opened.taxonomy.tags]
    x = model.rows([["Straße", "JAZZ"], ["strasse", "jazz"], ["R&B"]])
    assert model.names(x) == [["Straße", "JAZZ"], ["Straße", "JAZZ"], ["R&B"]]
    with pytest.raises(KeyError, match="polka"):
        model.rows([["polka"]])


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), [(FOLDED, SPELLED), (SPELLED, FOLDED)])
def test_a_run_resumes_with_another_spelling_and_takes_it_over(before, after, tmp_path):
    write_clips(tmp_path)
    write_words(tmp_path, before)
    config = small(tmp_path, trainer__max_epochs=3, trainer__checkpoint_every_seconds=0.0)
    models = tmp_path / "models"
    train_and_evaluate(config, tmp_path / "whole", models_dir=models)

    def interrupt(epoch, metrics, state):
        if epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        train_and_evaluate(config, tmp_path / "halves", hooks=[interrupt], models_dir=models)
    assert read(tmp_path / "halves" / "taxonomy.json") == before
    assert len(read_epochs(tmp_path / "halves")) == 1
    # The same tags in another order are another taxonomy.
    write_words(tmp_path, {**after, "mood": after["mood"][::-1]})
    with pytest.raises(InputError, match="another taxonomy: the same tags in another order"):
        train_and_evaluate(config, tmp_path / "halves", models_dir=models)
    write_words(tmp_path, after)
    train_and_evaluate(config, tmp_path / "halves", models_dir=models)
    assert timeless(tmp_path / "halves") == timeless(tmp_path / "whole")
    assert same(parameters(tmp_path / "halves"), parameters(tmp_path / "whole"))
    for name, mapping in (("halves", after), ("whole", before)):
        assert read(tmp_path / name / "taxonomy.json") == mapping
        assert read(tmp_path / name / "model.json")["taxonomy"] == mapping
        assert read(tmp_path / name / "model.json")["taxonomy_digest"] == DIGEST
    # A finished run is whole, and left as it is.
    train_and_evaluate(config, tmp_path / "whole", models_dir=models)
    assert read(tmp_path / "whole" / "taxonomy.json") == before


def test_a_lower_case_taxonomy_is_written_as_it_was():
    taxonomy = make_run("normal", False, False, None).taxonomy
    assert taxonomy.spellings == taxonomy.tags
