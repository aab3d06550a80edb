"""Strings, attributes and opening: the few HDF5 idioms that reader and writer share."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.store.heaps import refuse_damaged_heaps
from featurecache.store.layout import VERSION
from featurecache.store.preallocate import reserve, size_of
from featurecache.store.records import BLOCK_STRINGS, Utf8, from_utf8
from featurecache.store.validation import Value, attribute

if TYPE_CHECKING:
    import h5py

_HDF5_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError)
"""What h5py turns an error of the HDF5 library into."""


@contextmanager
def opened(path: Path, format_name: str) -> "Iterator[h5py.File]":
    """Open a file of ours for reading.

    Raises:
        CacheError: it is missing, not HDF5, cut short, not of this format, of a newer version, or
            lacks a part of the format that the body asks for.
    """
    import h5py

    if not path.is_file():
        raise CacheError(f"no cache at {path}: make it with 'featurecache extract'")
    try:
        file = h5py.File(path, "r")
    except _HDF5_ERRORS as error:
        raise CacheError(
            f"{path} cannot be read as HDF5 (cut short, damaged or another kind of file): "
            "restore it from a copy, or delete it and run extract again"
        ) from error
    with file:
        try:
            _check_format(file, format_name)
            yield file
        except _HDF5_ERRORS as error:
            raise CacheError(f"{path} is damaged: {error}") from error


def _check_format(file: "h5py.File", format_name: str) -> None:
    version = attribute(file, "version", variable=False)
    if not isinstance(version, int) or version < 1:
        raise CacheError(
            f"{file.filename} is no {format_name} file: it has no valid format version (found "
            f"{version!r})"
        )
    if version > VERSION:
        raise CacheError(
            f"{file.filename} has format version {version}, this featurecache reads up to "
            f"{VERSION}: upgrade with 'pip install --upgrade featurecache'"
        )
    if version == 1:
        refuse_damaged_heaps(Path(file.filename))
    found = attribute(file, "format", variable=version == 1)
    if found != format_name:
        raise CacheError(
            f"{file.filename} is HDF5 but not a {format_name} file (format: {found!r})"
        )


def dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    """A dataset by name, in a file that ``survey`` has looked at.

    Raises:
        CacheError: it is missing, or something else is there in its place.
    """
    import h5py

    # get(getlink=True) looks without following: a link to another file is never opened.
    found = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset):
        raise CacheError(
            f"{group.file.filename} lacks {group.name.rstrip('/')}/{name}: it is damaged"
        )
    return found


def subgroup(parent: "h5py.Group", name: str) -> "h5py.Group":
    """A group by name.

    Raises:
        CacheError: it is missing, or something else is there in its place.
    """
    import h5py

    if isinstance(parent.get(name, getlink=True), h5py.HardLink):
        found = parent[name]
        if isinstance(found, h5py.Group):
            return found
    raise CacheError(f"{parent.file.filename} lacks the group {name!r}: it is damaged")


@contextmanager
def sealed_file(path: Path, *content: object) -> "Iterator[h5py.File]":
    """Write a new file, of whose table of contents HDF5 keeps checksums itself.

    It does so from the format of HDF5 1.8 on, which everything of today reads.

    HDF5 takes the process with it where it cannot write. So the disk gives all the room before, and
    what is left over is returned at the end.

    Args:
        path: of the file.
        content: all that is going to be written.

    Raises:
        OSError: the disk is full or not writable.
    """
    import h5py

    size = size_of(content)
    reserve(path, size)
    file = h5py.File(path, "w", libver=("v108", "v108"))
    try:
        reserve(path, size)  # HDF5 began with an empty file
        yield file
        file.flush()
        end = file.id.get_filesize()
    finally:
        file.close()
    os.truncate(path, end)


def write_attributes(found: "h5py.Group", values: Mapping[str, Value | None]) -> None:
    """Write texts, numbers and booleans as attributes; None is left out."""
    import h5py

    for name, value in values.items():
        if isinstance(value, str):
            text = value.encode()
            dtype = h5py.string_dtype("utf-8", max(1, len(text)))
            found.attrs.create(name, np.bytes_(text), dtype=dtype)
        elif value is not None:
            found.attrs[name] = value


def write_strings(group: "h5py.Group", name: str, values: Utf8) -> None:
    """Write strings as one dataset, no wider than the longest of them."""
    import h5py

    width = max(1, int(np.char.str_len(values).max(initial=0)))
    fitted = values.astype(f"S{width}", copy=False)
    group.create_dataset(name, data=fitted.view(h5py.string_dtype("utf-8", length=width)))


def read_strings(
    group: "h5py.Group", name: str, *, shape: tuple[int | None, ...] = (None,)
) -> Utf8:
    """Read what ``write_strings`` wrote, checking its shape (None: any length).

    Raises:
        CacheError: the dataset is missing, holds no fixed-width text, or has another shape.
        UnicodeDecodeError: what it holds is not UTF-8.
    """
    found = dataset(group, name)
    _check_shape(found, "text", shape, right_type=found.dtype.kind == "S")
    if 0 in found.shape:
        return np.empty(found.shape, dtype="S1")
    strings: Utf8 = found[()]
    for start in range(0, len(strings), BLOCK_STRINGS):
        block = strings[start : start + BLOCK_STRINGS]
        if block.view(np.uint8).max() > 127:  # else it is ASCII, and takes no looking at
            from_utf8(block)
    return strings


def read_numbers(
    group: "h5py.Group", name: str, *, dtype: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Read a numeric dataset whole, checking its type and shape (None: any length).

    Raises:
        CacheError: it is missing, or of another type or shape.
    """
    numbers: NDArray[Any] = numeric(group, name, dtype=dtype, shape=shape)[()]
    return numbers


def numeric(
    group: "h5py.Group", name: str, *, dtype: str, shape: tuple[int | None, ...]
) -> "h5py.Dataset":
    """A numeric dataset of this type and shape (None: any length), not read yet.

    Raises:
        CacheError: it is missing, or of another type or shape.
    """
    found = dataset(group, name)
    _check_shape(found, dtype, shape, right_type=found.dtype == np.dtype(dtype))
    return found


def _check_shape(
    found: "h5py.Dataset", kind: str, shape: tuple[int | None, ...], *, right_type: bool
) -> None:
    fits = len(found.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(found.shape, shape, strict=True)
    )
    if not right_type or not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise CacheError(
            f"{found.file.filename}: {found.name} is {found.dtype} {found.shape}, "
            f"expected {kind} ({wanted}): the file is damaged"
        )
