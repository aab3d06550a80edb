"""Malicious files are refused before they take memory or time, and no other file is read."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.store import handwritten

Change = Callable[[h5py.File], None]


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Refusing a file takes at most 64 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def compound(file: h5py.File) -> None:
    file["images/more"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i8")])


def variable_text(file: h5py.File) -> None:
    file["more"] = np.array(["a", "b"], dtype=object)


def references(file: h5py.File) -> None:
    file.create_dataset("more", shape=(1,), dtype=h5py.ref_dtype)[0] = file["images"].ref


def opaque(file: h5py.File) -> None:
    file["more"] = np.void(b"code")


def named_type(file: h5py.File) -> None:
    file["more"] = np.dtype("f4")


def second_name(file: h5py.File) -> None:
    for number in range(100):
        file[f"text/copy-{number}"] = file["text/signs"]


def circle(file: h5py.File) -> None:
    file["images/again"] = file["/"]


def deep(file: h5py.File) -> None:
    file.create_group("/".join("d" * 200))


def many_groups(file: h5py.File) -> None:
    text = file["text"].id
    for number in range(10_100):
        h5py.h5g.create(text, b"%d" % number)  # `create_group` would take much longer


def many_attributes(file: h5py.File) -> None:
    for number in range(100):
        file.attrs[f"a{number}"] = number


def list_attribute(file: h5py.File) -> None:
    file.attrs["notes"] = ["[]"] * 100


def long_attribute(file: h5py.File) -> None:
    file.attrs.create("notes", np.bytes_(b"[" * (2**24 + 1)))


def empty_attribute(file: h5py.File) -> None:
    file.attrs["notes"] = h5py.Empty("S3")


def compressed(file: h5py.File) -> None:
    del file["labels/values"]
    zeros = np.zeros((2**20, 2), "i1")
    file.create_dataset("labels/values", data=zeros, compression="gzip")


def hdf5_checksum(file: h5py.File) -> None:
    values = file["labels/values"][()]
    del file["labels/values"]
    file.create_dataset("labels/values", data=values, fletcher32=True)


def many_zeros(file: h5py.File) -> None:
    del file["images/id"]
    file.create_dataset("images/id", shape=(2**40,), dtype="S1", chunks=(512,), fillvalue=b"a")


def deep_json(file: h5py.File) -> None:
    handwritten.set_attributes(file, notes="[" * 50_000 + "]" * 50_000)


def huge_integer(file: h5py.File) -> None:
    handwritten.set_attributes(file["text/signs"], encoder='{"a":1' + "0" * 3000 + "}")


def huge_float(file: h5py.File) -> None:
    handwritten.set_attributes(file["text/signs"], encoder='{"a":1e999}')


HOSTILE: dict[str, tuple[Change, str]] = {
    "compound type": (compound, "/images/more holds neither numbers nor fixed-length text"),
    "variable-length text": (variable_text, "/more holds neither"),
    "references": (references, "/more holds neither"),
    "opaque bytes": (opaque, "/more holds neither"),
    "named type": (named_type, "more in / is neither a group nor a dataset"),
    "one object under many names": (second_name, "has a second name"),
    "circle": (circle, "has a second name"),
    "deep tree": (deep, "nested deeper"),
    "many groups": (many_groups, "has more members"),
    "many attributes": (many_attributes, "more groups, datasets or attributes"),
    "list in an attribute": (list_attribute, "'notes' of / is not a single"),
    "long attribute": (long_attribute, "'notes' of / is not a single"),
    "empty attribute": (empty_attribute, "'notes' of / is not a single"),
    "decompression bomb": (compressed, "/labels/values is compressed"),
    "filter": (hdf5_checksum, "/labels/values is compressed"),
    "ids that were never written": (many_zeros, "/images/id .*partly written"),
    "deeply nested JSON": (deep_json, "too deep"),
    "huge integer": (huge_integer, "has more than 20 digits"),
    "huge float": (huge_float, "exceeds the range of a float"),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_cache_is_refused(cache_file: Path, attack: str) -> None:
    change, message = HOSTILE[attack]
    with handwritten.edit(cache_file) as file:
        change(file)
    for read in (read_cache, verify_cache) if attack != "many groups" else (read_cache,):
        with pytest.raises(CacheError, match=message):
            read(cache_file)


def test_dataset_larger_than_the_file_is_refused(cache_file: Path) -> None:
    with handwritten.edit(cache_file) as file:
        del file["images/embedding"]
        # The layout message claims 2**33 bytes, of which none are stored.
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        space = h5py.h5s.create_simple((3, 2**31))
        h5py.h5d.create(
            file["images"].id, b"embedding", h5py.h5t.py_create(np.dtype("<f2")), space, plist
        )
    with pytest.raises(CacheError, match="only partly written"):
        read_cache(cache_file)


def test_long_labels_take_no_more_memory_than_the_file_has_bytes(cache_file: Path) -> None:
    names = np.array([b"m" * 2**20, b"e"])
    with handwritten.edit(cache_file) as file:
        del file["labels/names"]
        file["labels/names"] = names
    assert [len(name) for name in read_cache(cache_file).labels.names] == [2**20, 1]


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.h5")
    with pytest.raises(CacheError, match="no cache at"):
        read_cache(tmp_path / "m.h5")
