"""Parts: the rows of a cache that is still being made, in immutable files.

A part is written whole and moved into place, so that a killed extraction leaves every part readable
and loses at most the rows that were in no part yet.
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
from featurecache.io.fingerprint import canonical_json, fingerprint, first_difference
from featurecache.provenance import describe_id_scheme, key_fingerprint
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
from featurecache.store.reader import read_description
from featurecache.store.records import Utf8

if TYPE_CHECKING:
    import h5py


@dataclass(frozen=True)
class EncodedRows:
    """Some images and their embeddings, (B,) each and (B, D) float16, not normalised."""

    id: Utf8
    sha256: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    embedding: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.id)


def concatenate(rows: list[EncodedRows]) -> EncodedRows:
    """Rows behind one another."""
    return EncodedRows(
        id=np.concatenate([r.id for r in rows]),
        sha256=np.concatenate([r.sha256 for r in rows]),
        size=np.concatenate([r.size for r in rows]),
        mtime_ns=np.concatenate([r.mtime_ns for r in rows]),
        embedding=np.concatenate([r.embedding for r in rows]),
    )


@dataclass(frozen=True)
class ChunkIndex:
    """A part without its embeddings."""

    path: Path
    id: Utf8
    sha256: Utf8
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    dim: int


class ChunkFolder:
    """The parts of one unfinished cache, all made with the same description, of one collection."""

    def __init__(self, folder: Path, description: Mapping[str, Any], collection: str) -> None:
        self.folder = folder
        self.description = description
        self.collection = collection

    def read(self) -> Iterator[ChunkIndex]:
        """What is there already, oldest first, one part at a time.

        Raises:
            CacheError: a part is damaged, or was made with another description; the message names
                the field that differs; or its ids are hashed otherwise.
        """
        return map(self._read_index, sorted(self.folder.glob("part-*.h5")))

    def add(self, rows: EncodedRows) -> ChunkIndex:
        """Write rows as the next part; on return they are on the disk.

        Raises:
            OSError: the disk is full or not writable; the parts already there are untouched.
        """
        last = max(self.folder.glob("part-*.h5"), default=None)
        number = 0 if last is None else int(last.stem.removeprefix("part-")) + 1
        path = self.folder / f"part-{number:08d}.h5"
        content = (rows, self.description)
        with new_file(path) as temporary, sealed_file(temporary, *content) as file:
            write_attributes(
                file,
                {
                    "format": CHUNK_FORMAT,
                    "version": VERSION,
                    "fingerprint": fingerprint(self.description),
                    "spec": canonical_json(self.description),
                    "collection": self.collection,
                },
            )
            write_strings(file, "id", rows.id)
            write_strings(file, "sha256", rows.sha256)
            file.create_dataset("size", data=rows.size)
            file.create_dataset("mtime_ns", data=rows.mtime_ns)
            file.create_dataset(
                "embedding",
                data=rows.embedding,
                chunks=(min(CHUNK_ROWS, len(rows)), rows.embedding.shape[1]),
            )
            write_checksums(file, {"/embedding": block_sums(rows.embedding)})
        return ChunkIndex(
            path, rows.id, rows.sha256, rows.size, rows.mtime_ns, rows.embedding.shape[1]
        )

    def delete(self) -> None:
        """Remove the folder, once its rows are in a finished cache."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read_index(self, path: Path) -> ChunkIndex:
        with opened(path, CHUNK_FORMAT) as file:
            attributes = _attributes(file)
            found, _ = read_description(file.filename, attributes)
            if difference := first_difference(found, self.description):
                raise CacheError(
                    f"{self.folder} holds an unfinished extraction made with other settings "
                    f"({difference}): finish it with those, or delete the folder, or use another "
                    "--cache"
                )
            # Parts of before do not say, and have no hashed ids.
            require_same_id_scheme(
                self.folder, str(attributes.get("collection", "")), self.collection
            )
            ids = read_strings(file, "id")
            rows = len(ids)
            embedding = numeric(file, "embedding", dtype="float16", shape=(rows, None))
            return ChunkIndex(
                path=path,
                id=ids,
                sha256=read_strings(file, "sha256", shape=(rows,)),
                size=read_numbers(file, "size", dtype="int64", shape=(rows,)),
                mtime_ns=read_numbers(file, "mtime_ns", dtype="int64", shape=(rows,)),
                dim=int(embedding.shape[1]),
            )


def require_same_id_scheme(path: Path, there: str, here: str) -> None:
    """Refuse to put images into a cache whose ids are hashed otherwise: each would be in it twice.

    Args:
        path: of the cache or its parts.
        there: the collection that it holds images of.
        here: the collection that they are of.

    Raises:
        CacheError: the ids of one are hashed, those of the other not or with another key.
    """
    if key_fingerprint(there) != key_fingerprint(here):
        what = (
            "the --pseudonymize that it was begun with"
            if key_fingerprint(there)
            else "no --pseudonymize"
        )
        raise CacheError(
            f"the ids in {path} are {describe_id_scheme(there)}, and those of the data set are now "
            f"{describe_id_scheme(here)}, so that every image would be there twice: give {what}, or use "
            "another --cache"
        )


def first_description(folder: Path) -> Mapping[str, Any] | None:
    """The description of the first part in a folder; None where there is none.

    Raises:
        CacheError: it is damaged.
    """
    first = min(folder.glob("part-*.h5"), default=None)
    if first is None:
        return None
    with opened(first, CHUNK_FORMAT) as file:
        return read_description(file.filename, _attributes(file))[0]


def _attributes(file: "h5py.File") -> Mapping[str, Any]:
    """Those of a part, of which all but the embedding is held against its checksums."""
    objects, _ = require_intact(file, skip="/embedding")
    return objects["/"].attributes


def read_chunk_rows(path: Path, start: int, stop: int) -> NDArray[np.float16]:
    """Embedding rows ``start`` to ``stop`` of one part.

    Raises:
        CacheError: it is damaged.
    """
    with opened(path, CHUNK_FORMAT) as file:
        checksums = read_checksums(file)
        sums = None if checksums is None else checksums.rows["/embedding"]
        return read_verified(dataset(file, "embedding"), sums, start, stop)
