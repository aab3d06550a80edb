"""Tables whose cells have types: Excel workbooks and parquet files. Cells become text."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from typing import Final

from featurecache.datasets.text_table import MAX_EXPANSION, MAX_UNPACKED
from featurecache.errors import DatasetError, UsageError
from featurecache.io.text import require_regular_file
from featurecache.wording import count_noun

MAX_CELLS: Final = 2**28
"""Cells of a sheet or of a parquet file: about a million rows of 256 columns."""
_MAX_TITLE: Final = 3
"""Rows of a title above a header."""


class ParquetTable:
    """An open parquet file.

    Attributes:
        header: Names of the columns.
        notes: None.

    Raises:
        UsageError: If pyarrow is not installed.
        DatasetError: If the file is too large.
        OSError: If the file cannot be read.
        ValueError: If it is not a parquet file.
    """

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise _missing("parquet files", "pyarrow") from error
        require_regular_file(path)
        with _damage_as_value_error():
            self._file = ParquetFile(path)
        self.header: list[str] = self._file.schema_arrow.names
        self.notes: list[str] = []
        metadata = self._file.metadata
        groups = range(metadata.num_row_groups)
        _check_size(path, sum(metadata.row_group(group).total_byte_size for group in groups))
        if metadata.num_rows * len(self.header) > MAX_CELLS:
            raise DatasetError(f"{path} has more than {MAX_CELLS:,} cells: split it")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row, from 1, and its cells."""
        number = 0
        with _damage_as_value_error():
            for batch in self._file.iter_batches(batch_size=1024):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, [_as_text(cell) for cell in row]


class ExcelTable:
    """The first sheet of an open Excel workbook.

    Attributes:
        header: Names of the columns: the first row that is not blank. Rows above it of which only
            the first cell is filled are a title if it is longer.
        notes: Sentences on other sheets and on a title, if there are any.

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
            self._sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
        self._path = path
        sheets = self._sheet.parent.sheetnames
        self.notes = []
        if len(sheets) > 1:
            self.notes.append(
                f"{path.name} has {len(sheets)} sheets; the first is read, {self._sheet.title!r}."
            )
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

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each row below the header, as Excel shows it, and its cells.

        Raises:
            DatasetError: If a row is longer than the header.
        """
        width = len(self.header)
        for number, row in self._filled_rows():
            if number <= self._header_row:
                continue
            if len(row) > width:
                raise DatasetError(
                    f"{self._path}, row {number}: the row has {count_noun(len(row), 'cell')}, but "
                    f"the header, row {self._header_row}, has {width}. Give each column a name, or "
                    "delete the rows above the header"
                )
            yield number, row + [""] * (width - len(row))

    def _filled_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the rows that are not blank without the empty cells at their end."""
        # A stranger's file may claim any size.
        self._sheet.reset_dimensions()
        n_cells = 0
        with _damage_as_value_error():
            for number, row in enumerate(self._sheet.iter_rows(values_only=True), 1):
                n_cells += len(row)
                if n_cells > MAX_CELLS:
                    raise DatasetError(f"{self._path} has more than {MAX_CELLS:,} cells: split it")
                cells = [_as_text(cell) for cell in row]
                while cells and not cells[-1]:
                    cells.pop()
                if cells:
                    yield number, cells


@contextmanager
def _damage_as_value_error() -> Iterator[None]:
    """Turn what the libraries raise on a damaged file into a ValueError."""
    try:
        yield
    except (OSError, MemoryError, UsageError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _as_text(cell: object) -> str:
    """Return a cell as text: "" if it is missing, and whole numbers without a fraction.

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
