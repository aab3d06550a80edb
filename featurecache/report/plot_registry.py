"""Plots of a page: collected by name, and rendered as inline SVG."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurecache.io.atomic import cut_name
from featurecache.report.svg import inline_svg

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot in the page, with its accessible title and its visible caption."""

    title: str
    svg: "Markup"
    caption: str = ""


@dataclass
class PlotRegistry:
    """Renders the plots of one page, and keeps their figures by file name."""

    figures: "dict[str, Figure]" = field(default_factory=dict)

    def add(self, name: str, title: str, figure: "Figure", *, caption: str = "") -> Plot:
        """Render a figure for the page and keep it.

        Args:
            name: file name without its suffix; characters that are unsafe in a file name are
                replaced.
            title: what the plot shows, for screen readers.
            figure: the plot.
            caption: visible caption; defaults to the title.
        """
        from markupsafe import Markup

        name = unique_file_name(name, self.figures)
        self.figures[name] = figure
        # Safe as markup: matplotlib escapes its texts, and ElementTree has serialized them again.
        svg = Markup(inline_svg(figure, title=title, id_prefix=f"p{len(self.figures)}-"))
        return Plot(title, svg, caption or title)


def unique_file_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name as a file name that no other has, on case-insensitive file systems either.

    Args:
        name: what a file is to be called, without its suffix.
        taken: the file names that there are, without theirs.
    """
    name = cut_name(re.sub(r"[^\w.-]+", "-", name).strip("-."), 120)
    candidate, number = name, 1
    lowercase_names = {other.lower() for other in taken}
    while candidate.lower() in lowercase_names:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
