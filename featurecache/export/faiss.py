"""FAISS: an exact index of cosine similarities, and CSV files with a row for each vector."""

import struct
from pathlib import Path
from typing import Final

from featurecache.export.beside import iter_embeddings
from featurecache.metrics.similarity import normalize_rows
from featurecache.progress import Progress
from featurecache.store.cache import Cache

_INNER_PRODUCT: Final = 0
_UNUSED: Final = 1 << 20


def write(cache: Cache, path: Path, progress: Progress | None) -> None:
    """Write an ``IndexFlatIP`` of the embeddings, scaled to unit length in float32.

    FAISS itself writes only an index that is in memory as a whole, so the file is laid out here, as
    in ``write_index`` of faiss/impl/index_write.cpp.
    """
    cache.require_vectors()
    n, dim = len(cache), cache.dim
    with path.open("wb") as file:
        kind = (b"IxFI", dim, n, _UNUSED, _UNUSED, True, _INNER_PRODUCT)
        file.write(struct.pack("<4siqqq?iQ", *kind, n * dim))
        for embedding in iter_embeddings(cache, path, progress):
            file.write(normalize_rows(embedding).astype("<f4", copy=False).tobytes())
