"""The plots of a page as they are made: each as SVG in its place, and its figure by name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featurecache.report.svg import inline_svg

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Plot:
    """A plot in the page: what it shows, and a shorter caption where its place says the rest."""

    title: str
    svg: "Markup"
    caption: str = ""


@dataclass
class Plots:
    """Makes the plots of one page, and keeps their figures by file name."""

    figures: "dict[str, Figure]" = field(default_factory=dict)

    def add(self, name: str, title: str, figure: "Figure", *, caption: str = "") -> Plot:
        """Put a figure into the page, and keep it.

        Args:
            name: of its file, before it is made fit for one.
            title: what it shows, for those who cannot see it.
            figure: what is shown.
            caption: below it, where not the title.
        """
        from markupsafe import Markup

        name = _unused(re.sub(r"[^\w.-]+", "-", name).strip("-."), self.figures)
        self.figures[name] = figure
        # The SVG is matplotlib's, which escapes what it is given; ElementTree wrote it anew.
        svg = Markup(inline_svg(figure, title=title, prefix=f"p{len(self.figures)}-"))
        return Plot(title, svg, caption or title)


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """A file name that no other plot has, whatever labels differ by."""
    candidate, number = name[:80], 1
    # Not only as it is written: some file systems do not tell case.
    lowered = {one.lower() for one in taken}
    while candidate.lower() in lowered:
        number += 1
        candidate = f"{name[:80]}-{number}"
    return candidate
