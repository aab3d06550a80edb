"""Every plot of a report as a matplotlib figure: pages make SVG of them, papers PNG.

Nothing here touches pyplot or its state. A series has a line style of its own beside its colour.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.ranking import Floats
from featurecache.report.curves import Points, Reliability, wilson_interval
from featurecache.report.palette import LIGHT, series

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DASHES = ("-", "--", "-.", ":")
_MARKERS = "osD^v<>P"
_SMALL = (3.0, 2.9)
_WIDE = 4.3
_LONGEST_NAME = 34
_IMAGES_FOR_LINE = 20

_STYLE: Mapping[str, Any] = {
    "font.size": 8,
    "text.parse_math": False,  # a label may hold dollar signs
    "axes.unicode_minus": True,
    "text.color": LIGHT["ink"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "featurecache",
}


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, None where undefined; ``aside`` is drawn as a control."""

    name: str
    value: float | None
    bounds: Sequence[float] | None
    aside: bool = False


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib as figures here are drawn and saved; left as it was found."""
    from matplotlib import rc_context

    with rc_context(dict(_STYLE)), warnings.catch_warnings():
        # A name in letters that the font lacks: a page has other fonts, a PNG shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def save_png(figure: "Figure", path: "Path") -> None:
    """Save a figure for a paper, on white, 300 dots an inch.

    Raises:
        OSError: the disk is full or not writable.
    """
    with styled():
        figure.savefig(path, format="png", dpi=300, facecolor="white")


def _in_style(draw: "Callable[..., Figure]") -> "Callable[..., Figure]":
    @wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> "Figure":
        with styled():
            return draw(*args, **kwargs)

    return drawn


@_in_style
def roc_figure(lines: Mapping[str, Points], places: Mapping[str, int]) -> "Figure":
    """ROC curves by run; the diagonal is chance. A run's place gives its colour and dashes."""
    figure, axes = _square("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    _curves(axes, lines, places, "lower right")
    return figure


@_in_style
def precision_recall_figure(
    lines: Mapping[str, Points], places: Mapping[str, int], prevalence: float
) -> "Figure":
    """Precision-recall curves by run; the level line is the share of positives, which is chance."""
    figure, axes = _square("recall", "precision")
    axes.axhline(prevalence, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    # The curves of a rare finding run along the bottom, those of a good run along the top.
    drawn = [points for points in lines.values() if len(points)]
    highest = max((points.y[points.x > 0.5].max() for points in drawn), default=1)
    _curves(axes, lines, places, "lower left" if highest > 0.6 else "upper right")
    return figure


@_in_style
def reliability_figure(lines: Mapping[str, Reliability], places: Mapping[str, int]) -> "Figure":
    """Predicted probability against share of positives, points as large as their bins are full.

    Of one run the bars are 95 % intervals of each share, by Wilson.
    """
    figure, axes = _square("predicted probability", "share of positives")
    axes.plot([0, 1], [0, 1], color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    for name, bins in lines.items():
        if len(bins.images) == 0:
            continue
        number = places[name]
        colour = series(number)
        # Bars of several runs would hide each other; one run's say how far its points can be
        # trusted, which a line between them would not.
        if len(lines) == 1:
            below, above = wilson_interval(bins.observed, bins.images)
            axes.vlines(bins.predicted, below, above, color=colour, linewidth=1, alpha=0.5)
        else:
            # Through small bins a line would draw what is noise.
            many = bins.images >= _IMAGES_FOR_LINE
            line = (bins.predicted[many], bins.observed[many])
            axes.plot(*line, color=colour, linestyle=_DASHES[number % 4], linewidth=0.8)
        axes.scatter(
            bins.predicted,
            bins.observed,
            s=8 + 50 * bins.images / bins.images.sum(),
            color=colour,
            marker=_MARKERS[number % 8],
            linewidths=0,
            label=_short(name),
            zorder=3,
        )
    _legend(axes, len(lines), "lower right")
    return figure


@_in_style
def estimates_figure(estimates: Sequence[Estimate], *, axis: str, reference: float) -> "Figure":
    """Figures with their intervals, one below the other; the vertical line is chance, or nothing.

    Args:
        estimates: from the top down.
        axis: what they are.
        reference: where the line stands.
    """
    figure, axes = _wide(height=0.62 + 0.24 * len(estimates))
    axes.axvline(reference, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    for row, one in enumerate(estimates):
        colour = LIGHT["muted"] if one.aside else series(0)
        if one.bounds is not None:
            axes.plot(one.bounds, [row, row], color=colour, linewidth=1.6, solid_capstyle="round")
        if one.value is not None:
            axes.plot(
                [one.value],
                [row],
                marker="D" if one.aside else "o",
                markersize=4.5,
                markeredgecolor=colour,
                markerfacecolor="none" if one.aside else colour,
                linestyle="none",
            )
    axes.set_yticks(range(len(estimates)), [_short(one.name) for one in estimates])
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["ink"])
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.set_xlabel(axis)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


@_in_style
def losses_figure(losses: Mapping[str, tuple[Floats, Floats]], *, best: int | None) -> "Figure":
    """Losses by epoch.

    Args:
        losses: epochs and values (E,) by name.
        best: the epoch that was kept.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _wide(height=2.6)
    if best is not None:
        axes.axvline(best, color=LIGHT["muted"], linewidth=0.8, linestyle=(0, (1, 2)))
    for number, (name, (epochs, values)) in enumerate(losses.items()):
        axes.plot(
            epochs,
            values,
            color=series(number),
            linestyle=_DASHES[number % 4],
            label=_short(name),
            marker="o" if len(epochs) == 1 else None,
        )
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@_in_style
def sizes_figure(
    sizes: Sequence[int], lines: Mapping[str, Sequence[Estimate]], *, axis: str, first: int = 0
) -> "Figure":
    """Figures by the number of training images, with bands of their intervals.

    Args:
        sizes: numbers of training images.
        lines: by head, an estimate for each size.
        axis: what they are.
        first: the place of the first head's colour.
    """
    from matplotlib.ticker import NullFormatter

    figure, axes = _wide(height=2.8)
    for number, (name, cells) in enumerate(lines.items(), start=first):
        values = [np.nan if one.value is None else one.value for one in cells]
        bounds = np.array([(np.nan, np.nan) if o.bounds is None else o.bounds for o in cells])
        axes.plot(
            sizes,
            values,
            color=series(number),
            linestyle=_DASHES[number % 4],
            marker=_MARKERS[number % 8],
            markersize=3.5,
            label=_short(name),
        )
        axes.fill_between(
            sizes, bounds[:, 0], bounds[:, 1], color=series(number), alpha=0.15, linewidth=0
        )
    axes.set(xlabel="training images", ylabel=axis, xscale="log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.legend()
    return figure


@_in_style
def map_figure(
    points: Floats, truth: NDArray[np.int8], *, finding: str, explained: Floats
) -> "Figure":
    """Embeddings in the plane, marked by whether a finding is there.

    Args:
        points: (P, 2).
        truth: (P,) of 1, 0, -1 unknown.
        finding: its name.
        explained: (2,) shares of the variance along both axes.
    """
    figure, axes = _wide(height=3.9)
    for value, name, marker, colour, face in (
        (-1, "unknown", "x", LIGHT["grid"], LIGHT["grid"]),
        (0, f"no {finding}", "o", LIGHT["series-8"], "none"),
        (1, finding, "D", LIGHT["series-2"], LIGHT["series-2"]),
    ):
        rows = truth == value
        if rows.any():
            axes.plot(
                *points[rows].T,
                linestyle="none",
                marker=marker,
                markersize=3,
                markeredgewidth=0.6,
                markeredgecolor=colour,
                markerfacecolor=face,
                label=f"{_short(name)} ({rows.sum()})",
            )
    axes.set(
        xlabel=f"first component ({100 * explained[0]:.0f} % of the variance)",
        ylabel=f"second component ({100 * explained[1]:.0f} %)",
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return figure


def _square(x: str, y: str) -> "tuple[Figure, Axes]":
    """Axes over the unit square, in a place that needs no layout: there may be hundreds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SMALL)
    axes = figure.add_axes((0.145, 0.145, 0.835, 0.835))
    ticks = (0, 0.25, 0.5, 0.75, 1)
    names = ("0", ".25", ".5", ".75", "1")
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    return figure, axes


def _wide(*, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDE, height), layout="constrained")
    return figure, figure.subplots()


def _curves(
    axes: "Axes", lines: Mapping[str, Points], places: Mapping[str, int], corner: str
) -> None:
    for name, points in lines.items():
        number = places[name]
        if len(points):
            axes.plot(
                points.x,
                points.y,
                color=series(number),
                linestyle=_DASHES[number % 4],
                label=_short(name),
                solid_joinstyle="miter",
                clip_on=False,
            )
    _legend(axes, len(lines), corner)


def _legend(axes: "Axes", lines: int, corner: str) -> None:
    if lines > 1 and axes.get_legend_handles_labels()[0]:
        axes.legend(loc=corner, fontsize=7)


def _short(name: str) -> str:
    # SVG is XML, which has no control characters.
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    # matplotlib leaves names that begin with an underscore out of legends.
    name = name.lstrip("_") or "–"
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
