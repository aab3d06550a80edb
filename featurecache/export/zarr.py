"""Zarr: a folder of chunked arrays, laid out as AnnData does."""

from pathlib import Path
from typing import Any

from featurecache.export.anndata import write_layout
from featurecache.progress import Progress
from featurecache.store.cache import BLOCK_ROWS, Cache


def write(cache: Cache, folder: Path, progress: Progress | None) -> None:
    """Write a cache as a zarr group, of format 2, which has a type for texts."""
    import zarr

    def create(group: Any, name: str, shape: tuple[int, ...], dtype: type[Any]) -> Any:
        chunks = tuple(min(max(size, 1), BLOCK_ROWS) for size in shape)
        return group.create_array(name, shape=shape, dtype=dtype, chunks=chunks)

    root = zarr.create_group(folder, zarr_format=2)
    write_layout(cache, root, create, progress)
