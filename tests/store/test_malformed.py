"""Whatever is wrong with a file, reading it raises a CacheError that names what is wrong."""

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
        if isinstance(value, (str, float, bool)):
            handwritten.set_attributes(file[path], **{name: value})
        else:
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
        handwritten.write_text(file, path, values)

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
    spec = json.loads(handwritten.SPEC)
    handwritten.set_attributes(file, spec=json.dumps(spec | {"precision": "bf16"}))


def variable_length_attribute(file: h5py.File) -> None:
    file.attrs["model"] = "m"


LABEL_4 = np.array([[4, 0], [0, -1], [-1, 1]], dtype="i1")

MALFORMED: dict[str, tuple[Change, str]] = {
    "another format": (attribute("/", "format", "AnnData"), "not a featurecache file.*AnnData"),
    "a chunk file as a cache": (attribute("/", "format", "featurecache-part"), "not a featurec"),
    "no format": (without_attribute("/", "format"), "not a featurecache file"),
    "format is a list": (
        attribute("/", "format", ["featurecache", "x"]),
        "'format' .*not a single",
    ),
    "no version": (without_attribute("/", "version"), "None is not a format version"),
    "version is text": (attribute("/", "version", "1"), "'1' is not a format version"),
    "version 0": (attribute("/", "version", 0), "0 is not a format version"),
    "another version": (attribute("/", "version", 2), "version 2.*reads version 1: upgrade"),
    "variable-length attribute": (variable_length_attribute, "'model' .*not a single fixed-length"),
    "altered spec": (altered_spec, "fingerprint does not match its spec"),
    "altered fingerprint": (attribute("/", "fingerprint", "0" * 64), "fingerprint does not match"),
    "one age fewer": (
        texts("images/age", ["40", "50"]),
        r"/images/age is .* \(2,\), expected text \(3\)",
    ),
    "no fingerprint": (without_attribute("/", "fingerprint"), "'fingerprint'"),
    "no spec": (without_attribute("/", "spec"), "'spec'"),
    "spec is not JSON": (attribute("/", "spec", "{"), "'spec'"),
    "spec is a number": (attribute("/", "spec", 7), "'spec'"),
    "spec is a list": (attribute("/", "spec", "[]"), "spec"),
    "spec has a NaN": (attribute("/", "spec", '{"a": NaN}'), "'spec'"),
    "spec has an unpaired surrogate": (attribute("/", "spec", '{"a": "\\ud800"}'), "'spec'"),
    "spec is nested too deep": (attribute("/", "spec", "[" * 30_000), "'spec'"),
    "no collection": (without_attribute("/", "collection"), "collection"),
    "no model": (without_attribute("/", "model"), "model"),
    "no dataset": (without_attribute("/", "dataset"), "dataset"),
    "no notes": (without_attribute("/", "notes"), "notes"),
    "notes are a number": (attribute("/", "notes", "3"), "list of texts"),
    "notes are numbers": (attribute("/", "notes", "[3]"), "list of texts"),
    "no excluded": (without_attribute("/", "excluded"), "excluded"),
    "excluded is a list": (attribute("/", "excluded", "[]"), "valid dictionary"),
    "listed has no images": (attribute("/", "listed", '{"patients": 1}'), "images"),
    "excluded has a text": (attribute("/", "excluded", '{"damaged": "1"}'), "valid integer"),
    "no extraction": (without_attribute("/", "extraction"), "extraction"),
    "extraction is a text": (attribute("/", "extraction", '"x"'), "valid dictionary"),
    "no image_level_split": (without_attribute("/", "image_level_split"), "image_level_split"),
    # Was true, as any text that is not empty.
    "image_level_split is a text": (
        attribute("/", "image_level_split", "false"),
        "image_level_split is 'false', not a boolean",
    ),
    "aligned is a text": (
        attribute("text/signs", "aligned", "no"),
        "/text/signs .*aligned is 'no', not a boolean",
    ),
    "scale is a boolean": (attribute("text/signs", "scale", True), "scale is True, not a number"),
    "model is a number": (attribute("/", "model", 3.0), "model is 3.0, not text"),
    "bit_depth is a float": (attribute("/", "bit_depth", 12.5), "12.5, not an integer"),
    "no exposed": (without_attribute("/", "exposed"), "exposed"),
    "id not sorted": (texts("images/id", ["b", "a", "c"]), "/images/id is not sorted"),
    "duplicate id": (texts("images/id", ["a", "a", "c"]), "/images/id .*duplicates"),
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
    "embedding not written": (
        created("images/embedding", shape=(3, 4), dtype="f2"),
        "/images/embedding .*partly written",
    ),
    "embedding larger than the file": (
        created("images/embedding", shape=(3, 2**40), dtype="f2", chunks=(1, 512)),
        "/images/embedding .*partly written",
    ),
    "embedding in another file": (
        created("images/embedding", shape=(3, 4), dtype="f2", external=[("other", 0, 24)]),
        "/images/embedding .*another file",
    ),
    "virtual embedding": (virtual, "/images/embedding .*another file"),
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
        "lacks the dataset /images/embedding",
    ),
    "images is a dataset": (put("images", np.ones(3)), "lacks the group /images"),
    "label 4": (put("labels/values", LABEL_4), "/labels/values"),
    "label -128": (put("labels/values", LABEL_4 - 100), "/labels/values"),
    "labels as int16": (put("labels/values", np.zeros((3, 2), "i2")), "/labels/values is int16"),
    "labels of a row fewer": (put("labels/values", np.zeros((2, 2), "i1")), "/labels/values"),
    "labels of a column more": (put("labels/values", np.zeros((3, 3), "i1")), "/labels/values"),
    "duplicate label name": (texts("labels/names", ["Mass", "Mass"]), "/labels/names"),
    "label names in a matrix": (texts("labels/names", [["Mass"], ["Edema"]]), "/labels/names"),
    "failure reason without id": (texts("failures/reason", ["x", "y"]), "/failures/reason"),
    "duplicate failure": (
        lambda file: [texts(f"failures/{name}", ["x", "x"])(file) for name in ("id", "reason")],
        "/failures/id has duplicates",
    ),
    "text labels are numbers": (put("text/signs/labels", np.arange(2)), "/text/signs/labels"),
    "duplicate text label": (texts("text/signs/labels", ["Mass", "Mass"]), "/text/signs/labels"),
    "prompts in one dimension": (texts("text/signs/prompts", ["a", "b"]), "/text/signs/prompts"),
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
    "no aligned": (without_attribute("text/signs", "aligned"), "/text/signs.*aligned"),
    "scale is text": (attribute("text/signs", "scale", "ten"), "/text/signs.*ten"),
    "negatives behind a broken link": (
        put("text/signs/negatives", h5py.SoftLink("/nowhere")),
        "negatives",
    ),
    "a prompt set is a dataset": (put("text/signs", np.ones(3)), "the group /text/signs"),
    "a prompt set is a soft link": (
        lambda file: file.move("text/signs", "s") or put_link(file, "text/signs", "/s"),
        "the group /text/signs",
    ),
}


def put_link(file: h5py.File, path: str, target: str) -> None:
    file[path] = h5py.SoftLink(target)


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_cache_is_refused(cache_file: Path, what: str) -> None:
    change, message = MALFORMED[what]
    with handwritten.edit(cache_file) as file:
        change(file)
    with pytest.raises(CacheError, match=message) as caught:
        read_cache(cache_file)
    assert str(cache_file) in str(caught.value)


def datasets_and_groups(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visit(names.append)
    return [name for name in names if not name.startswith("checksums")]


@pytest.mark.parametrize("name", ["", "/object", "/header", "/blocks", "/crc32"])
def test_missing_checksums_are_refused(cache_file: Path, name: str) -> None:
    with h5py.File(cache_file, "r+") as file:
        del file[f"checksums{name}"]
    with pytest.raises(CacheError, match=f"lacks .*checksums'?{name}"):
        read_cache(cache_file)


def test_missing_object_is_named(cache_file: Path) -> None:
    intact = cache_file.read_bytes()
    names = set(datasets_and_groups(cache_file))
    assert len(names) > 20
    for name in sorted(names - {"text/signs", "text/signs/negatives"}):  # these are optional
        cache_file.write_bytes(intact)
        with handwritten.edit(cache_file) as file:
            del file[name]
        with pytest.raises(CacheError, match=f"lacks .*{name.split('/')[-1]}"):
            read_cache(cache_file)


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links_are_not_followed(cache_file: Path, tmp_path: Path, kind: str) -> None:
    intact = cache_file.read_bytes()
    other = tmp_path / "other.h5"
    handwritten.write_cache(other)
    for name in sorted(set(datasets_and_groups(cache_file))):
        cache_file.write_bytes(intact)
        with handwritten.edit(cache_file) as file:
            file.move(name, "elsewhere")
            target = h5py.SoftLink("/elsewhere")
            file[name] = target if kind == "soft" else h5py.ExternalLink(str(other), f"/{name}")
            assert name in file  # the target of the link is sound
        with pytest.raises(CacheError, match=f"lacks .*{name.split('/')[-1]}"):
            read_cache(cache_file)


def test_truncated_cache_is_refused_at_every_length(cache_file: Path) -> None:
    intact = cache_file.read_bytes()
    lengths = sorted({*range(0, len(intact), 97), 1, 7, 8, len(intact) - 1})
    for length in lengths:
        cache_file.write_bytes(intact[:length])
        with pytest.raises(CacheError, match=r"cannot be read as HDF5.*extract again"):
            read_cache(cache_file)


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"\x89PNG\r\n\x1a\n" + b"x" * 999, b"{}"])
def test_other_file_types_are_refused(cache_file: Path, data: bytes) -> None:
    cache_file.write_bytes(data)
    with pytest.raises(CacheError, match="cannot be read as HDF5"):
        read_cache(cache_file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.h5", tmp_path):
        with pytest.raises(CacheError, match=r"there is no cache at .*: extract one"):
            read_cache(path)


def test_overwritten_values_raise_only_cache_errors(cache_file: Path) -> None:
    # Only values: damaged internal tables can crash the HDF5 library itself.
    values: dict[str, tuple[int, int]] = {}
    with h5py.File(cache_file) as file:
        for name in datasets_and_groups(cache_file):
            if isinstance(file[name], h5py.Dataset):
                values[name] = file[name].id.get_offset(), file[name].nbytes
    intact = cache_file.read_bytes()
    rng = random.Random(3)
    reported = set()
    for number in range(60):
        name = rng.choice(sorted(values))
        offset, size = values[name]
        data = bytearray(intact)
        data[offset : offset + size] = rng.randbytes(size)
        damaged = cache_file.with_name(f"{number}.h5")
        damaged.write_bytes(data)
        try:
            problems = verify_cache(damaged)
        except CacheError:
            problems = ["unreadable"]
        if problems:
            reported.add(name)
    assert {"images/id", "images/patient", "labels/values"} <= reported
