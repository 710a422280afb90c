"""The results of a search or a frontier, as one offline page."""

import html
from typing import Any

from jaxvae.reports import html_page, sweep_figures

_LISTED = 40


def study_page(
    *,
    title: str,
    metric: str,
    maximise: bool,
    outcomes: list[Any],
    importance: dict[str, float],
    best: Any,
    command: str,
    test: dict[str, float],
) -> str:
    """Returns the page of a search.

    Args:
      title: the page's heading.
      metric: the metric of the search.
      maximise: whether more of the metric is better.
      outcomes: the result of `optuna_study.Study.outcomes`.
      importance: the result of `optuna_study.Study.importance`.
      best: the best of the outcomes, None if no trial was complete.
      command: the command that trains the best trial again.
      test: test metrics of the best run, by name.
    """
    complete = [trial for trial in outcomes if trial.value is not None]
    sections = [f"<h1>{html.escape(title)}</h1>", _verdict(outcomes, best, metric, command)]
    if best is not None:
        sections += _best_trial(best, test)
    if len(complete) > 1:
        sections += _plots(complete, metric, maximise=maximise, importance=importance)
    ranked = sorted(complete, key=lambda trial: trial.value, reverse=maximise)
    unranked = [trial for trial in outcomes if trial.value is None]
    sections.append(html_page.section("Trials", _trials(ranked + unranked, metric)))
    return html_page.document(title, sections)


def _verdict(outcomes: list[Any], best: Any, metric: str, command: str) -> str:
    """The number of trials in each state, and the best trial with the command that trains it."""
    counts = {
        state: sum(trial.state == state for trial in outcomes)
        for state in ("complete", "pruned", "failed", "running")
    }
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    verdict = f"<p>{len(outcomes)} trials: {states}.</p>"
    if best is not None:
        verdict += (
            f"<p>Best: trial {best.number}, {html.escape(metric)} {best.value:.4f}.</p>"
            f"<pre>{html.escape(command)}</pre>"
        )
    return f'<div class="verdict">{verdict}</div>'


def _best_trial(best: Any, test: dict[str, float]) -> list[str]:
    """The best trial's fields, and its run's test metrics."""
    fields = [[field, _text(value)] for field, value in sorted(best.drawn.items())]
    sections = [html_page.section("The best trial", html_page.table(["field", "value"], fields))]
    if test:
        rows = [[name, _text(value)] for name, value in test.items()]
        table = html_page.table(["metric", "value"], rows)
        sections.append(html_page.section("Its test, once", table))
    return sections


def _plots(
    complete: list[Any], metric: str, *, maximise: bool, importance: dict[str, float]
) -> list[str]:
    """The search's progress, its fields, and the rates and distortions of its trials."""
    values = [(trial.number, trial.value) for trial in complete]
    history = sweep_figures.history(values, metric, maximise=maximise)
    trial_fields, scores = [trial.drawn for trial in complete], [trial.value for trial in complete]
    fields = html_page.figure(
        sweep_figures.parallel(trial_fields, scores, metric, maximise=maximise)
    )
    if importance:
        fields += html_page.figure(sweep_figures.importance(importance))
    points = [(trial.measures["val/rate"], trial.measures["val/distortion"]) for trial in complete]
    labels = [str(trial.number) for trial in complete]
    title = "Validation, a dot for each trial; dotted: equal -ELBO"
    rates = sweep_figures.rate_distortion(points, labels, title)
    return [
        html_page.section("Progress", html_page.figure(history)),
        html_page.section("Fields", fields),
        html_page.section("Rate and distortion", html_page.figure(rates)),
    ]


def _trials(trials: list[Any], metric: str) -> str:
    """A table of the first trials."""
    rows = [
        [
            str(trial.number),
            "-" if trial.value is None else f"{trial.value:.4f}",
            trial.state,
            str(trial.measures.get("epochs", "-")),
            ", ".join(f"{name}={_text(value)}" for name, value in trial.drawn.items()),
        ]
        for trial in trials[:_LISTED]
    ]
    table = html_page.table(["trial", metric, "state", "epochs", "fields"], rows)
    if len(trials) > _LISTED:
        table += f'<p class="note">The first {_LISTED} of {len(trials)}.</p>'
    return table


def frontier_page(
    *, title: str, points: list[dict[str, Any]], advice: list[tuple[str, str, str]]
) -> str:
    """Returns the page of a frontier.

    Args:
      title: the page's heading.
      points: the result of `rate_distortion.train_rate_distortion`.
      advice: (purpose, its meaning and weight, the command or "").
    """
    verdict = "".join(
        f"<p><b>{html.escape(purpose)}</b>: {html.escape(meaning)}</p>"
        f"<pre>{html.escape(command)}</pre>"
        for purpose, meaning, command in advice
    )
    weights = [point["kld_weight"] for point in points]

    def series(name: str) -> tuple[list[float], list[float]]:
        measures = [point[f"val/{name}"] for point in points]
        return [measure["mean"] for measure in measures], [
            measure["sd"] or 0.0 for measure in measures
        ]

    plane = sweep_figures.rate_distortion(
        list(zip(series("rate")[0], series("distortion")[0], strict=True)),
        [f"{weight:.3g}" for weight in weights],
        "Validation, a dot for each weight of the KL; dotted: equal -ELBO",
        joined=True,
    )
    lines = sweep_figures.by_weight(
        weights,
        {"val/nll_iw, nats": series("nll_iw"), "active units": series("active_units")},
    )
    names = ("nll_iw", "rate", "distortion", "active_units", "jaccard_index")
    rows = [
        [f"{point['kld_weight']:g}", str(point["seeds"])]
        + [_mean_sd(point[f"val/{name}"]) for name in names]
        for point in points
    ]
    return html_page.document(
        title,
        [
            f"<h1>{html.escape(title)}</h1>",
            f'<div class="verdict">{verdict}</div>',
            html_page.section("Rate and distortion", html_page.figure(plane)),
            html_page.section("By weight", html_page.figure(lines)),
            html_page.section("Numbers", html_page.table(["kld_weight", "seeds", *names], rows)),
        ],
    )


def _mean_sd(measure: dict[str, Any]) -> str:
    if measure["sd"] is None:
        return f"{measure['mean']:.3f}"
    return f"{measure['mean']:.3f} ± {measure['sd']:.3f}"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
