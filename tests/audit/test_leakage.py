from pathlib import Path

import numpy as np
import pytest

from featurecache.audit.leakage import (
    GroupsAcrossSplits,
    GroupsWithinSplit,
    IdenticalFiles,
    SharedPatient,
    SharedPatients,
    fine_tuning_images,
    identical_files,
    same_labels,
    shared_patients,
)
from featurecache.datasets.kermany import PUBLISHED, load_kermany
from featurecache.io.fingerprint import sha256_of_file
from featurecache.provenance.records import ImageRecords
from tests.audit.audit_caches import make_cache


def test_patients_in_several_splits_are_counted_and_listed(tmp_path: Path) -> None:
    cache = make_cache(
        tmp_path,
        ["train", "train", "test", "val", "test", "test"],
        patient=["a", "a", "a", "b", "c", "c"],
    )
    assert shared_patients(cache) == SharedPatients(
        patients=1, images=3, details=(SharedPatient("a", {"train": 2, "test": 1}),)
    )


def test_shared_patients_are_undefined_where_patients_are_unknown(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, ["train", "test"], patient=["0000", "0001"])
    assert shared_patients(cache) is None


def test_copies_across_splits_and_within_a_split_are_counted_separately(tmp_path: Path) -> None:
    cache = make_cache(
        tmp_path,
        ["train", "test", "train", "train", "train", "val", "val", "val", "test"],
        sha256=["x", "x", "y", "y", "y", "z", "z", "z", "z"],
        labels=[[0], [1], [1], [1], [-1], [0], [0], [0], [0]],
    )
    found = identical_files(cache)
    assert found.copies == 6
    # x and z are in two splits; y and z occur several times in one split.
    assert found.across_splits == GroupsAcrossSplits(2, images=6, conflicting_labels=1)
    assert found.within_split == GroupsWithinSplit(2, copies=4, conflicting_labels=0)
    assert [group.images for group in found.groups] == [
        ("0000", "0001"),
        ("0002", "0003", "0004"),
        ("0005", "0006", "0007", "0008"),
    ]
    assert [group.same_labels for group in found.groups] == [False, True, True]


def test_clean_data_set_has_no_leaks(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, ["train", "val", "test"])
    assert identical_files(cache) == IdenticalFiles(
        0, GroupsAcrossSplits(0, 0, 0), GroupsWithinSplit(0, 0, 0), groups=()
    )
    shared = shared_patients(cache)
    assert shared is not None
    assert shared.patients == 0
    assert fine_tuning_images(cache) == {}


def test_fine_tuning_images_are_those_of_the_same_collection(
    tmp_path: Path,
) -> None:
    trained_on = {
        "set": ImageRecords.of("set", ["0000", "0002", "gone"]),
        "other": ImageRecords.of("other", ["0001"]),
    }
    cache = make_cache(tmp_path, ["train", "train", "test"], trained_on=trained_on)
    assert fine_tuning_images(cache) == {"train": 1, "test": 1}


@pytest.mark.parametrize(
    ("rows", "agree"),
    [([[1, 0], [1, 0]], True), ([[1, 0], [1, -1]], True), ([[1, 0], [1, 1]], False)],
)
def test_unknown_labels_do_not_conflict(rows: list[list[int]], agree: bool) -> None:
    assert same_labels(np.array(rows, dtype=np.int8)) is agree


def test_published_kermany_split_has_shared_patients_and_copies(
    shared_data: Path, tmp_path: Path
) -> None:
    dataset = load_kermany(shared_data / "kermany", split=PUBLISHED)
    images = dataset.images
    cache = make_cache(
        tmp_path,
        images["split"].tolist(),
        id=images["id"].tolist(),
        patient=images["patient"].tolist(),
        sha256=[sha256_of_file(dataset.root / path) for path in images["path"]],
        labels=dataset.label_values,
        label_names=dataset.label_names,
    )
    shared = shared_patients(cache)
    assert shared is not None
    assert shared.patients == 61
    # Always with different pathogens: the patient numbers may not be unique.
    for entry in shared.details:
        ids = images["id"][images["patient"] == entry.patient]
        pathogens = [
            {name.split("_")[1] for name in ids if name.startswith(f"{split}/")}
            for split in ("train", "test")
        ]
        assert not pathogens[0] & pathogens[1]
    found = identical_files(cache)
    assert found.copies == 12
    assert found.across_splits.groups == 0
    assert found.within_split == GroupsWithinSplit(groups=12, copies=12, conflicting_labels=0)
