"""The README.md of a table of drawn tag sets: metadata for the Hub, and a page for people."""

from pathlib import Path
from typing import Any

from jaxvae.errors import InputError
from jaxvae.inference.generation.draws import one_in
from jaxvae.inference.generation.tables.record import record_path
from jaxvae.reports.model_card import check_license, escape
from jaxvae.reports.summary_text import set_measures, too_alike
from jaxvae.storage.atomic_files import write_text

_SIZES = (
    *((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")),
    *((1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M")),
)
_LARGER = "10M<n<100M"
_MARK = "- jaxvae\n"
_COLUMNS = {
    "id": "digest of the set, whatever the order of its tags",
    "tags": "the tags of the set",
    "temperature": "what the model's logits were divided by",
    "split": "train, val or test, by the digest: equal sets share a split",
    "log_likelihood": "of the set under the model, nats",
    "pair": "number of the pair",
    "with_tag": "1 with the tag of the pairs, 0 without it",
    "log_likelihood_difference": "with the tag minus without it, nats",
    "source_row": "position of the row that the set is a variant of",
    "position": "place on the way from one set, 0, to the other, 1",
    "text": "of the set, by the template in the JSON file",
}
_OF_PAIRS = {
    "split": "train, val or test, of both sets of a pair that of the one without the tag, by its "
    "digest: in tables without pairs a set like the other may have another split"
}


def check_card_path(path: Path) -> None:
    """Raises InputError unless a card may be written here: a new .md, or a card of such a table."""
    if path.suffix.lower() != ".md":
        raise InputError(f"card {path}: the name must end in .md")
    if path.exists():
        is_card = path.is_file() and _MARK in path.read_text(errors="replace")[:2000]
        if not is_card:
            raise InputError(f"card {path}: exists and is no card of such a table; name another")


def write_card(path: Path, record: dict[str, Any], table: Path) -> None:
    """Writes a table's card.

    Args:
      path: the card.
      record: the table's record.
      table: the table, which the card names by its last part alone.
    """
    check_card_path(path)
    write_text(path, make_card(record, table=table.name, repository=None, license=None))


def make_card(
    record: dict[str, Any], *, table: str, repository: str | None, license: str | None
) -> str:
    """Returns the card's text.

    Args:
      record: what `generate` says of the table.
      table: the file's name in the repository.
      repository: "user/name"; None if it is not known yet.
      license: the Hub's identifier of a license, or None.
    """
    check_license(license)
    name = repository.partition("/")[2] if repository else Path(table).stem
    sections = [
        f"---\n{_metadata(record, name, table, license)}\n---\n",
        f"# {escape(name)}\n",
        _what(record, table),
        _use(repository, table),
        _made(record),
        _columns(record, table),
        _figures(record),
        _cautions(record, license),
    ]
    return "\n".join(sections)


def _metadata(record: dict[str, Any], name: str, table: str, license: str | None) -> str:
    from huggingface_hub import DatasetCardData

    sets = record["sets"]
    card = DatasetCardData(
        license=license,
        pretty_name=name,
        size_categories=next((text for limit, text in _SIZES if sets < limit), _LARGER),
        tags=["jaxvae", "synthetic", "tags", "multi-label"],
        configs=[{"config_name": "default", "data_files": table}],
    )
    return card.to_yaml().strip()


def _what(record: dict[str, Any], table: str) -> str:
    return (
        f"{record['sets']:,} sets of tags in `{table}`, {record['tags_per_set']:.2f} tags a set on "
        f"average. They are synthetic: a variational autoencoder over tag sets, trained on "
        f"{escape(str(record['trained_on']))}, drew them. `{record_path(Path(table)).name}` has "
        f"all that is said here as JSON.\n"
    )


def _use(repository: str | None, table: str) -> str:
    kind = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}[Path(table).suffix]
    source = f'"{repository}"' if repository else f'"{kind}", data_files="{table}"'
    return (
        "## Use\n\n"
        "```python\n"
        "import datasets\n\n"
        f'rows = datasets.load_dataset({source}, split="train")  # all of the file\n'
        'train = rows.filter(lambda row: row["split"] == "train")\n'
        "```\n"
    )


def _made(record: dict[str, Any]) -> str:
    command = record["command"]
    typed = f"```bash\n{command}\n```\n\n" if command and "```" not in command else ""
    facts = {
        "parameters": f"`{record['parameters']}`",
        "taxonomy": f"`{record['taxonomy_digest']}`",
        "seed": record["seed"],
        "temperature": record["temperature"],
        **_constraints(record["constraints"]),
        **_balance_or_pairs(record),
        "the model's sets that are such": f"{one_in(record['probability'])} "
        f"({record['log_probability']:.2f} nats)",
        "the sets are": record["sets_are"],
        "turned away": f"{record['repeats']:,} repeats, {record['near_training']:,} that training "
        f"rows are equal to, or near",
        "draws": f"{record['draws']:,}, worth {record['effective_draws']:,.0f} independent ones",
        "jaxvae": record.get("jaxvae_version"),
    }
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())
    return f"## How they were made\n\n{typed}| | |\n|---|---|\n{rows}\n"


def _constraints(constraints: dict[str, Any]) -> dict[str, Any]:
    counts = constraints["count"].items()
    least, greatest = constraints["tags"]
    return {
        "tags of every set": ", ".join(constraints["present"]) or "-",
        "tags of no set": ", ".join(constraints["absent"]) or "-",
        "tags of a concept": ", ".join(f"{name} {a} to {b}" for name, (a, b) in counts) or "-",
        "tags in all": f"{least} to {greatest}",
    }


def _balance_or_pairs(record: dict[str, Any]) -> dict[str, Any]:
    """Returns which tags are balanced, or in which tag the sets of a pair differ."""
    facts = record.get("by_temperature", [record])[0]
    if pairs := facts.get("pairs"):
        return {"the sets of a pair differ in": pairs["tag"]}
    if balance := facts.get("balance"):
        shares = ", ".join(f"{tag} {share:.3g}" for tag, share in balance["shares"].items())
        return {"balanced tags and their shares": shares}
    return {}


def _columns(record: dict[str, Any], table: str) -> str:
    rows = []
    for name, kind in record["columns"].items():
        text = _OF_PAIRS.get(name) if "pair" in record["columns"] else None
        text = (
            text
            or _COLUMNS.get(name)
            or f"those of the concept {escape(name.removesuffix('_tags'))}"
        )
        rows.append(f"| `{name}` | {_kind(kind, table)} | {text} |")
    splits = ", ".join(f"{name} {size:,}" for name, size in record["sets_in_split"].items())
    return (
        "## Columns\n\n| column | | |\n|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nSets of each split: {splits}.\n"
    )


def _kind(kind: str, table: str) -> str:
    if kind in ("texts", "numbers") and table.endswith(".csv"):
        return f"{kind}, as a JSON list"
    return kind


def _figures(record: dict[str, Any]) -> str:
    figures = record.get("figures") or {}
    if "rows" not in figures:
        because = figures.get("none_because", "nothing was compared")
        return f"## Are they like the data?\n\nNot known: {escape(because)}.\n"
    sides, measures = set_measures(figures)
    rows = "\n".join(f"| {text} | {' | '.join(values)} |" for text, values in measures)
    return (
        f"## Are they like the data?\n\n{figures['compared']:,} of the sets against "
        f"{figures['rows']:,} {escape(figures['split'])} rows, on which the model was not trained, "
        f"beside training rows and independent tags:\n\n"
        f"| | {' | '.join(sides)} |\n|---|{'---:|' * len(sides)}\n{rows}\n\n"
        f"The AUC says how well a classifier tells sets from rows: 0.5 is not at all.\n"
        + "".join(f"\nBeware: {escape(line)}.\n" for line in too_alike(figures))
    )


def _cautions(record: dict[str, Any], license: str | None) -> str:
    lines = [
        "The sets are synthetic: no recording, and no person, is behind any of them.",
        "Which tags go together, and how often, is what the model made of its training data, with "
        "that data's gaps and biases.",
        "Tags are as frequent as the constraints above make them, which is not how frequent they "
        "are in music.",
    ]
    if _balance_or_pairs(record):
        lines.append("Sets are balanced or in pairs by intent; their rates are nobody's.")
    if not record.get("unseen"):
        lines.append("Some of the sets may be training rows' too: `--unseen` was not asked for.")
    if not record.get("distinct"):
        lines.append("Sets may come more than once: `--distinct` was not asked for.")
    if license is None:
        lines.append("Whoever published this has stated no license.")
    return "## Cautions\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def _cell(value: Any) -> str:
    text = str(value)
    return text if text.startswith("`") else escape(text)
