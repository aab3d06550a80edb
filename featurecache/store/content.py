"""Find stored embeddings by the content of their image files."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurecache.store.cache import Cache
from featurecache.store.chunks import ChunkIndex, read_chunk_rows
from featurecache.store.records import Utf8, positions

ReadRows = Callable[[int, int], NDArray[np.float16]]
"""Reads rows ``start`` to ``stop`` of a source: (stop - start, D) float16."""


@dataclass(frozen=True)
class StoredContent:
    """M stored embeddings, and the content of the image files that they were computed from.

    Attributes:
        path: File that holds the embeddings.
        sha256: SHA-256 of the image files, in hex, (M,).
        perceptual_hash: Hashes of the decoded images, (M, 32).
        size: Bytes of the image files, (M,).
        row: Row of each embedding in the file, (M,).
        read: Reads rows of the file.
    """

    path: Path
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    size: NDArray[np.int64]
    row: NDArray[np.intp]
    read: ReadRows

    @classmethod
    def of_cache(cls, cache: Cache) -> "StoredContent":
        """Return the content of a finished cache."""
        images = cache.images
        rows = np.arange(len(images))
        return cls(
            cache.path, images.sha256, images.perceptual_hash, images.size, rows, cache.read_rows
        )

    @classmethod
    def of_chunk(cls, chunk: ChunkIndex, rows: NDArray[np.intp]) -> "StoredContent":
        """Return the content of some rows of a chunk file."""
        return cls(
            chunk.file,
            chunk.sha256[rows],
            chunk.perceptual_hash[rows],
            chunk.size[rows],
            rows,
            partial(read_chunk_rows, chunk.file),
        )

    def find(self, sha256: Utf8) -> NDArray[np.intp]:
        """Return the index of an embedding of each file, by the SHA-256 of (n,) files.

        Returns:
            Indices from 0 to M - 1, (n,); -1 where there is none.
        """
        order = np.argsort(self.sha256, kind="stable")
        at = positions(self.sha256[order], sha256)
        return np.where(at < 0, -1, order[at]) if len(order) else at

    def embedding(self, index: NDArray[np.intp]) -> NDArray[np.float16]:
        """Return the embeddings of these n indices, (n, D), with one read.

        Args:
            index: Indices, at least one. What lies between the lowest and the highest is read, too.

        Raises:
            CacheError: The file is damaged, gone, or not the one that was opened.
        """
        row = self.row[index]
        start = int(row.min())
        return self.read(start, int(row.max()) + 1)[row - start]
