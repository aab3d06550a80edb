"""Validate the structure of an untrusted HDF5 file before any of its data is read into memory.

The sizes that a file claims are checked against its real size, so that reading it takes no more
memory than a file of that size can need.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featurecache.errors import CacheError

if TYPE_CHECKING:
    import h5py

Value = str | int | float | bool

MAX_ATTRIBUTE = 2**24
"""Bytes of an attribute's text: parsed JSON takes some twenty times as much memory."""
MAX_OBJECTS = 10_000
"""Groups and datasets of a file; a prompt set has about eight."""
MAX_ATTRIBUTES = 64
"""Attributes of a group or dataset."""
MAX_DEPTH = 8
"""Nested groups; ours are nested four deep."""


@dataclass(frozen=True)
class Hdf5Object:
    """A group or dataset of a file, with the values of its attributes."""

    node: "h5py.Group | h5py.Dataset"
    attributes: Mapping[str, Value]


def validate_hdf5(file: "h5py.File") -> dict[str, Hdf5Object]:
    """Return all groups and datasets of a file by path, the root as ``/``; links are left out.

    Raises:
        CacheError: An object is of a kind that no cache holds, has two names, or is larger than
            the file.
    """
    import h5py

    objects: dict[str, Hdf5Object] = {}
    addresses: set[int] = set()
    claimed, size = 0, os.fstat(descriptor(file)).st_size
    for node in _iter_objects(file):
        if (address := int(h5py.h5o.get_info(node.id).addr)) in addresses:
            raise CacheError(f"{file.filename} is damaged: {node.name} has a second name")
        addresses.add(address)
        if len(addresses) > MAX_OBJECTS or len(node.attrs) > MAX_ATTRIBUTES:
            raise CacheError(
                f"{file.filename} is damaged: it has more groups, datasets or attributes than any "
                f"cache, at {node.name}"
            )
        attributes = {name: _read_attribute(node, name) for name in node.attrs}
        claimed += sum(len(str(value)) for value in attributes.values()) + _data_size(node, size)
        if claimed > size:
            raise CacheError(
                f"{file.filename} is damaged: it claims to hold more than its {size} bytes, at "
                f"{node.name}"
            )
        objects[node.name] = Hdf5Object(node, attributes)
    return objects


def descriptor(file: "h5py.File") -> int:
    """Return the descriptor of an open file, which stays that of this file if its path changes."""
    import h5py

    return int(file.id.get_vfd_handle(h5py.h5p.create(h5py.h5p.FILE_ACCESS)))


def attribute(node: "h5py.Group | h5py.Dataset", name: str) -> Value | None:
    """Return the value of an attribute, or None if there is none of that name.

    Raises:
        CacheError: It is not a single text, number or boolean, or its text is too long.
    """
    return _read_attribute(node, name) if name in node.attrs else None


def _read_attribute(node: "h5py.Group | h5py.Dataset", name: str) -> Value:
    import h5py

    stored = node.attrs.get_id(name)
    kind = stored.get_type()
    number = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)
    # HDF5 keeps variable-length text in heaps without checksums, and loops forever over one that
    # is damaged. A list may point to one long text many times, and so need far more memory than
    # the file has bytes.
    text = kind.get_class() == h5py.h5t.STRING and not kind.is_variable_str()
    if (number or text) and stored.shape == () and kind.get_size() <= MAX_ATTRIBUTE:
        value = node.attrs[name]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, bytes):
            value = value.decode()
        return value  # type: ignore[no-any-return]
    raise CacheError(
        f"{node.file.filename} is damaged: the attribute {name!r} of {node.name} is not a single "
        "fixed-length text, number or boolean, or it is too long"
    )


def _iter_objects(group: "h5py.Group") -> "Iterator[h5py.Group | h5py.Dataset]":
    """Yield a group and everything below it; ends only if no object has two names."""
    import h5py

    yield group
    groups = [group]
    while groups:
        group = groups.pop()
        if len(group) > MAX_OBJECTS or group.name.count("/") > MAX_DEPTH:
            raise CacheError(
                f"{group.file.filename} is damaged: {group.name} has more members, or is nested "
                "deeper, than in any cache"
            )
        for name in group:
            # get(getlink=True) does not follow the link, so that no other file is ever opened.
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            node = group[name]
            if isinstance(node, h5py.Group):
                groups.append(node)
            elif not isinstance(node, h5py.Dataset):
                raise CacheError(
                    f"{group.file.filename} is damaged: {name} in {group.name} is neither a group "
                    "nor a dataset"
                )
            yield node


def _data_size(node: "h5py.Group | h5py.Dataset", file_size: int) -> int:
    """Return the bytes that a dataset takes in memory; 0 for a group.

    Raises:
        CacheError: Its values are not plain numbers or fixed-length text, or not all of them are
            stored in this file: HDF5 would read the missing ones as zeros, or from another file.
    """
    import h5py

    if isinstance(node, h5py.Group):
        return 0
    where = f"{node.file.filename} is damaged: {node.name}"
    kind = node.id.get_type()
    plain = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING)
    if not plain or (kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()):
        raise CacheError(f"{where} holds neither numbers nor fixed-length text")
    if not node.shape:
        raise CacheError(f"{where} is not an array")
    # Not node.nbytes, which wraps beyond 64 bits.
    claimed = kind.get_size()
    for length in node.shape:
        claimed *= int(length)
    filtered = node.id.get_create_plist().get_nfilters() > 0
    # HDF5 reports where data is stored without checking whether the file reaches that far.
    if filtered or node.external or not claimed <= min(node.id.get_storage_size(), file_size):
        raise CacheError(f"{where} is compressed, stored in another file, or only partly written")
    return int(claimed)
