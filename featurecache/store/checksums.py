"""Checksums of all that a cache or a part holds, so that no flipped byte goes unseen.

They lie in the group ``/checksums``, in four datasets, and are CRC-32 as zlib, PNG and gzip have
it: no change of up to four bytes in a row escapes it, and it runs at the pace of memory. It guards
against faults and not against forgers, who could as well write new sums.
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
from featurecache.store.validation import Hdf5Object, attribute, validate_hdf5

if TYPE_CHECKING:
    import h5py

GROUP = "checksums"

Sums = NDArray[np.uint32]
"""The CRC-32 of each block of ``CHUNK_ROWS`` rows, (blocks,)."""

_READ_ROWS = 64 * CHUNK_ROWS
"""Rows in memory at a time while a dataset is checked."""


@dataclass(frozen=True)
class Checksums:
    """The checksums in a file.

    Attributes:
        headers: of each group and dataset, by path, the CRC-32 of what it is: see ``header_sum``.
        rows: of each dataset, by path, those of its blocks of rows.
    """

    headers: Mapping[str, int]
    rows: Mapping[str, Sums]


class RunningSums:
    """The checksums of rows that come some at a time."""

    def __init__(self) -> None:
        self._whole: list[int] = []
        self._begun, self._rows = 0, 0

    def add(self, rows: NDArray[Any]) -> None:
        """Take the next rows, whose bytes are those that lie in the file."""
        rows = np.ascontiguousarray(rows)
        while len(rows):
            block, rows = np.split(rows, [CHUNK_ROWS - self._rows])
            self._begun = zlib.crc32(block.data, self._begun)
            self._rows += len(block)
            if self._rows == CHUNK_ROWS:
                self._whole.append(self._begun)
                self._begun, self._rows = 0, 0

    def sums(self) -> Sums:
        """Those of all rows so far, the last block being what it is."""
        return np.array(self._whole + [self._begun] * (self._rows > 0), dtype=np.uint32)


def block_sums(rows: NDArray[Any]) -> Sums:
    """The CRC-32 of each block of rows, of which the first begins a block."""
    running = RunningSums()
    running.add(rows)
    return running.sums()


def header_sum(surveyed: Hdf5Object) -> int:
    """The CRC-32 of an object's attributes, and of a dataset's type and shape, as JSON."""
    import h5py

    header: dict[str, Any] = {"attributes": dict(surveyed.attributes)}
    if isinstance(surveyed.found, h5py.Dataset):
        header |= {"type": surveyed.found.dtype.str, "shape": list(surveyed.found.shape)}
    return zlib.crc32(canonical_json(header).encode())


def write_checksums(file: "h5py.File", known: Mapping[str, Sums]) -> None:
    """Write the checksums of a file to which nothing more is written.

    Args:
        file: the file, open for writing.
        known: by path, the sums of rows that need not be read again.
    """
    file.flush()  # the survey looks at the size of the file
    objects = validate_hdf5(file)
    rows = {
        path: known[path] if path in known else _sums_of(found)
        for path, found in _datasets(objects)
    }
    group = file.create_group(GROUP)
    write_strings(group, "object", to_utf8(list(objects)))
    headers = [header_sum(surveyed) for surveyed in objects.values()]
    group.create_dataset("header", data=np.array(headers, dtype=np.uint32))
    none = np.empty(0, dtype=np.uint32)
    blocks = [len(rows.get(path, none)) for path in objects]
    group.create_dataset("blocks", data=np.array(blocks, dtype=np.int64))
    group.create_dataset("crc32", data=np.concatenate([none, *rows.values()]))


def read_checksums(file: "h5py.File") -> Checksums | None:
    """The checksums in a file; None in one of version 1, which has none.

    Raises:
        CacheError: they are missing, or contradict each other.
    """
    if attribute(file, "version", variable=False) == 1:
        return None
    group = subgroup(file, GROUP)
    paths = from_utf8(read_strings(group, "object")).tolist()
    headers = read_numbers(group, "header", dtype="uint32", shape=(len(paths),))
    blocks = read_numbers(group, "blocks", dtype="int64", shape=(len(paths),))
    sums = read_numbers(group, "crc32", dtype="uint32", shape=(None,))
    ends = np.cumsum(blocks)
    if len(set(paths)) < len(paths) or (blocks < 0).any() or blocks.sum() != len(sums):
        raise CacheError(f"{file.filename}: /{GROUP} contradicts itself: the file is damaged")
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
    """What in a file is not what was written, one sentence each.

    Args:
        objects: all that the file holds.
        checksums: its own.
        skip: a dataset of which only the header is looked at.
    """
    content = {path: one for path, one in objects.items() if not _is_checksum(path)}
    for path in sorted({*content} ^ {*checksums.headers}):
        yield f"{path} {'has no checksum' if path in content else 'is missing'}"
    for path in content.keys() & checksums.headers.keys():
        if header_sum(content[path]) != checksums.headers[path]:
            yield f"an attribute, the type or the shape of {path} is not what was written"
    for path, found in _datasets(content):
        if path in checksums.headers and path != skip:
            yield from _damaged_rows(found, checksums.rows[path])


def require_intact(
    file: "h5py.File", *, skip: str
) -> tuple[dict[str, Hdf5Object], Checksums | None]:
    """Look at all that a file holds, and hold it against its checksums.

    Args:
        file: a cache or a part.
        skip: the dataset of which only the header is looked at, as its rows are read later.

    Returns:
        What it holds, by path, and the checksums; None in a file of version 1, which has none.

    Raises:
        CacheError: the file is damaged; the message says where.
    """
    objects, checksums = validate_hdf5(file), read_checksums(file)
    if checksums is not None and (
        first := next(find_corruption(objects, checksums, skip=skip), None)
    ):
        raise CacheError(
            f"{file.filename} is damaged: {first}; restore it from a copy, or delete it and run "
            "extract again"
        )
    return objects, checksums


def read_verified(found: "h5py.Dataset", sums: Sums | None, start: int, stop: int) -> NDArray[Any]:
    """Rows ``start`` to ``stop`` of a dataset, whose blocks are held against these sums.

    Raises:
        CacheError: the rows are not what was written.
    """
    if sums is None:
        rows: NDArray[Any] = found[start:stop]
        return rows
    first = start - start % CHUNK_ROWS
    last = min(len(found), stop + -stop % CHUNK_ROWS)
    rows = found[first:last]
    expected = sums[first // CHUNK_ROWS : -(-last // CHUNK_ROWS)]
    if not np.array_equal(block_sums(rows), expected):
        raise CacheError(
            f"{found.file.filename}: rows {first} to {last - 1} of {found.name} are not what was "
            "written: restore the file from a copy, or delete it and run extract again"
        )
    return rows[start - first : stop - first]


def _damaged_rows(found: "h5py.Dataset", sums: Sums) -> Iterator[str]:
    """The blocks of a dataset that are not what was written; those that adjoin as one."""
    present = _sums_of(found)
    if len(present) != len(sums):
        yield f"{found.name} has another number of rows than was written"
        return
    (wrong,) = np.nonzero(present != sums)
    for blocks in np.split(wrong, np.flatnonzero(np.diff(wrong) > 1) + 1):
        if len(blocks):
            last = min(len(found), (int(blocks[-1]) + 1) * CHUNK_ROWS) - 1
            yield (
                f"rows {int(blocks[0]) * CHUNK_ROWS} to {last} of {found.name} are not what was "
                "written"
            )


def _sums_of(found: "h5py.Dataset") -> Sums:
    running = RunningSums()
    for start in range(0, len(found), _READ_ROWS):
        running.add(found[start : start + _READ_ROWS])
    return running.sums()


def _datasets(objects: Mapping[str, Hdf5Object]) -> "Iterator[tuple[str, h5py.Dataset]]":
    import h5py

    for path, surveyed in objects.items():
        if isinstance(surveyed.found, h5py.Dataset):
            yield path, surveyed.found


def _is_checksum(path: str) -> bool:
    return path == f"/{GROUP}" or path.startswith(f"/{GROUP}/")
