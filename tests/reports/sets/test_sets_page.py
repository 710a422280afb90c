"""The page of a comparison of two files of tag sets."""

import json
import re
from html.parser import HTMLParser

import pytest

from jaxvae.evaluation.sets import sample_quality
from tests.helpers.commands import refused, shell

ODD = "<b>x</b> & $y$"


@pytest.fixture(autouse=True)
def _no_classifiers(monkeypatch):
    areas = {"auc_logistic": 0.625, "auc_boosting": 0.5625}
    monkeypatch.setattr(sample_quality, "two_sample_test", lambda *sides, seed: areas)


class Reader(HTMLParser):
    """The cells of a page's tables, row by row, and its open elements."""

    def __init__(self):
        super().__init__()
        self.rows, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "path", "use"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def write(path, rows):
    path.write_text("".join(json.dumps({"tags": tags}) + "\n" for tags in rows))


def test_the_page_has_the_figures_of_the_json(capsys, tmp_path):
    rows, sets, page = (tmp_path / name for name in ("rows.jsonl", "sets.jsonl", "pages/c.html"))
    write(rows, [["jazz", "calm"]] * 8 + [["jazz", "sad"]] * 8 + [[ODD]] * 4)
    write(sets, [["jazz", "sad"]] * 15 + [["calm", ODD]] * 5)
    command = ("evaluate-sets", sets, "--against", rows, "--json", "--output", page)
    judged = json.loads(shell(capsys, *command))
    text = page.read_text()
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    assert "sets.jsonl beside rows.jsonl" in text
    assert "area under the ROC curve of 0.562 and 0.625" in text
    assert "25.0 % of the sets are not among the rows." in text
    assert str(tmp_path) not in text
    for outside in ("src=", 'href="http', "@import", "<script", "<b>"):
        assert outside not in text
    table = {row[0]: row[1:] for row in reader.rows}
    assert table["two-sample AUC, logistic"] == ["0.625", "0.625"]
    assert table["log lift, error"][0] == f"{judged['sets/lift_error']:.3f}"
    # calm is in 5 of 20 sets and 8 of 20 rows; both sad 15 and 8, the worst.
    assert table["calm"] == ["0.2500", "0.4000"]
    assert table["sad"] == ["0.7500", "0.4000"]
    assert table[ODD] == ["0.2500", "0.2000"]
    pair = judged["sets/worst_pairs"][0]
    assert table[", ".join(pair["tags"])] == [
        f"{pair['log_lift_samples']:+.2f}", f"{pair['log_lift_data']:+.2f}",
        str(pair["count_samples"]), str(pair["count_data"]),
    ]  # fmt: skip
    low, high = judged["sets/intervals"]["marginal_mae"]
    assert [f"{low:.3f}", f"{high:.3f}"] in [row[1:] for row in reader.rows if len(row) == 3]
    assert len(re.findall("<svg", text)) == 1
    plain = shell(capsys, "evaluate-sets", sets, "--against", rows, "--train", rows, "--output", page)  # fmt: skip
    assert "two-sample AUC, logistic" in plain
    assert "not among training rows." in page.read_text()


def test_a_page_that_can_not_be_is_refused_before_anything_is_read(capsys, tmp_path):
    command = ("evaluate-sets", tmp_path / "none.csv", "--against", tmp_path / "none.csv")
    (tmp_path / "folder.html").mkdir()
    for name, message in (
        ("page.txt", "the name must end in .html"),
        ("folder.html", "it is a folder"),
    ):
        assert message in refused(capsys, *command, "--output", tmp_path / name)
    assert "no file" in refused(capsys, *command, "--output", tmp_path / "page.html")
