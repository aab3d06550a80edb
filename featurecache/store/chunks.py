"""Chunk files: the rows of a cache that is still being extracted, in immutable files.

A chunk file is written in full and then moved into place. A killed extraction leaves every chunk
file readable and loses at most the rows that were not yet in one.
"""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.io.atomic import new_file
from featurecache.io.fingerprint import canonical_json, fingerprint
from featurecache.provenance.encoder_spec import spec_difference
from featurecache.provenance.names import describe_id_scheme, key_fingerprint
from featurecache.provenance.perceptual_hash import HASH_BYTES
from featurecache.store.checksums import (
    block_sums,
    read_checksums,
    read_verified,
    require_intact,
    write_checksums,
)
from featurecache.store.hdf5 import (
    dataset,
    numeric,
    opened,
    read_numbers,
    read_strings,
    sealed_file,
    write_attributes,
    write_strings,
)
from featurecache.store.layout import CHUNK_FORMAT, CHUNK_ROWS, VERSION
from featurecache.store.reader import read_encoder_spec
from featurecache.store.records import Utf8

if TYPE_CHECKING:
    import h5py

_EMBEDDING = "/embedding"
_NAMES = "part-*.h5"


@dataclass(frozen=True)
class EncodedRows:
    """Ids, file states and embeddings of B images.

    Attributes:
        id: Image ids, (B,).
        sha256: SHA-256 of the image files, in hex, (B,).
        perceptual_hash: Hashes of the decoded images, (B, 32) uint8.
        path: Paths of the image files as in ``ImageTable``, (B,).
        size: Bytes of the image files, (B,) int64.
        mtime_ns: Modification times of the image files, (B,) int64.
        embedding: (B, D) float16, not normalized.
    """

    id: Utf8
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    path: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    embedding: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.id)


def concatenate(batches: list[EncodedRows]) -> EncodedRows:
    """Return the rows of all batches."""
    columns = zip(*(vars(batch).values() for batch in batches), strict=True)
    return EncodedRows(*map(np.concatenate, columns))


@dataclass(frozen=True)
class ChunkIndex:
    """A chunk file without its embeddings; other fields as in ``EncodedRows``."""

    file: Path
    id: Utf8
    sha256: Utf8
    perceptual_hash: NDArray[np.uint8]
    path: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    dim: int


class ChunkFolder:
    """The chunk files of one unfinished cache, all of one encoder spec and one collection.

    Args:
        folder: Where they are; need not exist yet.
        encoder_spec: Everything that decides an image's embedding.
        collection: Collection of the images; see ``featurecache.provenance``.
        bit_depth: See ``Header``.
    """

    def __init__(
        self,
        folder: Path,
        encoder_spec: Mapping[str, Any],
        collection: str,
        bit_depth: int | None = None,
    ) -> None:
        self.folder = folder
        self.encoder_spec = encoder_spec
        self.collection = collection
        self.bit_depth = bit_depth

    def read(self) -> Iterator[ChunkIndex]:
        """Yield the existing chunk files, oldest first.

        Raises:
            CacheError: A chunk file is damaged, was made with another encoder spec (the message
                names the field that differs), or its ids are pseudonymized differently.
        """
        return map(self._read_index, sorted(self.folder.glob(_NAMES)))

    def add(self, rows: EncodedRows) -> ChunkIndex:
        """Write rows as the next chunk file; when this returns they are on the disk.

        Raises:
            OSError: The disk is full or not writable; existing chunk files are untouched.
        """
        last = max(self.folder.glob(_NAMES), default=None)
        number = 0 if last is None else int(last.stem.removeprefix("part-")) + 1
        path = self.folder / f"part-{number:08d}.h5"
        content = (rows, self.encoder_spec)
        with new_file(path) as temporary, sealed_file(temporary, *content) as file:
            write_attributes(
                file,
                {
                    "format": CHUNK_FORMAT,
                    "version": VERSION,
                    "fingerprint": fingerprint(self.encoder_spec),
                    "spec": canonical_json(self.encoder_spec),
                    "collection": self.collection,
                    "bit_depth": self.bit_depth,
                },
            )
            write_strings(file, "id", rows.id)
            write_strings(file, "sha256", rows.sha256)
            write_strings(file, "path", rows.path)
            file.create_dataset("perceptual_hash", data=rows.perceptual_hash)
            file.create_dataset("size", data=rows.size)
            file.create_dataset("mtime_ns", data=rows.mtime_ns)
            file.create_dataset(
                "embedding",
                data=rows.embedding,
                chunks=(min(CHUNK_ROWS, len(rows)), rows.embedding.shape[1]),
            )
            write_checksums(file, {_EMBEDDING: block_sums(rows.embedding)})
        return ChunkIndex(
            file=path,
            id=rows.id,
            sha256=rows.sha256,
            perceptual_hash=rows.perceptual_hash,
            path=rows.path,
            size=rows.size,
            mtime_ns=rows.mtime_ns,
            dim=rows.embedding.shape[1],
        )

    def delete(self) -> None:
        """Remove the folder, once its rows are in a finished cache."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_index(self, path: Path) -> ChunkIndex:
        with opened(path, CHUNK_FORMAT) as file:
            attributes = _read_attributes(file)
            encoder_spec, _ = read_encoder_spec(file.filename, attributes)
            if difference := spec_difference(encoder_spec, self.encoder_spec):
                raise CacheError(
                    f"{self.folder} holds an unfinished extraction with other settings "
                    f"({difference}): finish it with those settings, delete the folder, or give "
                    "another `cache_dir`"
                )
            require_same_id_scheme(self.folder, str(attributes["collection"]), self.collection)
            require_same_bit_depth(self.folder, _bit_depth(attributes), self.bit_depth)
            ids = read_strings(file, "id")
            rows = len(ids)
            embedding = numeric(file, "embedding", dtype="float16", shape=(rows, None))
            return ChunkIndex(
                file=path,
                id=ids,
                sha256=read_strings(file, "sha256", shape=(rows,)),
                perceptual_hash=read_numbers(
                    file, "perceptual_hash", dtype="uint8", shape=(rows, HASH_BYTES)
                ),
                path=read_strings(file, "path", shape=(rows,)),
                size=read_numbers(file, "size", dtype="int64", shape=(rows,)),
                mtime_ns=read_numbers(file, "mtime_ns", dtype="int64", shape=(rows,)),
                dim=int(embedding.shape[1]),
            )


def require_same_id_scheme(path: Path, stored: str, given: str) -> None:
    """Check that new images have ids of the same kind as those already in a cache.

    Otherwise every image would be in the cache twice.

    Args:
        path: The cache or its folder of chunk files, for the message.
        stored: Collection of the images in it.
        given: Collection of the new images.

    Raises:
        CacheError: The ids of one are pseudonymized and those of the other are not, or with
            another key.
    """
    if key_fingerprint(stored) != key_fingerprint(given):
        advice = (
            "give the same key file as `pseudonymize`"
            if key_fingerprint(stored)
            else "leave out `pseudonymize`"
        )
        raise CacheError(
            f"the ids in {path} are {describe_id_scheme(stored)} and those of the data set are "
            f"{describe_id_scheme(given)}, so every image would be stored twice: {advice}, or give "
            "another `cache_dir`"
        )


def require_same_bit_depth(path: Path, stored: int | None, given: int | None) -> None:
    """Check that new images are read with the bit depth of those already in a cache.

    Args:
        path: The cache or its folder of chunk files, for the message.
        stored: Bit depth of the images in it; None if none of them needs one.
        given: Bit depth of the new images.

    Raises:
        CacheError: They differ.
    """
    if stored is not None and stored != given:
        raise CacheError(
            f"{path} was made with a bit depth of {stored}, not {given}: give `bit_depth` as "
            f"{stored}, give another `cache_dir`, or delete it"
        )


def chunk_bit_depth(folder: Path) -> int | None:
    """Return the bit depth that the chunk files in a folder have in common; None without any.

    Raises:
        CacheError: One is damaged.
    """
    # The last one: earlier ones have none if their images need none.
    last = max(folder.glob(_NAMES), default=None)
    if last is None:
        return None
    with opened(last, CHUNK_FORMAT) as file:
        return _bit_depth(_read_attributes(file))


def _bit_depth(attributes: Mapping[str, Any]) -> int | None:
    return int(attributes["bit_depth"]) if "bit_depth" in attributes else None


def first_encoder_spec(folder: Path) -> Mapping[str, Any] | None:
    """Return the encoder spec of the first chunk file in a folder; None if there is none.

    Raises:
        CacheError: It is damaged.
    """
    first = min(folder.glob(_NAMES), default=None)
    if first is None:
        return None
    with opened(first, CHUNK_FORMAT) as file:
        return read_encoder_spec(file.filename, _read_attributes(file))[0]


def _read_attributes(file: "h5py.File") -> Mapping[str, Any]:
    """Return the root attributes of a chunk file, after checking all but its embeddings."""
    objects, _ = require_intact(file, skip=_EMBEDDING)
    return objects["/"].attributes


def read_chunk_rows(path: Path, start: int, stop: int) -> NDArray[np.float16]:
    """Return embedding rows ``start`` to ``stop`` of a chunk file.

    Raises:
        CacheError: It is damaged.
    """
    with opened(path, CHUNK_FORMAT) as file:
        sums = read_checksums(file).rows[_EMBEDDING]
        return read_verified(dataset(file, "embedding"), sums, start, stop)
