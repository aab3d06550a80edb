"""CSV files whose cells a spreadsheet does not run as formulas.

A spreadsheet recognizes a formula by its first character, quoted or not, and a formula can send
data elsewhere. A text that starts like one gets an apostrophe in front, as does a text that starts
with an apostrophe, so that removing one apostrophe restores every text. Numbers are written
unchanged.
"""

import csv
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from featurecache.io.text import bounded_lines

FORMULA_PREFIXES: Final = "=+-@\t\r\n＝＋－＠"
"""From https://owasp.org/www-community/attacks/CSV_Injection, half-width and full-width."""

_ESCAPE: Final = "'"
_ESCAPED: Final = (*FORMULA_PREFIXES, _ESCAPE)


def escape_formula(text: str) -> str:
    """Return a text as it is written."""
    return _ESCAPE + text if text.startswith(_ESCAPED) else text


def unescape_formula(text: str) -> str:
    """Return a written text as it was before ``escape_formula``; others are unchanged."""
    return text[1:] if text.startswith(_ESCAPE) and text[1:].startswith(_ESCAPED) else text


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows, with their texts escaped."""
    minimal = csv.writer(file, lineterminator="\n")
    # Python's writer leaves a carriage return unquoted, and its reader takes that for a new row.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        cells, has_return = list(row), False
        for number, cell in enumerate(cells):
            if isinstance(cell, str):
                cells[number] = escape_formula(cell)
                has_return |= "\r" in cell
        (quoting if has_return else minimal).writerow(cells)


def read_rows(file: TextIO) -> Iterator[list[str]]:
    """Yield the rows that ``write_rows`` wrote, all cells as texts.

    Raises:
        csv.Error: The file is not CSV.
        ValueError: A line is too long, or contains a NUL byte.
    """
    for row in csv.reader(bounded_lines(file), strict=True):
        yield [unescape_formula(cell) for cell in row]
