"""A run's evaluation in words, and as a table for a terminal."""

import math
from typing import Any

from jaxvae.reports.advice import advise

_BASELINES = {
    "independent": "independent tags",
    "chow_liu": "Chow-Liu tree",
    "mixture": "mixture of Bernoullis",
    "generator": "the corpus's own generator",
}


SAMPLE_MEASURES = {
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
"""Names of the measures of samples, and their descriptions."""
SAMPLED = ("samples", "train_rows", "independent")
"""Sources of the measured sets: the model, a perfect memory, and independent tags."""


def likelihood_rows(judged: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Models by negative log-likelihood, worst first: (name, nats per row, comparison or error).

    Args:
      judged: the result of `evaluate_run.evaluate_run`.
    """
    rows = [
        (
            text,
            judged[f"baseline/{name}"],
            _against(judged[f"gain/{name}"], judged[f"gain/{name}_stderr"]),
        )
        for name, text in _BASELINES.items()
        if f"baseline/{name}" in judged
    ]
    rows.append(("this model", judged["nll_iw"], _error(judged["nll_iw_stderr"])))
    return sorted(rows, key=lambda row: -row[1])


def verdict(judged: dict[str, Any]) -> list[str]:
    """Returns three sentences: learned or collapsed, against each baseline, and a next step."""
    information = judged["information"]
    learned = not judged["collapsed"]
    lines = [
        f"The model {'learned' if learned else 'has collapsed, or has not learned yet'}: its "
        f"latent carries {information:.2f} nats about a row, in {judged['active_units']} active of "
        f"{judged['latent_dim']} dimensions."
    ]
    better: list[str] = []
    equal: list[str] = []
    worse: list[str] = []
    for name, text in _BASELINES.items():
        gain, error = judged.get(f"gain/{name}"), judged.get(f"gain/{name}_stderr")
        if gain is None or name == "generator":
            continue
        group = equal if error is None or abs(gain) < 2.0 * error else better if gain > 0 else worse
        group.append(f"{text} ({gain:+.2f} nats)")
    comparisons = [
        f"{word} {' and '.join(names) if len(names) < 3 else ', '.join(names)}"
        for word, names in (
            ("better than", better),
            ("not distinguishable from", equal),
            ("worse than", worse),
        )
        if names
    ]
    lines.append(f"On {judged['rows']:,} {judged['split']} rows it is {'; '.join(comparisons)}.")
    lines.append(advise(judged, is_behind=bool(worse)))
    return lines


def rows_judged(judged: dict[str, Any]) -> str:
    """Describes the evaluated rows: their number, their split, and its size if larger."""
    subsampled = judged["rows"] < judged["rows_in_split"]
    of = f" of {judged['rows_in_split']:,}" if subsampled else ""
    return f"{judged['rows']:,}{of} {judged['split']} rows"


def evaluation_table(judged: dict[str, Any]) -> str:
    """Returns the evaluation as text for a terminal."""
    lines = [
        f"{rows_judged(judged)}, {judged['num_importance_samples']} importance samples a row; nats "
        f"per row",
        "",
    ]
    for name, nats, note in likelihood_rows(judged):
        mark = "->" if name == "this model" else "  "
        lines.append(f"{mark} {name:<28}{nats:8.3f}   {note}")
    lines += ["", *_table(_groups(judged)), "", *verdict(judged)]
    return "\n".join(lines)


def set_files_table(judged: dict[str, Any]) -> str:
    """Returns a comparison of two files of tag sets as text for a terminal.

    Args:
      judged: the result of `set_files.evaluate_set_files`.
    """
    sides, measures = set_measures(judged)
    lines = []
    for name, file in judged["files"].items():
        compared = "" if file["compared"] == file["rows"] else f", {file['compared']:,} compared"
        lines.append(
            f"{name:<6}{file['path']}: {file['rows']:,} rows{compared}; "
            f"{file['without_known_tag']:,} without a known tag, {file['unreadable']:,} "
            f"unreadable, {file['unknown_tags']:,} unknown tags ignored"
        )
    lines += ["", " " * 36 + "".join(f"{name:>15}" for name in sides)]
    for text, values in measures:
        lines.append(f"{text:<36}" + "".join(f"{value:>15}" for value in values))
    lines += [f"beware: {line}" for line in too_alike(judged)]
    lines += ["", "95 % intervals of the sets, by bootstrap:"]
    lines += [f"  {text:<34}{low:>8} to {high}" for text, low, high in set_intervals(judged)]
    worst = judged["sets/worst_pairs"][:5]
    if worst:
        lines += ["", "pairs most unlike the rows, log lift in the sets and in the rows:"]
        lines += [
            f"  {pair['log_lift_samples']:+6.2f} {pair['log_lift_data']:+6.2f}  "
            f"{', '.join(pair['tags'])}"
            for pair in worst
        ]
    return "\n".join(lines)


def set_measures(judged: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Returns the names of the compared sets, and each measure's description with its values.

    Args:
      judged: the result of `set_files.compare_with_rows`, and perhaps `files`.
    """
    sides = {"sets": "the sets", "train_rows": "training rows", "independent": "independent"}
    names = [side for side in sides if f"{side}/marginal_mae" in judged]
    return [sides[name] for name in names], [
        (text, [number(judged[f"{name}/{key}"]) for name in names])
        for key, text in _set_texts(judged).items()
    ]


def too_alike(judged: dict[str, Any]) -> list[str]:
    """Returns a line if a two-sample test finds sets and rows closer than two draws would be.

    Args:
      judged: as for `set_measures`.
    """
    under = []
    for name in ("logistic", "boosting"):
        area, error = (judged.get(f"sets/auc_{name}{of}") for of in ("", "_stderr"))
        if area is not None and error is not None and area + 2.0 * error < 0.5:
            under.append(f"{area:.3f} ± {error:.3f} ({name})")
    if not under:
        return []
    equal = judged.get("sets/equal_to_rows_fraction")
    share = "" if equal is None else f"; {100 * equal:.1f} % of the sets equal one of the rows"
    return [
        f"an AUC of {' and '.join(under)}, under 0.5, means closer than two draws would be: "
        f"copies, or the same rows in both files{share}"
    ]


def set_intervals(judged: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns descriptions of the measures that have intervals, each with both ends."""
    texts = {
        **_set_texts(judged),
        "copies_fraction": "copies of rows",
        "marginal_total_variation": "tag rates, half of all errors",
    }
    intervals = judged["sets/intervals"].items()
    return [(texts[name], number(low), number(high)) for name, (low, high) in intervals]


def _set_texts(judged: dict[str, Any]) -> dict[str, str]:
    texts = {
        **SAMPLE_MEASURES,
        "distinct_fraction": "distinct sets",
        "equal_to_rows_fraction": "sets that equal one of the rows",
    }
    if "train_rows/marginal_mae" not in judged:
        texts |= {
            "unseen_fraction": "sets not among the rows",
            "nearest_train_distance": "tags to the nearest row",
        }
    return texts


def _groups(judged: dict[str, Any]) -> list[tuple[str, str]]:
    def recall(name):
        return number(judged.get(f"held_out_tags/{name}/recall_at_10"))

    rows = [
        (
            "-ELBO = distortion + rate",
            f"{-judged['elbo']:.3f} = {judged['distortion']:.3f} + {judged['rate']:.3f}",
        ),
        ("I(x; z), aggregate KL", f"{judged['information']:.3f}, {judged['aggregate_kl']:.3f}"),
        (
            "active units",
            f"{judged['active_units']} of {judged['latent_dim']} by KL, "
            f"{judged['active_units_by_variance']} by variance",
        ),
        (
            "given a set is not empty",
            f"{judged['nll_iw_nonempty']:.3f}; mixture {judged['baseline/mixture_nonempty']:.3f}",
        ),
    ]
    for name, text in (("at_half", "cut at 0.5"), ("at_best", "best cut")):
        score = {
            key: judged[f"reconstruction_{name}/{key}"]
            for key in ("threshold", "jaccard_mean", "jaccard_pooled", "f1_micro", "f1_macro")
        }
        rows.append(
            (
                f"reconstruction, {text}",
                f"{score['threshold']:.2f}: Jaccard {score['jaccard_mean']:.3f} mean, "
                f"{score['jaccard_pooled']:.3f} pooled; F1 {score['f1_micro']:.3f} micro, "
                f"{score['f1_macro']:.3f} macro",
            )
        )
    rows.append(("mean average precision", number(judged["mean_average_precision"])))
    rows.append(
        (
            "held-out tags, recall@10",
            f"{recall('model')}; mixture {recall('mixture')}; popularity {recall('popularity')}",
        )
    )
    for key, text in SAMPLE_MEASURES.items():
        model, train, independent = (number(judged[f"{side}/{key}"]) for side in SAMPLED)
        rows.append(
            (f"samples: {text}", f"{model}; training rows {train}; independent {independent}")
        )
    rows += [
        (name.replace("disentanglement/", "disentanglement: "), number(value))
        for name, value in judged.items()
        if name.startswith("disentanglement/")
    ]
    return rows


def _table(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows) + 2
    return [f"   {name:<{width}}{value}" for name, value in rows]


def number(value: float | None) -> str:
    """Formats a value with three decimals, or as a dash if it is None."""
    return "-" if value is None else f"{value:.3f}"


def _error(stderr: float) -> str:
    return "one draw, no error" if math.isnan(stderr) else f"± {stderr:.3f} Monte Carlo"


def _against(gain: float, error: float | None) -> str:
    noise = "" if error is None else f" ± {error:.3f}"
    return f"the model is {abs(gain):.3f}{noise} {'better' if gain > 0 else 'worse'}"
