"""The figures of a search and of a frontier."""

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxvae.reports.figures import CYCLE, INK, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def history(values: list[tuple[int, float]], metric: str, *, maximise: bool) -> "Figure":
    """Each complete trial's value by number, and the best so far."""
    figure, (axis,) = new_figure("History", 9.0, 3.0)
    number, value = (np.array(column) for column in zip(*values, strict=True))
    best = (np.maximum if maximise else np.minimum).accumulate(value)
    axis.scatter(number, value, s=18, color=CYCLE[0], linewidths=0, label="trial")
    axis.step(number, best, where="post", color=CYCLE[1], linewidth=1.4, label="best so far")
    left_out = _show_most(axis, value, maximise)
    axis.set_xlabel("trial")
    axis.set_ylabel(metric)
    axis.set_title(f"History; beyond the edge: {left_out} worse" if left_out else "History")
    axis.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def _show_most(axis, value: np.ndarray, maximise: bool) -> int:
    """Cuts off the worst values, which would press the others together; returns their number."""
    worst = np.quantile(value, 0.1 if maximise else 0.9)
    best = value.max() if maximise else value.min()
    room = 0.15 * abs(worst - best) or 0.1
    low, high = (worst - room, best + room) if maximise else (best - room, worst + room)
    axis.set_ylim(low, high)
    return int(((value < low) | (value > high)).sum())


def importance(shares: dict[str, float]) -> "Figure":
    """Each field's share of the metric's variance."""
    figure, (axis,) = new_figure("Importance", 9.0, 0.9 + 0.28 * len(shares))
    names = list(shares)[::-1]
    axis.barh(names, [shares[name] for name in names], color=CYCLE[0])
    axis.set_title("Importance of each field (PED-ANOVA)")
    return figure


def parallel(trials: list[dict], values: list[float], metric: str, *, maximise: bool) -> "Figure":
    """Parallel coordinates: a line for each trial through its fields, the best on top.

    Args:
      trials: the values that each trial drew, by field.
      values: the metric of each trial.
      metric: name of the metric.
      maximise: whether more is better.
    """
    fields = sorted({field for trial in trials for field in trial})
    figure, (axis,) = new_figure("Parallel coordinates", 10.0, 4.6)
    ranks = np.argsort(np.argsort(np.array(values) * (1 if maximise else -1)))
    share = ranks / max(len(values) - 1, 1)
    columns = [_column([trial.get(field) for trial in trials]) for field in fields]
    import matplotlib

    shades = matplotlib.colormaps["viridis"]
    for index in np.argsort(ranks):
        heights = [column[0][index] for column in columns]
        axis.plot(
            heights,
            color=shades(0.1 + 0.85 * share[index]),
            alpha=0.25 + 0.7 * share[index] ** 3,
        )
    for x, (_, low, high) in enumerate(columns):
        axis.axvline(x, color=INK, linewidth=0.6)
        axis.annotate(low, (x, 0.0), xytext=(0, -11), textcoords="offset points", fontsize=7,
                      color=INK, ha="center")  # fmt: skip
        axis.annotate(high, (x, 1.0), xytext=(0, 4), textcoords="offset points", fontsize=7,
                      color=INK, ha="center")  # fmt: skip
    axis.set_xticks(np.arange(len(fields)), fields, rotation=30, ha="right", fontsize=8)
    axis.set_yticks([])
    axis.set_ylim(-0.08, 1.08)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="x", pad=14, length=0)
    axis.set_title(f"Trials, the best by {metric} brightest; a gap: the field was not drawn")
    return figure


def _column(values: list) -> tuple[np.ndarray, str, str]:
    """Heights in [0, 1] of one field's values, NaN for None, and the labels of both ends."""
    present = [value for value in values if value is not None]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)
    if numbers:
        low, high = min(present), max(present)
        positions = {value: float(value) for value in present}
        if low > 0 and high / low > 30:
            positions = {value: math.log(value) for value in present}
        labels = f"{low:.3g}", f"{high:.3g}"
    else:
        distinct = sorted({str(value) for value in present})
        positions = {str(value): float(position) for position, value in enumerate(distinct)}
        labels = distinct[0], distinct[-1] if len(distinct) > 1 else ""
    bottom, top = min(positions.values()), max(positions.values())
    heights = [
        math.nan
        if value is None
        else (positions[value if numbers else str(value)] - bottom) / ((top - bottom) or 1.0)
        for value in values
    ]
    return np.array(heights), *labels


def rate_distortion(
    points: list[tuple[float, float]], labels: list[str], title: str, *, joined: bool = False
) -> "Figure":
    """Rate against distortion, nats per row; dotted lines have equal sums, which are -ELBO."""
    figure, (axis,) = new_figure("Rate and distortion", 9.0, 4.2)
    rate, distortion = (np.array(column) for column in zip(*points, strict=True))
    axis.plot(rate, distortion, color=CYCLE[0], marker="o", markersize=4,
              linewidth=1.0 if joined else 0.0)  # fmt: skip
    best = float((rate + distortion).min())
    wide, high = np.ptp(rate) or 1.0, np.ptp(distortion) or 1.0
    left, right = rate.min() - 0.05 * wide, rate.max() + 0.1 * wide
    bottom, top = distortion.min() - 0.1 * high, distortion.max() + 0.1 * high
    for gap in (0.0, 0.5, 1.0):
        elbo = best + gap
        axis.plot([left, right], [elbo - left, elbo - right], color=INK, linewidth=0.6,
                  linestyle=":")  # fmt: skip
        end = min(right, elbo - bottom)  # the line's end in the picture
        axis.annotate(f"{elbo:.2f}", (end, elbo - end), fontsize=7, color=INK, ha="right",
                      va="bottom", xytext=(0, 2 + 8 * gap), textcoords="offset points")  # fmt: skip
    axis.set(xlim=(left, right), ylim=(bottom, top))
    labelled: list[tuple[float, float]] = []
    for x, y, label in zip(rate, distortion, labels, strict=True):
        if any(abs(x - u) < 0.02 * wide and abs(y - v) < 0.04 * high for u, v in labelled):
            continue  # the label would lie on another
        labelled.append((x, y))
        axis.annotate(label, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=7,
                      color=INK)  # fmt: skip
    axis.set_xlabel("rate KL(q(z|x) || p(z)), nats")
    axis.set_ylabel("distortion, nats")
    axis.set_title(title)
    return figure


def by_weight(weights: list[float], series: dict[str, tuple[list[float], list[float]]]) -> "Figure":
    """Likelihood and active units against the weight of the KL: {title: (means, sds)}."""
    figure, axes = new_figure("By weight", 9.0, 3.0, len(series))
    for axis, (title, (mean, sd)) in zip(axes, series.items(), strict=True):
        axis.errorbar(weights, mean, yerr=sd, color=CYCLE[0], marker="o", markersize=3,
                      linewidth=1.2)  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel("loss.kld_weight")
        axis.set_title(title)
    return figure
