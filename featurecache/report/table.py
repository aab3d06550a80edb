"""Tables of a report, and how scores are rounded in them (as the commands print them)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from featurecache.wording import UNDEFINED


@dataclass(frozen=True)
class Table:
    """A table whose first column holds row headers.

    Attributes:
        caption: what it shows.
        columns: column headers.
        rows: cells, one per column.
        anchors: ids in the page that the row headers link to; empty for no links.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    anchors: Sequence[str] = field(default=())


def format_score(value: float | None) -> str:
    """Format a score; undefined is a dash."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_interval(value: float | None, ci: Sequence[float] | None) -> str:
    """Format a score with its 95 % interval."""
    if value is None or ci is None:
        return format_score(value)
    return f"{value:.3f} [{ci[0]:.3f}, {ci[1]:.3f}]"


def format_difference(value: float | None, ci: Sequence[float] | None) -> str:
    """Format a difference of scores, with its sign and its 95 % interval."""
    if value is None:
        return UNDEFINED
    interval = "" if ci is None else f" [{_signed(ci[0])}, {_signed(ci[1])}]"
    return _signed(value) + interval


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
