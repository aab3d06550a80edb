"""NumPy: an array of embeddings, and CSV files with a row for each of its rows."""

from pathlib import Path

import numpy as np

from featurecache.export.beside import iter_embeddings
from featurecache.progress import Progress
from featurecache.store.cache import Cache


def write(cache: Cache, path: Path, progress: Progress | None) -> None:
    """Write a cache; the files beside the array are those of ``beside``."""
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(cache), cache.dim)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for embedding in iter_embeddings(cache, path, progress):
            file.write(embedding.astype("<f2", copy=False).tobytes())
