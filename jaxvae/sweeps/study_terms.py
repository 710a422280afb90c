"""Terms of a study: settings common to all trials, without which they could not be ranked.

Several processes may work on one study. The terms of the first process are stored with the study,
and each process that joins or resumes compares its own with them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxvae.config import parsing, schema
from jaxvae.errors import InputError

ELSEWHERE = (
    # The rows themselves are compared, and the taxonomy; not the names of their files.
    *("data.dataset_name", "data.dataset_split", "data.hub_streaming", "data.aspect_column"),
    *("data.taxonomy_path", "data.max_unreadable_fraction"),
    # Execution of a trial, and use of the best one.
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
    user_code: Mapping[str, str],
) -> dict[str, Any]:
    """Returns a process's terms, as JSON keeps them.

    Args:
      config: the config that trials start from.
      data: the fingerprint of the rows, and their source.
      taxonomy: the taxonomy's digest and V.
      metric: the metric that ranks trials.
      maximise: whether more of the metric is better.
      space: the text of the space file.
      always_drawn: fields that every trial draws, so that the config's own value has no part.
      user_code: identifies the content of a user's own files, by the field that names each.
    """
    fields = {
        name: value
        for name, value in schema.flatten(config)
        if name not in always_drawn
        and not any(name == field or name.startswith(field + ".") for field in ELSEWHERE)
    }
    for name, content in user_code.items():
        if name in fields:
            fields[name] = f"{fields[name]} ({content})"
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
    """Returns the differences between a study's terms and a process's, each in a few words.

    Args:
      study: the terms stored with the study.
      here: the process's terms.
      defaults: the config of `configs/base.py`, for the values of fields that the study lacks.
    """
    differing = []
    stored, local = study["data"], here["data"]
    if study["taxonomy"]["digest"] != here["taxonomy"]["digest"]:
        numbers = [terms["taxonomy"]["num_tags"] for terms in (study, here)]
        more = " in another order or with other names" if numbers[0] == numbers[1] else ""
        differing.append(f"taxonomy ({numbers[0]:,} tags there, {numbers[1]:,} here{more})")
    elif stored["fingerprint"] != local["fingerprint"]:
        prints = [terms["fingerprint"][:8] for terms in (stored, local)]
        differing.append(
            f"data ({stored['source']} {prints[0]} there, {local['source']} {prints[1]} here)"
        )
    for name in ("metric", "direction"):
        if study[name] != here[name]:
            differing.append(f"{name} ({study[name]} there, {here[name]} here)")
    if study["space"] != here["space"]:
        differing.append(f"space ({_first_other_line(study['space'], here['space'])})")
    usual = {name: json.loads(json.dumps(value)) for name, value in schema.flatten(defaults)}
    stored, local = study["config"], here["config"]
    # Different spaces leave out different fields, so only common fields can be compared.
    names = stored.keys() & local.keys() if study["space"] != here["space"] else local.keys()
    for name in sorted(names):
        study_value = stored.get(name, usual.get(name))
        if study_value != local[name]:
            differing.append(f"config.{name} ({study_value} there, {local[name]} here)")
    return differing


def in_a_line(differing: list[str]) -> str:
    """Joins the first few differences into one text, with the number of the others."""
    more = len(differing) - _MOST_NAMED
    return ", ".join(differing[:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")


def _first_other_line(there: str, here: str) -> str:
    lines = [text.splitlines() for text in (there, here)]
    for number in range(max(map(len, lines))):
        stored, local = (side[number].strip() if number < len(side) else "" for side in lines)
        if stored != local:
            return f"line {number + 1}: {stored[:60]!r} there, {local[:60]!r} here"
    return "spaces or line ends differ"


def hold_to_terms(
    study: Any, terms: dict[str, Any], name: str, *, alone: bool, say: Callable[[str], None]
) -> None:
    """Stores the terms of a new study, or checks that this process has the study's terms.

    Args:
      study: the study (`optuna_study.Study`).
      terms: this process's terms.
      name: the study's name.
      alone: whether no other process can begin the study now.
      say: callback for a message.

    Raises:
      InputError: the terms differ; the message names the differences.
    """
    stored, begun = study.terms()
    if stored is None:
        maximise = terms["direction"] == "maximize"
        if study.maximises != maximise:
            raise InputError(
                f"study {name!r} takes {'more' if study.maximises else 'less'} of its metric for "
                f"better, and of --metric {terms['metric']} {'more' if maximise else 'less'} is; "
                f"give its metric, or another --study"
            )
        stored = study.agree_on_terms(terms, alone=alone)
        if begun and stored == terms:
            say(
                f"jaxvae: study {name!r} does not say of which data, config and metric its trials "
                f"are; from now on it is of this process's: {terms['data']['source']}, "
                f"{terms['metric']}"
            )
    defaults = parsing.load_config("configs/base.py")
    if differing := differences(stored, terms, defaults):
        raise InputError(
            f"study {name!r} is of another {in_a_line(differing)}; its trials would not be "
            f"comparable: give what it was begun with, or begin another (another --study, or a new "
            f"--workdir)"
        )
