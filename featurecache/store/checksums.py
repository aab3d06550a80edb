"""Checksums of everything in a cache or chunk file, so that no changed byte goes unnoticed.

They are stored in the group ``/checksums`` and are CRC-32 as in zlib, PNG and gzip: a change of up
to four adjacent bytes is always detected, and computing them is as fast as reading memory. They
detect faults, not forgery: a forger could write new checksums.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.io.fingerprint import canonical_json
from featurecache.store.hdf5 import read_numbers, read_strings, subgroup, write_strings
from featurecache.store.layout import CHUNK_ROWS
from featurecache.store.records import from_utf8, to_utf8
from featurecache.store.validation import Hdf5Object, validate_hdf5

if TYPE_CHECKING:
    import h5py

GROUP = "checksums"

Sums = NDArray[np.uint32]
"""The CRC-32 of each block of ``CHUNK_ROWS`` rows, (blocks,)."""

_READ_ROWS = 64 * CHUNK_ROWS
"""Rows in memory at a time while a dataset is checked."""


@dataclass(frozen=True)
class Checksums:
    """The checksums stored in a file.

    Attributes:
        headers: ``header_sum`` of each group and dataset, by path.
        rows: Checksums of the blocks of rows of each dataset, by path.
    """

    headers: Mapping[str, int]
    rows: Mapping[str, Sums]


class RunningSums:
    """Computes the checksums of rows that arrive piece by piece."""

    def __init__(self) -> None:
        self._complete: list[int] = []
        self._partial, self._partial_rows = 0, 0

    def add(self, rows: NDArray[Any]) -> None:
        """Add the next rows, with the same bytes as in the file."""
        rows = np.ascontiguousarray(rows)
        start = 0
        while start < len(rows):
            block = rows[start : start + CHUNK_ROWS - self._partial_rows]
            start += len(block)
            self._partial = zlib.crc32(block.data, self._partial)
            self._partial_rows += len(block)
            if self._partial_rows == CHUNK_ROWS:
                self._complete.append(self._partial)
                self._partial, self._partial_rows = 0, 0

    def sums(self) -> Sums:
        """Return the checksums of all rows so far; the last block may be short."""
        sums = self._complete + [self._partial] * (self._partial_rows > 0)
        return np.array(sums, dtype=np.uint32)


def block_sums(rows: NDArray[Any]) -> Sums:
    """Return the CRC-32 of each block of rows, the first of which starts a block."""
    running = RunningSums()
    running.add(rows)
    return running.sums()


def header_sum(hdf5_object: Hdf5Object) -> int:
    """Return the CRC-32 of an object's attributes and a dataset's type and shape, as JSON."""
    import h5py

    node = hdf5_object.node
    header: dict[str, Any] = {"attributes": dict(hdf5_object.attributes)}
    if isinstance(node, h5py.Dataset):
        header |= {"type": node.dtype.str, "shape": list(node.shape)}
    return zlib.crc32(canonical_json(header).encode())


def write_checksums(file: "h5py.File", computed: Mapping[str, Sums]) -> None:
    """Write the checksums of a file, after everything else.

    Args:
        file: The file, open for writing.
        computed: Checksums, by path, of datasets that need not be read again.
    """
    file.flush()  # validation compares with the size of the file
    objects = validate_hdf5(file)
    rows = {
        path: computed[path] if path in computed else _sums_of(node)
        for path, node in _datasets(objects)
    }
    group = file.create_group(GROUP)
    write_strings(group, "object", to_utf8(list(objects)))
    headers = [header_sum(hdf5_object) for hdf5_object in objects.values()]
    group.create_dataset("header", data=np.array(headers, dtype=np.uint32))
    none = np.empty(0, dtype=np.uint32)
    blocks = [len(rows.get(path, none)) for path in objects]
    group.create_dataset("blocks", data=np.array(blocks, dtype=np.int64))
    group.create_dataset("crc32", data=np.concatenate([none, *rows.values()]))


def read_checksums(file: "h5py.File") -> Checksums:
    """Return the checksums stored in a file.

    Raises:
        CacheError: They are missing, or inconsistent with each other.
    """
    group = subgroup(file, GROUP)
    paths = from_utf8(read_strings(group, "object")).tolist()
    headers = read_numbers(group, "header", dtype="uint32", shape=(len(paths),))
    blocks = read_numbers(group, "blocks", dtype="int64", shape=(len(paths),))
    sums = read_numbers(group, "crc32", dtype="uint32", shape=(None,))
    ends = np.cumsum(blocks)
    if len(set(paths)) < len(paths) or (blocks < 0).any() or blocks.sum() != len(sums):
        raise CacheError(f"{file.filename} is damaged: /{GROUP} is inconsistent")
    return Checksums(
        headers=dict(zip(paths, headers.tolist(), strict=True)),
        rows={
            path: sums[end - count : end]
            for path, count, end in zip(paths, blocks.tolist(), ends.tolist(), strict=True)
        },
    )


def find_corruption(
    objects: Mapping[str, Hdf5Object], checksums: Checksums, *, skip: str | None = None
) -> Iterator[str]:
    """Yield one sentence for everything in a file that does not match its checksums.

    Args:
        objects: All groups and datasets of the file.
        checksums: Those stored in it.
        skip: A dataset whose rows are not checked, only its header.
    """
    content = {
        path: item for path, item in objects.items() if not f"{path}/".startswith(f"/{GROUP}/")
    }
    for path in sorted({*content} ^ {*checksums.headers}):
        yield f"{path} {'has no checksum' if path in content else 'is missing'}"
    for path in content.keys() & checksums.headers.keys():
        if header_sum(content[path]) != checksums.headers[path]:
            yield f"an attribute, the type or the shape of {path} does not match its checksum"
    for path, node in _datasets(content):
        if path in checksums.headers and path != skip:
            yield from _corrupt_rows(node, checksums.rows[path])


def require_intact(file: "h5py.File", *, skip: str) -> tuple[dict[str, Hdf5Object], Checksums]:
    """Validate the structure of a file and compare its content with its checksums.

    Args:
        file: A cache or chunk file.
        skip: The dataset whose rows are read and checked later.

    Returns:
        Groups and datasets by path, and the checksums.

    Raises:
        CacheError: The file is damaged; the message tells where.
    """
    objects, checksums = validate_hdf5(file), read_checksums(file)
    if first := next(find_corruption(objects, checksums, skip=skip), None):
        raise CacheError(
            f"{file.filename} is damaged: {first}; restore it from a copy, or delete it and "
            "extract again"
        )
    return objects, checksums


def read_verified(node: "h5py.Dataset", sums: Sums, start: int, stop: int) -> NDArray[Any]:
    """Return rows ``start`` to ``stop`` of a dataset after checking the blocks they are in.

    Args:
        node: The dataset.
        sums: Checksums of all its blocks.
        start: First row.
        stop: Row after the last.

    Raises:
        CacheError: The rows do not match their checksums.
    """
    first = start - start % CHUNK_ROWS
    last = min(len(node), stop + -stop % CHUNK_ROWS)
    rows: NDArray[Any] = node[first:last]
    expected = sums[first // CHUNK_ROWS : -(-last // CHUNK_ROWS)]
    if not np.array_equal(block_sums(rows), expected):
        raise CacheError(
            f"{node.file.filename} is damaged: rows {first} to {last - 1} of {node.name} do not "
            "match their checksum; restore it from a copy, or delete it and extract again"
        )
    return rows[start - first : stop - first]


def _corrupt_rows(node: "h5py.Dataset", sums: Sums) -> Iterator[str]:
    """Yield the ranges of rows of a dataset that do not match their checksums."""
    actual = _sums_of(node)
    if len(actual) != len(sums):
        yield f"{node.name} does not have the number of rows that was written"
        return
    (wrong,) = np.nonzero(actual != sums)
    for blocks in np.split(wrong, np.flatnonzero(np.diff(wrong) > 1) + 1):
        if len(blocks):
            first = int(blocks[0]) * CHUNK_ROWS
            last = min(len(node), (int(blocks[-1]) + 1) * CHUNK_ROWS) - 1
            yield f"rows {first} to {last} of {node.name} do not match their checksum"


def _sums_of(node: "h5py.Dataset") -> Sums:
    running = RunningSums()
    for start in range(0, len(node), _READ_ROWS):
        running.add(node[start : start + _READ_ROWS])
    return running.sums()


def _datasets(objects: Mapping[str, Hdf5Object]) -> "Iterator[tuple[str, h5py.Dataset]]":
    import h5py

    for path, hdf5_object in objects.items():
        if isinstance(hdf5_object.node, h5py.Dataset):
            yield path, hdf5_object.node
