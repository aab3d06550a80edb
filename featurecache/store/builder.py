"""A cache in the making: what is stored already, what is added, and the finished file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.fingerprint import first_difference
from featurecache.store.contents import Header, ImageTable, Labels, Strings, TextSet
from featurecache.store.gather import gather_rows
from featurecache.store.parts import (
    EncodedRows,
    PartFolder,
    PartIndex,
    concatenate,
    first_description,
    read_part_rows,
)
from featurecache.store.reader import Cache, read_cache
from featurecache.store.schema import CHUNK_ROWS, parts_path
from featurecache.store.writer import write_cache

_CACHE = -1
"""The source of a row that lies in the finished cache; parts count from 0."""


@dataclass(frozen=True)
class StoredRows:
    """Every row that has an embedding, sorted by id, and where that embedding lies."""

    id: Strings
    sha256: Strings
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    source: NDArray[np.int64]
    row: NDArray[np.int64]

    def find(self, ids: Strings) -> NDArray[np.intp]:
        """The position of each id, -1 where it is not stored."""
        if len(self.id) == 0:
            return np.full(len(ids), -1, dtype=np.intp)
        at = np.minimum(np.searchsorted(self.id, ids), len(self.id) - 1)
        return np.where(self.id[at] == ids, at, -1)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "StoredRows":
        """Some of the rows."""
        return StoredRows(
            self.id[rows],
            self.sha256[rows],
            self.size[rows],
            self.mtime_ns[rows],
            self.source[rows],
            self.row[rows],
        )


def begun_description(path: Path) -> Mapping[str, Any] | None:
    """The description that a cache or its first part was made with; None where nothing is there.

    Raises:
        CacheError: the file is damaged.
    """
    if path.exists():
        return read_cache(path).header.description
    return first_description(parts_path(path))


class CacheBuilder:
    """Adds rows to a cache file, through parts that survive a kill.

    Attributes:
        cache: the finished cache that was there at the start, or None.
        stored: what had an embedding at the start, in the cache or in parts.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Open what is there.

        Raises:
            CacheError: the cache or its parts are damaged, or were made with another description;
                the message names the field that differs.
        """
        self.path = path
        self.header = header
        self.cache: Cache | None = read_cache(path) if path.exists() else None
        if self.cache is not None and (
            difference := first_difference(self.cache.header.description, header.description)
        ):
            raise CacheError(
                f"{path} was made with other settings ({difference}): mixing them would make its "
                "embeddings incomparable; use another --cache, or move the file away"
            )
        if self.cache is not None and header.bf16_cosine is None:
            # What was measured when the cache was begun stays.
            self.header = replace(header, bf16_cosine=self.cache.header.bf16_cosine)
        self._folder = PartFolder(parts_path(path), header.description)
        self._parts = self._folder.read()
        self._pending: list[EncodedRows] = []
        self.stored = self._merge()

    def add(self, rows: EncodedRows) -> None:
        """Take one encoded batch; it is on the disk once ``flush`` has run."""
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= CHUNK_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the batches taken so far as one part.

        Only whole batches reach the parts, so that a resumed extraction forms the same batches as
        an undisturbed one and its embeddings are equal to the last bit. (Unless the encoder gave
        an image no usable embedding: that image is tried again, and the batches shift by one.)
        """
        if self._pending:
            self._parts.append(self._folder.add(concatenate(self._pending)))
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
        stored = self._merge()
        at = stored.find(images.id)
        if (at < 0).any():
            raise ValueError(f"no embedding is stored for {str(images.id[at < 0][0])!r}")
        if self._is_current(images, labels, texts, failures):
            self._folder.delete()
            return False
        rows = stored.take(at)
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

    def merged(self) -> StoredRows:
        """What has an embedding by now, the batches taken so far included."""
        self.flush()
        return self._merge()

    def _merge(self) -> StoredRows:
        columns: list[StoredRows] = []
        if self.cache is not None:
            images = self.cache.images
            columns.append(_stored(images, _CACHE))
        columns.extend(_stored(part, number) for number, part in enumerate(self._parts))
        if not columns:
            empty = np.empty(0, dtype=np.int64)
            text = np.empty(0, dtype=np.str_)
            return StoredRows(text, text, empty, empty, empty, empty)
        everything = StoredRows(
            *(
                np.concatenate([getattr(column, name) for column in columns])
                for name in ("id", "sha256", "size", "mtime_ns", "source", "row")
            )
        )
        # The newest of several rows of one id is the last, so look from the end.
        _, first = np.unique(everything.id[::-1], return_index=True)
        return everything.take(len(everything.id) - 1 - first)

    def _dim(self) -> int:
        dims = {part.dim for part in self._parts} | ({self.cache.dim} if self.cache else set())
        if len(dims) != 1:
            raise CacheError(f"{self.path}: its rows have different lengths: {sorted(dims)}")
        return dims.pop()

    def _read(self, rows: StoredRows, start: int, stop: int) -> NDArray[np.float16]:
        def read_source(source: int, low: int, high: int) -> NDArray[np.float16]:
            if source == _CACHE:
                assert self.cache is not None
                return self.cache.read_rows(low, high)
            return read_part_rows(self._parts[source].path, low, high)

        return gather_rows(
            rows.source[start:stop], rows.row[start:stop], dim=self._dim(), read=read_source
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
            and {name: text.fingerprint for name, text in cache.texts.items()}
            == {name: text.fingerprint for name, text in texts.items()}
            and dict(cache.failures) == dict(failures)
            # The description was compared at the start.
            and cache.header == replace(self.header, description=cache.header.description)
        )


def _stored(rows: ImageTable | PartIndex, source: int) -> StoredRows:
    ids: Strings = rows.id
    return StoredRows(
        id=ids,
        sha256=rows.sha256,
        size=rows.size,
        mtime_ns=rows.mtime_ns,
        source=np.full(len(ids), source, dtype=np.int64),
        row=np.arange(len(ids), dtype=np.int64),
    )
