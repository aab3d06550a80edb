"""How a file that is whole becomes one that may not be, by the kind of file."""

import csv
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import strategies as st

Changed = st.SearchStrategy[bytes]

FEW = st.sampled_from([1, 1, 1, 2, 3])
"""Changes at once: after one, a reader most often still gets far."""

ODD_TEXTS = (
    *("", " ", "\n", "\r\n", "\x00", '"', "'", ",", "|", ";", "/", "\\", "..", "../..", "C:\\a"),
    *("NaN", "inf", "-1", "1e999", "0x10", "9" * 40, "١", "ﬁ", "\ud7ff", "\ufeff", "\u202e", "é"),
    *("=1+1", "<b>", "{pathology}", "{}", "No Finding", "true", "null", "[" * 200, "\x1b[2J"),
)
NUMBERS = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320]),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


@st.composite
def changed_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """A few bytes set, put in, taken out, said twice or cut off, anywhere."""
    data = bytearray(whole)
    for _ in range(draw(FEW)):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["set", "flip", "put in", "take out", "repeat", "cut off"]))
        if how == "set":
            data[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))])
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "put in":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif how == "take out":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        elif how == "cut off":
            del data[at:]
    return bytes(data)


def changed_json(whole: bytes) -> Changed:
    """Values of a JSON document replaced, taken out, or put where another was; or its bytes."""
    return st.one_of(_changed_json(json.loads(whole)), changed_bytes(whole))


@st.composite
def _changed_json(draw: st.DrawFn, document: Any) -> bytes:
    return json.dumps(draw(changed_value(document))).encode()


@st.composite
def changed_value(draw: st.DrawFn, document: Any) -> Any:
    """A JSON value with one to three of the values in it changed."""
    root = [json.loads(json.dumps(document))]
    for _ in range(draw(FEW)):
        places = list(_places(root))
        inside, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "replace", "take out", "rename", "copy"]))
        if how == "take out" and inside is not root:
            del inside[key]
        elif how == "rename" and isinstance(inside, dict):
            inside[draw(TEXTS)] = inside.pop(key)
        elif how == "copy":
            source, name = draw(st.sampled_from(places))
            inside[key] = json.loads(json.dumps(source[name]))
        else:
            inside[key] = draw(VALUES)
    return root[0]


def _places(inside: Any) -> Iterator[tuple[Any, Any]]:
    """Every list or object in a value, with every index or key."""
    for key in list(inside) if isinstance(inside, dict) else range(len(inside)):
        yield inside, key
        if isinstance(inside[key], (dict, list)):
            yield from _places(inside[key])


def changed_csv(whole: bytes) -> Changed:
    """Cells of a table set to odd texts or to one another, rows and columns out or twice."""
    rows = list(csv.reader(io.StringIO(whole.decode(), newline="")))
    return st.one_of(_changed_csv(rows), changed_bytes(whole))


@st.composite
def _changed_csv(draw: st.DrawFn, whole: Sequence[Sequence[str]]) -> bytes:
    rows = [list(row) for row in whole]
    for _ in range(draw(FEW)):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(whole[0]) - 1))
        how = draw(st.sampled_from(["cell", "cell", "other cell", "row", "column", "no row"]))
        if how == "cell" and column < len(rows[row]):
            rows[row][column] = draw(TEXTS)
        elif how == "other cell" and column < len(rows[row]):
            rows[row][column] = draw(st.sampled_from(draw(st.sampled_from(whole))))
        elif how == "row":
            rows.insert(row, list(rows[draw(st.integers(0, len(rows) - 1))]))
        elif how == "column":
            twice = draw(st.booleans())
            rows = [
                one[:column] + one[column : column + 1] * (2 * twice) + one[column + 1 :]
                for one in rows
            ]
        elif how == "no row" and len(rows) > 1:
            del rows[row]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"]))).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def changed_safetensors(whole: bytes) -> Changed:
    """Another header over the same tensors, of the length that it has; or other bytes."""
    length = struct.unpack("<Q", whole[:8])[0]
    header, tensors = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def packed(document: Any) -> bytes:
        text = json.dumps(document).encode()
        return struct.pack("<Q", len(text)) + text + tensors

    return st.one_of(
        changed_value(header).map(packed),
        changed_bytes(whole),
        # Numbers are changed without any other damage.
        changed_bytes(tensors).map(lambda other: whole[: 8 + length] + other),
    )


def changed_png(whole: bytes) -> Changed:
    """Chunks with other bytes in them and checksums that are right; or other bytes."""
    chunks, at = [], 8
    while at < len(whole):
        (length,) = struct.unpack(">I", whole[at : at + 4])
        chunks.append((whole[at + 4 : at + 8], whole[at + 8 : at + 8 + length]))
        at += 12 + length
    return st.one_of(_changed_chunks(whole[:8], chunks), changed_bytes(whole))


@st.composite
def _changed_chunks(draw: st.DrawFn, start: bytes, whole: Sequence[tuple[bytes, bytes]]) -> bytes:
    chunks = list(whole)
    for _ in range(draw(FEW)):
        at = draw(st.integers(0, len(chunks) - 1))
        kind, data = chunks[at]
        how = draw(st.sampled_from(["data", "deflated", "kind", "twice", "take out", "another"]))
        if how == "data":
            chunks[at] = kind, draw(changed_bytes(data))
        elif how == "deflated" and kind == b"IDAT":
            try:
                pixels = zlib.decompress(data)
            except zlib.error:
                continue
            chunks[at] = kind, zlib.compress(draw(changed_bytes(pixels)))
        elif how == "kind":
            kinds = (
                b"tRNS",
                b"PLTE",
                b"gAMA",
                b"eXIf",
                b"iCCP",
                b"zTXt",
                b"acTL",
                b"fdAT",
                b"IEND",
            )
            chunks[at] = draw(st.sampled_from(kinds)), data
        elif how == "twice":
            chunks.insert(at, chunks[at])
        elif how == "take out" and len(chunks) > 1:
            del chunks[at]
        else:
            chunks[at], chunks[0] = chunks[0], chunks[at]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return start + b"".join(parts)


def changed_dicom(whole: bytes) -> Changed:
    """Elements of the header with other values, or none; or other bytes."""
    return st.one_of(_changed_dicom(whole), changed_bytes(whole))


@st.composite
def _changed_dicom(draw: st.DrawFn, whole: bytes) -> bytes:
    import pydicom

    found = pydicom.dcmread(io.BytesIO(whole))
    for _ in range(draw(FEW)):
        name = draw(st.sampled_from(sorted(element.keyword for element in found)))
        if draw(st.booleans()):
            delattr(found, name)
            continue
        given = draw(
            st.one_of(NUMBERS, TEXTS, st.lists(NUMBERS, max_size=3), st.binary(max_size=8))
        )
        before = found.get(name)
        try:
            setattr(found, name, given)
            found.save_as(io.BytesIO(), enforce_file_format=True)
        except Exception:  # noqa: BLE001 - what pydicom does not write, a file does not hold
            setattr(found, name, before)
    file = io.BytesIO()
    found.save_as(file, enforce_file_format=True)
    return file.getvalue()


def changed_hdf5(whole: bytes, seal: Callable[[Any], None]) -> Changed:
    """Groups, datasets and attributes that are others, with checksums or without; or other bytes.

    Args:
        whole: the file.
        seal: writes the checksums of a file anew, so that the change passes for what was written.
    """
    return st.one_of(_changed_hdf5(whole, seal), changed_bytes(whole))


@st.composite
def _changed_hdf5(draw: st.DrawFn, whole: bytes, seal: Callable[[Any], None]) -> bytes:
    import h5py

    disk = io.BytesIO(whole)
    with h5py.File(disk, "r+", libver=("v108", "v108")) as file:
        names: list[str] = ["/"]
        file.visit(names.append)
        names = [name for name in names if not name.startswith("checksums")]
        for _ in range(draw(FEW)):
            name = draw(st.sampled_from(names))
            if name not in file:
                continue
            change = draw(st.sampled_from([_attribute, _dataset, _link, _take_out]))
            # After another change, what is there may be nothing that this one can be made to.
            with suppress(OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError):
                change(draw, file, name)
        if draw(st.integers(0, 3)):
            with suppress(Exception):  # what cannot be sealed stays without a seal
                seal(file)
    return disk.getvalue()


def _attribute(draw: st.DrawFn, file: Any, name: str) -> None:
    """One attribute with another value, of any type, or gone."""
    import h5py
    import numpy as np

    attributes = file[name].attrs
    known = [*attributes, "notes"]
    which = draw(st.sampled_from(known))
    if which in attributes and draw(st.integers(0, 4)) == 0:
        del attributes[which]
        return
    text = draw(TEXTS).encode("utf-8", "replace").replace(b"\x00", b"")
    attributes[which] = draw(
        st.sampled_from(
            [
                np.bytes_(text or b" "),
                text.decode("utf-8", "replace"),
                draw(st.sampled_from([0, 1, 2, 3, -1, 2**40])),
                draw(st.floats()),
                draw(st.booleans()),
                np.bytes_(json.dumps(draw(VALUES)).encode()),
                np.arange(3),
                h5py.Empty("S4"),
                np.array(["a", "b"], dtype="S1"),
            ]
        )
    )


def _dataset(draw: st.DrawFn, file: Any, name: str) -> None:
    """One dataset of another type, shape, layout or content."""
    import h5py
    import numpy as np

    if not isinstance(file[name], h5py.Dataset):
        return
    values = np.asarray(file[name][()])
    how = draw(st.sampled_from(["type", "shape", "content", "length", "layout", "empty"]))
    del file[name]
    if how == "type":
        kind = draw(st.sampled_from(["f2", "f4", "i1", "i8", "u4", "S1", "S9", "c8", "?", "V3"]))
        file.create_dataset(name, shape=values.shape, dtype=kind)
    elif how == "shape":
        shape = draw(st.sampled_from([(), (0,), (1,), (3, 0), (2, 2, 2), values.shape * 2]))
        file.create_dataset(name, shape=shape, dtype=values.dtype)
    elif how == "content":
        raw = bytearray(np.ascontiguousarray(values).tobytes())
        for _ in range(draw(st.integers(1, 8)) if raw else 0):
            raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
        other = np.frombuffer(bytes(raw), dtype=values.dtype).reshape(values.shape)
        file.create_dataset(name, data=other)
    elif how == "length":
        file.create_dataset(
            name,
            data=values[: draw(st.integers(0, max(1, len(values))))] if values.ndim else values,
        )
    elif how == "layout" and values.ndim and values.size:
        options: Mapping[str, Any] = draw(
            st.sampled_from(
                [
                    {"compression": "gzip"},
                    {"fletcher32": True},
                    {"chunks": True},
                    {"maxshape": (None, *values.shape[1:]), "chunks": True},
                ]
            )
        )
        file.create_dataset(name, data=values, **options)
    else:
        file.create_dataset(name, shape=(2**40,), dtype="i1", chunks=(1024,))


def _link(draw: st.DrawFn, file: Any, name: str) -> None:
    """A second name, a soft or external link, a group or a type in some place."""
    import h5py
    import numpy as np

    if name == "/":
        return
    how = draw(st.sampled_from(["soft", "external", "hard", "group", "type", "circle"]))
    place = name if draw(st.booleans()) else f"{name}-more"
    if place in file:
        del file[place]
    if how == "soft":
        file[place] = h5py.SoftLink(draw(st.sampled_from(["/images/id", "/nothing", "/", name])))
    elif how == "external":
        file[place] = h5py.ExternalLink("/etc/hostname", "/")
    elif how == "hard":
        file[place] = file["/images" if "images" in file else "/"]
    elif how == "group":
        file.create_group(place)
    elif how == "type":
        file[place] = np.dtype("f4")
    else:
        file[place] = file["/"]


def _take_out(draw: st.DrawFn, file: Any, name: str) -> None:
    """Something less."""
    if name != "/":
        del file[name]
