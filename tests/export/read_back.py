"""Read exports back with the libraries that they are for."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pyarrow import parquet


class Export(NamedTuple):
    """What an export holds.

    Attributes:
        table: Strings, "" where unknown; age as float; labels as float, NaN where blank. Ordered by
            id.
        embedding: (N, D).
        header: The JSON document.
        texts: The table of texts; None if the export has none.
        text_embedding: (P, D).
    """

    table: pd.DataFrame
    embedding: np.ndarray
    header: dict[str, Any]
    texts: pd.DataFrame | None
    text_embedding: np.ndarray | None


def from_parquet(path: Path) -> Export:
    table = parquet.read_table(path)
    frame = table.drop_columns("embedding").to_pandas()
    texts = text_embedding = None
    if (beside := path.with_suffix(".texts.parquet")).exists():
        stored = parquet.read_table(beside)
        texts, text_embedding = stored.drop_columns("embedding").to_pandas(), _vectors(stored)
    header = json.loads(table.schema.metadata[b"featurecache"])
    return Export(_plain(frame), _vectors(table), header, texts, text_embedding)


def _vectors(table: Any) -> np.ndarray:
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    texts = [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])]
    numbers = [c for c in frame if c not in texts]
    frame[texts] = frame[texts].astype(object).where(frame[texts].notna(), "")
    frame[numbers] = frame[numbers].astype(float)
    return frame.sort_values("id", ignore_index=True)


READERS: Mapping[str, Callable[[Path], Export]] = {"parquet": from_parquet}
