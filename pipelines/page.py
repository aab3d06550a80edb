"""Markdown tables, and the section of a page that a script writes."""

import re
from collections.abc import Sequence
from pathlib import Path

from featurecache.io.atomic import new_file


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with a bold title."""
    lines = [columns, ["---"] * len(columns), *rows]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_section(page: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` on a page.

    Raises:
        SystemExit: the page lacks these marks, or has them more than once.
    """
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    content = page.read_text(encoding="utf-8")
    if len(section.findall(content)) != 1:
        raise SystemExit(f"{page} needs the lines {first} and {last} exactly once")
    replacement = f"{first}\n\n{text}\n\n{last}"
    with new_file(page) as temporary:
        temporary.write_text(section.sub(lambda _: replacement, content), encoding="utf-8")
