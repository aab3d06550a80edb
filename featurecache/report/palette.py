"""The colours of a report, on white and on black: one table for its plots and its style sheet."""

from types import MappingProxyType

SERIES = 8

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
"""What plots are drawn in. No colour is there twice: it says what takes its place in the dark."""

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


def series(number: int) -> str:
    """The colour of a run by its place, from 0; after the eighth they come again."""
    return LIGHT[f"series-{number % SERIES + 1}"]
