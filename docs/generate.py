"""What the site takes from the program itself: each command's help, and the config's fields."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """MkDocs calls this for every page; two have a place that is filled here."""
    del page
    for name, make in (("commands", commands), ("fields", fields)):
        place = f"<!-- generated: {name} -->"
        if place in markdown:
            markdown = markdown.replace(place, make())
    return markdown


def commands() -> str:
    """A section for each command with its `--help`."""
    listed = _help()
    names = re.findall(r"^    ([\w-]+)(?:  |$)", listed, flags=re.MULTILINE)
    sections = [f"```text\n{listed}```"]
    for name in names:
        text = _help(name)
        if name == "train":  # the fields have a page of their own
            text = text.partition("\nFields, ")[0] + "\n"
        sections.append(f"## {name}\n\n```text\n{text}```")
    return "\n\n".join(sections)


def fields() -> str:
    """A table for each group of fields: name, default, meaning."""
    text = _help("train").partition("\nFields, ")[2]
    groups: dict[str, list[str]] = {}
    for name, default, meaning in re.findall(r"  --config\.([\w.]+)=(.*)\n      (.*)", text):
        group = name.partition(".")[0] if "." in name else ""
        meaning = meaning.replace("|", "\\|")
        groups.setdefault(group, []).append(f"| `{name}` | `{default}` | {meaning} |")
    head = "| field | default | |\n|---|---|---|\n"
    titled = {f"## {group}" if group else "": rows for group, rows in groups.items()}
    return "\n\n".join(f"{title}\n\n{head}" + "\n".join(rows) for title, rows in titled.items())


def _help(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "jaxvae", *command, "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout
