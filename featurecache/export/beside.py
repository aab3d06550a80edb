"""CSV, NumPy and JSON files beside exports whose own format holds nothing but embeddings."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from featurecache.export.tables import IMAGE_COLUMNS, header, iter_blocks, text_table
from featurecache.io.csv import write_rows
from featurecache.io.table import csv_cell
from featurecache.progress import Progress
from featurecache.store.cache import Cache
from featurecache.store.records import label_columns

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES: Final = (".images.csv", ".texts.csv", ".texts.npy", ".json")


def iter_embeddings(
    cache: Cache, path: Path, progress: Progress | None
) -> Iterator[NDArray[np.float16]]:
    """Yield embeddings (n, D) block by block, and write everything else to files beside a path."""
    with path.with_suffix(".images.csv").open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [[*IMAGE_COLUMNS, *label_columns(cache.labels.names)]])
        for block in iter_blocks(cache, progress):
            _append(file, block.table)
            yield block.embedding
    write_texts(cache, path.with_suffix(".texts.csv"))
    path.with_suffix(".json").write_text(header(cache), encoding="utf-8")


def write_texts(cache: Cache, path: Path) -> None:
    """Write the texts of a cache, if it has any, to a CSV file and an array of the same name."""
    table, embedding = text_table(cache)
    if table.empty:
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [list(table.columns)])
        _append(file, table)
    np.save(path.with_suffix(".npy"), embedding)


def _append(file: TextIO, table: "pd.DataFrame") -> None:
    rows: NDArray[Any] = table.to_numpy(object)
    write_rows(file, (map(csv_cell, row) for row in rows))
