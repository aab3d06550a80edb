"""CSV files of ours whose cells no spreadsheet runs as formulas.

A spreadsheet takes a cell for a formula by how it begins, quoted or not, and a formula can send
what is in the sheet to others. A text that begins so gets an apostrophe in front, and so does one
that begins with an apostrophe, so that a reader who takes one apostrophe off has each text as it
was. Numbers are written as they are.
"""

import csv
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from featurecache.io.text import bounded_lines

FORMULA_PREFIXES: Final = "=+-@\t\r\n＝＋－＠"
"""The signs of https://owasp.org/www-community/attacks/CSV_Injection, in both widths."""

_GUARD: Final = "'"


def escape_formula(cell: str) -> str:
    """A text as it is written."""
    return _GUARD + cell if cell.startswith((*FORMULA_PREFIXES, _GUARD)) else cell


def unescape_formula(cell: str) -> str:
    """A text as it was before it was written."""
    return cell.removeprefix(_GUARD)


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows; texts among their cells are guarded."""
    usual = csv.writer(file, lineterminator="\n")
    # Python's leaves a carriage return unquoted, which its reader takes for the end of the row.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in rows:
        cells = [escape_formula(cell) if isinstance(cell, str) else cell for cell in row]
        returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoting if returns else usual).writerow(cells)


def read_rows(file: TextIO) -> Iterator[list[str]]:
    """The rows that ``write_rows`` wrote, all their cells as texts.

    Raises:
        csv.Error: it is no CSV file.
        ValueError: a line is longer than any.
    """
    for row in csv.reader(bounded_lines(file), strict=True):
        yield [unescape_formula(cell) for cell in row]
