"""Read columns of a table as text: of CSV, TSV, Excel and parquet files."""

import csv
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from featurecache.datasets.text_table import TextTable
from featurecache.datasets.typed_table import ExcelTable, ParquetTable
from featurecache.errors import DatasetError, UsageError
from featurecache.io.csv import unescape_formula
from featurecache.io.text import require_regular_file
from featurecache.wording import count_noun

if TYPE_CHECKING:
    import pandas as pd

BLOCK_ROWS: Final = 1024
"""Rows held as Python strings at a time; a DataFrame needs less memory. So few fit into the CPU
cache: 16,384 took 50 % longer."""

TEXT_SUFFIXES: Final = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt")
TABLE_SUFFIXES: Final = (*TEXT_SUFFIXES, ".xlsx", ".xlsm", ".parquet")
"""Ends of the names of tables, in lower case."""

_FIRST_BYTES: Final = {
    b"\xd0\xcf\x11\xe0": "of an old Excel file (.xls), or of one with a password",
    b"PK\x03\x04": "of an Excel file (.xlsx)",
    b"PAR1": "of a parquet file (.parquet)",
}
"""How files start that are no text."""


class Rows(Protocol):
    """The rows of an open table.

    Attributes:
        header: Names of the columns.
        notes: Sentences on how the file was read.
    """

    header: list[str]
    notes: list[str]

    @property
    def rounded(self) -> Mapping[int, int]:
        """Number of cells that have lost digits, by position of the column."""
        ...

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line of each row below the header, and its cells."""
        ...


class _SharedCells(dict[str, str]):
    """Cells by how they are written, each stored once."""

    def __missing__(self, cell: str) -> str:
        return self.setdefault(cell, unescape_formula(cell))


@dataclass(frozen=True)
class Table:
    """An open table.

    Attributes:
        path: The file.
        header: Names of its columns.
        notes: Sentences on how the file was read.
    """

    path: Path
    header: tuple[str, ...]
    notes: tuple[str, ...]
    _rows: Rows

    def read(
        self, columns: Sequence[str], *, limit: int | None = None, may_be_empty: bool = False
    ) -> "pd.DataFrame":
        """Read columns, by name, as text without whitespace around it.

        An apostrophe in front of what a spreadsheet would take for a formula is removed; see
        ``featurecache.io.csv``.

        Args:
            columns: Names of the columns.
            limit: Maximum number of rows, from the first.
            may_be_empty: Accept a table without rows.

        Returns:
            The columns, in the given order. The index, named "line", is the line or row of the
            file on which each row starts, counted from 1.

        Raises:
            DatasetError: If the table has no rows, lacks a column or has it twice, a row is longer
                or shorter than the header, numbers have lost digits, or the file cannot be read.
        """
        import pandas as pd

        blocks = []
        rows = islice(self.iter_rows(columns), limit)
        while block := list(islice(rows, BLOCK_ROWS)):
            # Share equal strings, because pandas may store Python strings.
            shared = _SharedCells()
            cells = [[shared[cell] for cell in row] for _, row in block]
            lines = pd.Index(map(itemgetter(0), block), name="line")
            blocks.append(pd.DataFrame(cells, lines, columns=list(columns), dtype=str))
        if not blocks:
            if may_be_empty:
                lines = pd.RangeIndex(0, name="line")
                return pd.DataFrame(index=lines, columns=list(columns), dtype=str)
            raise DatasetError(f"{self.path} has no rows below its header: check the file")
        for column in columns:
            if limit is None and (n_rounded := self._rows.rounded.get(self._position(column))):
                raise DatasetError(
                    f"{self.path}: the column {column!r} has {count_noun(n_rounded, 'number')} of "
                    "more than 15 digits, of which Excel has kept the first 15. Export the column "
                    "again as text, or as .csv"
                )
        return pd.concat(blocks)

    def iter_rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the line of each row and its cells of some columns, without whitespace around them.

        Raises:
            DatasetError: See ``read``.
        """
        positions = [self._position(column) for column in columns]
        with _read_errors(self.path):
            for line, row in self._rows.rows():
                yield line, [row[position].strip() for position in positions]

    def expand(self, names: Sequence[str]) -> list[str]:
        """Replace patterns such as ``Finding_*`` by the columns that match, in their order.

        Args:
            names: Names of columns, and patterns with ``*`` or ``?``.

        Raises:
            DatasetError: If no column matches a pattern.
        """
        expanded: list[str] = []
        for name in names:
            if name in self.header or not any(character in name for character in "*?"):
                expanded.append(name)
                continue
            matches = [column for column in self.header if fnmatchcase(column, name)]
            if not matches:
                raise DatasetError(
                    f"no column of {self.path} matches {name!r}: it has {self.names()}"
                )
            expanded += [column for column in matches if column not in expanded]
        return expanded

    def _position(self, column: str) -> int:
        if column not in self.header:
            near = get_close_matches(column, self.header, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise DatasetError(f"{self.path} has no column {column!r}: {hint}it has {self.names()}")
        if self.header.count(column) > 1:
            raise DatasetError(f"{self.path} has the column {column!r} twice: rename one of them")
        return self.header.index(column)

    def names(self) -> str:
        """Return the names of the columns, and how the file was read, for error messages."""
        sentences = (", ".join(self.header) or "none", *self.notes)
        return ". ".join(sentence.removesuffix(".") for sentence in sentences)


def open_table(path: Path, *, separator: str | None = None, encoding: str | None = None) -> Table:
    """Open a table.

    The standard library parses text because pandas reports no line numbers and infers an index if
    rows are longer than the header. Blank lines are skipped, and surplus empty cells at the end of
    a row or header (a trailing comma) are dropped.

    Args:
        path: An Excel workbook (.xlsx, .xlsm), a parquet file (.parquet), or a text file with any
            other name, compressed if that ends in ".gz".
        separator: Separator of the columns of a text file; detected by default.
        encoding: Encoding of a text file; by default UTF-8, UTF-16 or cp1252 is detected.

    Raises:
        UsageError: If the separator or encoding is invalid or given for a file that has none, or a
            package that reads the file is not installed.
        DatasetError: If the file cannot be read, is empty, or its separator is ambiguous.
    """
    suffix = path.suffix.lower()
    binary = {".xlsx": b"PK\x03\x04", ".xlsm": b"PK\x03\x04", ".parquet": b"PAR1"}.get(suffix)
    rows: Rows
    with _read_errors(path):
        require_regular_file(path)
        with path.open("rb") as file:
            start = file.read(4)
        if start != binary and (binary or start in _FIRST_BYTES):
            content = _FIRST_BYTES.get(start, "of a text file, or of a damaged one")
            raise DatasetError(
                f"{path} does not have the content that its name says, but that {content}: save "
                "it as .xlsx without a password, or as .csv"
            )
        if binary is None:
            rows = TextTable(path, separator=separator, encoding=encoding)
        elif separator or encoding:
            raise UsageError(f"{path} is no text file: leave out `separator` and `encoding`")
        else:
            rows = ParquetTable(path) if suffix == ".parquet" else ExcelTable(path)
    if not any(rows.header):
        raise DatasetError(f"{path} is empty: copy it again, or give another table")
    return Table(path, tuple(rows.header), tuple(rows.notes), rows)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist: check the path of the table") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} cannot be read as a table: {error}; give its `encoding`, such as 'utf-16'"
        ) from error
    # The errors of bounded_lines are ValueErrors.
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a table: {error}") from error


def tables_in(folder: Path) -> list[str]:
    """Return the names of the tables in a folder, sorted.

    A text file (``.txt``) in a folder is more often a description or a list, and is not counted.
    """
    suffixes = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".txt")
    names = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    return [name for name in names if name.lower().endswith(suffixes)]
