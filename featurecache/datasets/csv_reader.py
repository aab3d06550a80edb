"""CSV files as tables of text that remember their line numbers."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.errors import DatasetError
from featurecache.io.text import bounded_lines, require_regular_file

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS: Final = 1024
"""Rows that lie in memory as Python's strings at a time; a table holds them in fewer bytes. What so
few take fits the processor's cache: 16,384 took half as long again."""

MAX_UNPACKED: Final = 2**28
"""Characters that a compressed table may always unpack to: some million rows."""
MAX_EXPANSION: Final = 200
"""Characters that each of its bytes may unpack to beyond that: most tables make 5 to 30."""


def read_columns(path: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Read some columns of a CSV file, by name, as text.

    The standard library reads rather than pandas, which knows no line numbers and guesses an
    index where rows are longer than the header. Names and cells lose the spaces around them,
    blank lines are passed over, and empty cells at the end of a row or header that go beyond the
    other (a trailing comma) are dropped.

    Args:
        path: A CSV file in UTF-8, compressed where its name ends in ".gz".
        columns: Names to read.

    Returns:
        The columns, in the order asked for, as text; the index, named "line", is the line of the
        file on which each row starts, counted from 1.

    Raises:
        DatasetError: the file cannot be read, is empty, lacks a column or has it twice, or a row
            is longer or shorter than the header.
    """
    import pandas as pd

    try:
        cells = _cells(path, columns)
        blocks = []
        while block := dict(islice(cells, BLOCK_ROWS)):
            # Where pandas keeps Python's strings, equal cells are one of them.
            one: dict[str, str] = {}
            rows = [[one.setdefault(cell, cell) for cell in row] for row in block.values()]
            lines = pd.Index(list(block), name="line")
            blocks.append(pd.DataFrame(rows, lines, columns=list(columns), dtype=str))
    # UnicodeDecodeError is a ValueError, as is what text_files raises.
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    if not blocks:
        raise DatasetError(f"{path} has no rows below its header: check the file")
    return pd.concat(blocks)


def _cells(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The cells of these columns, of one row after another, each with the row's line."""
    rows = _rows(path)
    _, header = next(rows, (0, []))
    positions = _positions(path, header, columns)
    for line, row in rows:
        if len(row) != len(header):
            row = _without_tail(row, len(header))
        if len(row) != len(header):
            raise DatasetError(
                f"line {line} of {path} has {len(row)} cells, the header has {len(header)}: "
                "mend the line (a cell that holds a comma needs quotes)"
            )
        yield line, [row[position].strip() for position in positions]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line that it starts on; the header first."""
    require_regular_file(path)
    zipped = path.suffix == ".gz"
    most = max(MAX_UNPACKED, MAX_EXPANSION * path.stat().st_size) if zipped else None
    # utf-8-sig: spreadsheets put a byte order mark in front of the first name.
    with (gzip.open if zipped else Path.open)(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(bounded_lines(file, most=most), delimiter=_delimiter(path))
        header = True
        line = 1
        for row in reader:
            # Spreadsheets write a blank line as a line of commas.
            if any(cell.strip() for cell in row):
                if header:
                    row = _without_tail([name.strip() for name in row], 0)
                    header = False
                yield line, row
            # A quoted cell may span lines: a row starts after the last line of the one before.
            line = reader.line_num + 1


def _delimiter(path: Path) -> str:
    return "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","


def _without_tail(row: list[str], length: int) -> list[str]:
    """The row without the empty cells at its end, down to a length."""
    end = len(row)
    while end > length and not row[end - 1].strip():
        end -= 1
    return row[:end]


def _positions(path: Path, header: list[str], columns: Sequence[str]) -> list[int]:
    for column in columns:
        if column not in header:
            near = get_close_matches(column, header, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise DatasetError(
                f"{path} has no column {column!r}: {hint}it has {', '.join(header) or 'none'}"
            )
        if header.count(column) > 1:
            raise DatasetError(f"{path} has the column {column!r} twice: rename one of them")
    return [header.index(column) for column in columns]
