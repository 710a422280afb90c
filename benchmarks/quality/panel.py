"""The data sets of the panel, as options of a run; what has to be cut or drawn first is written."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np

QUICK_SEEDS = {
    "musiccaps": (0, 1, 2),
    "musiccaps-set": (0, 1),
    "jamendo-1000": (0, 1, 2, 3),
    "jamendo-4000": (0, 1),
    "jamendo-10000": (0,),
    "jamendo": (0,),
    "jamendo-set": (0, 1),
    "embedded-5000": (0, 1),
    "embedded-50000": (0,),
}
"""Data sets for choosing a recipe, and their split seeds: validation rows alone."""

TEST_SEEDS = {
    **{name: (10, 11, 12, 13, 14) for name in (*QUICK_SEEDS, "jamendo-10000-set")},
    # 10 to 12 were seen by a rule with half of the epochs.
    **{name: (13, 14, 15, 16, 17) for name in ("jamendo", "jamendo-set")},
    "vocabulary-5000": (10, 11),
    "embedded-500000": (10,),
}
"""The whole panel and its split seeds, whose test rows no choice has seen."""

_VOCABULARY_ROWS, _VOCABULARY, _TOPICS = 20_000, 5_000, 200


def prepare(name: str, *, shared: Path, folder: Path) -> tuple[str, ...]:
    """Returns the options of `launch.py` for a data set, after writing the file that it needs.

    Args:
      name: of `TEST_SEEDS`.
      shared: the folder with MusicCaps and MTG-Jamendo.
      folder: for rows that are cut or drawn.
    """
    name, by_set = name.removesuffix("-set"), name.endswith("-set")
    source, _, rows = name.partition("-")
    if source == "embedded":
        # 5,500 rows are 5,000 for training and validation: the corpus as it is named without N.
        data = [f"dataset_name=embedded:{5500 if rows == '5000' else rows}"]
    elif source == "vocabulary":
        data = _of_file(*_write_vocabulary(folder))
    elif source == "musiccaps":
        data = _of_file(shared / "musiccaps-public.csv", shared / "concepts_to_tags.json")
        data += ["val_fraction=0.095"]
    else:
        whole = shared / "mtg-jamendo-tags.csv"
        file = _write_first(whole, int(rows), folder) if rows else whole
        data = _of_file(file, shared / "mtg-jamendo-concepts.json")
        data += ["aspect_column=tags"]
        data += [f"val_fraction={0.2 if rows == '1000' else 0.1}"] if rows else []
        data += ["test_fraction=0.2"] if rows == "1000" else []
    data += ["split_by=set"] if by_set else []
    return tuple(f"--config.data.{option}" for option in data)


def _of_file(rows: Path, taxonomy: Path) -> list[str]:
    return [f"dataset_name={rows}", f"taxonomy_path={taxonomy}"]


def _write_first(whole: Path, rows: int, folder: Path) -> Path:
    """Writes the header and the first rows of a table."""
    file = folder / f"{whole.stem}-{rows}.csv"
    with whole.open(newline="") as stream:
        table = list(itertools.islice(csv.reader(stream), rows + 1))
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(table)
    return file


def _write_vocabulary(folder: Path) -> tuple[Path, Path]:
    """Writes rows of 5,000 tags drawn from 200 topics, each with a Zipf's law of its own.

    A row has one or two topics and takes 1 to 12 tags from them.
    """
    rng = np.random.default_rng(0)
    tags = [f"tag {number:04d}" for number in range(_VOCABULARY)]
    order = [rng.permutation(_VOCABULARY)[:100] for _ in range(_TOPICS)]
    falling = 1.0 / np.arange(1, 101)
    falling /= falling.sum()
    rows_file, taxonomy_file = folder / "vocabulary.jsonl", folder / "vocabulary-concepts.json"
    taxonomy_file.write_text(json.dumps({"tag": tags}))
    with rows_file.open("w") as stream:
        for _ in range(_VOCABULARY_ROWS):
            topics = rng.choice(_TOPICS, size=rng.integers(1, 3), replace=False)
            drawn = {
                tags[order[rng.choice(topics)][rng.choice(100, p=falling)]]
                for _ in range(min(12, 1 + rng.poisson(4)))
            }
            stream.write(json.dumps({"aspect_list": sorted(drawn)}) + "\n")
    return rows_file, taxonomy_file
