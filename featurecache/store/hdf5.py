"""HDF5 basics that the reader and the writer share: opening, strings, attributes, checked reads."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError, FeaturecacheError
from featurecache.io.system_errors import raise_if_inaccessible
from featurecache.store.layout import VERSION
from featurecache.store.preallocate import reserve, upper_bound
from featurecache.store.records import BLOCK_STRINGS, Utf8, from_utf8
from featurecache.store.validation import Value, attribute

if TYPE_CHECKING:
    import h5py

_HDF5_ERRORS = (OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError)
"""Exceptions that h5py raises for errors of the HDF5 library."""


@contextmanager
def opened(path: Path, format_name: str) -> "Iterator[h5py.File]":
    """Open a cache or chunk file for reading.

    Raises:
        CacheError: The file is missing, not HDF5, truncated, of another format or version, or
            lacks something that the body asks for.
        OSError: It cannot be accessed.
    """
    import h5py

    if not path.is_file():
        raise CacheError(f"there is no cache at {path}: extract one, or check the path")
    try:
        file = h5py.File(path, "r")
    except _HDF5_ERRORS as error:
        raise_if_inaccessible(error, path)
        raise CacheError(
            f"{path} cannot be read as HDF5 (truncated, damaged or another kind of file): "
            "restore it from a copy, or delete it and extract again"
        ) from error
    with file:
        try:
            _check_format(file, format_name)
            yield file
        except FeaturecacheError:
            raise
        except _HDF5_ERRORS as error:
            raise_if_inaccessible(error, path)
            raise CacheError(f"{path} is damaged: {error}") from error


def _check_format(file: "h5py.File", format_name: str) -> None:
    version = attribute(file, "version")
    if not isinstance(version, int) or version < 1:
        raise CacheError(
            f"{file.filename} is not a {format_name} file: {version!r} is not a format version"
        )
    if version != VERSION:
        raise CacheError(
            f"{file.filename} has format version {version}, and this version of featurecache reads "
            f"version {VERSION}: upgrade with 'pip install --upgrade featurecache', or extract "
            "again"
        )
    if (stored := attribute(file, "format")) != format_name:
        raise CacheError(
            f"{file.filename} is HDF5 but not a {format_name} file (format: {stored!r})"
        )


def dataset(group: "h5py.Group", name: str) -> "h5py.Dataset":
    """Return a dataset by name, of a file that ``validate_hdf5`` has checked.

    Raises:
        CacheError: It is missing, or something else has its name.
    """
    import h5py

    return _member(group, name, h5py.Dataset)


def subgroup(group: "h5py.Group", name: str) -> "h5py.Group":
    """Return a group by name.

    Raises:
        CacheError: It is missing, or something else has its name.
    """
    import h5py

    return _member(group, name, h5py.Group)


def _member(group: "h5py.Group", name: str, kind: type) -> Any:
    import h5py

    # get(getlink=True) does not follow the link, so that no other file is ever opened.
    node = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(node, kind):
        path = f"{group.name.rstrip('/')}/{name}"
        raise CacheError(
            f"{group.file.filename} is damaged: it lacks the {kind.__name__.lower()} {path}"
        )
    return node


@contextmanager
def sealed_file(path: Path, *content: object) -> "Iterator[h5py.File]":
    """Write a new file whose internal tables are protected by HDF5's own checksums.

    HDF5 writes these from file format 1.8 on, which every current tool reads. It aborts the process
    when a write fails, so the disk space is reserved in advance and the surplus returned at the
    end.

    Args:
        path: The file.
        content: Everything that is going to be written.

    Raises:
        OSError: The disk is full or not writable.
    """
    import h5py

    size = upper_bound(content)
    reserve(path, size)
    file = h5py.File(path, "w", libver=("v108", "v108"))
    try:
        reserve(path, size)  # opening with "w" truncated the file
        yield file
        file.flush()
        end = file.id.get_filesize()
    finally:
        file.close()
    os.truncate(path, end)


def write_attributes(node: "h5py.Group", values: Mapping[str, Value | None]) -> None:
    """Write texts, numbers and booleans as attributes; None is left out."""
    import h5py

    for name, value in values.items():
        if isinstance(value, str):
            text = value.encode()
            dtype = h5py.string_dtype("utf-8", max(1, len(text)))
            node.attrs.create(name, np.bytes_(text), dtype=dtype)
        elif value is not None:
            node.attrs[name] = value


def write_strings(group: "h5py.Group", name: str, values: Utf8) -> None:
    """Write strings as one fixed-length dataset, as wide as the longest of them."""
    import h5py

    width = max(1, int(np.char.str_len(values).max(initial=0)))
    fitted = values.astype(f"S{width}", copy=False)
    group.create_dataset(name, data=fitted.view(h5py.string_dtype("utf-8", length=width)))


def read_strings(
    group: "h5py.Group", name: str, *, shape: tuple[int | None, ...] = (None,)
) -> Utf8:
    """Read what ``write_strings`` wrote and check its shape (None: any length).

    Raises:
        CacheError: The dataset is missing, is not fixed-length text, or has another shape.
        UnicodeDecodeError: It is not UTF-8.
    """
    stored = dataset(group, name)
    _check_shape(stored, "text", shape, right_type=stored.dtype.kind == "S")
    if 0 in stored.shape:
        return np.empty(stored.shape, dtype="S1")
    strings: Utf8 = stored[()]
    for start in range(0, len(strings), BLOCK_STRINGS):
        block = strings[start : start + BLOCK_STRINGS]
        if block.view(np.uint8).max() > 127:  # ASCII needs no decoding to be valid
            from_utf8(block)
    return strings


def read_numbers(
    group: "h5py.Group", name: str, *, dtype: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Read a numeric dataset into memory and check its type and shape (None: any length).

    Raises:
        CacheError: It is missing, or has another type or shape.
    """
    numbers: NDArray[Any] = numeric(group, name, dtype=dtype, shape=shape)[()]
    return numbers


def numeric(
    group: "h5py.Group", name: str, *, dtype: str, shape: tuple[int | None, ...]
) -> "h5py.Dataset":
    """Return a numeric dataset of this type and shape (None: any length) without reading it.

    Raises:
        CacheError: It is missing, or has another type or shape.
    """
    stored = dataset(group, name)
    _check_shape(stored, dtype, shape, right_type=stored.dtype == np.dtype(dtype))
    return stored


def _check_shape(
    stored: "h5py.Dataset", kind: str, shape: tuple[int | None, ...], *, right_type: bool
) -> None:
    fits = len(stored.shape) == len(shape) and all(
        expected is None or actual == expected
        for actual, expected in zip(stored.shape, shape, strict=True)
    )
    if not right_type or not fits:
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise CacheError(
            f"{stored.file.filename} is damaged: {stored.name} is {stored.dtype} {stored.shape}, "
            f"expected {kind} ({expected})"
        )
