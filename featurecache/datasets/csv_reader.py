"""Read columns of a CSV or TSV file as text, with line numbers and limits for hostile files."""

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
"""Rows held as Python strings at a time; a DataFrame needs less memory. So few fit into the CPU
cache: 16,384 took 50 % longer."""

MAX_UNPACKED: Final = 2**28
"""Characters that any compressed file may decompress to: about a million rows."""

MAX_EXPANSION: Final = 200
"""Characters per compressed byte that are allowed beyond that. Most tables have 5 to 30."""


def read_columns(path: Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Read columns of a CSV or TSV file, by name, as text.

    The standard library parses the file because pandas reports no line numbers and infers an index
    if rows are longer than the header. Whitespace around names and cells is stripped, blank lines
    are skipped, and surplus empty cells at the end of a row or header (a trailing comma) are
    dropped.

    Args:
        path: A UTF-8 file, separated by tabs if its name ends in ".tsv", and compressed if it
            ends in ".gz".
        columns: Names of the columns.

    Returns:
        The columns, in the given order, as text. The index, named "line", is the line of the file
        on which each row starts, counted from 1.

    Raises:
        DatasetError: If the file cannot be read, is empty, lacks a column or has it twice, or a
            row is longer or shorter than the header.
    """
    import pandas as pd

    try:
        cells = _cells(path, columns)
        blocks = []
        while block := dict(islice(cells, BLOCK_ROWS)):
            # Share equal strings, because pandas may store Python strings.
            shared: dict[str, str] = {}
            rows = [[shared.setdefault(cell, cell) for cell in row] for row in block.values()]
            lines = pd.Index(list(block), name="line")
            blocks.append(pd.DataFrame(rows, lines, columns=list(columns), dtype=str))
    except DatasetError:
        raise
    # UnicodeDecodeError and the errors of bounded_lines are ValueErrors.
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a UTF-8 CSV file: {error}") from error
    if not blocks:
        raise DatasetError(f"{path} has no rows below its header: check the file")
    return pd.concat(blocks)


def _cells(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of each row, and its cells in the given columns."""
    rows = _rows(path)
    _, header = next(rows, (0, []))
    positions = _positions(path, header, columns)
    for line, row in rows:
        if len(row) != len(header):
            row = _strip_empty_tail(row, len(header))
        if len(row) != len(header):
            raise DatasetError(
                f"{path}, line {line}: the row has {len(row)} cells, but the header has "
                f"{len(header)}. Correct the line (a cell that contains a comma needs quotes)"
            )
        yield line, [row[position].strip() for position in positions]


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, header first, each with the line it starts on."""
    require_regular_file(path)
    compressed = path.suffix == ".gz"
    limit = max(MAX_UNPACKED, MAX_EXPANSION * path.stat().st_size) if compressed else None
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    opener = gzip.open if compressed else Path.open
    # utf-8-sig skips the byte order mark that spreadsheets write.
    with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(bounded_lines(file, max_chars=limit), delimiter=delimiter)
        header = True
        line = 1
        for row in reader:
            # Spreadsheets write blank lines as lines of commas.
            if any(cell.strip() for cell in row):
                if header:
                    row = _strip_empty_tail([name.strip() for name in row], 0)
                    header = False
                yield line, row
            # A quoted cell may span lines, so count from the end of the previous row.
            line = reader.line_num + 1


def _strip_empty_tail(row: list[str], length: int) -> list[str]:
    """Drop empty cells at the end of a row, down to a minimum length."""
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
