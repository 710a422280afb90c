"""How fast each shape of file is read: `python -m benchmarks.readers`.

The same rows are written in every shape, and read in turns; a time counts by its ratio to that of
the CSV with a column of lists in its round. One-hot tables stand beside pyarrow's own reading.
"""

import argparse
import csv
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from benchmarks.problems import machine
from benchmarks.scaling import synthetic_rows
from jaxvae.data.dataset import load_dataset
from jaxvae.data.taxonomy import Taxonomy

NUM_TAGS = 188
TAXONOMY = Taxonomy.from_mapping({"all": [f"tag {n}" for n in range(NUM_TAGS)]}, source="these")


def write_table(path: Path, header: list[str], rows) -> Path:
    """Writes separated text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_shapes(folder: Path, lists: list[list[str]]) -> dict[str, tuple[Path, dict]]:
    """Writes the same rows in every shape; returns each one's file and fields by its name."""
    columns = TAXONOMY.spellings
    as_list = write_table(
        folder / "lists.csv", ["id", "tags"], ([n, str(tags)] for n, tags in enumerate(lists))
    )
    shapes = {
        "list column": (as_list, {}),
        "numpy's lists": (
            write_table(
                folder / "numpy.csv",
                ["id", "tags"],
                ([n, str(tags).replace(",", "")] for n, tags in enumerate(lists)),
            ),
            {},
        ),
        "bars": (
            write_table(
                folder / "bars.csv", ["id", "tags"], ([n, "|".join(t)] for n, t in enumerate(lists))
            ),
            {},
        ),
        "three columns": (
            write_table(
                folder / "three.csv",
                ["a", "b", "c"],
                ([str(tags[k::3]) for k in range(3)] for tags in lists),
            ),
            {"aspect_column": "a,b,c"},
        ),
        "trailing columns": (
            write_table(
                folder / "trailing.tsv", ["id", "tags"], ([n, *t] for n, t in enumerate(lists))
            ),
            {},
        ),
        "long table": (
            write_table(
                folder / "long.csv",
                ["item", "tag"],
                ([n, tag] for n, tags in enumerate(lists) for tag in tags),
            ),
            {"group_by": "item"},
        ),
        "one-hot": (
            write_table(
                folder / "hot.csv",
                ["id", *columns],
                (
                    [n, *("1" if tag in present else "0" for tag in columns)]
                    for n, present in enumerate(map(set, lists))
                ),
            ),
            {"layout": "one_hot"},
        ),
    }
    with as_list.open("rb") as plain, gzip.open(folder / "lists.csv.gz", "wb", 6) as packed:
        packed.write(plain.read())
    shapes["list column, .gz"] = (folder / "lists.csv.gz", {})
    with (folder / "lists.jsonl").open("w") as file:
        file.writelines(json.dumps({"tags": tags}) + "\n" for tags in lists)
    shapes["JSON lines"] = (folder / "lists.jsonl", {})
    parquet.write_table(pyarrow.table({"tags": lists}), folder / "lists.parquet")
    shapes["Parquet"] = (folder / "lists.parquet", {})
    return shapes


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000, help="rows of tags (500,000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (3)")
    options = parser.parse_args()
    rows = synthetic_rows(options.rows, NUM_TAGS, 14, 3.65)
    lists = [[f"tag {v}" for v in row if v < NUM_TAGS] for row in rows.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        shapes = write_shapes(Path(folder), lists)
        readers: dict[str, Callable[[], object]] = {
            name: lambda path=path, fields=fields: load_dataset(
                taxonomy=TAXONOMY, dataset_name=path, **fields
            )
            for name, (path, fields) in shapes.items()
        }
        readers["one-hot, pyarrow alone"] = lambda: arrow_csv.read_csv(shapes["one-hot"][0])
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        prints = set()
        for _ in range(options.rounds):
            for name, read in readers.items():
                started = time.perf_counter()
                data = read()
                seconds[name].append(time.perf_counter() - started)
                if hasattr(data, "fingerprint"):
                    prints.add(data.fingerprint)
                del data
    assert len(prints) == 1, "the shapes do not give the same rows"
    taggings = int(np.sum(rows < NUM_TAGS))
    print(f"{machine()}; {options.rows:,} rows, {taggings:,} taggings; {options.rounds} rounds\n")
    print("| shape | seconds | of a list column's |\n|---|---|---|")
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["list column"], strict=True)]
        print(f"| {name} | {statistics.median(times):.2f} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
