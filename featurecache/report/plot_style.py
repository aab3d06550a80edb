"""Common style of a report's matplotlib figures, for SVG in the page and PNG files.

Nothing here uses pyplot or changes its global state.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from featurecache.report.palette import LIGHT, series_color
from featurecache.wording import UNDEFINED

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PlotFormat = Literal["png", "pdf", "svg"]
PLOT_FORMATS: Final[tuple[str, ...]] = get_args(PlotFormat)

MARKERS: Final = "osD^v<>P"
REFERENCE_LINE: Final[Mapping[str, Any]] = {
    "color": LIGHT["muted"],
    "linewidth": 0.8,
    "linestyle": (0, (1, 2)),
}
"""Thin dotted line, for chance level and similar references."""

_DASHES = ("-", "--", "-.", ":")
_SQUARE_SIZE = (3.0, 2.9)
_WIDTH = 4.3
_LEGEND_LINE = 0.15
"""Height of a line of a legend above square axes, in inches."""
_MAX_NAME_LENGTH = 34
_RC_PARAMS: Mapping[str, Any] = {
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
    # Curves of many images lose the points that nobody can see.
    "path.simplify": True,
    "path.simplify_threshold": 1 / 9,
}


@contextmanager
def report_style() -> Iterator[None]:
    """Apply the style of reports inside the context; matplotlib's settings are restored after."""
    from matplotlib import rc_context

    with rc_context(dict(_RC_PARAMS)), warnings.catch_warnings():
        # A name may use letters that matplotlib's font lacks: browsers have other fonts, a PNG
        # shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def with_report_style(plot: "Callable[..., Figure]") -> "Callable[..., Figure]":
    """Decorate a plotting function to draw in the style of reports."""

    @wraps(plot)
    def styled_plot(*args: Any, **kwargs: Any) -> "Figure":
        with report_style():
            return plot(*args, **kwargs)

    return styled_plot


def save_figure(figure: "Figure", path: "Path", plot_format: PlotFormat = "png") -> None:
    """Save a figure for a paper, on a white background; PNG files have 300 dpi.

    Raises:
        OSError: the disk is full or not writable.
    """
    with report_style():
        figure.savefig(path, format=plot_format, dpi=300, facecolor="white")


def unit_square_axes(x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    """Create axes over [0, 1] x [0, 1], at a fixed position: a page may hold hundreds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SQUARE_SIZE)
    axes = figure.add_axes((0.145, 0.145, 0.835, 0.835))
    ticks = (0, 0.25, 0.5, 0.75, 1)
    tick_labels = ("0", ".25", ".5", ".75", "1")
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_xticks(ticks, tick_labels)
    axes.set_yticks(ticks, tick_labels)
    return figure, axes


def wide_axes(*, height: float) -> "tuple[Figure, Axes]":
    """Create axes as wide as a column of the page, with a height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def add_legend(axes: "Axes") -> None:
    """Add a legend above the axes, where it covers nothing; the figure grows by its height."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("axes without a figure")
    if figure.get_layout_engine() is None:
        width, height = figure.get_size_inches()
        grown = height + _LEGEND_LINE * len(labels)
        left, bottom, right, top = axes.get_position().extents
        scale = height / grown
        figure.set_size_inches(width, grown)
        axes.set_position((left, bottom * scale, right - left, (top - bottom) * scale))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
        axes.legend(handles, labels, fontsize=7, labelspacing=0.25, **place)
    else:
        place = {"loc": "outside upper left"}
        legend = figure.legend(handles, labels, ncols=min(2, len(labels)), **place)
        if legend.get_window_extent().width > figure.bbox.width:
            legend.remove()
            legend = figure.legend(handles, labels, **place)
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + legend.get_window_extent().height / figure.dpi)


def series_style(index: int) -> dict[str, Any]:
    """Return color and dashes of the run at an index: series differ without color, too."""
    return {"color": series_color(index), "linestyle": _DASHES[index % len(_DASHES)]}


def series_marker(index: int) -> str:
    """Return the marker of the run at an index."""
    return MARKERS[index % len(MARKERS)]


def printable(text: str) -> str:
    """Return text without control characters, which SVG, being XML, does not have."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def display_name(name: str, *, suffix: str = "") -> str:
    """Return a name that is fit for a plot: printable, short, and shown in legends.

    A long name loses its middle: names of runs differ at their ends.

    Args:
        name: The name.
        suffix: Text to add to the name, which is shortened to leave room for it.
    """
    # matplotlib leaves names with a leading underscore out of legends.
    name = printable(name).lstrip("_") or UNDEFINED
    room = _MAX_NAME_LENGTH - len(suffix)
    if len(name) > room:
        start = room // 2
        name = f"{name[:start]}…{name[start + 1 - room :]}"
    return name + suffix
