"""The heaps in which files of format version 1 keep their texts of variable length.

HDF5 has no checksums of them, and goes round in circles over one in which an object has no length.
So they are walked here, as HDF5 would, before it is asked for a text. Their layout is in the HDF5
File Format Specification, version 3.0, section III.E, "Disk Format: Level 1E - Global Heap".
"""

import mmap
import struct
from pathlib import Path
from typing import Final

from featurecache.errors import CacheError

_START: Final = b"GCOL\x01"
"""Of a heap: its signature, and the only version there is."""
_HEAD: Final = struct.Struct("<4sB3xQ")
"""Signature, version, and the bytes of the whole heap."""
_OBJECT: Final = struct.Struct("<HH4xQ")
"""Index, references, and the bytes of an object, which follow; index 0 is what is free."""
_ALIGNMENT: Final = 8


def refuse_damaged_heaps(path: Path) -> None:
    """Walk every heap of a file, wherever it lies.

    Raises:
        CacheError: one does not end where it says; the message says where it begins.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_START)
        while start >= 0:
            if not _is_sound(data, start):
                raise CacheError(
                    f"{path} is damaged: the texts in its heap at byte {start} run into each "
                    "other; restore it from a copy, or delete it and run extract again"
                )
            start = data.find(_START, start + 1)


def _is_sound(data: mmap.mmap, start: int) -> bool:
    """Whether the objects of a heap lie behind one another up to its end."""
    if start + _HEAD.size > len(data):
        return False
    at, end = start + _HEAD.size, start + _HEAD.unpack_from(data, start)[2]
    if end > len(data):
        return False
    # What is left and too small for an object is free, and not said to be.
    while at + _OBJECT.size <= end:
        index, _, size = _OBJECT.unpack_from(data, at)
        taken = _OBJECT.size + size + -size % _ALIGNMENT if index else size
        if taken < _OBJECT.size or at + taken > end:
            return False
        at += taken
    return True
