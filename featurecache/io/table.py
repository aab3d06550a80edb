"""Write the table of a result as a CSV or parquet file."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from featurecache.errors import UsageError
from featurecache.io.atomic import new_file, require_absent
from featurecache.io.csv import write_rows

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES: Final = (".csv", ".parquet")


def check_table_file(path: Path) -> None:
    """Check, before a result is computed, that it can be written to a file.

    Raises:
        UsageError: The file exists, has another suffix, or needs a package that is missing.
    """
    require_absent(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: give a name that ends in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UsageError(
                "writing parquet files needs pyarrow: pip install 'featurecache[tables]', or give "
                "a name that ends in .csv"
            ) from error


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table, completely or not at all; the suffix of the file decides its format.

    In a CSV file booleans are 1 and 0, undefined values are empty cells, and the members of a tuple
    are joined by "|".

    Args:
        table: The table.
        path: The file; see ``check_table_file``.

    Raises:
        OSError: The disk is full or not writable.
    """
    with new_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [list(table.columns)])
            write_rows(file, ([csv_cell(value) for value in row] for row in table.to_numpy(object)))


def csv_cell(value: object) -> object:
    """Return a value as it is written to a CSV file; see ``write_table``."""
    if isinstance(value, tuple):
        return "|".join(map(str, value))
    if isinstance(value, bool):
        return int(value)
    is_undefined = value is None or (isinstance(value, float) and math.isnan(value))
    # pandas writes its own missing value as "<NA>".
    return "" if is_undefined or str(value) == "<NA>" else value
