"""Parquet: one row per image, and a second file of texts; for pandas, Polars, DuckDB, Spark."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.export.tables import IMAGE_COLUMNS, header, iter_blocks, text_table
from featurecache.progress import Progress
from featurecache.store.cache import Cache
from featurecache.store.records import label_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

TEXTS: Final = ".texts.parquet"
EMBEDDING: Final = "embedding"


def write(cache: Cache, path: Path, progress: Progress | None) -> None:
    """Write a cache; its texts go to ``NAME.texts.parquet``."""
    schema = image_schema(cache)
    with open_parquet(path, schema) as writer:
        for block in iter_blocks(cache, progress):
            writer.write_table(with_embedding(block.table, block.embedding, schema))
    write_texts(cache, path.with_suffix(TEXTS))


def write_texts(cache: Cache, path: Path) -> None:
    """Write the texts of a cache, if it has any."""
    table, embedding = text_table(cache)
    if table.empty:
        return
    schema = _schema(dict.fromkeys(table.columns, "string"), embedding, cache)
    with open_parquet(path, schema) as writer:
        writer.write_table(with_embedding(table, embedding, schema))


def image_schema(cache: Cache) -> "pa.Schema":
    """Return the columns of the table of images, with the header of the cache as metadata."""
    columns = {name: "float64" if name == "age" else "string" for name in IMAGE_COLUMNS}
    columns |= dict.fromkeys(label_columns(cache.labels.names), "int8")
    return _schema(columns, np.empty((0, cache.dim), dtype=np.float16), cache)


def _schema(columns: Mapping[str, str], embedding: NDArray[Any], cache: Cache) -> "pa.Schema":
    import pyarrow as pa

    vectors = pa.list_(pa.from_numpy_dtype(embedding.dtype), embedding.shape[1])
    fields = [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns.items()]
    return pa.schema(
        [*fields, pa.field(EMBEDDING, vectors)],
        metadata={"featurecache": header(cache)},
    )


def open_parquet(path: Path, schema: "pa.Schema") -> "ParquetWriter":
    """Open a parquet file for tables of a schema; embeddings do not repeat and are left plain."""
    from pyarrow.parquet import ParquetWriter

    repeating = [name for name in schema.names if name != EMBEDDING]
    return ParquetWriter(path, schema, use_dictionary=repeating, write_statistics=repeating)


def with_embedding(
    table: "pd.DataFrame", embedding: NDArray[Any], schema: "pa.Schema"
) -> "pa.Table":
    """Return a table with the embeddings (n, D) of its n rows as the last column."""
    import pyarrow as pa

    columns = [
        pa.array(table[name], field.type) for name, field in zip(table, schema, strict=False)
    ]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), embedding.shape[1])
    return pa.table([*columns, vectors], schema=schema)
