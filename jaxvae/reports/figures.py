"""The figures of a run, and their output as SVG in a page's text colour, or as PNG.

Each function returns a matplotlib figure, whose label describes it in words.
"""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
_APART = 0.06
"""Minimum gap between two labels, in axis units from 0 to 1."""
CYCLE = ("#2a7fb8", "#e07b39", "#3a9d5d", "#b0497c", "#8a6fd1", "#b59a2b", "#4aa8a8", "#c9504a")


def new_figure(title: str, width: float, height: float, columns: int = 1):
    """Makes a matplotlib figure in the page's colours, and its axes; the size is in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_label(title)
    # IPython shows a figure by this method; without pyplot, it would print the figure's name.
    figure._repr_png_ = functools.partial(to_png, figure)  # type: ignore[attr-defined]
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.set_facecolor("none")
        axis.tick_params(colors=INK, labelsize=9)
        for side, spine in axis.spines.items():
            spine.set_color(INK)
            spine.set_visible(side in ("left", "bottom"))
        axis.xaxis.label.set_color(INK)
        axis.yaxis.label.set_color(INK)
        axis.title.set_color(INK)
        axis.title.set_fontsize(10)
    return figure, axes


def _as_written(figure: "Figure") -> "Figure":
    """Disables mathtext in a figure, so that `$` in tags is printed literally."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure


def _label(name: str) -> str:
    """Makes a name visible in a legend, which leaves out names that begin with `_`."""
    return f" {name}" if name.startswith("_") else name


@contextlib.contextmanager
def _any_letters() -> Iterator[None]:
    """Suppresses warnings about letters that the font lacks; a PNG has boxes for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")
        yield


def to_svg(figure: "Figure") -> str:
    """Returns a figure as SVG for a page, with ids that are unique among its figures."""
    import matplotlib

    title = str(figure.get_label())
    buffer = io.StringIO()
    # Text stays text, in the page's font; a fixed salt gives the same file for the same run.
    with _any_letters(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # Ids are made per figure and would collide in one page.
    stem = re.sub(r"\W+", "-", title.lower())
    svg = re.sub(r'\bid="', f'id="{stem}-', svg)
    svg = svg.replace("url(#", f"url(#{stem}-").replace('href="#', f'href="#{stem}-')
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def to_png(figure: "Figure") -> bytes:
    """Returns a figure as a PNG on white, for places that take no SVG."""
    buffer = io.BytesIO()
    # Without the library's version: the same file for the same run.
    with _any_letters():
        figure.savefig(
            buffer,
            format="png",
            dpi=120,
            facecolor="white",
            metadata={"Software": None, "Title": str(figure.get_label())},
        )
    return buffer.getvalue()


def curves(lines: list[dict]) -> "Figure":
    """Training and validation loss, and the validation's KL, over epochs."""
    figure, (loss, kl) = new_figure("Training curves", 9.0, 3.0, 2)
    for name, label, axis in (
        ("train/loss", "train (with dropout)", loss),
        ("val/loss", "validation", loss),
        ("val/kld", "validation KL", kl),
    ):
        points = [(line["epoch"], line[name]) for line in lines if line.get(name) is not None]
        if points:
            colour = CYCLE[1] if name.startswith("val") else CYCLE[0]
            axis.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.4)
    values = [line["val/loss"] for line in lines if line.get("val/loss") is not None]
    if values:  # the first epochs are far above all that follows
        top = np.quantile(values, 0.9) + 1.5
        loss.set_ylim(min(values) - 1.5, max(top, min(values) + 2.0))
    loss.set_title("Loss, nats per row")
    kl.set_title("Validation KL, nats per row")
    for axis in (loss, kl):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
    if loss.lines:
        loss.legend(frameon=False, labelcolor=INK, fontsize=9)
    return figure


def kl_bars(kl: list[float]) -> "Figure":
    """Mean KL of every dimension, largest first."""
    figure, (axis,) = new_figure("KL per dimension", 9.0, 2.4)
    axis.bar(np.arange(len(kl)), sorted(kl, reverse=True), color=CYCLE[0])
    axis.axhline(0.05, color=CYCLE[1], linewidth=1.0)
    axis.set_title("KL of each latent dimension, largest first (line: 0.05 nats, active)")
    axis.set_ylabel("nats")
    axis.set_xlabel("dimension, by rank")
    return figure


def paired_bars(
    title: str, bars: Mapping[str, tuple[float, float]], sides: tuple[str, str], unit: str
) -> "Figure":
    """Two values of each name, the first name on top.

    Args:
      title: the figure's label.
      bars: both values by name.
      sides: what the values are of.
      unit: what the values are.
    """
    figure, (axis,) = new_figure(title, 9.0, 0.8 + 0.4 * len(bars))
    places = np.arange(len(bars))[::-1]
    for number, side in enumerate(sides):
        values = [pair[number] for pair in bars.values()]
        axis.barh(places + 0.2 - 0.4 * number, values, 0.38, color=CYCLE[number], label=side)
    axis.set_yticks(places, [_label(name) for name in bars])
    axis.set_xlabel(unit)
    axis.legend(frameon=False, labelcolor=INK, fontsize=9)
    return _as_written(figure)


def latent_map(points: np.ndarray, labels: list[str], method: str) -> "Figure":
    """Rows in two dimensions, coloured by label."""
    figure, (axis,) = new_figure("Map of the latent space", 9.0, 4.2)
    for number, label in enumerate(sorted(set(labels))):
        is_label = np.array([row_label == label for row_label in labels])
        axis.scatter(
            *points[is_label].T,
            s=16,
            color=CYCLE[number % len(CYCLE)],
            label=_label(label),
            alpha=0.75,
            linewidths=0,
        )
    axis.set_title(f"Rows by {method} of their posterior means; colour: concept of most tags")
    axis.legend(
        frameon=False, labelcolor=INK, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    return _as_written(figure)


def cooccurrence(
    data: np.ndarray,
    samples: np.ndarray,
    tags: list[str],
) -> "Figure":
    """Rates of pairs of the commonest tags, in data and in samples: matrices `[T, T]`."""
    figure, axes = new_figure("Co-occurrence", 10.0, 6.0, 2)
    top = max(data.max(), samples.max(), 1e-6)
    for axis, matrix, title in ((axes[0], data, "Data"), (axes[1], samples, "Samples")):
        axis.imshow(np.sqrt(matrix / top), cmap="viridis", vmin=0.0, vmax=1.0)
        axis.set_title(title)
        axis.set_xticks(np.arange(len(tags)), tags, rotation=90, fontsize=7)
        axis.set_yticks(np.arange(len(tags)), tags if axis is axes[0] else [], fontsize=7)
    return _as_written(figure)


def calibration(predicted: np.ndarray, observed: np.ndarray, count: np.ndarray) -> "Figure":
    """Observed share of tags against their predicted probability, in bins."""
    figure, (axis,) = new_figure("Calibration", 5.2, 3.6)
    axis.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    axis.plot(predicted, observed, color=CYCLE[0], marker="o", markersize=4)
    right = np.inf
    for x, y, n in reversed(list(zip(predicted, observed, count, strict=True))):
        if right - x > _APART:  # most bins lie near zero, and their numbers on top of each other
            axis.annotate(
                f"{n:,}", (x, y), color=INK, fontsize=7, xytext=(4, -8), textcoords="offset points"
            )
            right = x
    axis.set_xlabel("probability, given only part of a row's tags")
    axis.set_ylabel("share present")
    axis.set_title("Calibration (numbers: predictions in the bin)")
    return figure


def traversal(
    steps: tuple[float, ...], probabilities: np.ndarray, tags: list[str], dim: int
) -> "Figure":
    """Probabilities `[S, T]` of some tags along one dimension."""
    figure, (axis,) = new_figure(f"Traversal of dimension {dim}", 5.2, 3.0)
    for number, tag in enumerate(tags):
        axis.plot(
            steps, probabilities[:, number], color=CYCLE[number % len(CYCLE)], label=_label(tag)
        )
    axis.set_title(f"Dimension {dim}")
    axis.set_xlabel("z")
    axis.set_ylabel("probability")
    axis.legend(
        frameon=False, labelcolor=INK, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    return _as_written(figure)
