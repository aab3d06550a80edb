"""The layout of AnnData, in HDF5 (``.h5ad``) and in zarr.

AnnData itself writes only tables that are in memory as a whole, so the elements are written here as
in https://anndata.readthedocs.io/en/stable/fileformat-prose.html.
"""

from collections.abc import Callable, Mapping
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

_VERSIONS: Final[Mapping[str, str]] = {
    "anndata": "0.1.0",
    "array": "0.2.0",
    "dataframe": "0.2.0",
    "dict": "0.1.0",
    "string": "0.2.0",
    "string-array": "0.2.0",
}
"""The version of each kind of element that is written."""


Create = Callable[[Any, str, tuple[int, ...], type[Any]], Any]
"""Creates an array in a group of HDF5 or zarr, of a name, shape and type; texts are ``str``."""


def write(cache: Cache, path: Path, progress: Progress | None) -> None:
    """Write a cache as ``.h5ad``."""
    import h5py

    def create(group: Any, name: str, shape: tuple[int, ...], dtype: type[Any]) -> Any:
        stored = h5py.string_dtype() if dtype is str else dtype
        return group.create_dataset(name, shape=shape, dtype=stored)

    with h5py.File(path, "w") as file:
        write_layout(cache, file, create, progress)


def write_layout(cache: Cache, root: Any, create: Create, progress: Progress | None) -> None:
    """Write a cache to the root group of a file: ``X``, ``obs``, ``var`` and ``uns``.

    A "/" in the name of a label becomes "_", as names are paths here.
    """
    _describe(root, "anndata")
    for name in ("layers", "obsm", "obsp", "varm", "varp"):
        _describe(root.create_group(name), "dict")
    labels = label_columns(name.replace("/", "_") for name in cache.labels.names)
    obs_types: dict[str, type[Any]] = {
        name: np.float64 if name == "age" else str for name in IMAGE_COLUMNS
    }
    obs_types |= dict.fromkeys(labels, np.float32)
    vectors = _array(root, "X", (len(cache), cache.dim), np.float16, create)
    obs = _frame(root, "obs", len(cache), obs_types, create)
    for block in iter_blocks(cache, progress):
        rows = slice(block.rows[0], block.rows[-1] + 1)
        vectors[rows] = block.embedding
        for name, column in zip(obs, block.table, strict=True):
            obs[name][rows] = _values(block.table[column])
    var = _frame(root, "var", cache.dim, {"dimension": str}, create)
    var["dimension"][:] = np.arange(cache.dim).astype(str).astype(object)
    uns = root.create_group("uns")
    _describe(uns, "dict")
    _array(uns, "featurecache", (), str, create)[()] = header(cache, labels)
    texts, embedding = text_table(cache)
    if texts.empty:
        return
    texts.insert(0, "row", texts.index.astype(str))
    stored = _frame(uns, "texts", len(texts), dict.fromkeys(map(str, texts), str), create)
    for name, array in stored.items():
        array[:] = _values(texts[name])
    _array(uns, "text_embedding", embedding.shape, np.float32, create)[:] = embedding


def _frame(
    parent: Any, name: str, rows: int, columns: Mapping[str, type[Any]], create: Create
) -> dict[str, Any]:
    """Create a table and return its columns, of which the first is the index."""
    group = parent.create_group(name)
    _describe(group, "dataframe")
    index, *others = columns
    group.attrs["_index"] = index
    group.attrs["column-order"] = others
    return {
        column: _array(group, column, (rows,), dtype, create) for column, dtype in columns.items()
    }


def _array(group: Any, name: str, shape: tuple[int, ...], dtype: type[Any], create: Create) -> Any:
    array = create(group, name, shape, dtype)
    kind = "array" if dtype is not str else "string-array" if shape else "string"
    _describe(array, kind)
    return array


def _describe(element: Any, kind: str) -> None:
    element.attrs["encoding-type"] = kind
    element.attrs["encoding-version"] = _VERSIONS[kind]


def _values(column: "pd.Series[Any]") -> NDArray[Any]:
    """Return numbers as floats, NaN where unknown, and texts as objects, "" where unknown."""
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    return column.to_numpy(object, na_value="")
