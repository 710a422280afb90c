"""What all trials of a study have in common, or their values could not be ranked.

Several processes may work on one study. The first one's terms are stored with it, and each process
that joins or goes on compares its own with them.
"""

import json
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import schema

ELSEWHERE = (
    # The rows themselves are compared, and the taxonomy; not the names of their files.
    *("data.dataset_name", "data.dataset_split", "data.hub_streaming", "data.aspect_column"),
    *("data.taxonomy_path", "data.max_unreadable_fraction"),
    # Where and how a trial is executed, and what is made of the best one.
    *("trainer.accelerator", "trainer.devices", "trainer.mesh", "trainer.deterministic"),
    *("trainer.scale_batch_with_devices", "trainer.checkpoint_every_seconds"),
    *("trainer.enable_progress_bar", "logger", "inference", "model_name"),
)
"""Fields in which the configs of one study's processes may differ."""
_MOST_NAMED = 4


def terms_of(
    config: ConfigDict,
    *,
    data: tuple[str, str],
    taxonomy: tuple[str, int],
    metric: str,
    maximise: bool,
    space: str,
    always_drawn: set[str],
) -> dict[str, Any]:
    """Returns a process's terms, as JSON keeps them.

    Args:
      config: that trials start from.
      data: the fingerprint of the rows, and where they came from.
      taxonomy: its digest and V.
      metric: what trials are ranked by.
      maximise: whether more of it is better.
      space: the text of the space file.
      always_drawn: fields that every trial draws, so that the config's own value has no part.
    """
    fields = {
        name: value
        for name, value in schema.flatten(config)
        if name not in always_drawn
        and not any(name == own or name.startswith(own + ".") for own in ELSEWHERE)
    }
    terms = {
        "data": {"fingerprint": data[0], "source": data[1]},
        "taxonomy": {"digest": taxonomy[0], "num_tags": taxonomy[1]},
        "metric": metric,
        "direction": "maximize" if maximise else "minimize",
        "space": space,
        "config": fields,
    }
    return json.loads(json.dumps(terms))


def differences(study: dict[str, Any], here: dict[str, Any], defaults: ConfigDict) -> list[str]:
    """Returns in what a process's terms are not a study's, each in a few words; [] if in nothing.

    Args:
      study: the terms stored with the study.
      here: the process's.
      defaults: `configs/base.py`'s own config, whose values fields have that the study lacks.
    """
    differing = []
    theirs, ours = study["data"], here["data"]
    if study["taxonomy"]["digest"] != here["taxonomy"]["digest"]:
        numbers = [terms["taxonomy"]["num_tags"] for terms in (study, here)]
        more = " in another order or with other names" if numbers[0] == numbers[1] else ""
        differing.append(f"taxonomy ({numbers[0]:,} tags there, {numbers[1]:,} here{more})")
    elif theirs["fingerprint"] != ours["fingerprint"]:
        prints = [terms["fingerprint"][:8] for terms in (theirs, ours)]
        differing.append(
            f"data ({theirs['source']} {prints[0]} there, {ours['source']} {prints[1]} here)"
        )
    for name in ("metric", "direction"):
        if study[name] != here[name]:
            differing.append(f"{name} ({study[name]} there, {here[name]} here)")
    if study["space"] != here["space"]:
        differing.append(f"space ({_first_other_line(study['space'], here['space'])})")
    usual = {name: json.loads(json.dumps(value)) for name, value in schema.flatten(defaults)}
    theirs, ours = study["config"], here["config"]
    # Of another space another set of fields is left out.
    names = theirs.keys() & ours.keys() if study["space"] != here["space"] else ours.keys()
    for name in sorted(names):
        there = theirs.get(name, usual.get(name))
        if there != ours[name]:
            differing.append(f"config.{name} ({there} there, {ours[name]} here)")
    return differing


def in_a_line(differing: list[str]) -> str:
    """Returns the first few differences as one text, and how many more there are."""
    more = len(differing) - _MOST_NAMED
    return ", ".join(differing[:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")


def _first_other_line(there: str, here: str) -> str:
    lines = [text.splitlines() for text in (there, here)]
    for number in range(max(map(len, lines))):
        left, right = (part[number].strip() if number < len(part) else "" for part in lines)
        if left != right:
            return f"line {number + 1}: {left[:60]!r} there, {right[:60]!r} here"
    return "spaces or line ends differ"
