"""Build a cache: what is already stored, what is added, and the finished file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.io.fingerprint import first_difference
from featurecache.provenance.encoder_spec import spec_difference
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.store.cache import Cache
from featurecache.store.chunks import (
    ChunkFolder,
    ChunkIndex,
    EncodedRows,
    chunk_bit_depth,
    concatenate,
    first_encoder_spec,
    read_chunk_rows,
    require_same_bit_depth,
    require_same_id_scheme,
)
from featurecache.store.content import StoredContent
from featurecache.store.gather import gather_rows
from featurecache.store.layout import CHUNK_ROWS, chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.records import (
    Header,
    ImageTable,
    Labels,
    TextSet,
    Utf8,
    positions,
    text_fingerprints,
)
from featurecache.store.writer import write_cache

NOT_STORED: Final = -2
"""``source`` of an image without an embedding."""
_CACHE: Final = -1
"""``source`` of a row in the finished cache; chunk files are numbered from 0."""


@dataclass
class StoredRows:
    """Where the embeddings of N images are stored, and from which image files they were made.

    The arrays are filled in as embeddings arrive, so memory use is constant.

    Attributes:
        id: Image ids, (N,), ascending.
        sha256: SHA-256 of the image files, in hex, (N,); empty where there is no embedding.
        perceptual_hash: Hashes of the decoded images, (N, 32).
        path: Paths of the image files as in ``ImageTable``, (N,).
        size: Bytes of the image files, (N,).
        mtime_ns: Modification times of the image files, (N,).
        source: Where the embedding is, (N,): ``NOT_STORED``, the cache, or a chunk file.
        row: Row in the source, (N,).
    """

    id: Utf8
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    path: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    source: NDArray[np.int32]
    row: NDArray[np.int32]

    @classmethod
    def empty(cls, ids: Utf8) -> "StoredRows":
        """Return a record of these ids, which are sorted, without any embedding."""
        return cls(
            id=ids,
            sha256=np.zeros(len(ids), dtype="S64"),
            perceptual_hash=np.zeros((len(ids), HASH_BYTES), dtype=np.uint8),
            path=np.zeros(len(ids), dtype="S1"),
            size=np.zeros(len(ids), dtype=np.int64),
            mtime_ns=np.zeros(len(ids), dtype=np.int64),
            source=np.full(len(ids), NOT_STORED, dtype=np.int32),
            row=np.zeros(len(ids), dtype=np.int32),
        )

    def present(self) -> NDArray[np.bool_]:
        """Return which images have an embedding, (N,)."""
        present: NDArray[np.bool_] = self.source != NOT_STORED
        return present

    def add(self, rows: ImageTable | ChunkIndex, source: int) -> NDArray[np.intp]:
        """Record the rows of a source, replacing older ones; return those with other ids."""
        at = positions(self.id, rows.id)
        (requested,) = np.nonzero(at >= 0)
        at = at[requested]
        self.sha256[at] = rows.sha256[requested]
        self.perceptual_hash[at] = rows.perceptual_hash[requested]
        self._set_path(at, rows.path[requested])
        self.size[at] = rows.size[requested]
        self.mtime_ns[at] = rows.mtime_ns[requested]
        self.source[at] = source
        self.row[at] = requested
        return np.delete(np.arange(len(rows.id)), requested)

    def touch(
        self,
        rows: NDArray[np.intp],
        *,
        path: Utf8,
        size: NDArray[np.int64],
        mtime_ns: NDArray[np.int64],
    ) -> None:
        """Record the state of n files that were moved or rewritten with the same bytes.

        Args:
            rows: Indices of their ids, (n,).
            path: Their paths now, (n,).
            size: Their sizes now, (n,).
            mtime_ns: Their modification times now, (n,).
        """
        self._set_path(rows, path)
        self.size[rows], self.mtime_ns[rows] = size, mtime_ns

    def _set_path(self, rows: NDArray[np.intp], path: Utf8) -> None:
        # Assigning to an array of fixed-length strings would cut longer ones.
        self.path = self.path.astype(np.promote_types(self.path.dtype, path.dtype), copy=False)
        self.path[rows] = path


def stored_encoder_spec(path: Path) -> Mapping[str, Any] | None:
    """Return the encoder spec of a cache, or of its first chunk file; None if there is neither.

    Raises:
        CacheError: The file is damaged.
    """
    if path.exists():
        return read_cache(path).header.encoder_spec
    return first_encoder_spec(chunks_path(path))


def stored_bit_depth(path: Path) -> int | None:
    """Return the bit depth of a cache or of its chunk files; None without any.

    Raises:
        CacheError: A file is damaged.
    """
    stored = read_cache(path).header.bit_depth if path.exists() else None
    return stored or chunk_bit_depth(chunks_path(path))


class CacheBuilder:
    """Adds rows to a cache, through chunk files that survive a kill.

    Args:
        path: The cache file.
        header: What the cache is about.
        ids: Ids of the images that it is to hold, sorted.

    Attributes:
        header: What the finished cache is about; the encoder spec is that of the cache.
        cache: The cache that existed at the start, or None.
        library_difference: How the versions of the libraries differ from all that the cache was
            made with; None if they do not.
        stored: Which of the requested images have an embedding, in the cache or in chunk files.
        outside: Ids, sorted, that had an embedding at the start and are not requested.
        outside_sha256: SHA-256 of their image files, in hex.
        contents: What was stored at the start and can be found by content: all of the cache, and
            of the chunk files the rows that are not requested. (Were it all of their rows, a
            resumed extraction of images that occur twice would form other batches.)

    Raises:
        CacheError: The cache or its chunk files are damaged, were made with another bit depth or
            encoder spec (the message names the field that differs), or their ids are pseudonymized
            differently.
    """

    def __init__(self, path: Path, header: Header, ids: Utf8) -> None:
        self.path = path
        self.header = header
        self.library_difference: str | None = None
        self.cache: Cache | None = read_cache(path) if path.exists() else None
        if self.cache is not None:
            stored = self.cache.header
            if stored.imported:
                raise CacheError(
                    f"{path} was imported from {', '.join(stored.imported)}, so it is not known "
                    "which image files its embeddings are of, and none can be added: give another "
                    "`cache_dir`, or another `name` of the data set"
                )
            require_same_id_scheme(path, stored.collection, header.collection)
            given = dict(header.encoder_spec)
            if "libraries" in given and "libraries" in stored.encoder_spec:
                given["libraries"] = stored.encoder_spec["libraries"]
            if difference := spec_difference(stored.encoder_spec, given):
                raise CacheError(
                    f"{path} was made with other settings ({difference}), so its embeddings cannot "
                    "be mixed with new ones: give another `cache_dir`, or move the file away"
                )
            require_same_bit_depth(path, stored.bit_depth, header.bit_depth)
            # Facts about the first extraction stay, unless this one has its own.
            for name in ("probe", "revision"):
                if getattr(header, name) is None:
                    self.header = replace(self.header, **{name: getattr(stored, name)})
            if header.encoder_spec.get("libraries") not in stored.libraries:
                self.library_difference = first_difference(stored.encoder_spec, header.encoder_spec)
            self.header = replace(
                self.header, encoder_spec=stored.encoder_spec, libraries=stored.libraries
            )
        self._folder = ChunkFolder(
            chunks_path(path), self.header.encoder_spec, header.collection, header.bit_depth
        )
        self._chunks: list[Path] = []
        self._dims: set[int] = set()
        self._pending: list[EncodedRows] = []
        self.stored = StoredRows.empty(ids)
        self.contents: list[StoredContent] = []
        outside = [(ids[:0], self.stored.sha256[:0])]
        if self.cache is not None:
            images = self.cache.images
            others = self.stored.add(images, _CACHE)
            outside.append((images.id[others], images.sha256[others]))
            self.contents.append(StoredContent.of_cache(self.cache))
        for chunk in self._folder.read():
            others = self._add_chunk(chunk)
            if len(others):
                outside.append((chunk.id[others], chunk.sha256[others]))
                self.contents.append(StoredContent.of_chunk(chunk, others))
        # The newest chunk file wins.
        ids_outside, sha256 = (
            np.concatenate(column) for column in zip(*outside[::-1], strict=True)
        )
        self.outside: Utf8
        self.outside, first = np.unique(ids_outside, return_index=True)
        self.outside_sha256: Utf8 = sha256[first]

    @property
    def crash_journal(self) -> Path:
        """File in which an extraction records the images it is decoding; removed at the end."""
        return self._folder.folder / "crash_journal"

    def failed(self, reason: str) -> set[bytes]:
        """Return the ids of images whose recorded failure starts with this reason."""
        failures = {} if self.cache is None else self.cache.failures
        return {image.encode() for image, text in failures.items() if text.startswith(reason)}

    def add(self, rows: EncodedRows) -> None:
        """Add an encoded batch; it is on the disk after the next ``flush``."""
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the batches added so far as one chunk file.

        Only whole batches are written, so that a resumed extraction forms the same batches as an
        uninterrupted one and its embeddings are equal to the last bit. (Unless the encoder gave an
        image no usable embedding: that image is tried again, which shifts the batches by one.)
        """
        if self._pending:
            self._add_chunk(self._folder.add(concatenate(self._pending)))
            self._pending = []

    def finish(
        self,
        *,
        images: ImageTable,
        labels: Labels,
        texts: Mapping[str, TextSet],
        failures: Mapping[str, str],
    ) -> bool:
        """Write the finished cache and remove the chunk files.

        Args:
            images: Rows of the cache; each must be stored.
            labels: Their labels.
            texts: Encoded prompt sets by name.
            failures: Reasons by image id.

        Returns:
            Whether the file was written; it is left alone if nothing has changed.
        """
        self.flush()
        rows = positions(self.stored.id, images.id)
        missing = (rows < 0) | ~self.stored.present()[rows]
        if missing.any():
            raise ValueError(f"no embedding is stored for {images.id[missing][0].decode()!r}")
        changed = not self._is_current(images, labels, texts, failures)
        if changed:
            write_cache(
                self.path,
                header=self.header,
                images=images,
                dim=self._dim(),
                embedding=lambda start, stop: self._read(rows, start, stop),
                labels=labels,
                texts=texts,
                failures=failures,
            )
        self._folder.delete()
        return changed

    def _add_chunk(self, chunk: ChunkIndex) -> NDArray[np.intp]:
        """Record a chunk file; return its rows that are not requested."""
        self._chunks.append(chunk.file)
        self._dims.add(chunk.dim)
        return self.stored.add(chunk, len(self._chunks) - 1)

    def _dim(self) -> int:
        dims = self._dims | ({self.cache.dim} if self.cache else set())
        if len(dims) != 1:
            raise CacheError(f"{self.path}: its rows have different lengths: {sorted(dims)}")
        return dims.pop()

    def _read(self, rows: NDArray[np.intp], start: int, stop: int) -> NDArray[np.float16]:
        def read_source(source: int, low: int, high: int) -> NDArray[np.float16]:
            if source == _CACHE:
                assert self.cache is not None
                return self.cache.read_rows(low, high)
            return read_chunk_rows(self._chunks[source], low, high)

        block = rows[start:stop]
        return gather_rows(
            self.stored.source[block], self.stored.row[block], dim=self._dim(), read=read_source
        )

    def _is_current(
        self,
        images: ImageTable,
        labels: Labels,
        texts: Mapping[str, TextSet],
        failures: Mapping[str, str],
    ) -> bool:
        cache = self.cache
        if cache is None or self._chunks:
            return False
        return (
            all(map(np.array_equal, vars(cache.images).values(), vars(images).values()))
            and cache.labels.names == labels.names
            and np.array_equal(cache.labels.cells, labels.cells)
            and text_fingerprints(cache.texts) == text_fingerprints(texts)
            and dict(cache.failures) == dict(failures)
            # The encoder spec was compared at the start.
            and cache.header == replace(self.header, encoder_spec=cache.header.encoder_spec)
        )
