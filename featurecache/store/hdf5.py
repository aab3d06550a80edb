"""Strings, attributes and opening: the few HDF5 idioms that reader and writer share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurecache.errors import CacheError
from featurecache.store.schema import VERSION

if TYPE_CHECKING:
    import h5py


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
    except OSError as error:
        raise CacheError(
            f"{path} cannot be read as HDF5 (cut short, damaged or another kind of file): "
            "restore it from a copy, or delete it and run extract again"
        ) from error
    with file:
        found = file.attrs.get("format")
        if found != format_name:
            raise CacheError(f"{path} is HDF5 but not a {format_name} file (format: {found!r})")
        version = file.attrs.get("version")
        if not isinstance(version, (int, np.integer)) or version < 1:
            raise CacheError(f"{path} has no valid format version (found {version!r})")
        if version > VERSION:
            raise CacheError(
                f"{path} has format version {version}, this featurecache reads up to {VERSION}: "
                "upgrade with 'pip install --upgrade featurecache'"
            )
        try:
            yield file
        except (OSError, KeyError, UnicodeDecodeError) as error:
            raise CacheError(f"{path} is damaged: {error}") from error


def dataset(file: "h5py.File | h5py.Group", name: str) -> "h5py.Dataset":
    """A dataset by name.

    Raises:
        CacheError: it is missing, or something else is there in its place.
    """
    import h5py

    # get(getlink=True) looks without following: a link to another file is never opened.
    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = file[name]
        if isinstance(found, h5py.Dataset):
            return found
    raise CacheError(f"{file.file.filename} lacks {file.name.rstrip('/')}/{name}: it is damaged")


def write_strings(group: "h5py.Group", name: str, values: Iterable[str]) -> None:
    """Write strings as one fixed-width UTF-8 dataset, of the shape of ``values``."""
    import h5py

    encoded = np.char.encode(np.asarray(values, dtype=np.str_), "utf-8")
    kind = h5py.string_dtype("utf-8", length=max(1, encoded.dtype.itemsize))
    group.create_dataset(name, data=encoded.astype(kind))


def read_strings(group: "h5py.Group", name: str) -> NDArray[np.str_]:
    """Read what ``write_strings`` wrote.

    Raises:
        CacheError: the dataset is missing or holds no fixed-width text.
    """
    found = dataset(group, name)
    if found.dtype.kind != "S":
        raise CacheError(f"{group.file.filename}: {found.name} holds {found.dtype}, not text")
    if 0 in found.shape:
        return np.empty(found.shape, dtype=np.str_)
    decoded: NDArray[np.str_] = np.char.decode(found[()], "utf-8")
    return decoded


def read_numbers(
    group: "h5py.Group", name: str, *, dtype: str, shape: tuple[int | None, ...]
) -> NDArray[Any]:
    """Read a numeric dataset whole, checking its type and shape (None: any length).

    Raises:
        CacheError: it is missing, or of another type or shape.
    """
    found = dataset(group, name)
    fits = len(found.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(found.shape, shape, strict=True)
    )
    if found.dtype != np.dtype(dtype) or not fits:
        wanted = tuple("any" if want is None else want for want in shape)
        raise CacheError(
            f"{group.file.filename}: {found.name} is {found.dtype} {found.shape}, "
            f"expected {dtype} {wanted}: the file is damaged"
        )
    numbers: NDArray[Any] = found[()]
    return numbers
