"""A page on a comparison of two files of tag sets: one offline file with figures and words."""

import html
from pathlib import Path
from typing import Any

from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.reports import html_page
from jaxvae.reports.figures import paired_bars
from jaxvae.reports.summary_text import set_intervals, set_measures, too_alike
from jaxvae.storage.atomic_files import write_text


def write_sets_page(judged: dict[str, Any], path: Path) -> None:
    """Writes the page of a comparison.

    Args:
      judged: the result of `set_files.evaluate_set_files`.
      path: the page.

    Raises:
      InputError: the file can't be written.
    """
    name = Path(judged["files"]["sets"]["path"]).name
    other = Path(judged["files"]["rows"]["path"]).name
    title = f"{name} beside {other}"
    page = [
        f"<h1>{html.escape(title)}</h1>",
        _verdict(judged),
        html_page.section("The files", _files(judged)),
        html_page.section("How alike they are", _measures(judged)),
        html_page.section("Intervals of the sets", _intervals(judged)),
        html_page.section("Tags whose rates differ most", _tags(judged["sets/worst_tags"])),
        html_page.section("Pairs most unlike the rows'", _pairs(judged["sets/worst_pairs"])),
        html_page.section("Pairs that only one side has", _absent(judged)),
    ]
    write_text(path, html_page.document(title, page))


def _verdict(judged: dict[str, Any]) -> str:
    areas = [judged[f"sets/auc_{name}"] for name in ("logistic", "boosting")]
    if None in areas:
        text = "There are too few sets or rows for a classifier to tell them apart."
    else:
        low, high = sorted(areas)
        text = (
            f"Classifiers tell the sets from the rows with an area under the ROC curve of "
            f"{low:.3f} and {high:.3f}; 0.5 is not at all, 1 is always."
        )
    share = judged["sets/unseen_fraction"]
    seen = "training rows" if "train" in judged["files"] else "the rows"
    text += "".join(f" Beware: {line}." for line in too_alike(judged))
    return (
        f'<div class="verdict"><p>{text}</p>'
        f"<p>{100 * share:.1f} % of the sets are not among {seen}.</p></div>"
    )


def _files(judged: dict[str, Any]) -> str:
    header = ["", "file", "rows", "compared", "without a known tag", "unreadable", "unknown tags"]
    counts = ("rows", "compared", "without_known_tag", "unreadable", "unknown_tags")
    rows = [
        [name, Path(file["path"]).name, *(str(file[count]) for count in counts)]
        for name, file in judged["files"].items()
    ]
    return html_page.table(header, rows)


def _measures(judged: dict[str, Any]) -> str:
    sides, measures = set_measures(judged)
    note = (
        '<p class="note">Independent: as many sets with the rows\' tag rates and nothing else. '
        "Training rows: as many of them, drawn with replacement.</p>"
    )
    return html_page.table(["", *sides], [[text, *values] for text, values in measures]) + note


def _intervals(judged: dict[str, Any]) -> str:
    note = (
        '<p class="note">95 %, by bootstrap of sets and rows: of the values that ever more of them '
        "would have.</p>"
    )
    rows = [list(row) for row in set_intervals(judged)]
    return html_page.table(["", "from", "to"], rows) + note


def _tags(worst: list[dict[str, Any]]) -> str:
    bars = {quote_tag(tag["tag"]): (tag["rate_samples"], tag["rate_data"]) for tag in worst}
    figure = paired_bars("Rates of tags", bars, ("sets", "rows"), "share of sets with the tag")
    rows = [[name, f"{sets:.4f}", f"{data:.4f}"] for name, (sets, data) in bars.items()]
    return html_page.figure(figure) + html_page.table(["tag", "sets", "rows"], rows)


def _pairs(worst: list[dict[str, Any]]) -> str:
    rows = [
        [
            ", ".join(map(quote_tag, pair["tags"])),
            *(f"{pair[f'log_lift_{side}']:+.2f}" for side in ("samples", "data")),
            *(str(pair[f"count_{side}"]) for side in ("samples", "data")),
        ]
        for pair in worst
    ]
    header = ["tags", "log lift, sets", "log lift, rows", "sets", "rows"]
    note = (
        '<p class="note">Log lift: how much oftener, in nats, both tags come together than tags '
        "that know nothing of each other would; 0 is as often.</p>"
    )
    return html_page.table(header, rows) + note if rows else ""


def _absent(judged: dict[str, Any]) -> str:
    rows = []
    for key, text in (
        ("pairs_never_in_data", "sets alone"),
        ("pairs_never_sampled", "rows alone"),
    ):
        absent = judged[f"sets/{key}"]
        some = "; ".join(", ".join(map(quote_tag, pair["tags"])) for pair in absent["top"][:5])
        share = "-" if absent["share"] is None else f"{100 * absent['share']:.2f} %"
        rows.append([text, str(absent["count"]), share, some])
    header = ["in", "pairs", "of those that could be", "for example"]
    note = '<p class="note">Counted are pairs of tags that are common enough to be expected.</p>'
    return html_page.table(header, rows) + note
