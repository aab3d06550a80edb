"""Files made to harm: refused before they take memory or time, and nothing beside them is read."""

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

Change = Callable[[h5py.File], None]


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What is refused takes no more than 64 MiB on the way."""
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


def a_second_name(file: h5py.File) -> None:
    for number in range(100):
        file[f"text/copy-{number}"] = file["text/signs"]


def a_circle(file: h5py.File) -> None:
    file["images/again"] = file["/"]


def deep(file: h5py.File) -> None:
    file.create_group("/".join("d" * 200))


def many_groups(file: h5py.File) -> None:
    for number in range(10_100):
        file.create_group(f"text/{number}")


def many_attributes(file: h5py.File) -> None:
    for number in range(100):
        file.attrs[f"a{number}"] = number


def a_list_of_texts(file: h5py.File) -> None:
    file.attrs["notes"] = ["[]"] * 100


def a_long_attribute(file: h5py.File) -> None:
    file.attrs.create("notes", np.bytes_(b"[" * (2**24 + 1)))


def empty_attribute(file: h5py.File) -> None:
    file.attrs["notes"] = h5py.Empty("S3")


def compressed(file: h5py.File) -> None:
    del file["labels/values"]
    zeros = np.zeros((2**20, 2), "i1")
    file.create_dataset("labels/values", data=zeros, compression="gzip")


def summed_by_hdf5(file: h5py.File) -> None:
    values = file["labels/values"][()]
    del file["labels/values"]
    file.create_dataset("labels/values", data=values, fletcher32=True)


def many_zeros(file: h5py.File) -> None:
    del file["images/id"]
    file.create_dataset("images/id", shape=(2**40,), dtype="S1", chunks=(512,), fillvalue=b"a")


def endless_json(file: h5py.File) -> None:
    file.attrs["notes"] = "[" * 50_000 + "]" * 50_000


def a_number_without_end(file: h5py.File) -> None:
    file["text/signs"].attrs["encoder"] = '{"a":1' + "0" * 3000 + "}"


def a_float_without_end(file: h5py.File) -> None:
    file["text/signs"].attrs["encoder"] = '{"a":1e999}'


HOSTILE: dict[str, tuple[Change, str]] = {
    "compound": (compound, "/images/more holds neither numbers nor text"),
    "text of variable length": (variable_text, "/more holds neither"),
    "references": (references, "/more holds neither"),
    "opaque bytes": (opaque, "/more holds neither"),
    "a named type": (named_type, "more in / is neither a group nor a dataset"),
    "one thing under many names": (a_second_name, "a second name"),
    "a circle": (a_circle, "a second name"),
    "a deep tree": (deep, "lies deeper"),
    "many groups": (many_groups, "holds more"),
    "many attributes": (many_attributes, "more groups, datasets or attributes"),
    "a list in an attribute": (a_list_of_texts, "'notes' of / is no single"),
    "a long attribute": (a_long_attribute, "'notes' of / is no single"),
    "an empty attribute": (empty_attribute, "'notes' of / is no single"),
    "a decompression bomb": (compressed, "/labels/values is compressed"),
    "a filter": (summed_by_hdf5, "/labels/values is compressed"),
    "ids that were never written": (many_zeros, "/images/id .*never written"),
    "JSON without bottom": (endless_json, "too deep"),
    "a whole number without end": (a_number_without_end, "beyond every count"),
    "a float without end": (a_float_without_end, "beyond every float"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_cache_is_refused(version_1: Path, what: str) -> None:
    change, message = HOSTILE[what]
    libver = ("v108", "v108") if what == "a long attribute" else None
    with h5py.File(version_1, "r+", libver=libver) as file:
        if libver:  # the root is of the old format, in which an attribute has no room for so much
            del file.attrs["notes"]
            change(file.create_group("more"))
        else:
            change(file)
    if libver:
        message = message.replace("of /", "of /more")
    for read in (read_cache, verify_cache) if what != "many groups" else (read_cache,):
        with pytest.raises(CacheError, match=message):
            read(version_1)


def test_a_dataset_that_claims_to_reach_beyond_the_file_is_refused(version_1: Path) -> None:
    with h5py.File(version_1, "r+") as file:
        del file["images/embedding"]
        # Of the layout message the size, 2**33 bytes, is what the file says, and nothing is there.
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
        space = h5py.h5s.create_simple((3, 2**31))
        h5py.h5d.create(
            file["images"].id, b"embedding", h5py.h5t.py_create(np.dtype("<f2")), space, plist
        )
    with pytest.raises(CacheError, match="never written in full"):
        read_cache(version_1)


def test_many_long_labels_take_no_more_than_the_file_has(version_1: Path) -> None:
    names = np.array([b"m" * 2**20, b"e"])
    with h5py.File(version_1, "r+") as file:
        del file["labels/names"]
        file["labels/names"] = names
    assert [len(name) for name in read_cache(version_1).labels.names] == [2**20, 1]


def test_a_pipe_in_place_of_a_cache_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.h5")
    with pytest.raises(CacheError, match="no cache at"):
        read_cache(tmp_path / "m.h5")
