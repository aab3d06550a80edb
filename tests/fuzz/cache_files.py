"""Caches, and the chunk files of an unfinished extraction."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from featurecache.errors import CacheError
from featurecache.store.checksums import GROUP, write_checksums
from featurecache.store.chunks import ChunkFolder, EncodedRows, read_chunk_rows
from featurecache.store.reader import read_cache
from featurecache.store.records import to_utf8
from featurecache.store.verify import verify_cache
from tests.faults.bytes import write_example
from tests.fuzz.changes import Changed, changed_hdf5
from tests.fuzz.readers import Reader

_ENCODER_SPEC = {"model": "m", "precision": "bf16", "size": [224, 224]}


def _cache(folder: Path) -> Path:
    write_example(folder / "m.h5")
    return folder / "m.h5"


def _read_cache(file: Path) -> object:
    with suppress(CacheError):  # it is read in any case
        verify_cache(file)
    cache = read_cache(file)
    texts = [cache.text(name) for name in cache.texts]
    return texts, cache.read_rows(0, len(cache.images)), np.asarray(cache.embedding)


def _chunk(folder: Path) -> Path:
    rows = EncodedRows(
        id=to_utf8([f"{row:03d}ä.png" for row in range(40)]),
        sha256=to_utf8([f"{row:064x}" for row in range(40)]),
        perceptual_hash=np.ones((40, 32), dtype=np.uint8),
        path=to_utf8([f"{row:03d}ä.png" for row in range(40)]),
        size=np.arange(1, 41),
        mtime_ns=np.arange(1, 41),
        embedding=np.random.default_rng(0).standard_normal((40, 6)).astype(np.float16),
    )
    return ChunkFolder(folder, _ENCODER_SPEC, "nih").add(rows).file


def _read_chunk(file: Path) -> object:
    chunks = ChunkFolder(file.parent, _ENCODER_SPEC, "nih")
    return [read_chunk_rows(chunk.file, 0, len(chunk.id)) for chunk in chunks.read()]


def _seal(file: Any) -> None:
    if GROUP in file:
        del file[GROUP]
        write_checksums(file, {})


def _changed(intact: bytes) -> Changed:
    return changed_hdf5(intact, _seal)


READERS = {
    "cache": Reader(_cache, _read_cache, (CacheError,), _changed),
    "chunk": Reader(_chunk, _read_chunk, (CacheError,), _changed),
}
