"""A cache in the making: what is stored already, what is added, and the finished file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.io.fingerprint import first_difference
from featurecache.store.cache import Cache
from featurecache.store.chunks import (
    ChunkFolder,
    ChunkIndex,
    EncodedRows,
    concatenate,
    first_description,
    read_chunk_rows,
    require_same_id_scheme,
)
from featurecache.store.gather import gather_rows
from featurecache.store.layout import CHUNK_ROWS, chunks_path
from featurecache.store.reader import read_cache
from featurecache.store.records import Header, ImageTable, Labels, TextSet, Utf8, positions
from featurecache.store.writer import write_cache

NOWHERE: Final = -2
"""The source of an image without an embedding."""
_CACHE: Final = -1
"""The source of a row that lies in the finished cache; parts count from 0."""


@dataclass(frozen=True)
class StoredRows:
    """Of N images, in order of id: what each embedding was made from, and where it lies.

    Arrays that are filled in as embeddings come, and so take the same memory from the beginning.
    """

    id: Utf8
    sha256: Utf8
    """Empty where there is no embedding."""
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    source: NDArray[np.int32]
    row: NDArray[np.int32]

    def present(self) -> NDArray[np.bool_]:
        """Which of the N have an embedding."""
        present: NDArray[np.bool_] = self.source != NOWHERE
        return present

    def place(self, rows: ImageTable | ChunkIndex, source: int) -> Utf8:
        """Fill in the rows of a source, in place of older ones; gives the ids not among the N."""
        at = positions(self.id, rows.id)
        (known,) = np.nonzero(at >= 0)
        at = at[known]
        self.sha256[at] = rows.sha256[known]
        self.size[at] = rows.size[known]
        self.mtime_ns[at] = rows.mtime_ns[known]
        self.source[at] = source
        self.row[at] = known
        return np.delete(rows.id, known)


def nothing_stored(ids: Utf8) -> StoredRows:
    """No embedding of any of these images, which are sorted."""
    return StoredRows(
        id=ids,
        sha256=np.zeros(len(ids), dtype="S64"),
        size=np.zeros(len(ids), dtype=np.int64),
        mtime_ns=np.zeros(len(ids), dtype=np.int64),
        source=np.full(len(ids), NOWHERE, dtype=np.int32),
        row=np.zeros(len(ids), dtype=np.int32),
    )


def begun_description(path: Path) -> Mapping[str, Any] | None:
    """The description that a cache or its first part was made with; None where nothing is there.

    Raises:
        CacheError: the file is damaged.
    """
    if path.exists():
        return read_cache(path).header.encoder_spec
    return first_description(chunks_path(path))


class CacheBuilder:
    """Adds rows to a cache file, through parts that survive a kill.

    Attributes:
        cache: the finished cache that was there at the start, or None.
        stored: what has an embedding, in the cache or in parts, among the images asked about.
        outside: ids that had an embedding at the start and were not asked about, sorted.
    """

    def __init__(self, path: Path, header: Header, ids: Utf8) -> None:
        """Open what is there.

        Args:
            path: the cache file.
            header: what it is about.
            ids: the images that it may come to hold, sorted.

        Raises:
            CacheError: the cache or its parts are damaged, or were made with another description;
                the message names the field that differs; or the ids there are hashed otherwise.
        """
        self.path = path
        self.header = header
        self.cache: Cache | None = read_cache(path) if path.exists() else None
        if self.cache is not None:
            begun = self.cache.header
            require_same_id_scheme(path, begun.collection, header.collection)
            if difference := first_difference(begun.encoder_spec, header.encoder_spec):
                raise CacheError(
                    f"{path} was made with other settings ({difference}): mixing them would make "
                    "its embeddings incomparable; use another --cache, or move the file away"
                )
            # What was known when the cache was begun stays.
            for name in ("bf16_cosine", "revision"):
                if getattr(header, name) is None:
                    self.header = replace(self.header, **{name: getattr(begun, name)})
        self._folder = ChunkFolder(chunks_path(path), header.encoder_spec, header.collection)
        self._parts: list[Path] = []
        self._dims: set[int] = set()
        self._pending: list[EncodedRows] = []
        self.stored = nothing_stored(ids)
        outside = [] if self.cache is None else [self.stored.place(self.cache.images, _CACHE)]
        outside += [self._take(part) for part in self._folder.read()]
        self.outside: Utf8 = np.unique(np.concatenate(outside)) if outside else ids[:0]

    @property
    def crash_journal(self) -> Path:
        """File that records which images are being decoded; deleted with the chunks."""
        return self._folder.folder / "crash_journal"

    def failed(self, reason: str) -> set[bytes]:
        """The ids of images whose recorded reason begins so."""
        failures = {} if self.cache is None else self.cache.failures
        return {name.encode() for name, told in failures.items() if told.startswith(reason)}

    def add(self, rows: EncodedRows) -> None:
        """Take one encoded batch; it is on the disk once ``flush`` has run."""
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= CHUNK_ROWS:
            self.flush()

    def touch(self, row: int, size: int, mtime_ns: int) -> None:
        """Take note of a file that changed but holds the bytes that its embedding was made from.

        Args:
            row: the place of its id among those asked about.
            size: of the file now.
            mtime_ns: its time of change now.
        """
        self.stored.size[row], self.stored.mtime_ns[row] = size, mtime_ns

    def flush(self) -> None:
        """Write the batches taken so far as one part.

        Only whole batches reach the parts, so that a resumed extraction forms the same batches as
        an undisturbed one and its embeddings are equal to the last bit. (Unless the encoder gave
        an image no usable embedding: that image is tried again, and the batches shift by one.)
        """
        if self._pending:
            self._take(self._folder.add(concatenate(self._pending)))
            self._pending = []

    def finish(
        self,
        *,
        images: ImageTable,
        labels: Labels,
        texts: Mapping[str, TextSet],
        failures: Mapping[str, str],
    ) -> bool:
        """Write the finished cache with these rows and remove the parts.

        Args:
            images: the rows the cache is to have; each must be stored.
            labels: their labels.
            texts: prompt sets.
            failures: image id to reason.

        Returns:
            Whether anything had changed; when nothing had, the file is left alone.
        """
        self.flush()
        rows = positions(self.stored.id, images.id)
        missing = (rows < 0) | ~self.stored.present()[rows]
        if missing.any():
            raise ValueError(f"no embedding is stored for {images.id[missing][0].decode()!r}")
        if self._is_current(images, labels, texts, failures):
            self._folder.delete()
            return False
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
        return True

    def _take(self, part: ChunkIndex) -> Utf8:
        """Count a part in; gives its ids that were not asked about."""
        self._parts.append(part.path)
        self._dims.add(part.dim)
        return self.stored.place(part, len(self._parts) - 1)

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
            return read_chunk_rows(self._parts[source], low, high)

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
        if cache is None or self._parts:
            return False
        same_images = all(
            np.array_equal(getattr(cache.images, column.name), getattr(images, column.name))
            for column in fields(ImageTable)
        )
        return (
            same_images
            and cache.labels.names == labels.names
            and np.array_equal(cache.labels.values, labels.values)
            and {name: _identity(text) for name, text in cache.texts.items()}
            == {name: _identity(text) for name, text in texts.items()}
            and dict(cache.failures) == dict(failures)
            # The encoder spec was compared at the start.
            and cache.header == replace(self.header, encoder_spec=cache.header.encoder_spec)
        )


def _identity(text: TextSet) -> tuple[str, bool]:
    """Files of before do not say which encoder read their texts, though it is the same one."""
    return text.fingerprint, text.encoder is None
