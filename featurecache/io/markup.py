"""Tables of text as LaTeX and as Markdown, and text in them."""

import re
from collections.abc import Sequence
from typing import Final

_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "±": r"$\pm$",
        "−": "$-$",
        "×": r"$\times$",
        "–": "--",
        "…": r"\ldots{}",
        "\u00a0": "~",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_LONG: Final = 32
"""A column of LaTeX with a longer cell than this breaks lines."""
_MIN_WIDTH: Final = 7
"""Letters that a column and the space beside it take at least."""
_MAX_ROWS: Final = 40
"""A table of LaTeX with more rows than this goes over pages."""


def escape_latex(text: str) -> str:
    """Return text for LaTeX, in one line; letters that LaTeX may lack are left to the reader."""
    escaped = _one_line(text).translate(_LATEX)
    # After the end of a row, these would be read as its options.
    return re.sub(r"^(\s*)([\[*])", r"\1{\2}", escaped)


def escape_markdown(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return re.sub(r"([\\|<*`])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\u00a0" else " " for letter in text)


def latex_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    label: str = "",
    note: str = "",
) -> str:
    """Return a LaTeX table, whose first column is flush left and whose others are flush right.

    Args:
        columns: Column headers, in LaTeX.
        rows: Cells, in LaTeX.
        caption: Caption, in LaTeX. Without one there is only the ``tabular``, which needs the
            package booktabs; a table of many rows is a ``longtable``.
        label: Its name for references, such as "tab:performance".
        note: Text below a table with a caption, in LaTeX.
    """
    import pandas as pd

    longest = [max(map(_width, column), default=0) for column in zip(*rows, strict=True)]
    n_long = sum(length > _LONG for length in longest)
    # Columns that break lines share what the others leave of about 70 letters.
    others = [
        max(_MIN_WIDTH, length, _width(name))
        for name, length in zip(columns, longest, strict=False)
        if length <= _LONG
    ]
    room = max(0.3, 0.95 - sum(others) / 70)
    narrow = rf"p{{{room / max(n_long, 1):.2f}\linewidth}}"
    alignment = ["r" if number else "l" for number in range(len(columns))]
    alignment = [
        narrow if length > _LONG else align
        for align, length in zip(alignment, longest or [0] * len(columns), strict=True)
    ]
    # Headers are those of pandas only by position, since two columns may have the same. It takes
    # them as format strings.
    text = pd.DataFrame(list(rows), columns=range(len(columns))).to_latex(
        header=[name.replace("{", "{{").replace("}", "}}") for name in columns],
        index=False,
        escape=False,
        column_format="".join(alignment),
        caption=caption or None,
        label=label or None,
        position="htbp" if caption and len(rows) <= _MAX_ROWS else None,
        longtable=bool(caption) and len(rows) > _MAX_ROWS,
    )
    below = f"\\par\\smallskip\n{{\\footnotesize {note}\\par}}\n" if note else ""
    end = "\\end{table}\n"
    return f"{text.removesuffix(end)}{below}{end if text.endswith(end) else ''}"


def _width(cell: str) -> int:
    """Return about how many letters wide a cell is: those of commands are not printed."""
    return len(re.sub(r"\\\w+(\{\})?|\\.", "x", re.sub(r"\\textbf\b|\$", "", cell)))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Args:
        columns: Column headers, in Markdown.
        rows: Cells, in Markdown.
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
