from pathlib import Path

import numpy as np
import pytest

from featurecache.audit.leakage import (
    identical_files_across_splits,
    learned_images,
    same_labels,
    shared_patients,
)
from featurecache.datasets.kermany import PUBLISHED, load_kermany
from featurecache.io.fingerprint import sha256_of_file
from tests.audit.audit_caches import make


def test_patients_in_two_splits_are_counted_and_named(tmp_path: Path) -> None:
    cache = make(
        tmp_path,
        ["train", "train", "test", "val", "test", "test"],
        patient=["a", "a", "a", "b", "c", "c"],
    )
    assert shared_patients(cache) == {
        "patients": 1,
        "images": 3,
        "list": [{"patient": "a", "images": {"train": 2, "test": 1}}],
    }


def test_unknown_patients_are_not_said_to_be_apart(tmp_path: Path) -> None:
    cache = make(tmp_path, ["train", "test"], patient=["0000", "0001"])
    assert shared_patients(cache) is None


def test_copies_across_splits_and_within_one_are_counted_apart(tmp_path: Path) -> None:
    cache = make(
        tmp_path,
        ["train", "test", "train", "train", "train", "val", "val", "val", "test"],
        sha256=["x", "x", "y", "y", "y", "z", "z", "z", "z"],
        labels=[[0], [1], [1], [1], [-1], [0], [0], [0], [0]],
    )
    found = identical_files_across_splits(cache)
    assert found["copies"] == 6
    # x and z lie in two splits; y and z are there several times in one.
    assert found["across_splits"] == {"groups": 2, "images": 6, "other_labels": 1}
    assert found["within_split"] == {"groups": 2, "copies": 4, "other_labels": 0}
    assert [entry["images"] for entry in found["list"]] == [
        ["0000", "0001"],
        ["0002", "0003", "0004"],
        ["0005", "0006", "0007", "0008"],
    ]
    assert [entry["same_labels"] for entry in found["list"]] == [False, True, True]


def test_a_clean_set_has_none(tmp_path: Path) -> None:
    cache = make(tmp_path, ["train", "val", "test"])
    assert identical_files_across_splits(cache) == {
        "copies": 0,
        "across_splits": {"groups": 0, "images": 0, "other_labels": 0},
        "within_split": {"groups": 0, "copies": 0, "other_labels": 0},
        "list": [],
    }
    shared = shared_patients(cache)
    assert shared is not None
    assert shared["patients"] == 0
    assert learned_images(cache) == {}


def test_images_that_the_encoder_learned_from_are_those_of_the_same_collection(
    tmp_path: Path,
) -> None:
    trained_on = {"set": frozenset({"0000", "0002", "gone"}), "other": frozenset({"0001"})}
    cache = make(tmp_path, ["train", "train", "test"], trained_on=trained_on)
    assert learned_images(cache) == {"train": 1, "test": 1}


@pytest.mark.parametrize(
    ("rows", "same"),
    [([[1, 0], [1, 0]], True), ([[1, 0], [1, -1]], True), ([[1, 0], [1, 1]], False)],
)
def test_unknown_labels_contradict_nothing(rows: list[list[int]], same: bool) -> None:
    assert same_labels(np.array(rows, dtype=np.int8)) is same


def test_the_real_kermany_folders_hold_shared_patients_and_copies(
    shared_data: Path, tmp_path: Path
) -> None:
    manifest = load_kermany(shared_data / "kermany", split=PUBLISHED)
    images = manifest.images
    cache = make(
        tmp_path,
        images["split"].tolist(),
        id=images["id"].tolist(),
        patient=images["patient"].tolist(),
        sha256=[sha256_of_file(manifest.root / path) for path in images["path"]],
        labels=manifest.label_values,
        label_names=manifest.label_names,
    )
    shared = shared_patients(cache)
    assert shared is not None
    assert shared["patients"] == 61
    # The same number, but always with another germ.
    for entry in shared["list"]:
        ids = images["id"][images["patient"] == entry["patient"]]
        germs = [
            {name.split("_")[1] for name in ids if name.startswith(f"{split}/")}
            for split in ("train", "test")
        ]
        assert not germs[0] & germs[1]
    found = identical_files_across_splits(cache)
    assert found["copies"] == 12
    assert found["across_splits"]["groups"] == 0
    assert found["within_split"] == {"groups": 12, "copies": 12, "other_labels": 0}
