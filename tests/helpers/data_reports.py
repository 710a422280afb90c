"""Sums that every data report must hold to."""

import json


def check_sums(report: dict) -> None:
    parts = ("rows_kept", "rows_without_known_tag", "rows_unreadable")
    assert report["rows_read"] == sum(report[part] for part in parts)
    assert report["rows_kept"] == sum(report["tags_per_row"].values())
    assert report["rows_kept"] == sum(report["split_sizes"].values())
    json.dumps(report)
