"""The data report: counts of the rows read and kept, statistics of their tags, plain text."""

import textwrap
from collections import Counter
from collections.abc import Iterable

import numpy as np

from jaxvae.data.encoding import tag_counts
from jaxvae.data.spelling import MAX_QUOTED, normalize
from jaxvae.data.taxonomy import Taxonomy

_MUCH, _LONG = 10**8, 20
SHOWN = 20
# A search for the nearest tags compares a tag with the whole vocabulary.
MAX_TAGS_FOR_NEAREST = 10_000
WIDTH = 100


def describe_rows(
    columns: np.ndarray, lengths: np.ndarray, unknown: list[tuple[str, int]], taxonomy: Taxonomy
) -> dict:
    """Returns the report's part about tags, ready for JSON.

    Args:
        columns: the kept rows' column numbers, one row after the other.
        lengths: [N] number of tags of each kept row.
        unknown: from `rank_unknown`.
        taxonomy: the V tags that columns stand for.
    """
    counts = tag_counts(columns, taxonomy.num_tags)
    rows_per_tag = dict(zip(taxonomy.spellings, counts.tolist(), strict=True))
    never = [tag for tag, count in rows_per_tag.items() if not count]
    compare = taxonomy.num_tags <= MAX_TAGS_FOR_NEAREST
    return {
        "tags_per_row": {str(n): int(c) for n, c in enumerate(np.bincount(lengths)) if c},
        "mean_tags_per_row": float(lengths.mean()),
        "coverage": {
            "num_tags": taxonomy.num_tags,
            "num_never_seen": len(never),
            "never_seen": never,
            "rows_per_tag": rows_per_tag,
        },
        "num_unknown_tags": len(unknown),
        "unknown_tags": [
            {
                "tag": _cut(tag, MAX_QUOTED),
                "count": count,
                "nearest": taxonomy.nearest(tag) if compare else [],
            }
            for tag, count in unknown[:SHOWN]
        ],
    }


def rank_unknown(as_written: Counter[str]) -> list[tuple[str, int]]:
    """Returns the distinct unknown tags, normalised, with their counts, the commonest first.

    Args:
        as_written: counts of each spelling.
    """
    merged: Counter[str] = Counter()
    for tag, count in as_written.items():
        merged[normalize(tag)] += count
    merged.pop("", None)
    return sorted(merged.items(), key=lambda item: (-item[1], item[0]))


def describe_unreadable(entry: dict) -> str:
    """Describes one entry of the report's list of unreadable rows in words."""
    line = f", line {entry['line']} of the file" if "line" in entry else ""
    return f"data row {entry['row']} (counted from 0){line}: {entry['reason']}"


def list_tags(counted: Iterable[tuple[str, int]]) -> str:
    """Lists up to five tags with their counts on one line."""
    listed = [f"{_cut(tag, MAX_QUOTED)!r} ({count:,})" for tag, count in list(counted)[:5]]
    return ", ".join(listed) or "none at all"


def format_report(report: dict) -> str:
    """Returns a data report as plain text, at most `WIDTH` columns wide, without a last newline.

    Args:
        report: `Dataset.report`, as `load_dataset` made it or as read back from JSON.
    """
    rows, sizes, sets = report["rows_kept"], report["split_sizes"], report["repeated_sets"]
    coverage, lengths = report["coverage"], report["tags_per_row"]
    lines = textwrap.wrap(_printable(f"Data: {report['source']}"), WIDTH, subsequent_indent="  ")
    if read_as := report.get("read_as"):
        text = _printable(f"read as: {read_as}")
        lines += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    for label, count in (
        ("rows read", report["rows_read"]),
        ("rows kept", rows),
        ("rows without a known tag", report["rows_without_known_tag"]),
        ("unreadable rows", report["rows_unreadable"]),
    ):
        lines.append(f"  {label:<28}{count:>12,}")
    if missing := report.get("missing_tags"):
        lines.append(f"  {'missing tags among others':<28}{missing:>12,}")
    if light := report.get("tags_below_min_weight"):
        lines.append(f"  {'tags below data.min_weight':<28}{light:>12,}")
    for name, size in sizes.items():
        duplicates = sets.get(f"{name}_rows_with_a_twin_in_train")
        note = "" if duplicates is None else f"   {duplicates:,} with the tags of a training row"
        label = f"{name}, split by {report['split_by']}"
        lines.append(f"  {label:<28}{size:>12,}{note}")
    lines.append(f"  {'distinct tag sets':<28}{sets['distinct']:>12,}")
    longest = max(map(int, lengths))
    lines += ["", f"Tags a row: {report['mean_tags_per_row']:.2f} on average, {longest} at most"]
    if rows * longest > _MUCH and longest > _LONG * report["mean_tags_per_row"]:
        lines += [
            f"  every row takes the place of {longest} tags, {rows * longest:,} in all: leave out",
            "  the longest rows to train faster, with less memory",
        ]
    most_rows = max(lengths.values())
    for number, count in list(lengths.items())[:SHOWN]:
        lines.append(f"  {number:>4}{count:>12,}  {'#' * round(50 * count / most_rows)}".rstrip())
    if len(lengths) > SHOWN:
        lines.append(f"   and {len(lengths) - SHOWN} greater numbers")
    num_seen = coverage["num_tags"] - coverage["num_never_seen"]
    lines += ["", f"Tags of the taxonomy: {num_seen:,} of {coverage['num_tags']:,} seen"]
    ranked = sorted(coverage["rows_per_tag"].items(), key=lambda item: -item[1])
    lines += _paragraph("commonest", [f"{tag} {count:,}" for tag, count in ranked[:10]])
    lines += _paragraph("never", coverage["never_seen"])
    if from_data := report.get("taxonomy_from_data"):
        lines += _describe_cut(from_data)
    if unknown := report["unknown_tags"]:
        lines += [
            "",
            f"Unknown tags: {report['num_unknown_tags']:,}; the commonest, and known ones",
        ]
        for entry in unknown:
            tag, near = (
                _cut(_printable(text), 40) for text in (entry["tag"], _join(entry["nearest"]))
            )
            lines.append(f"  {entry['count']:>10,}  {tag:<44}{near}".rstrip())
    if report["unreadable"]:
        lines += ["", f"Unreadable rows: {report['rows_unreadable']:,}; the first are"]
        for entry in report["unreadable"]:
            lines.append("  " + _cut(_printable(describe_unreadable(entry)), WIDTH - 2))
    for hint in report.get("hints", ()):
        lines += ["", *textwrap.wrap(_printable(f"Note: {hint}"), WIDTH, subsequent_indent="  ")]
    return "\n".join([*lines, "", f"Fingerprint: {report['fingerprint']}"])


def _describe_cut(made: dict) -> list[str]:
    """Describes the taxonomy that was made of the data."""
    concepts = ", ".join(f"{_cut(name, 40)} {size:,}" for name, size in made["concepts"].items())
    least = made["min_tag_rows"]
    lines = ["", *textwrap.wrap(_printable(f"Concepts, made of the data: {concepts}"), WIDTH)]
    lines.append(f"Tags left out, with fewer than {least} training rows: {made['num_left_out']:,}")
    words = [f"{_cut(entry['tag'], 40)} {entry['training_rows']:,}" for entry in made["left_out"]]
    lines += _paragraph("commonest of them", words)
    gone = [f"{name} {count:,}" for name, count in made["rows_left_without_tag"].items() if count]
    if gone:
        lines.append(f"  rows that had no other tag, and left: {', '.join(gone)}")
    return lines


def _paragraph(label: str, words: list[str]) -> list[str]:
    if not words:
        return []
    remainder = f", and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
    text = _printable(_join([_cut(word, 40) for word in words[:SHOWN]]) + remainder)
    return textwrap.wrap(f"{label}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")


def _join(words: list[str]) -> str:
    return ", ".join(words)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _printable(text: str) -> str:
    """Escapes characters that could control a terminal: tags come from untrusted files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
