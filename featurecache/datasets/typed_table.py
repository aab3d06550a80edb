"""Tables whose cells have types: Excel workbooks and parquet files. Cells become text."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from featurecache.datasets.text_table import MAX_EXPANSION, MAX_UNPACKED
from featurecache.errors import DatasetError, UsageError
from featurecache.io.text import require_regular_file
from featurecache.wording import count_noun

MAX_CELLS: Final = 2**28
"""Cells of a sheet or of a parquet file: about a million rows of 256 columns."""
_MAX_TITLE: Final = 3
"""Rows of a title above a header."""

_NEVER_CALCULATED: Final = re.compile(rb"<[^<>]*\bfullCalcOnLoad=\"(?:1|true)\"")
"""What libraries write into ``xl/workbook.xml`` because they do not calculate formulas; Excel and
LibreOffice remove it when they save."""
_HIDDEN_ROW: Final = re.compile(rb"<(?:\w+:)?row\b[^<>]*\bhidden=\"(?:1|true)\"[^<>/]*>")
_MERGED: Final = re.compile(rb"<(?:\w+:)?mergeCell\b[^<>]*\bref=\"([A-Z]+[0-9]+:[A-Z]+[0-9]+)\"")
_MAX_TAG: Final = 4096
"""Length of the longest tag that is looked for."""
_CHUNK: Final = 2**20
_ZERO_PADDED: Final = re.compile("0{2,}")
"""Number formats that show leading zeros, such as ``000000``."""
_EXCEL_DIGITS: Final = 15
"""Digits of a number that Excel keeps; it replaces others by zeros."""


class ParquetTable:
    """An open parquet file.

    Attributes:
        header: Names of the columns, except those of vectors, which are no cells.
        vectors: Names of the columns of vectors: lists of numbers with a fraction.
        notes: None.
        rounded: None.

    Raises:
        UsageError: If pyarrow is not installed.
        DatasetError: If the file is too large.
        OSError: If the file cannot be read.
        ValueError: If it is not a parquet file.
    """

    rounded: Mapping[int, int] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise _missing("parquet files", "pyarrow") from error
        require_regular_file(path)
        with _damage_as_value_error():
            self._file = ParquetFile(path)
        schema = self._file.schema_arrow
        self.vectors: list[str] = [field.name for field in schema if holds_vectors(field.type)]
        self.header: list[str] = [name for name in schema.names if name not in self.vectors]
        self.notes: list[str] = []
        metadata = self._file.metadata
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        chunks = (group.column(c) for group in groups for c in range(metadata.num_columns))
        _check_size(
            path,
            sum(
                chunk.total_uncompressed_size
                for chunk in chunks
                if chunk.path_in_schema.partition(".")[0] not in self.vectors
            ),
        )
        if metadata.num_rows * len(self.header) > MAX_CELLS:
            raise DatasetError(f"{path} has more than {MAX_CELLS:,} cells: split it")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row, from 1, and its cells."""
        number = 0
        with _damage_as_value_error():
            for batch in self._file.iter_batches(batch_size=1024, columns=self.header):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, [_as_text(cell) for cell in row]


def holds_vectors(kind: Any) -> bool:
    """Return whether the cells of a column, of a type of pyarrow, are lists of floats."""
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and bool(types.is_floating(kind.value_type))


class ExcelTable:
    """The first visible sheet of an open Excel workbook.

    Below the header, each cell that a merged cell covers has its value.

    Attributes:
        header: Names of the columns: the first row that is not blank. Rows above it of which only
            the first cell is filled are a title if it is longer.
        notes: Sentences on other sheets, hidden rows, merged cells and a title, if there are any.
        rounded: Number of cells, by position of the column, that have lost digits, in the rows that
            were read last.

    Raises:
        UsageError: If openpyxl is not installed.
        DatasetError: If the file is too large.
        OSError: If the file cannot be read.
        ValueError: If it is not a workbook.
    """

    def __init__(self, path: Path) -> None:
        try:
            from openpyxl import load_workbook
        except ImportError as error:
            raise _missing("Excel files", "openpyxl") from error
        require_regular_file(path)
        with _damage_as_value_error():
            with zipfile.ZipFile(path) as archive:
                _check_size(path, sum(file.file_size for file in archive.infolist()))
                self._calculated = not _tags(archive, "xl/workbook.xml", _NEVER_CALCULATED)
                book = load_workbook(path, read_only=True, data_only=self._calculated)
                visible = (sheet for sheet in book.worksheets if sheet.sheet_state == "visible")
                self._sheet = next(visible, book.worksheets[0])
                # openpyxl does not read these if it reads row by row.
                markup = self._sheet._worksheet_path
                n_hidden = len(_tags(archive, markup, _HIDDEN_ROW))
                merged = _tags(archive, markup, _MERGED)
            self._merged = [_Merged(tag[1].decode()) for tag in merged]
        self._path = path
        if sum(area.n_cells for area in self._merged) > MAX_CELLS:
            raise DatasetError(f"{path} has more than {MAX_CELLS:,} merged cells: unmerge them")
        self.notes = []
        if len(book.sheetnames) > 1:
            self.notes.append(
                f"{path.name} has {len(book.sheetnames)} sheets; the first that is not hidden is "
                f"read, {self._sheet.title!r}."
            )
        if n_hidden:
            self.notes.append(
                f"{count_noun(n_hidden, 'row')} of {path.name} that Excel hides, by a filter for "
                f"example, {'is' if n_hidden == 1 else 'are'} read too."
            )
        self._long: Counter[int] = Counter()
        self._exact: set[int] = set()
        top = list(islice(self._filled_rows(), _MAX_TITLE + 2))
        n_title = next((at for at, (_, cells) in enumerate(top) if len(cells) > 1), 0)
        # A remark beside a single column is no header: the next row has one cell again.
        if any(len(cells) == 1 for _, cells in top[n_title + 1 : n_title + 2]):
            n_title = 0
        self._header_row, self.header = top[n_title] if top else (0, [])
        if n_title:
            self.notes.append(
                f"The header of {path.name} is row {self._header_row}; what is above it is a title."
            )
        self._merged = [area for area in self._merged if area.first_row > self._header_row]
        if self._merged:
            self.notes.append(
                f"{path.name} has {count_noun(len(self._merged), 'merged cell')}: each cell that "
                "one covers has its value."
            )

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row below the header, as Excel shows it, and its cells.

        Raises:
            DatasetError: If a row is longer than the header.
        """
        width = len(self.header)
        merged = sorted(self._merged, key=lambda area: area.first_row, reverse=True)
        covering: list[_Merged] = []
        for number, row in self._filled_rows():
            if number <= self._header_row:
                continue
            while merged and merged[-1].first_row <= number:
                covering.append(merged.pop())
            covering = [area for area in covering if area.last_row >= number]
            for area in covering:
                area.fill(number, row)
            if len(row) > width:
                raise DatasetError(
                    f"{self._path}, row {number}: the row has {count_noun(len(row), 'cell')}, but "
                    f"the header, row {self._header_row}, has {width}. Give each column a name, or "
                    "delete the rows above the header"
                )
            yield number, row + [""] * (width - len(row))

    @property
    def rounded(self) -> Mapping[int, int]:
        """See the class. Other programs may write more digits, not all of which end in zeros."""
        return {column: n for column, n in self._long.items() if column not in self._exact}

    def _filled_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not blank without the empty cells at their end."""
        # A stranger's file may claim any size.
        self._sheet.reset_dimensions()
        self._long.clear()
        self._exact.clear()
        n_cells = 0
        with _damage_as_value_error():
            for number, row in enumerate(self._sheet.iter_rows(), 1):
                n_cells += len(row)
                if n_cells > MAX_CELLS:
                    raise DatasetError(f"{self._path} has more than {MAX_CELLS:,} cells: split it")
                if not self._calculated and any(_is_formula(cell.value) for cell in row):
                    raise DatasetError(
                        f"{self._path}, row {number}: the formulas have no values, because a "
                        "program wrote them and nothing has calculated them yet. Open the file in "
                        "Excel or LibreOffice, and save it"
                    )
                cells = [self._cell_as_text(*cell) for cell in enumerate(row)]
                while cells and not cells[-1]:
                    cells.pop()
                if cells:
                    yield number, cells

    def _cell_as_text(self, column: int, cell: Any) -> str:
        text = _as_text(cell.value)
        if isinstance(cell.value, int | float) and text.isdecimal():
            if len(text) > _EXCEL_DIGITS:
                self._long[column] += 1
                if float(f"{cell.value:.{_EXCEL_DIGITS}g}") != cell.value:
                    self._exact.add(column)
            elif _ZERO_PADDED.fullmatch(cell.number_format):
                return text.zfill(len(cell.number_format))
        return text


class _Merged:
    """A merged cell.

    Args:
        reference: What it covers, such as ``A2:B3``.
    """

    def __init__(self, reference: str) -> None:
        from openpyxl.utils import range_boundaries

        self._left, self.first_row, self._right, self.last_row = range_boundaries(reference)
        self.n_cells = (self._right - self._left + 1) * (self.last_row - self.first_row + 1)
        self._value = ""

    def fill(self, number: int, row: list[str]) -> None:
        """Write its value, that of its first cell, into the cells of a row that it covers."""
        if number == self.first_row:
            self._value = "".join(row[self._left - 1 : self._left])
        if self._value:
            row += [""] * (self._right - len(row))
            row[self._left - 1 : self._right] = [self._value] * (self._right - self._left + 1)


def _tags(archive: zipfile.ZipFile, name: str, pattern: re.Pattern[bytes]) -> list[re.Match[bytes]]:
    """Return the tags of a file in an archive that match a pattern, none if it is not there."""
    matches: list[re.Match[bytes]] = []
    if name in archive.namelist():
        with archive.open(name) as file:
            text = b""
            while chunk := file.read(_CHUNK):
                text += chunk
                end = text.rfind(b">") + 1
                matches += pattern.finditer(text, 0, end)
                text = text[end:][-_MAX_TAG:]
    return matches


def _is_formula(cell: object) -> bool:
    """Return whether a cell is a formula, or an array formula of openpyxl."""
    return str(getattr(cell, "text", cell)).startswith("=")


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Turn what the libraries raise on a damaged file into a ValueError."""
    try:
        yield
    except (OSError, MemoryError, UsageError, DatasetError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _as_text(cell: object) -> str:
    """Return a value as text: "" if it is missing, and whole numbers without a fraction.

    Excel stores a date as the midnight that it starts with.
    """
    if cell is None or cell != cell:  # NaN
        return ""
    if isinstance(cell, datetime) and cell.time() == time():
        return str(cell.date())
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def _check_size(path: Path, unpacked: int) -> None:
    if unpacked > max(MAX_UNPACKED, MAX_EXPANSION * path.stat().st_size):
        raise DatasetError(f"{path} has more than {MAX_UNPACKED} bytes when unpacked: split it")


def _missing(files: str, package: str) -> UsageError:
    return UsageError(
        f"reading {files} needs {package}: pip install 'featurecache[tables]', or save the table "
        "as CSV"
    )
