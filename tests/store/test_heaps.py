"""Heaps of texts in files of the first format: HDF5 would go round in circles over damaged ones."""

import struct
from pathlib import Path

import h5py
import pytest

from featurecache.errors import CacheError
from featurecache.store.heaps import refuse_damaged_heaps
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache


def heap(*objects: tuple[int, int], length: int | None = None) -> bytes:
    """A heap of objects, of which index and length are given, filled as they need."""
    body = b""
    for index, size in objects:
        room = size + -size % 8 if index else max(0, size - 16)
        body += struct.pack("<HH4xQ", index, 1, size) + bytes(room)
    return struct.pack("<4sB3xQ", b"GCOL", 1, 16 + len(body) if length is None else length) + body


ENDLESS = struct.pack("<4sB3xQHH4xQ16x", b"GCOL", 1, 48, 1, 1, 2**64 - 16)
"""A heap whose object ends where it begins, if one counts with 64 bits."""


@pytest.mark.parametrize(
    "data",
    [
        b"no heap at all",
        heap(),
        heap((1, 5), (2, 0), (3, 8)),
        heap((1, 5), (0, 64)),
        heap((1, 5), (0, 64)) + b"between" + heap((7, 1)),
        heap((1, 5), length=16 + 16 + 8 + 15) + bytes(15),  # too little is left for an object
    ],
)
def test_a_sound_heap_passes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    refuse_damaged_heaps(tmp_path / "file")


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (heap((0, 0), (1, 5)), 0),
        (heap((1, 5), (0, 8)), 0),
        (b"xx" + heap((1, 5), length=2**40), 2),
        (heap((1, 5), length=32), 0),
        (
            heap((1, 5))
            + struct.pack("<4sB3xQHH4xQ", b"GCOL", 1, 48, 1, 1, 2**64 - 16)
            + bytes(16),
            40,
        ),
        (heap()[:-1], 0),
        (heap((1, 5)) + b"...GCOL\x01", 43),
    ],
)
def test_a_heap_that_runs_into_itself_is_refused(tmp_path: Path, data: bytes, start: int) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CacheError, match=f"heap at byte {start} run"):
        refuse_damaged_heaps(tmp_path / "file")


def test_a_heap_that_hdf5_writes_passes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file", "w") as file:
        for number in range(300):
            file.attrs[f"a{number}"] = "x" * number
    assert (tmp_path / "file").read_bytes().count(b"GCOL\x01") > 1
    refuse_damaged_heaps(tmp_path / "file")


def test_a_cache_over_whose_heap_hdf5_never_ends_is_refused(version_1: Path) -> None:
    data = bytearray(version_1.read_bytes())
    start = data.find(b"GCOL\x01")
    data[start + 16 : start + 32] = bytes(16)  # the first object is free, and takes nothing
    version_1.write_bytes(data)
    for read in (read_cache, verify_cache):
        with pytest.raises(CacheError, match="run into each other"):
            read(version_1)
