"""Tables in Markdown, and the part of a page that a script writes."""

import re
from collections.abc import Sequence
from pathlib import Path

from featurecache.io.atomic import new_file


def cell(figure: float | None, bounds: Sequence[float] | None = None, *, sign: bool = False) -> str:
    """A figure with its 95 % interval, ``0.956 [0.940, 0.972]``; undefined is ``–``.

    Args:
        figure: the estimate; None where it is undefined.
        bounds: its interval; None where there is none.
        sign: of a difference: with its sign.
    """
    if figure is None:
        return "–"

    def number(value: float) -> str:
        return f"{value:+.3f}".replace("-", "−") if sign else f"{value:.3f}"

    if bounds is None:
        return number(figure)
    low, high = bounds
    return f"{number(figure)} [{number(low)}, {number(high)}]"


def spread(values: Sequence[float | None]) -> str:
    """Mean and standard deviation (n - 1) over seeds; ``–`` where a seed's figure is undefined."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "–"
    mean = sum(known) / len(known)
    if len(known) == 1:
        return cell(mean)
    deviation = (sum((value - mean) ** 2 for value in known) / (len(known) - 1)) ** 0.5
    return f"{mean:.3f} ± {deviation:.3f}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under a line in bold."""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_part(page: Path, name: str, text: str) -> None:
    """Put a text between the marks of its name on a page.

    Raises:
        SystemExit: the page has no such marks, or several.
    """
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    marked = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    content = page.read_text(encoding="utf-8")
    if len(marked.findall(content)) != 1:
        raise SystemExit(f"{page} needs the lines {first} and {last} once")
    part = f"{first}\n\n{text}\n\n{last}"
    with new_file(page) as unfinished:
        unfinished.write_text(marked.sub(lambda _: part, content), encoding="utf-8")
