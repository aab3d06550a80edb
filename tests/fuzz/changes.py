"""Strategies that change an intact file, by kind of file."""

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
"""Strategy of changed files."""

N_CHANGES = st.sampled_from([1, 1, 1, 2, 3])
"""Number of changes; mostly one, after which a reader still reads much of the file."""

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
def changed_bytes(draw: st.DrawFn, intact: bytes) -> bytes:
    """Set, flip, insert, remove, repeat or truncate bytes anywhere."""
    data = bytearray(intact)
    for _ in range(draw(N_CHANGES)):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["set", "flip", "insert", "remove", "repeat", "truncate"]))
        if how == "set":
            data[at : at + 1] = bytes([draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))])
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif how == "remove":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        elif how == "truncate":
            del data[at:]
    return bytes(data)


def changed_json(intact: bytes) -> Changed:
    """Replace, remove, rename or copy values of a JSON document; or change its bytes."""
    return st.one_of(_changed_json(json.loads(intact)), changed_bytes(intact))


@st.composite
def _changed_json(draw: st.DrawFn, document: Any) -> bytes:
    return json.dumps(draw(changed_value(document))).encode()


@st.composite
def changed_value(draw: st.DrawFn, document: Any) -> Any:
    """Change one to three of the values inside a JSON value."""
    root = [json.loads(json.dumps(document))]
    for _ in range(draw(N_CHANGES)):
        locations = list(_locations(root))
        container, key = draw(st.sampled_from(locations))
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "copy"]))
        if how == "remove" and container is not root:
            del container[key]
        elif how == "rename" and isinstance(container, dict):
            container[draw(TEXTS)] = container.pop(key)
        elif how == "copy":
            source, name = draw(st.sampled_from(locations))
            container[key] = json.loads(json.dumps(source[name]))
        else:
            container[key] = draw(VALUES)
    return root[0]


def _locations(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each list or object inside a JSON value with each of its indices or keys."""
    for key in list(container) if isinstance(container, dict) else range(len(container)):
        yield container, key
        if isinstance(container[key], (dict, list)):
            yield from _locations(container[key])


def changed_csv(intact: bytes) -> Changed:
    """Replace cells of a table, remove or duplicate rows and columns; or change its bytes."""
    rows = list(csv.reader(io.StringIO(intact.decode(), newline="")))
    return st.one_of(_changed_csv(rows), changed_bytes(intact))


@st.composite
def _changed_csv(draw: st.DrawFn, intact: Sequence[Sequence[str]]) -> bytes:
    rows = [list(row) for row in intact]
    for _ in range(draw(N_CHANGES)):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(intact[0]) - 1))
        how = draw(
            st.sampled_from(["text", "text", "copy", "duplicate row", "column", "remove row"])
        )
        if how == "text" and column < len(rows[row]):
            rows[row][column] = draw(TEXTS)
        elif how == "copy" and column < len(rows[row]):
            rows[row][column] = draw(st.sampled_from(draw(st.sampled_from(intact))))
        elif how == "duplicate row":
            rows.insert(row, list(rows[draw(st.integers(0, len(rows) - 1))]))
        elif how == "column":
            copies = 2 * draw(st.booleans())
            rows = [
                cells[:column] + cells[column : column + 1] * copies + cells[column + 1 :]
                for cells in rows
            ]
        elif how == "remove row" and len(rows) > 1:
            del rows[row]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"]))).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def changed_safetensors(intact: bytes) -> Changed:
    """Change the header, with a correct length, or the numbers; or the bytes."""
    length = struct.unpack("<Q", intact[:8])[0]
    header, tensors = json.loads(intact[8 : 8 + length]), intact[8 + length :]

    def pack(document: Any) -> bytes:
        text = json.dumps(document).encode()
        return struct.pack("<Q", len(text)) + text + tensors

    return st.one_of(
        changed_value(header).map(pack),
        changed_bytes(intact),
        # Only the numbers; the header stays valid.
        changed_bytes(tensors).map(lambda other: intact[: 8 + length] + other),
    )


def changed_png(intact: bytes) -> Changed:
    """Change the chunks, with correct checksums; or the bytes."""
    chunks, at = [], 8
    while at < len(intact):
        (length,) = struct.unpack(">I", intact[at : at + 4])
        chunks.append((intact[at + 4 : at + 8], intact[at + 8 : at + 8 + length]))
        at += 12 + length
    return st.one_of(_changed_chunks(intact[:8], chunks), changed_bytes(intact))


@st.composite
def _changed_chunks(draw: st.DrawFn, start: bytes, intact: Sequence[tuple[bytes, bytes]]) -> bytes:
    chunks = list(intact)
    for _ in range(draw(N_CHANGES)):
        at = draw(st.integers(0, len(chunks) - 1))
        kind, data = chunks[at]
        how = draw(st.sampled_from(["data", "pixels", "kind", "repeat", "remove", "swap"]))
        if how == "data":
            chunks[at] = kind, draw(changed_bytes(data))
        elif how == "pixels" and kind == b"IDAT":
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
        elif how == "repeat":
            chunks.insert(at, chunks[at])
        elif how == "remove" and len(chunks) > 1:
            del chunks[at]
        else:
            chunks[at], chunks[0] = chunks[0], chunks[at]
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return start + b"".join(packed)


def changed_dicom(intact: bytes) -> Changed:
    """Change or remove elements of the header; or change the bytes."""
    return st.one_of(_changed_dicom(intact), changed_bytes(intact))


@st.composite
def _changed_dicom(draw: st.DrawFn, intact: bytes) -> bytes:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(intact))
    for _ in range(draw(N_CHANGES)):
        name = draw(st.sampled_from(sorted(element.keyword for element in dataset)))
        if draw(st.booleans()):
            delattr(dataset, name)
            continue
        value = draw(
            st.one_of(NUMBERS, TEXTS, st.lists(NUMBERS, max_size=3), st.binary(max_size=8))
        )
        previous = dataset.get(name)
        try:
            setattr(dataset, name, value)
            dataset.save_as(io.BytesIO(), enforce_file_format=True)
        except Exception:  # noqa: BLE001 - pydicom cannot write this value
            setattr(dataset, name, previous)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def changed_hdf5(intact: bytes, seal: Callable[[Any], None]) -> Changed:
    """Change groups, datasets and attributes; or the bytes.

    Args:
        intact: The file.
        seal: Updates the checksums of the changed file, so that they match.
    """
    return st.one_of(_changed_hdf5(intact, seal), changed_bytes(intact))


@st.composite
def _changed_hdf5(draw: st.DrawFn, intact: bytes, seal: Callable[[Any], None]) -> bytes:
    import h5py

    disk = io.BytesIO(intact)
    with h5py.File(disk, "r+", libver=("v108", "v108")) as file:
        names: list[str] = ["/"]
        file.visit(names.append)
        names = [name for name in names if not name.startswith("checksums")]
        for _ in range(draw(N_CHANGES)):
            name = draw(st.sampled_from(names))
            if name not in file:
                continue
            change = draw(st.sampled_from([_change_attribute, _change_dataset, _add_link, _remove]))
            # An earlier change may have made this one impossible.
            with suppress(OSError, KeyError, ValueError, TypeError, RuntimeError, MemoryError):
                change(draw, file, name)
        if draw(st.integers(0, 3)):
            with suppress(Exception):  # then the checksums are missing or do not match
                seal(file)
    return disk.getvalue()


def _change_attribute(draw: st.DrawFn, file: Any, name: str) -> None:
    """Set one attribute to a value of any type, or remove it."""
    import h5py
    import numpy as np

    attributes = file[name].attrs
    key = draw(st.sampled_from([*attributes, "notes"]))
    if key in attributes and draw(st.integers(0, 4)) == 0:
        del attributes[key]
        return
    text = draw(TEXTS).encode("utf-8", "replace").replace(b"\x00", b"")
    attributes[key] = draw(
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


def _change_dataset(draw: st.DrawFn, file: Any, name: str) -> None:
    """Change the type, shape, layout or content of a dataset."""
    import h5py
    import numpy as np

    if not isinstance(file[name], h5py.Dataset):
        return
    values = np.asarray(file[name][()])
    how = draw(st.sampled_from(["type", "shape", "content", "length", "layout", "huge"]))
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
        changed = np.frombuffer(bytes(raw), dtype=values.dtype).reshape(values.shape)
        file.create_dataset(name, data=changed)
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


def _add_link(draw: st.DrawFn, file: Any, name: str) -> None:
    """Replace or add an object: a soft, external or hard link, a group or a type."""
    import h5py
    import numpy as np

    if name == "/":
        return
    how = draw(st.sampled_from(["soft", "external", "hard", "group", "type", "cycle"]))
    path = name if draw(st.booleans()) else f"{name}-more"
    if path in file:
        del file[path]
    if how == "soft":
        file[path] = h5py.SoftLink(draw(st.sampled_from(["/images/id", "/nothing", "/", name])))
    elif how == "external":
        file[path] = h5py.ExternalLink("/etc/hostname", "/")
    elif how == "hard":
        file[path] = file["/images" if "images" in file else "/"]
    elif how == "group":
        file.create_group(path)
    elif how == "type":
        file[path] = np.dtype("f4")
    else:
        file[path] = file["/"]


def _remove(draw: st.DrawFn, file: Any, name: str) -> None:
    """Remove an object."""
    if name != "/":
        del file[name]
