"""Plots of a report as matplotlib figures.

In plots of several runs, ``indices`` gives each run's place in the report, which decides its color,
dashes and marker.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featurecache.metrics.curves import Curve, ReliabilityCurve, wilson_interval
from featurecache.metrics.decision_curve import DecisionCurve
from featurecache.metrics.ranking import Floats
from featurecache.report.palette import LIGHT, series_color
from featurecache.report.plot_style import (
    REFERENCE_LINE,
    add_legend,
    display_name,
    printable,
    series_marker,
    series_style,
    unit_square_axes,
    wide_axes,
    with_report_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MIN_IMAGES_FOR_LINE = 20


@dataclass(frozen=True)
class Estimate:
    """A score with its 95 % interval, each None where undefined."""

    name: str
    value: float | None
    ci: Sequence[float] | None
    is_control: bool = False


@dataclass(frozen=True)
class FlowStep:
    """A box of a flow diagram, and what leaves the flow below it; each a list of lines."""

    lines: Sequence[str]
    leaving: Sequence[str] = ()


@with_report_style
def flow_plot(steps: Sequence[FlowStep], last: Sequence[Sequence[str]]) -> "Figure":
    """Plot a flow diagram: boxes from top to bottom, and below them the last ones side by side.

    Args:
        steps: The boxes. To the right of each arrow downward is a box of what leaves.
        last: The lines of the last boxes.
    """
    from matplotlib.figure import Figure

    # Coordinates are inches, downward.
    width, line, gap, pad = 4.6, 0.155, 0.22, 0.09
    left, right = (0.02, 2.0), (2.3, width - 0.02)
    share = width / len(last) if len(last) > 1 else left[1] - left[0]
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    muted = LIGHT["muted"]

    def box(
        lines: Sequence[str], x: tuple[float, float], top: float, columns: int, style: str = "-"
    ) -> float:
        """Draw a box, with lines wrapped at a number of letters; return where it ends."""
        text = [part for entry in lines for part in wrap(printable(entry), columns)]
        bottom = top + line * len(text) + 2 * pad
        corners = [x[0], x[1], x[1], x[0], x[0]], [top, top, bottom, bottom, top]
        axes.plot(*corners, color=muted, linewidth=0.8, linestyle=style)
        for number, part in enumerate(text):
            axes.text(x[0] + pad, top + pad + line * (number + 0.5), part, va="center_baseline")
        return bottom

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        style = {"arrowstyle": "-|>", "color": muted, "linewidth": 0.8, "mutation_scale": 7}
        axes.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})

    def connect(*points: tuple[float, float]) -> None:
        axes.plot(*zip(*points, strict=True), color=muted, linewidth=0.8)

    top, middle = 0.02, sum(left) / 2
    for number, step in enumerate(steps, start=1):
        bottom = box(step.lines, left, top, 28)
        top = bottom + gap
        if step.leaving:
            end = box(step.leaving, right, bottom + gap / 2, 32, "--")
            level = (bottom + gap / 2 + end) / 2
            arrow((middle, level), (right[0], level))
            top = end + gap / 2
        if number < len(steps):
            arrow((middle, bottom), (middle, top))
    fork, top = top + gap / 4, top + gap
    connect((middle, bottom), (middle, fork))
    bottom = top
    for number, lines in enumerate(last):
        center = middle if len(last) == 1 else share * (number + 0.5)
        connect((middle, fork), (center, fork))
        arrow((center, fork), (center, top))
        margin = 0.04 if len(last) > 1 else 0
        sides = center - share / 2 + margin, center + share / 2 - margin
        bottom = max(bottom, box(lines, sides, top, int(13 * share)))
    figure.set_size_inches(width, bottom + 0.02)
    axes.set(xlim=(0, width), ylim=(bottom + 0.02, 0))
    return figure


@with_report_style
def roc_plot(
    curves: Mapping[str, Curve], indices: Mapping[str, int], scores: Mapping[str, float | None]
) -> "Figure":
    """Plot ROC curves by run, with their AUROC; the diagonal is chance."""
    figure, axes = unit_square_axes("false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], **REFERENCE_LINE)
    labels = {}
    for name in curves:
        score = scores.get(name)
        suffix = "" if score is None else f", AUROC {score:.3f}"
        labels[name] = display_name(name, suffix=suffix)
    _plot_curves(axes, curves, indices, labels)
    return figure


@with_report_style
def precision_recall_plot(
    curves: Mapping[str, Curve], indices: Mapping[str, int], prevalence: float
) -> "Figure":
    """Plot precision-recall curves by run; the horizontal line is chance, the prevalence.

    They are steps: between two thresholds the precision is not known, and lines would be too high
    (Davis and Goadrich, "The relationship between precision-recall and ROC curves", 2006).
    """
    figure, axes = unit_square_axes("recall", "precision")
    axes.axhline(prevalence, **REFERENCE_LINE)
    _plot_curves(axes, curves, indices, {}, drawstyle="steps-pre")
    return figure


@with_report_style
def reliability_plot(
    curves: Mapping[str, ReliabilityCurve], indices: Mapping[str, int]
) -> "Figure":
    """Plot a reliability diagram: observed against predicted frequency, marker area by bin size.

    With a single run, bars show the 95 % Wilson interval of each bin.
    """
    figure, axes = unit_square_axes("predicted probability", "fraction of positives")
    axes.plot([0, 1], [0, 1], **REFERENCE_LINE)
    for name, bins in curves.items():
        if len(bins.n_images) == 0:
            continue
        index = indices[name]
        # Bars of several runs would cover each other. With a single run they show how reliable
        # each point is, which a line between the points would not.
        if len(curves) == 1:
            lower, upper = wilson_interval(bins.observed, bins.n_images)
            color = series_color(index)
            axes.vlines(bins.predicted, lower, upper, color=color, linewidth=1, alpha=0.5)
        else:
            # A line through small bins would draw noise.
            large = bins.n_images >= _MIN_IMAGES_FOR_LINE
            points = (bins.predicted[large], bins.observed[large])
            axes.plot(*points, linewidth=0.8, **series_style(index))
        axes.scatter(
            bins.predicted,
            bins.observed,
            s=8 + 50 * bins.n_images / bins.n_images.sum(),
            color=series_color(index),
            marker=series_marker(index),
            linewidths=0,
            label=display_name(name),
            zorder=3,
        )
    if len(curves) > 1:
        add_legend(axes)
    return figure


@with_report_style
def decision_plot(curves: Mapping[str, DecisionCurve], indices: Mapping[str, int]) -> "Figure":
    """Plot net benefit by threshold probability; dotted lines are those of treating all or none."""
    figure, axes = unit_square_axes("threshold probability", "net benefit")
    _free_y_axis(axes)
    first = next(iter(curves.values()))
    axes.axhline(0, **REFERENCE_LINE)
    axes.plot(first.threshold, first.treat_all, **REFERENCE_LINE)
    top = max(float(first.treat_all[0]), *(float(curve.model.max()) for curve in curves.values()))
    axes.set_ylim(-0.25 * max(top, 0.01), 1.05 * max(top, 0.01))
    models = {name: Curve(curve.threshold, curve.model) for name, curve in curves.items()}
    _plot_curves(axes, models, indices, {}, clip=True)
    return figure


@with_report_style
def risk_coverage_plot(
    curves: Mapping[str, Curve], indices: Mapping[str, int], areas: Mapping[str, float]
) -> "Figure":
    """Plot the share of wrong answers by the share that is answered, with the areas below."""
    figure, axes = unit_square_axes("coverage", "share of wrong answers")
    _free_y_axis(axes)
    # Few answers have a risk of 0 or 1 by chance, which would hide all else.
    top = max(float(curve.y[curve.x >= 0.05].max(initial=0.01)) for curve in curves.values())
    axes.set_ylim(-0.02 * top, 1.05 * top)
    labels = {name: display_name(name, suffix=f", AURC {areas[name]:.3f}") for name in curves}
    # There is a point for each image, at even distances, and more than can be seen.
    even = {
        name: np.unique(np.linspace(0, len(curve) - 1, min(len(curve), 500)).astype(np.intp))
        for name, curve in curves.items()
    }
    thinned = {
        name: Curve(curve.x[even[name]], curve.y[even[name]]) for name, curve in curves.items()
    }
    _plot_curves(axes, thinned, indices, labels, clip=True)
    return figure


def _free_y_axis(axes: "Axes") -> None:
    """Let the y axis of square axes have ticks where its values are, as short as the others."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def shorten(value: float, _: int | None) -> str:
        return f"{value:.2g}".replace("0.", ".").replace("-", "−")

    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(shorten))
    axes.tick_params(axis="y", labelsize=7)
    axes.yaxis.labelpad = 0


@with_report_style
def forest_plot(estimates: Sequence[Estimate], *, x_label: str, reference: float) -> "Figure":
    """Plot scores with their intervals, one below the other.

    Args:
        estimates: from top to bottom.
        x_label: name of the score.
        reference: position of the vertical line, such as chance.
    """
    figure, axes = wide_axes(height=0.62 + 0.24 * len(estimates))
    axes.axvline(reference, **REFERENCE_LINE)
    for row, estimate in enumerate(estimates):
        color = LIGHT["muted"] if estimate.is_control else series_color(0)
        if estimate.ci is not None:
            axes.plot(estimate.ci, [row, row], color=color, linewidth=1.6, solid_capstyle="round")
        if estimate.value is not None:
            axes.plot(
                [estimate.value],
                [row],
                marker="D" if estimate.is_control else "o",
                markersize=4.5,
                markeredgecolor=color,
                markerfacecolor="none" if estimate.is_control else color,
                linestyle="none",
            )
    axes.set_yticks(range(len(estimates)), [display_name(e.name) for e in estimates])
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["ink"])
    axes.set_ylim(len(estimates) - 0.4, -0.6)
    axes.set_xlabel(x_label)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return figure


@with_report_style
def label_forest_plot(
    estimates: Mapping[str, Sequence[Estimate]], indices: Mapping[str, int], *, x_label: str
) -> "Figure":
    """Plot a score of each label with its interval, the runs side by side within a label.

    Args:
        estimates: one for each label, from top to bottom, by run.
        indices: see the module.
        x_label: name of the score, of which 0.5 is chance.
    """
    labels = list(dict.fromkeys(e.name for of_run in estimates.values() for e in of_run))
    n_runs = len(estimates)
    figure, axes = wide_axes(height=0.62 + (0.14 + 0.1 * n_runs) * len(labels))
    axes.axvline(0.5, **REFERENCE_LINE)
    for position, (run, of_run) in enumerate(estimates.items()):
        index = indices[run]
        color, label = series_color(index), display_name(run)
        offset = 0.6 * ((position + 0.5) / n_runs - 0.5)
        values = [np.nan if e.value is None else e.value for e in of_run]
        rows = [labels.index(e.name) + offset for e in of_run]
        for row, estimate in zip(rows, of_run, strict=True):
            if estimate.ci is not None:
                axes.plot(estimate.ci, [row, row], color=color, linewidth=1.2)
        axes.plot(
            values,
            rows,
            marker=series_marker(index),
            markersize=3.5,
            linestyle="none",
            color=color,
            label=label,
        )
    axes.set_yticks(range(len(labels)), [display_name(name) for name in labels])
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["ink"])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(x_label)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    if n_runs > 1:
        add_legend(axes)
    return figure


@with_report_style
def loss_plot(losses: Mapping[str, tuple[Floats, Floats]], *, best_epoch: int | None) -> "Figure":
    """Plot losses by epoch.

    Args:
        losses: epochs and values, (E,) each, by name.
        best_epoch: the epoch whose weights were kept; None where that is not known.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = wide_axes(height=2.6)
    for index, (name, (epochs, values)) in enumerate(losses.items()):
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, values, label=display_name(name), marker=marker, **series_style(index))
    if best_epoch is not None:
        axes.axvline(best_epoch, label=f"best epoch, {best_epoch}", **REFERENCE_LINE)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    add_legend(axes)
    return figure


@with_report_style
def learning_curve_plot(
    sizes: Sequence[int],
    curves: Mapping[str, Sequence[Estimate]],
    *,
    y_label: str,
    first_index: int = 0,
) -> "Figure":
    """Plot scores by the number of training images, with their intervals as bands.

    Args:
        sizes: numbers of training images.
        curves: one estimate per size, by head.
        y_label: name of the score.
        first_index: index of the first head, for its color.
    """
    from matplotlib.ticker import NullFormatter

    figure, axes = wide_axes(height=2.8)
    for index, (name, estimates) in enumerate(curves.items(), start=first_index):
        values = [np.nan if e.value is None else e.value for e in estimates]
        intervals = np.array([(np.nan, np.nan) if e.ci is None else e.ci for e in estimates])
        axes.plot(
            sizes,
            values,
            marker=series_marker(index),
            markersize=3.5,
            label=display_name(name),
            **series_style(index),
        )
        color = series_color(index)
        axes.fill_between(sizes, *intervals.T, color=color, alpha=0.15, linewidth=0)
    # With limits, as a logarithmic axis cannot find any where all scores are undefined.
    limits = (sizes[0] / 1.1, sizes[-1] * 1.1)
    axes.set(xlabel="training images", ylabel=y_label, xscale="log", xlim=limits)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    add_legend(axes)
    return figure


@with_report_style
def embedding_plot(
    points: Floats, truth: NDArray[np.int8], *, label: str, explained_variance: Floats
) -> "Figure":
    """Plot embeddings on two principal components, marked by a label.

    Args:
        points: (P, 2).
        truth: (P,) labels 1, 0 or -1.
        label: name of the label.
        explained_variance: (2,) explained variance ratios of the axes.
    """
    figure, axes = wide_axes(height=3.9)
    for value, name, marker, color, face_color in (
        (-1, "unknown", "x", LIGHT["grid"], LIGHT["grid"]),
        (0, f"no {label}", "o", LIGHT["series-8"], "none"),
        (1, label, "D", LIGHT["series-2"], LIGHT["series-2"]),
    ):
        rows = truth == value
        if rows.any():
            axes.plot(
                *points[rows].T,
                linestyle="none",
                marker=marker,
                markersize=3,
                markeredgewidth=0.6,
                markeredgecolor=color,
                markerfacecolor=face_color,
                label=display_name(name, suffix=f" ({rows.sum()})"),
            )
    axes.set(
        xlabel=f"first component ({100 * explained_variance[0]:.0f} % of the variance)",
        ylabel=f"second component ({100 * explained_variance[1]:.0f} %)",
    )
    add_legend(axes)
    return figure


def _plot_curves(
    axes: "Axes",
    curves: Mapping[str, Curve],
    indices: Mapping[str, int],
    labels: Mapping[str, str],
    *,
    drawstyle: str = "default",
    clip: bool = False,
) -> None:
    for name, curve in curves.items():
        if len(curve):
            axes.plot(
                curve.x,
                curve.y,
                label=labels.get(name, display_name(name)),
                solid_joinstyle="miter",
                clip_on=clip,
                drawstyle=drawstyle,
                **series_style(indices[name]),
            )
    if len(curves) > 1 or labels:
        add_legend(axes)
