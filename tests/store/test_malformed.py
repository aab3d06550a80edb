"""Whatever is wrong with a file, reading it is a CacheError that names the part."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from featurecache.errors import CacheError
from featurecache.store.reader import read_cache
from featurecache.store.verify import verify_cache
from tests.store import handwritten

Change = Callable[[h5py.File], None]


def attribute(path: str, name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        file[path].attrs[name] = value

    return change


def without_attribute(path: str, name: str) -> Change:
    def change(file: h5py.File) -> None:
        del file[path].attrs[name]

    return change


def put(path: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[path]
        file[path] = value

    return change


def texts(path: str, values: list[str] | list[list[str]]) -> Change:
    def change(file: h5py.File) -> None:
        del file[path]
        handwritten.text(file, path, values)

    return change


def created(path: str, **arguments: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, **arguments)

    return change


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 4), "<f2")
    layout[:] = h5py.VirtualSource(file.filename + ".other", "embedding", (3, 4))
    del file["images/embedding"]
    file.create_virtual_dataset("images/embedding", layout)


def altered_spec(file: h5py.File) -> None:
    spec = json.loads(file.attrs["spec"])
    file.attrs["spec"] = json.dumps(spec | {"precision": "bf16"})


def short_age(file: h5py.File) -> None:
    handwritten.text(file, "images/age", ["40", "50"])


LABEL_2 = np.array([[2, 0], [0, -1], [-1, 1]], dtype="i1")

MALFORMED: dict[str, tuple[Change, str]] = {
    "another format": (attribute("/", "format", "AnnData"), "not a featurecache file.*AnnData"),
    "a part in place of a cache": (attribute("/", "format", "featurecache-part"), "not a featurec"),
    "no format": (without_attribute("/", "format"), "not a featurecache file"),
    "format is a list": (attribute("/", "format", ["featurecache", "x"]), "'format' .*no single"),
    "no version": (without_attribute("/", "version"), "no valid format version"),
    "version is text": (attribute("/", "version", "1"), "'version' .*no single"),
    "version 0": (attribute("/", "version", 0), "no valid format version"),
    "newer version": (attribute("/", "version", 3), "version 3.*reads up to 2.*upgrade"),
    "no checksums": (attribute("/", "version", 2), "'format' .*no single text"),
    "altered spec": (altered_spec, "fingerprint is not that of its spec"),
    "altered fingerprint": (attribute("/", "fingerprint", "0" * 64), "fingerprint is not that"),
    "an age too few": (short_age, r"/images/age is .* \(2,\), expected text \(3\)"),
    "no fingerprint": (without_attribute("/", "fingerprint"), "'fingerprint'"),
    "no spec": (without_attribute("/", "spec"), "'spec'"),
    "spec is not JSON": (attribute("/", "spec", "{"), "'spec'"),
    "spec is a number": (attribute("/", "spec", 7), "'spec'"),
    "spec is a list": (attribute("/", "spec", "[]"), "spec"),
    "spec has a NaN": (attribute("/", "spec", '{"a": NaN}'), "'spec'"),
    "spec has half a character": (attribute("/", "spec", '{"a": "\\ud800"}'), "'spec'"),
    "spec has no bottom": (attribute("/", "spec", "[" * 30_000), "'spec'"),
    "no model": (without_attribute("/", "model"), "model"),
    "no dataset": (without_attribute("/", "dataset"), "dataset"),
    "no notes": (without_attribute("/", "notes"), "notes"),
    "notes are a number": (attribute("/", "notes", "3"), "list of texts"),
    "notes are numbers": (attribute("/", "notes", "[3]"), "list of texts"),
    "no word on the split": (without_attribute("/", "image_level_split"), "image_level_split"),
    "no word on exposure": (without_attribute("/", "exposed"), "exposed"),
    "id not sorted": (texts("images/id", ["b", "a", "c"]), "/images/id is not sorted"),
    "id twice": (texts("images/id", ["a", "a", "c"]), "/images/id .*twice"),
    "id of variable length": (
        created("images/id", data=["a", "b", "c"], dtype=h5py.string_dtype()),
        "/images/id",
    ),
    "id is a number": (put("images/id", np.arange(3)), "/images/id is int64"),
    "id is not UTF-8": (put("images/id", np.array([b"a", b"b", b"\xff"])), "damaged"),
    "id is one text": (put("images/id", np.bytes_(b"abc")), "/images/id"),
    "id is a matrix": (texts("images/id", [["a"], ["b"], ["c"]]), "/images/id"),
    "id is null": (created("images/id", dtype="S3", data=h5py.Empty("S3")), "/images/id"),
    "one id more": (texts("images/id", ["a", "b", "c", "d"]), "/images/sha256"),
    "one view fewer": (texts("images/view", ["PA", ""]), r"/images/view .*\(3\)"),
    "size as float": (put("images/size", np.ones(3)), "/images/size is float64"),
    "one mtime fewer": (put("images/mtime_ns", np.arange(2)), "/images/mtime_ns"),
    "embedding in float32": (put("images/embedding", np.ones((3, 4), "f4")), "embedding is float3"),
    "embedding big-endian": (put("images/embedding", np.ones((3, 4), ">f2")), "/images/embedding"),
    "embedding with a row more": (put("images/embedding", np.ones((4, 4), "f2")), "embedding"),
    "embedding in one row": (put("images/embedding", np.ones(12, "f2")), "/images/embedding"),
    "embedding never written": (
        created("images/embedding", shape=(3, 4), dtype="f2"),
        "/images/embedding .*never written",
    ),
    "embedding of no end": (
        created("images/embedding", shape=(3, 2**40), dtype="f2", chunks=(1, 512)),
        "/images/embedding .*never written",
    ),
    "embedding in another file": (
        created("images/embedding", shape=(3, 4), dtype="f2", external=[("other", 0, 24)]),
        "/images/embedding .*another file",
    ),
    "embedding by way of another file": (virtual, "/images/embedding .*another file"),
    "embedding of objects": (
        created("images/embedding", shape=(3, 4), dtype=h5py.vlen_dtype(np.float16)),
        "/images/embedding",
    ),
    "embedding of references": (
        created("images/embedding", shape=(3, 4), dtype=h5py.ref_dtype),
        "/images/embedding",
    ),
    "embedding is a group": (
        lambda file: (file.pop("images/embedding"), file.create_group("images/embedding")),
        "lacks /images/embedding",
    ),
    "images is a dataset": (put("images", np.ones(3)), "lacks the group 'images'"),
    "label 2": (put("labels/values", LABEL_2), "/labels/values"),
    "label -128": (put("labels/values", LABEL_2 - 100), "/labels/values"),
    "labels as int16": (put("labels/values", np.zeros((3, 2), "i2")), "/labels/values is int16"),
    "labels of a row fewer": (put("labels/values", np.zeros((2, 2), "i1")), "/labels/values"),
    "labels of a column more": (put("labels/values", np.zeros((3, 3), "i1")), "/labels/values"),
    "label name twice": (texts("labels/names", ["Mass", "Mass"]), "/labels/names"),
    "label names in a matrix": (texts("labels/names", [["Mass"], ["Edema"]]), "/labels/names"),
    "a reason without its id": (texts("failures/reason", ["x", "y"]), "/failures/reason"),
    "a failure twice": (
        lambda file: [texts(f"failures/{name}", ["x", "x"])(file) for name in ("id", "reason")],
        "/failures/id .*twice",
    ),
    "text labels are numbers": (put("text/signs/labels", np.arange(2)), "/text/signs/labels"),
    "text label twice": (texts("text/signs/labels", ["Mass", "Mass"]), "/text/signs/labels"),
    "one list of prompts": (texts("text/signs/prompts", ["a", "b"]), "/text/signs/prompts"),
    "text embedding of other prompts": (
        put("text/signs/embedding", np.ones((2, 3, 4), "f4")),
        "/text/signs/embedding",
    ),
    "text embedding in float64": (
        put("text/signs/embedding", np.ones((2, 2, 4))),
        "/text/signs/embedding is float64",
    ),
    "ensemble of another length": (
        put("text/signs/ensemble", np.ones((2, 5), "f4")),
        "/text/signs/ensemble",
    ),
    "negatives of another length": (
        put("text/signs/negatives/embedding", np.ones((2, 1, 5), "f4")),
        "/text/signs/negatives/embedding",
    ),
    "no templates": (without_attribute("text/signs", "templates"), "/text/signs.*templates"),
    "templates are a text": (attribute("text/signs", "templates", '"x"'), "/text/signs.*list of"),
    "no word on alignment": (without_attribute("text/signs", "aligned"), "/text/signs.*aligned"),
    "scale is text": (attribute("text/signs", "scale", "ten"), "/text/signs.*ten"),
    "negatives behind a broken link": (
        put("text/signs/negatives", h5py.SoftLink("/nowhere")),
        "negatives",
    ),
    "a prompt set is a dataset": (put("text/signs", np.ones(3)), "'signs'"),
    "a prompt set is a soft link": (
        lambda file: file.move("text/signs", "s") or put_link(file, "text/signs", "/s"),
        "'signs'",
    ),
}


def put_link(file: h5py.File, path: str, target: str) -> None:
    file[path] = h5py.SoftLink(target)


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_cache_is_refused(version_1: Path, what: str) -> None:
    change, message = MALFORMED[what]
    with h5py.File(version_1, "a") as file:
        change(file)
    with pytest.raises(CacheError, match=message) as caught:
        read_cache(version_1)
    assert str(version_1) in str(caught.value)


def datasets_and_groups(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return names


def test_any_missing_part_is_refused_by_name(version_1: Path) -> None:
    whole = version_1.read_bytes()
    names = set(datasets_and_groups(version_1))
    assert len(names) > 20
    # These two may be absent; the rest of the format may not.
    for name in sorted(names - {"text/signs", "text/signs/negatives"}):
        version_1.write_bytes(whole)
        with h5py.File(version_1, "a") as file:
            del file[name]
        with pytest.raises(CacheError, match=f"lacks .*{name.split('/')[-1]}"):
            read_cache(version_1)


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_no_link_is_followed(version_1: Path, tmp_path: Path, kind: str) -> None:
    whole = version_1.read_bytes()
    other = tmp_path / "other.h5"
    handwritten.write_version_1(other)
    for name in sorted(set(datasets_and_groups(version_1))):
        version_1.write_bytes(whole)
        with h5py.File(version_1, "a") as file:
            file.move(name, "elsewhere")
            target = h5py.SoftLink("/elsewhere")
            file[name] = target if kind == "soft" else h5py.ExternalLink(str(other), f"/{name}")
            assert name in file  # the link leads to something sound
        with pytest.raises(CacheError, match=f"lacks .*{name.split('/')[-1]}"):
            read_cache(version_1)


def test_a_cut_file_is_refused_at_every_length(version_1: Path) -> None:
    whole = version_1.read_bytes()
    lengths = sorted({*range(0, len(whole), 97), 1, 7, 8, len(whole) - 1})
    for length in lengths:
        version_1.write_bytes(whole[:length])
        with pytest.raises(CacheError, match=r"cannot be read as HDF5.*run extract again"):
            read_cache(version_1)


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"\x89PNG\r\n\x1a\n" + b"x" * 999, b"{}"])
def test_another_kind_of_file_is_refused(version_1: Path, data: bytes) -> None:
    version_1.write_bytes(data)
    with pytest.raises(CacheError, match="cannot be read as HDF5"):
        read_cache(version_1)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(CacheError, match=r"no cache at .*featurecache extract"):
            read_cache(path)


def test_overwritten_values_raise_nothing_but_cache_errors(version_1: Path) -> None:
    # The values only: a damaged table of contents can crash the HDF5 library itself.
    values: dict[str, tuple[int, int]] = {}
    with h5py.File(version_1) as file:
        for name in datasets_and_groups(version_1):
            if isinstance(file[name], h5py.Dataset):
                values[name] = file[name].id.get_offset(), file[name].nbytes
    whole = version_1.read_bytes()
    rng = random.Random(3)
    refused = set()
    for number in range(200):
        name = rng.choice(sorted(values))
        offset, size = values[name]
        data = bytearray(whole)
        data[offset : offset + size] = rng.randbytes(size)
        damaged = version_1.with_name(f"{number}.h5")
        damaged.write_bytes(data)
        try:
            verify_cache(damaged)
        except CacheError:
            refused.add(name)
    assert {"images/id", "images/patient", "labels/values"} <= refused
