"""Tables of a report, and how scores are rounded in them (as the commands print them)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from featurecache.io.markup import escape_latex, escape_markdown, latex_table, markdown_table
from featurecache.wording import UNDEFINED


@dataclass(frozen=True)
class Table:
    """A table whose first column holds row headers.

    Attributes:
        name: what it is called, as the name of a file.
        caption: what it shows.
        columns: column headers.
        rows: cells, one per column.
        anchors: ids in the page that the row headers link to, "" for none; empty for no links.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    anchors: Sequence[str] = field(default=())

    def to_latex(self) -> str:
        """Return the table in LaTeX, which needs the packages booktabs and longtable."""
        return latex_table(
            list(map(escape_latex, self.columns)),
            [list(map(escape_latex, row)) for row in self.rows],
            caption=escape_latex(self.caption),
            label=f"tab:{self.name}",
        )

    def to_markdown(self) -> str:
        """Return the table in Markdown, below its caption."""
        table = markdown_table(
            list(map(escape_markdown, self.columns)),
            [list(map(escape_markdown, row)) for row in self.rows],
        )
        return f"{escape_markdown(self.caption)}\n\n{table}"


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
