"""`report.html`: one offline file with the results of a run, in words and figures."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvae.config.paths import user_path
from jaxvae.data.cells.tag_lists import quote_tag
from jaxvae.data.summary import format_report
from jaxvae.evaluation import evaluate_run, retrieval
from jaxvae.evaluation.evaluate_once import load_or_evaluate
from jaxvae.evaluation.streaming_metrics import ACTIVE_KL
from jaxvae.inference.run import Run
from jaxvae.reports import html_page
from jaxvae.reports.summary_text import (
    SAMPLE_MEASURES,
    SAMPLED,
    likelihood_rows,
    number,
    rows_judged,
    verdict,
)
from jaxvae.storage import run_files
from jaxvae.storage.atomic_files import read_json, write_text
from jaxvae.storage.places import check_place

_TRAVERSED = 3


def write_report(
    run: Run,
    *,
    output: Path | None,
    split: str,
    num_importance_samples: int | None,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes a run's report; evaluates the run first, unless an evaluation is saved.

    Args:
      run: a run with its rows.
      output: file to write; None is `report.html` in the run.
      split: the split to evaluate on.
      num_importance_samples: draws per row for the likelihood; None takes a saved evaluation with
        any number, else 1,000.
      seed: seed of every draw.
      say: callback for messages before slow steps.

    Raises:
      InputError: the run has no rows, or the file can't be written.
    """
    path = run.folder / run_files.REPORT if output is None else user_path(output)
    run.rows(split)  # raises if there are none
    check_place(path)
    judged = load_or_evaluate(
        run, split=split, num_importance_samples=num_importance_samples, seed=seed, say=say
    )
    run = evaluate_run.with_rows_enough(run)
    name = run.config.get("model_name", "vae")
    sections = [
        f"<h1>{html.escape(name)}: what it learned</h1>",
        _verdict(judged),
        html_page.section("Training", _curves(run)),
        html_page.section("Likelihood among baselines", _likelihoods(judged)),
        html_page.section("Latent space", _latent(run, judged, split)),
        html_page.section("What the dimensions mean", _dimensions(run)),
        html_page.section("Samples", _samples(run, judged, split, seed)),
        html_page.section("Completion of partial sets", _completion(run, judged, split, seed)),
        html_page.section("Data", _data(run)),
    ]
    write_text(path, html_page.document(f"{name}: report", sections))
    return path


def _verdict(judged: dict[str, Any]) -> str:
    lines = verdict(judged)
    return '<div class="verdict">' + "".join(f"<p>{html.escape(x)}</p>" for x in lines) + "</div>"


def _curves(run: Run) -> str:
    if not (run.folder / run_files.EPOCHS).is_file():
        return ""
    epoch = run.facts.get("epoch")
    note = f'<p class="note">The parameters are those of epoch {epoch}.</p>' if epoch else ""
    return html_page.figure(run.plot.curves()) + note


def _likelihoods(judged: dict[str, Any]) -> str:
    rows = likelihood_rows(judged)
    marked = next(position for position, row in enumerate(rows) if row[0] == "this model")
    table = html_page.table(
        ["model", "nats per row", "on the same rows"],
        [[name, f"{nats:.3f}", note] for name, nats, note in rows],
        marked=marked,
    )
    return (
        table + f'<p class="note">Negative log-likelihood of {rows_judged(judged)}, '
        f"lower is better; the model's is the importance-weighted bound of "
        f"{judged['num_importance_samples']:,} draws a row. -ELBO {-judged['elbo']:.3f} = "
        f"distortion {judged['distortion']:.3f} + rate {judged['rate']:.3f}. The mixture has "
        f"{judged['baseline_facts/mixture_components']:.0f} components, chosen on validation.</p>"
    )


def _latent(run: Run, judged: dict[str, Any], split: str) -> str:
    text = (
        f"<p>I(x; z) = {judged['information']:.2f} nats over the training rows (at most "
        f"{judged['information_most']:.2f}); aggregate KL {judged['aggregate_kl']:.2f}; active "
        f"units {judged['active_units']} by KL, {judged['active_units_by_variance']} by "
        f"variance.</p>"
    )
    scores = {
        name.partition("/")[2]: value
        for name, value in judged.items()
        if name.startswith("disentanglement/")
    }
    table = (
        html_page.table(list(scores), [[number(value) for value in scores.values()]])
        if scores
        else ""
    )
    return (
        text
        + html_page.figure(run.plot.kl(split))
        + html_page.figure(run.plot.latent_map(split))
        + table
    )


def _dimensions(run: Run) -> str:
    named = evaluate_run.name_dimensions(run)
    active = [dimension for dimension in named if dimension["kl"] > ACTIVE_KL]
    if not active:
        return "<p>No dimension is active: the model ignores its latent.</p>"
    rows = [
        [
            str(dimension["dim"]),
            f"{dimension['kl']:.2f}",
            dimension["concept"] or "-",
            ", ".join(quote_tag(tag) for tag, _ in dimension["rises"]),
            ", ".join(quote_tag(tag) for tag, _ in dimension["falls"]),
            ", ".join(f"{quote_tag(tag)} {nats:.2f}" for tag, nats in dimension["informs"][:3]),
        ]
        for dimension in active[:20]
    ]
    header = ["dim", "KL", "concept", "rises with z", "falls with z", "informs on (nats)"]
    traversed = active[:_TRAVERSED]
    figures = [
        html_page.figure(run.plot.traversal(dimension["dim"]), small=True)
        for dimension in traversed
    ]
    return (
        html_page.table(header, rows)
        + '<p class="note">Tags whose probability changes most from z = -2 to 2, other dimensions '
        "as rows have them; mutual information of the posterior mean with single tags. Below: the "
        "tags that move most around the mean of all rows.</p>" + "".join(figures)
    )


def _samples(run: Run, judged: dict[str, Any], split: str, seed: int) -> str:
    rows = [
        [text, *(number(judged[f"{side}/{key}"]) for side in SAMPLED)]
        for key, text in SAMPLE_MEASURES.items()
    ]
    table = html_page.table(
        ["against held-out rows", "samples", "training rows", "independent tags"], rows
    )
    decodes = evaluate_run.compare_decodes(run, judged)
    keys = ("tags_per_set_mean", "empty_fraction", "cooccurrence_pearson", "auc_logistic")
    by_decode = [[name, *(number(values[key]) for key in keys)] for name, values in decodes.items()]
    best = min(
        decodes,
        key=lambda name: (
            abs((decodes[name]["auc_logistic"] or 0.5) - 0.5),
            -(decodes[name]["cooccurrence_pearson"] or 0.0),
        ),
    )
    sampled = run.sample(20, seed=seed)
    worst = "".join(
        f"<li>{html.escape(' + '.join(pair['tags']))}: {pair['log_lift_samples']:+.2f} in samples, "
        f"{pair['log_lift_data']:+.2f} in data</li>"
        for pair in judged["samples/worst_pairs"][:5]
    )
    return (
        table
        + '<p class="note">Training rows are what a perfect memory reaches, independent tags the '
        "null; an AUC of 0.5 means that a classifier can't tell sets from data.</p>"
        + html_page.figure(run.plot.cooccurrence(num_samples=evaluate_run.NUM_SAMPLES, seed=seed))
        + '<p class="note">Share of sets with both tags, the commonest tags, square-root scale.</p>'
        + (f"<p>Pairs whose log lift is furthest off:</p><ul>{worst}</ul>" if worst else "")
        + html_page.table(["decoding", "tags per set", "empty", "co-occurrence", "AUC"], by_decode)
        + f"<p>Hardest to tell from data: <b>{best}</b>"
        + ("" if best == "bernoulli" else f" (<code>--decode {best}</code>)")
        + ".</p><p>Twenty samples:</p><ul class=sets>"
        + "".join(f"<li>{html.escape(', '.join(tags))}</li>" for tags in sampled)
        + "</ul>"
    )


def _completion(run: Run, judged: dict[str, Any], split: str, seed: int) -> str:
    rows = []
    for name in ("model", "mixture", "popularity"):
        if f"held_out_tags/{name}/recall_at_5" in judged:
            recall = [judged[f"held_out_tags/{name}/recall_at_{k}"] for k in retrieval.RECALL_AT]
            rows.append([name, *(number(value) for value in recall)])
    if not rows:
        return ""
    header = ["held-out tags asked for again", *(f"recall@{k}" for k in retrieval.RECALL_AT)]
    figure = run.plot.calibration(split, seed=seed)
    return html_page.table(header, rows) + html_page.figure(figure, small=True)


def _data(run: Run) -> str:
    path = run.folder / run_files.DATA_REPORT
    if not path.is_file():
        return ""
    return f"<pre>{html.escape(format_report(read_json(path)))}</pre>"
