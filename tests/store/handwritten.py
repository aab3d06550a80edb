"""A cache file written with plain h5py from the published format alone."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

IDS = ["a", "b/1", "ç"]
SPEC = '{"model":"m","precision":"fp32","size":[224,224]}'
EMBEDDING = [[1.0, 2.0, 3.0, 4.0], [-1.5, 0.0, 0.25, 2048.0], [0.5, 0.5, 0.5, 0.5]]
TEXTS = [[[3.0, 4.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0]]]
# By hand: the mean of (.6, .8) and (0, 1) is (.3, .9), of length sqrt(.9); that of two orthogonal
# unit vectors has the length sqrt(.5).
ENSEMBLE = [
    [0.3 / 0.9**0.5, 0.9 / 0.9**0.5, 0.0, 0.0],
    [0.0, 0.0, 0.5**0.5, 0.5**0.5],
]


def write_cache(path: Path) -> None:
    """Write a cache of three images, two labels, one prompt set with negatives, one failure."""
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        set_attributes(
            file,
            format="featurecache",
            version=1,
            spec=SPEC,
            fingerprint=hashlib.sha256(SPEC.encode()).hexdigest(),
            model="hf:org/m",
            dataset="nih",
            notes='["one", "zwölf"]',
            image_level_split=False,
            exposed=False,
            created="2025-01-02T03:04:05+00:00",
            collection="nih",
            excluded='{"listed, but not on disk": 7}',
            listed='{"images": 4, "patients": 3}',
            extraction="{}",
        )
        file.create_group("trained_on")
        write_text(file, "images/id", IDS)
        write_text(file, "images/sha256", ["0" * 64, "1" * 64, "2" * 64])
        file["images/perceptual_hash"] = np.arange(96, dtype="u1").reshape(3, 32)
        write_text(file, "images/patient", ["p1", "p2", "p2"])
        write_text(file, "images/split", ["train", "test", "test"])
        write_text(file, "images/view", ["PA", "", "AP"])
        write_text(file, "images/sex", ["F", "", "M"])
        write_text(file, "images/age", ["40", "", "7"])
        write_text(file, "images/path", ["a.png", "images/b.png", ""])
        file["images/size"] = np.array([10, 20, 30], dtype="<i8")
        file["images/mtime_ns"] = np.array([1, 2, 3], dtype="<i8")
        file["images/embedding"] = np.array(EMBEDDING, dtype="<f2")
        write_text(file, "labels/names", ["Mass", "Edema"])
        file["labels/values"] = np.array([[1, 0], [0, -1], [-1, 1]], dtype="i1")
        group = file.create_group("text/signs")
        set_attributes(
            group,
            fingerprint="f" * 64,
            templates='["signs of {pathology}", "{pathology}", "no {pathology}"]',
            aligned=True,
            scale=10.0,
            bias=-2.0,
            encoder='{"model":"m"}',
        )
        write_text(group, "labels", ["Mass", "Edema"])
        write_text(group, "prompts", [["signs of mass", "mass"], ["signs of edema", "edema"]])
        group["embedding"] = np.array(TEXTS, dtype="<f4")
        group["ensemble"] = np.array(ENSEMBLE, dtype="<f4")
        write_text(group, "negatives/prompts", [["no mass"], ["no edema"]])
        group["negatives/embedding"] = np.array([[[0, 0, 0, 2]], [[4, 0, 0, 0]]], dtype="<f4")
        group["negatives/ensemble"] = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], dtype="<f4")
        write_text(file, "failures/id", ["b/2"])
        write_text(file, "failures/reason", ["the file is empty"])
        write_checksums(file)


@contextmanager
def edit(path: Path) -> Iterator[h5py.File]:
    """Open a cache for changes that the checksums do not give away."""
    with h5py.File(path, "r+", libver=("v108", "latest")) as file:
        yield file
        write_checksums(file)


def set_attributes(node: h5py.Group, **values: str | float | bool) -> None:
    """Set attributes, text as fixed-length UTF-8."""
    for name, value in values.items():
        if isinstance(value, str):
            data = value.encode()
            node.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", len(data)))
        else:
            node.attrs[name] = value


def write_text(group: h5py.Group, name: str, values: list[str] | list[list[str]]) -> None:
    """Write a dataset of fixed-length UTF-8, padded with zero bytes."""
    encoded = np.char.encode(np.array(values), "utf-8")
    group[name] = encoded.astype(h5py.string_dtype("utf-8", encoded.itemsize))


def write_checksums(file: h5py.File) -> None:
    """Write ``/checksums`` anew; datasets that no cache may hold get checksums of no rows."""
    if "checksums" in file:
        del file["checksums"]
    nodes = {"/": file["/"]}
    file.visititems(lambda name, node: nodes.setdefault(f"/{name}", node) and None)
    paths, headers, blocks, sums = [], [], [], []
    for path, node in nodes.items():
        if not isinstance(node, (h5py.Group, h5py.Dataset)):
            continue
        header: dict[str, object] = {
            "attributes": {name: _plain(value) for name, value in node.attrs.items()}
        }
        block_sums = []
        if isinstance(node, h5py.Dataset):
            header |= {"shape": list(node.shape or ()), "type": node.dtype.str}
            # Not what is stored elsewhere or in part, and would be read as zeros without end.
            stored_here = not node.external and node.id.get_storage_size() == node.nbytes
            if node.dtype.kind in "iufS" and node.shape and stored_here:
                rows = node[()]
                block_sums = [
                    zlib.crc32(rows[start : start + 512].tobytes())
                    for start in range(0, len(rows), 512)
                ]
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        paths.append(path)
        headers.append(zlib.crc32(text.encode()))
        blocks.append(len(block_sums))
        sums += block_sums
    write_text(file, "checksums/object", paths)
    file["checksums/header"] = np.array(headers, dtype="<u4")
    file["checksums/blocks"] = np.array(blocks, dtype="<i8")
    file["checksums/crc32"] = np.array(sums, dtype="<u4")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else str(value)
