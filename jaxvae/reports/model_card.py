"""The README.md of a published model: metadata that the Hub reads, and a page that people read."""

import math
import re
from pathlib import Path
from typing import Any

from jaxvae.data.sources import is_embedded
from jaxvae.errors import InputError
from jaxvae.reports.summary_text import likelihood_rows, verdict

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NEEDED = ("nll_iw", "nll_iw_stderr", "information", "split", "rows", "elbo", "kl_per_dimension")


def check_license(license: str | None) -> None:
    """Raises InputError unless `license` is None or can be an identifier, such as apache-2.0."""
    if license is not None and not _LICENSE.fullmatch(license):
        raise InputError(
            f"--license {license[:80]!r}: an identifier as the Hub lists them, such as apache-2.0, "
            f"mit or cc-by-4.0"
        )


def check_judged(judged: dict[str, Any], path: Path) -> dict[str, Any]:
    """Prepares a saved evaluation for a card; InputError names a file that lacks a value."""
    missing = [name for name in _NEEDED if name not in judged]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; run evaluate on the run once more")
    stderr = judged["nll_iw_stderr"]  # null if there was one draw
    return {**judged, "nll_iw_stderr": math.nan if stderr is None else stderr}


def make_card(
    *,
    repository: str,
    config: dict[str, Any],
    sizes: dict[str, Any],
    prior: str,
    carries_code: bool,
    concepts: dict[str, int],
    facts: dict[str, Any],
    judged: dict[str, Any] | None,
    data_report: dict[str, Any],
    samples: list[list[str]],
    pictures: dict[str, str],
    license: str | None,
) -> str:
    """Returns the card's text.

    Args:
      repository: "user/name".
      config: the run's config, without paths.
      sizes: the network's sizes, as in a config's `model`.
      prior: the prior in a few words.
      carries_code: whether the model needs code of its author's own, which it carries.
      concepts: number of tags of each concept.
      facts: checkpoint and epoch of the parameters.
      judged: the result of `evaluate_run.evaluate_run`; None if the run was not evaluated.
      data_report: counts of the training rows; `{}` if unknown.
      samples: tag sets that the model drew.
      pictures: titles of the pictures, by file name.
      license: the Hub's identifier of a license, or None.
    """
    name = str(config.get("model_name", "vae"))
    sections = [
        f"---\n{_metadata(name, config, judged, license)}\n---\n",
        f"# {escape(name)}\n",
        _what(sizes, prior, concepts, facts) + _files(carries_code),
        _use(repository, carries_code),
        _results(judged),
        *(f"## {title}\n\n![{title}]({file})\n" for file, title in pictures.items()),
        "## Samples\n\n" + "\n".join(f"- {escape(', '.join(tags))}" for tags in samples) + "\n",
        _data(config, data_report, license),
    ]
    return "\n".join(sections)


def _metadata(
    name: str, config: dict[str, Any], judged: dict[str, Any] | None, license: str | None
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    source = _source(config)
    results = []
    for key, text in (
        ("nll_iw", "negative log-likelihood (importance-weighted bound), nats per row"),
        ("mean_average_precision", "mean average precision of reconstructions"),
        ("held_out_tags/model/recall_at_10", "recall at 10 of held-out tags"),
    ):
        value = (judged or {}).get(key)
        if judged is not None and value is not None:
            results.append(
                EvalResult(
                    task_type="density-estimation",
                    task_name="Density estimation of tag sets",
                    dataset_type=source,
                    dataset_name=source,
                    dataset_split=str(judged["split"]),
                    metric_type=key.rpartition("/")[2],
                    metric_name=text,
                    metric_value=value,
                )
            )
    card = ModelCardData(
        library_name="jaxvae",
        license=license,
        tags=["jaxvae", "jax", "flax", "vae", "variational-autoencoder", "multi-label", "tags"],
        datasets=[source] if _HUB_ID.fullmatch(source) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return card.to_yaml().strip()


def _source(config: dict[str, Any]) -> str:
    return str(config.get("data", {}).get("dataset_name") or "unknown")


def _what(
    sizes: dict[str, Any], prior: str, concepts: dict[str, int], facts: dict[str, Any]
) -> str:
    norms = [text for text in ("batch", "layer") if sizes[f"use_{text}_norm"]]
    units = " and ".join(map(str, sizes["hidden_dims"] or [sizes["hidden_dim"]]))
    listed = ", ".join(f"{escape(concept)} ({count})" for concept, count in concepts.items())
    epoch = "" if facts.get("epoch") is None else f", of epoch {facts['epoch']}"
    return (
        f"A variational autoencoder over sets of {sum(concepts.values())} tags: {listed}. "
        f"{sizes['latent_dim']} latent dimensions, {units} hidden units"
        f"{''.join(f', {norm} norm' for norm in norms)}, {prior}. The parameters are those of the "
        f"{facts.get('checkpoint')} checkpoint{epoch}.\n\n"
    )


def _files(carries_code: bool) -> str:
    code = (
        "its prior or architecture is its author's own code, under `extensions` in config.json, "
        "which runs only with `trust_code=True`: read it first"
        if carries_code
        else "loading them runs no code of this repository"
    )
    return (
        f"It is made by jaxvae. Its files are parameters as safetensors, config and taxonomy as "
        f"JSON; {code}.\n"
    )


def _use(repository: str, carries_code: bool) -> str:
    trust = ", trust_code=True" if carries_code else ""
    return (
        "## Use\n\n"
        "```python\n"
        "import jaxvae\n\n"
        f'model = jaxvae.load("hf://{repository}"{trust})  '
        "# @revision pins a branch, tag or commit\n"
        "model.sample(5)\n"
        "model.complete(present=[model.taxonomy.tags[0]], num=3).sets\n"
        "model.encode([[model.taxonomy.tags[0]]])  # posterior means\n"
        "```\n"
    )


def _results(judged: dict[str, Any] | None) -> str:
    if judged is None:
        return "## Results\n\nThe run was not evaluated when this was published.\n"
    rows = "\n".join(
        f"| {f'**{name}**' if name == 'this model' else name} | {nats:.3f} | {note} |"
        for name, nats, note in likelihood_rows(judged)
    )
    draws = judged["num_importance_samples"]
    return (
        f"## Results\n\n{' '.join(verdict(judged)[:2])}\n\n"
        f"| model | nats per row | on the same rows |\n|---|---:|---|\n{rows}\n\n"
        f"Negative log-likelihood of {judged['rows']} {judged['split']} rows, lower is better; the "
        f"model's is the importance-weighted bound of {draws:,} draws a row. All measures are in "
        f"`metrics.json`.\n"
    )


def _data(config: dict[str, Any], report: dict[str, Any], license: str | None) -> str:
    data, source = config.get("data", {}), _source(config)
    if is_embedded(source):
        text = "the embedded corpus of jaxvae, drawn from a generative model of music tags"
    elif _HUB_ID.fullmatch(source):
        split = escape(str(data.get("dataset_split", "train")))
        text = f"[{source}](https://huggingface.co/datasets/{source}), split {split}"
    else:
        text = f"a file, {escape(source)}" if source != "unknown" else "not known"
    lines = [f"Trained on: {text}."]
    if report:
        num_kept, num_read = report.get("rows_kept"), report.get("rows_read")
        sizes = ", ".join(
            f"{split_name} {size}" for split_name, size in report.get("split_sizes", {}).items()
        )
        lines.append(
            f"{num_kept} of {num_read} rows were kept, those with a tag of the taxonomy; "
            f"splits: {sizes}. Fingerprint of the kept rows: `{report.get('fingerprint')}`."
        )
    lines.append("The rows themselves are not in this repository.")
    if license is None:
        lines.append("Whoever published this has stated no license.")
    return "## Data\n\n" + " ".join(lines) + "\n"


def escape(text: str) -> str:
    """Escapes text for Markdown, on one line, so that nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(text.split()))
