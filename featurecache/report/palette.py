"""Colors of a report in light and dark mode, shared by its plots and its style sheet."""

from types import MappingProxyType

N_SERIES = 8
"""Number of runs that plots can tell apart by color."""

LIGHT = MappingProxyType(
    {
        "ink": "#1d2329",
        "muted": "#59636e",
        "grid": "#dfe3e8",
        "series-1": "#0b62c4",
        "series-2": "#bf3f0a",
        "series-3": "#0e7a4e",
        "series-4": "#7438d8",
        "series-5": "#b8155a",
        "series-6": "#0d7088",
        "series-7": "#8a4b0f",
        "series-8": "#4f545c",
    }
)
"""Colors that plots are drawn in. Each occurs once, so that it can be mapped to a CSS variable."""

DARK = MappingProxyType(
    {
        "ink": "#e7eaee",
        "muted": "#a2acb7",
        "grid": "#343b44",
        "series-1": "#74b4ff",
        "series-2": "#ff9d66",
        "series-3": "#57d39f",
        "series-4": "#bda2ff",
        "series-5": "#ff8fc2",
        "series-6": "#5fd2e6",
        "series-7": "#e2b078",
        "series-8": "#b9bec6",
    }
)


def series_color(index: int) -> str:
    """Return the color of the run at an index, from 0; colors repeat after the eighth."""
    return LIGHT[f"series-{index % N_SERIES + 1}"]
