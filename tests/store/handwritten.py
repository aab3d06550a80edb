"""A cache file of format version 1, written with plain h5py from the published layout alone."""

import hashlib
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


def write_version_1(path: Path) -> None:
    """Three images, two labels, one prompt set with negatives, one failure."""
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "featurecache"
        file.attrs["version"] = 1
        file.attrs["spec"] = SPEC
        file.attrs["fingerprint"] = hashlib.sha256(SPEC.encode()).hexdigest()
        file.attrs["model"] = "hf:org/m"
        file.attrs["dataset"] = "nih"
        file.attrs["notes"] = '["one", "zwölf"]'
        file.attrs["image_level_split"] = False
        file.attrs["exposed"] = False
        file.attrs["created"] = "2025-01-02T03:04:05+00:00"
        text(file, "images/id", IDS)
        text(file, "images/sha256", ["0" * 64, "1" * 64, "2" * 64])
        text(file, "images/patient", ["p1", "p2", "p2"])
        text(file, "images/split", ["train", "test", "test"])
        text(file, "images/view", ["PA", "", "AP"])
        file["images/size"] = np.array([10, 20, 30], dtype="<i8")
        file["images/mtime_ns"] = np.array([1, 2, 3], dtype="<i8")
        file["images/embedding"] = np.array(EMBEDDING, dtype="<f2")
        text(file, "labels/names", ["Mass", "Edema"])
        file["labels/values"] = np.array([[1, 0], [0, -1], [-1, 1]], dtype="i1")
        group = file.create_group("text/signs")
        group.attrs["fingerprint"] = "f" * 64
        group.attrs["templates"] = '["signs of {pathology}", "{pathology}", "no {pathology}"]'
        group.attrs["aligned"] = True
        group.attrs["scale"] = 10.0
        group.attrs["bias"] = -2.0
        text(group, "labels", ["Mass", "Edema"])
        text(group, "prompts", [["signs of mass", "mass"], ["signs of edema", "edema"]])
        group["embedding"] = np.array(TEXTS, dtype="<f4")
        group["ensemble"] = np.array(ENSEMBLE, dtype="<f4")
        text(group, "negatives/prompts", [["no mass"], ["no edema"]])
        group["negatives/embedding"] = np.array([[[0, 0, 0, 2]], [[4, 0, 0, 0]]], dtype="<f4")
        group["negatives/ensemble"] = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], dtype="<f4")
        text(file, "failures/id", ["b/2"])
        text(file, "failures/reason", ["the file is empty"])


def text(group: h5py.Group, name: str, values: list[str] | list[list[str]]) -> None:
    """Fixed-width UTF-8, padded with null bytes."""
    encoded = np.char.encode(np.array(values), "utf-8")
    group[name] = encoded.astype(h5py.string_dtype("utf-8", encoded.itemsize))
