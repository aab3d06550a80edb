"""Everything in a file, looked at before anything of it is read into memory.

A file may come from a stranger. What it claims to hold is held against its size, so that reading
it takes no more memory than a file of that size can need.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurecache.errors import CacheError

if TYPE_CHECKING:
    import h5py

Value = str | int | float | bool

MAX_ATTRIBUTE = 2**24
"""Bytes of an attribute's text at most: JSON takes some twenty times as much when it is parsed."""
MAX_OBJECTS = 10_000
"""Groups and datasets at most, a prompt set being some eight: each takes a while to look at."""
MAX_ATTRIBUTES = 64
"""Attributes of a group or dataset at most."""
MAX_DEPTH = 8
"""Groups in one another at most; ours are four."""


@dataclass(frozen=True)
class Hdf5Object:
    """A group or a dataset of a file, and the values of its attributes."""

    found: "h5py.Group | h5py.Dataset"
    attributes: Mapping[str, Value]


def validate_hdf5(file: "h5py.File") -> dict[str, Hdf5Object]:
    """All groups and datasets of a file by path, the root as ``/``; links are left out.

    Raises:
        CacheError: something is of a kind that no cache of its version holds, is there under two
            names, or is more than the file has bytes for.
    """
    surveyed: dict[str, Hdf5Object] = {}
    seen: set[int] = set()
    claimed, size = 0, Path(file.filename).stat().st_size
    first_version = attribute(file, "version", variable=False) == 1
    for found in _objects(file):
        if (place := _place(found)) in seen:
            raise CacheError(
                f"{file.filename}: {found.name} is there under a second name: it is damaged"
            )
        seen.add(place)
        if len(seen) > MAX_OBJECTS or len(found.attrs) > MAX_ATTRIBUTES:
            raise CacheError(
                f"{file.filename} holds more groups, datasets or attributes than any cache, at "
                f"{found.name}: it is damaged"
            )
        attributes = {}
        for name in found.attrs:
            attributes[name] = _value(found, name, variable=first_version)
            claimed += len(str(attributes[name]))
        claimed += _stored_bytes(found, size)
        if claimed > size:
            raise CacheError(
                f"{file.filename} claims to hold more than its {size} bytes, at {found.name}: "
                "it is damaged"
            )
        surveyed[found.name] = Hdf5Object(found, attributes)
    return surveyed


def attribute(found: "h5py.Group | h5py.Dataset", name: str, *, variable: bool) -> Value | None:
    """The value of an attribute; None where there is none of that name.

    Args:
        found: what has it.
        name: its name.
        variable: whether its text may be of variable length. HDF5 keeps such text in heaps that it
            has no checksums of, and runs in circles over one that is damaged.

    Raises:
        CacheError: it is no single text, number or boolean, or its text is too long.
    """
    return _value(found, name, variable=variable) if name in found.attrs else None


def _value(found: "h5py.Group | h5py.Dataset", name: str, *, variable: bool) -> Value:
    import h5py

    stored = found.attrs.get_id(name)
    kind = stored.get_type()
    plain = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)
    text = kind.get_class() == h5py.h5t.STRING and (variable or not kind.is_variable_str())
    # A list may name one long text many times, and so be far larger in memory than in the file.
    if (plain or text) and stored.shape == () and kind.get_size() <= MAX_ATTRIBUTE:
        value = found.attrs[name]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode()
        if isinstance(value, (int, float)) or len(value) <= MAX_ATTRIBUTE:
            return value  # type: ignore[no-any-return]
    raise CacheError(
        f"{found.file.filename}: the attribute {name!r} of {found.name} is no single text, number "
        "or boolean, or too long: the file is damaged"
    )


def _objects(group: "h5py.Group") -> "Iterator[h5py.Group | h5py.Dataset]":
    """A group, and what is below it; it ends as long as nothing is there under two names."""
    import h5py

    yield group
    groups = [group]
    while groups:
        group = groups.pop()
        if len(group) > MAX_OBJECTS or group.name.count("/") > MAX_DEPTH:
            raise CacheError(
                f"{group.file.filename}: {group.name} holds more, or lies deeper, than in any "
                "cache: it is damaged"
            )
        for name in group:
            # get(getlink=True) looks without following: a link to another file is never opened.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            found = group[name]
            if isinstance(found, h5py.Group):
                groups.append(found)
            elif not isinstance(found, h5py.Dataset):
                raise CacheError(
                    f"{group.file.filename}: {name} in {group.name} is neither a group nor a "
                    "dataset: it is damaged"
                )
            yield found


def _place(found: "h5py.Group | h5py.Dataset") -> int:
    import h5py

    return int(h5py.h5o.get_info(found.id).addr)


def _stored_bytes(found: "h5py.Group | h5py.Dataset", size: int) -> int:
    """What a dataset takes in memory; 0 for a group.

    Raises:
        CacheError: its values are not plain numbers or fixed-width text, or not all of them are
            stored in this file: HDF5 would read the missing ones as zeros, or from another file.
    """
    import h5py

    if isinstance(found, h5py.Group):
        return 0
    kind = found.id.get_type()
    plain = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING)
    if not plain or (kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()):
        raise CacheError(
            f"{found.file.filename}: {found.name} holds neither numbers nor text of a fixed width: "
            "the file is damaged"
        )
    if found.shape is None:
        raise CacheError(f"{found.file.filename}: {found.name} holds nothing: it is damaged")
    # Not found.nbytes, in which a size beyond 64 bits would wrap.
    claimed = kind.get_size()
    for length in found.shape:
        claimed *= int(length)
    filtered = found.id.get_create_plist().get_nfilters() > 0
    # HDF5 says where bytes are to lie without looking whether the file reaches that far.
    if filtered or found.external or not claimed <= min(found.id.get_storage_size(), size):
        raise CacheError(
            f"{found.file.filename}: {found.name} is compressed, lies in another file, or was "
            "never written in full: restore the file from a copy, or delete it and run extract "
            "again"
        )
    return int(claimed)
