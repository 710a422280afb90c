"""Tables in parts: what was broken off goes on to the same bytes, and only what was."""

import errno
import json

import pytest

from jaxvae.errors import InputError
from jaxvae.inference.generation.tables import table
from jaxvae.storage import row_tables
from tests.helpers.networks import VARIED, make_run

pytestmark = pytest.mark.usefixtures("optimized")

NUM = 400
ORDERS = {
    "plain": {"num_importance_samples": 3, "template": "{{ genre }}"},
    "distinct": {"num": 60, "distinct": True, "temperature": 2.0},
    "unseen": {"unseen": 1},
    "balanced": {"balance": "genre", "splits": (1.0, 0.0, 0.0)},
    "tilted": {"balance": "genre", "count": {"genre": (1, 2)}},
    "pairs": {"pairs": "calm"},
    "temperatures": {"temperature": [0.5, 2.0], "present": ["calm"]},
    "like": {"num": 200, "like": [["calm"], ["jazz", "r&b"]]},
}


class Killed(BaseException):
    """Ends a process in a test, as no error does."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_run(*VARIED[0], tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch, model):
    monkeypatch.setattr(table, "CHUNK", 16)
    monkeypatch.setattr(table, "PART", 2)
    rows = model.to_rows([["jazz"], ["calm"]])
    monkeypatch.setattr(type(model), "rows", lambda self, split: rows)


def write(model, path, *, command="first", **options):
    options = {"num": NUM, "seed": 4, **options}
    return model.generate_file(output=path, command=command, judge=lambda sets: {"of": int(sets.sum())}, **options)  # fmt: skip


def killed_after(monkeypatch, rows):
    """Lets so many rows of a table be made, and then ends the process, as it were."""
    made, make = [0], table._table_rows

    def some(*arguments, **options):
        for row in make(*arguments, **options):
            made[0] += 1
            if made[0] > rows:
                raise Killed
            yield row

    monkeypatch.setattr(table, "_table_rows", some)
    return made


def broken_off(model, path, monkeypatch, rows=50, **options):
    with monkeypatch.context() as patch:
        killed_after(patch, rows)
        with pytest.raises(Killed):
            write(model, path, **options)
    return path.with_name(path.name + ".partial")


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("plain", "jsonl"), ("plain", "parquet"), ("pairs", "parquet"), *((kind, "csv") for kind in ORDERS)],
)  # fmt: skip
def test_a_table_that_was_broken_off_goes_on_to_the_same_bytes(
    kind, suffix, model, tmp_path, monkeypatch
):
    whole, broken = tmp_path / f"whole/t.{suffix}", tmp_path / f"broken/t.{suffix}"
    write(model, whole, **ORDERS[kind])
    broken_off(model, broken, monkeypatch, **ORDERS[kind])  # in the second part of 32
    assert [path.name for path in broken.parent.iterdir()] == [f"t.{suffix}.partial"]
    with monkeypatch.context() as patch:
        made = killed_after(patch, 10**6)
        record = write(model, broken, **ORDERS[kind], command="second", resume=True)
        assert made[0] == record["sets"] - 32  # the first part's rows are not made again
    assert sorted(path.name for path in broken.parent.iterdir()) == [
        f"t.{suffix}", f"t.{suffix}.json",
    ]  # fmt: skip
    assert broken.read_bytes() == whole.read_bytes()
    facts = json.loads((broken.parent / f"t.{suffix}.json").read_text())
    # What the second command alone asks of the record, such as its figures, is said to be its.
    assert facts.pop("resumed_by") == "second"
    assert facts == json.loads((whole.parent / f"t.{suffix}.json").read_text())


def test_parts_are_not_overlooked_and_another_order_does_not_take_them(
    model, tmp_path, monkeypatch
):
    out = tmp_path / "t.csv"
    folder = broken_off(model, out, monkeypatch)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"32 sets of a table that was broken off; --resume"):
        write(model, out)
    for other, message in (
        ({"seed": 5}, "of another order: seed was 4, and is 5; give the same"),
        ({"num": 401}, "num was 400, and is 401"),
        ({"present": ["calm"]}, r'present was null, and is \["calm"\]'),
        ({"template": "{{ mood }}"}, r'template was null, and is "\{\{ mood'),
        ({"seed": 5, "num": 3, "tags": 2, "absent": []}, "; and 1 more"),
    ):
        with pytest.raises(InputError, match=message):
            write(model, out, resume=True, **other)
    monkeypatch.setattr(table, "CHUNK", 8)
    with pytest.raises(InputError, match="sets_of_a_part was 32, and is 16"):
        write(model, out, resume=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(table, "CHUNK", 16)
    write(model, out, resume=True)  # a control
    assert not folder.exists()


def test_rows_that_changed_meanwhile_are_noticed(model, tmp_path, monkeypatch):
    out = tmp_path / "t.csv"
    folder = broken_off(model, out, monkeypatch, unseen=1)
    same = model.rows("train")
    other = model.to_rows([model.generate(1, seed=4).sets[0]])  # the first set of the first part
    monkeypatch.setattr(type(model), "rows", lambda self, split: other)
    with pytest.raises(InputError, match=r"00000\.csv: of other sets than are drawn now"):
        write(model, out, resume=True, unseen=1)
    assert (folder / "00000.csv").exists()
    monkeypatch.setattr(type(model), "rows", lambda self, split: same)
    write(model, out, resume=True, unseen=1)


@pytest.mark.parametrize("damage", ["cut", "gone", "facts"])
def test_a_damaged_part_is_made_again(damage, model, tmp_path, monkeypatch):
    out, whole = tmp_path / "t.csv", tmp_path / "whole" / "t.csv"
    write(model, whole)
    folder = broken_off(model, out, monkeypatch, rows=100)
    part = folder / "00001.csv"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-9])
    elif damage == "gone":
        part.unlink()
    else:
        (folder / "00001.json").write_text("{")
    write(model, out, resume=True)
    assert out.read_bytes() == whole.read_bytes()


def test_without_a_complete_part_there_is_nothing_to_go_on_with(model, tmp_path, monkeypatch):
    out = tmp_path / "t.csv"
    folder = broken_off(model, out, monkeypatch, rows=20)
    assert not folder.exists()
    folder.mkdir()  # what a process leaves that is killed in its first part
    for name in ("00000.csv.new", "order.json", ".lock"):
        (folder / name).write_text("{}")
    write(model, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.csv.json"]
    write(model, out, resume=True)  # nothing to go on with: it begins


def test_an_order_that_can_not_be_met_leaves_nothing(model, tmp_path):
    with pytest.raises(InputError, match=r"only \d+ such sets"):
        write(model, tmp_path / "t.csv", num=10_000, distinct=True)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_leaves_what_is_complete(model, tmp_path, monkeypatch):
    out = tmp_path / "t.csv"
    write(model, tmp_path / "whole.csv")

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(row_tables.shutil, "copyfileobj", fail)  # in joining the parts
        with pytest.raises(InputError, match=r"space left on device; 400 sets are kept in t\.csv"):
            write(model, out)
    assert not out.exists()
    write(model, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_folder_of_ones_own_keeps_what_is_in_it(model, tmp_path):
    notes = tmp_path / "t.csv.partial" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    write(model, tmp_path / "t.csv")
    assert [path.name for path in notes.parent.iterdir()] == ["notes.txt"]


def test_a_table_is_written_by_one_process(model, tmp_path):
    out = tmp_path / "t.csv"

    def judge(sets):
        with pytest.raises(InputError, match="another process is writing this table"):
            model.generate_file(3, out)
        return {}

    model.generate_file(3, out, judge=judge)
    assert json.loads((tmp_path / "t.csv.json").read_text())["sets"] == 3
