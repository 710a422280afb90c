"""`report.html`: one file without a network that says what a run learned, and shows it."""

import html
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from jaxvae import complete, inference, judge, latents, plots, ranking
from jaxvae.data_report import format_report
from jaxvae.errors import InputError
from jaxvae.record import read_epochs, write_text
from jaxvae.report_text import likelihood_rows, verdict
from jaxvae.run import Run, read_json

_TRAVERSED = 3
_TAGS_SHOWN = 25

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.15rem;margin-top:2.2rem}
.verdict{border-left:4px solid #2a7fb8;background:var(--soft);padding:.6rem 1rem}
.verdict p{margin:.35rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.92rem}
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.this{font-weight:600}
svg{display:block;width:100%;height:auto;min-width:20rem}
.small svg{max-width:34rem}pre{overflow-x:auto;background:var(--soft);padding:.6rem;
font-size:.8rem}
figure{margin:1rem 0}ul.sets{padding-left:1.2rem}.note{opacity:.75;font-size:.88rem}
@media print{body{max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


def write_report(
    run: Run, *, output: Path | None, split: str, num_importance_samples: int, seed: int
) -> Path:
    """Judges a run and writes its report.

    Args:
      run: with its rows.
      output: file to write; None is `report.html` in the run.
      split: what it is judged on.
      num_importance_samples: draws a row for the likelihood.
      seed: of every draw.

    Raises:
      InputError: the run has no rows, or the file can't be written.
    """
    path = run.folder / "report.html" if output is None else output
    judged = judge.judge(run, split=split, num_importance_samples=num_importance_samples, seed=seed)
    name = run.config.get("model_name", "vae")
    sections = [
        f"<h1>{html.escape(name)}: what it learned</h1>",
        _verdict(run, judged),
        _section("Training", _curves(run)),
        _section("Likelihood among baselines", _likelihoods(judged)),
        _section("Latent space", _latent(run, judged, split)),
        _section("What the dimensions mean", _dimensions(run)),
        _section("Samples", _samples(run, judged, split, seed)),
        _section("Completion of partial sets", _completion(run, judged, split, seed)),
        _section("Data", _data(run)),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(name)}: report</title><style>{_STYLE}</style></head><body>"
        + "".join(sections)
        + "</body></html>\n"
    )
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {error.strerror or error}") from error
    return path


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{body}" if body else ""


def _figure(svg: str, *, small: bool = False) -> str:
    return f'<figure class="wide{" small" if small else ""}">{svg}</figure>'


def _table(header: list[str], rows: list[list[str]], *, marked: int | None = None) -> str:
    """A table whose cells after the first are numbers where they look like it."""

    def cells(row, kind):
        return "".join(
            f"<{kind}{' class=n' if _is_number(cell) else ''}>{html.escape(cell)}</{kind}>"
            for cell in row
        )

    body = "".join(
        f"<tr{' class=this' if at == marked else ''}>{cells(row, 'td')}</tr>"
        for at, row in enumerate(rows)
    )
    head = f"<tr>{cells(header, 'th')}</tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "").replace("-", "").replace("+", "").isdigit()


def _verdict(run: Run, judged: dict[str, Any]) -> str:
    weight = run.config.get("loss", {}).get("kld_weight")
    lines = verdict(judged, kld_weight=weight)
    return '<div class="verdict">' + "".join(f"<p>{html.escape(x)}</p>" for x in lines) + "</div>"


def _curves(run: Run) -> str:
    if not (run.folder / "metrics.jsonl").is_file():
        return ""
    epoch = run.facts.get("epoch")
    note = f'<p class="note">The parameters are those of epoch {epoch}.</p>' if epoch else ""
    return _figure(plots.curves(read_epochs(run.folder))) + note


def _likelihoods(judged: dict[str, Any]) -> str:
    rows = likelihood_rows(judged)
    marked = next(at for at, row in enumerate(rows) if row[0] == "this model")
    table = _table(
        ["model", "nats per row", "on the same rows"],
        [[name, f"{nats:.3f}", note] for name, nats, note in rows],
        marked=marked,
    )
    return (
        table + f'<p class="note">Negative log-likelihood of {judged["rows"]} {judged["split"]} '
        f"rows, lower is better; the model's is the importance-weighted bound of "
        f"{judged['num_importance_samples']:,} draws a row. -ELBO {-judged['elbo']:.3f} = "
        f"distortion {judged['distortion']:.3f} + rate {judged['rate']:.3f}. The mixture has "
        f"{judged['baseline_facts/mixture_components']:.0f} components, chosen on validation.</p>"
    )


def _latent(run: Run, judged: dict[str, Any], split: str) -> str:
    mean, _ = inference.posterior(run.network, run.rows(split))
    points, method = _two_dimensions(mean)
    sets = run.sets(split)
    names = [name for name, _ in run.taxonomy.concepts]
    counts = np.stack(
        [sets[:, each.start : each.stop].sum(axis=1) for _, each in run.taxonomy.concepts], axis=1
    )
    labels = [names[at] for at in counts.argmax(axis=1)]
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
    table = _table(list(scores), [[_number(value) for value in scores.values()]]) if scores else ""
    return (
        text
        + _figure(plots.kl_bars(judged["kl_per_dimension"]))
        + _figure(plots.latent_map(points, labels, method))
        + table
    )


def _two_dimensions(mean: np.ndarray) -> tuple[np.ndarray, str]:
    if importlib.util.find_spec("umap") is not None and len(mean) > 15:
        import umap

        return umap.UMAP(random_state=0, n_jobs=1).fit_transform(mean), "UMAP"
    centred = mean - mean.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(mean), 2))
    projected = centred @ axes[:2].T
    points[:, : projected.shape[1]] = projected
    return points, "PCA"


def _dimensions(run: Run) -> str:
    named = judge.name_dimensions(run)
    active = [each for each in named if each["kl"] > 0.05]
    if not active:
        return "<p>No dimension is active: the model ignores its latent.</p>"
    rows = [
        [
            str(each["dim"]),
            f"{each['kl']:.2f}",
            each["concept"] or "-",
            ", ".join(tag for tag, _ in each["rises"]),
            ", ".join(tag for tag, _ in each["falls"]),
            ", ".join(f"{tag} {nats:.2f}" for tag, nats in each["informs"][:3]),
        ]
        for each in active[:20]
    ]
    header = ["dim", "KL", "concept", "rises with z", "falls with z", "informs on (nats)"]
    origin = run.encode(run.sets("train")).mean(axis=0)
    figures = []
    for each in active[:_TRAVERSED]:
        _, probabilities = latents.traverse(run.network, origin, each["dim"])
        moved = np.argsort(-np.ptp(probabilities, axis=0))[:6]
        tags = [run.taxonomy.tags[v] for v in moved]
        svg = plots.traversal(latents.STEPS, probabilities[:, moved], tags, each["dim"])
        figures.append(_figure(svg, small=True))
    return (
        _table(header, rows)
        + '<p class="note">Tags whose probability changes most from z = -2 to 2, other dimensions '
        "as rows have them; mutual information of the posterior mean with single tags. Below: the "
        "tags that move most around the mean of all rows.</p>" + "".join(figures)
    )


def _samples(run: Run, judged: dict[str, Any], split: str, seed: int) -> str:
    measures = {
        "tags_per_set_mean": "tags per set",
        "empty_fraction": "empty sets",
        "marginal_mae": "tag rates, mean error",
        "cooccurrence_pearson": "co-occurrence, Pearson",
        "lift_error": "log lift, error",
        "unseen_fraction": "sets not in training",
        "nearest_train_distance": "tags to the nearest training row",
        "auc_logistic": "two-sample AUC, logistic",
        "auc_boosting": "two-sample AUC, boosting",
    }
    groups = ("samples", "train_rows", "independent")
    rows = [
        [text, *(_number(judged[f"{group}/{key}"]) for group in groups)]
        for key, text in measures.items()
    ]
    table = _table(["against held-out rows", "samples", "training rows", "independent tags"], rows)
    decodes = judge.compare_decodes(run, split=split, seed=seed)
    keys = ("tags_per_set_mean", "empty_fraction", "cooccurrence_pearson", "auc_logistic")
    by_decode = [
        [name, *(_number(values[key]) for key in keys)] for name, values in decodes.items()
    ]
    best = min(
        decodes,
        key=lambda name: (
            abs((decodes[name]["auc_logistic"] or 0.5) - 0.5),
            -(decodes[name]["cooccurrence_pearson"] or 0.0),
        ),
    )
    shown = run.sample(20, seed=seed)
    drawn = run.sample_sets(5000, seed=seed).multi_hot.astype(np.float32)
    data = run.sets("train").astype(np.float32)
    order = np.argsort(-data.sum(axis=0))[:_TAGS_SHOWN]
    in_data, in_samples = ((x[:, order].T @ x[:, order]) / len(x) for x in (data, drawn))
    for matrix in (in_data, in_samples):
        np.fill_diagonal(matrix, 0.0)
    worst = "".join(
        f"<li>{html.escape(' + '.join(pair['tags']))}: {pair['log_lift_samples']:+.2f} in samples, "
        f"{pair['log_lift_data']:+.2f} in data</li>"
        for pair in judged["samples/worst_pairs"][:5]
    )
    return (
        table
        + '<p class="note">Training rows are what a perfect memory reaches, independent tags the '
        "null; an AUC of 0.5 means that a classifier can't tell sets from data.</p>"
        + _figure(plots.cooccurrence(in_data, in_samples, [run.taxonomy.tags[v] for v in order]))
        + '<p class="note">Share of sets with both tags, the commonest tags, square-root scale.</p>'
        + (f"<p>Pairs whose log lift is furthest off:</p><ul>{worst}</ul>" if worst else "")
        + _table(["decoding", "tags per set", "empty", "co-occurrence", "AUC"], by_decode)
        + f"<p>Hardest to tell from data: <b>{best}</b>"
        + ("" if best == "bernoulli" else f" (<code>--decode {best}</code>)")
        + ".</p><p>Twenty samples:</p><ul class=sets>"
        + "".join(f"<li>{html.escape(', '.join(tags))}</li>" for tags in shown)
        + "</ul>"
    )


def _completion(run: Run, judged: dict[str, Any], split: str, seed: int) -> str:
    rows = []
    for name in ("model", "mixture", "popularity"):
        if f"held_out_tags/{name}/recall_at_5" in judged:
            recall = [judged[f"held_out_tags/{name}/recall_at_{k}"] for k in ranking.RECALL_AT]
            rows.append([name, *(_number(value) for value in recall)])
    if not rows:
        return ""
    header = ["held-out tags asked for again", *(f"recall@{k}" for k in ranking.RECALL_AT)]
    left, taken = ranking.remove_tags(run.sets(split), seed=seed)
    mean, logvar = inference.posterior(run.network, run.rows("train"))
    predicted = complete.predict(run.network, left, mean, logvar, seed=seed)
    p, there = predicted[~left], (left | taken)[~left]
    edges = np.array([0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0])
    at = np.clip(np.digitize(p, edges) - 1, 0, len(edges) - 2)
    count = np.bincount(at, minlength=len(edges) - 1)
    full = count > 0
    middle = np.bincount(at, p, minlength=len(edges) - 1)[full] / count[full]
    share = np.bincount(at, there, minlength=len(edges) - 1)[full] / count[full]
    return _table(header, rows) + _figure(plots.calibration(middle, share, count[full]), small=True)


def _data(run: Run) -> str:
    path = run.folder / "data_report.json"
    if not path.is_file():
        return ""
    return f"<pre>{html.escape(format_report(read_json(path)))}</pre>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
