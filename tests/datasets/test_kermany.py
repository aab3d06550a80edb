from collections import Counter
from pathlib import Path

import pytest

from featurecache.datasets.dataset import KEPT_SPLITS, Dataset
from featurecache.datasets.kermany import IMAGE_LEVEL_PROTOCOL, PUBLISHED, load_kermany
from featurecache.datasets.pseudonymize import IdKey
from featurecache.errors import DatasetError, UnknownNameError, UsageError


def add(root: Path, *ids: str) -> None:
    """Create small files with different contents."""
    for name in ids:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty patients of each class in train with two images each, three of each in test."""
    for number in range(100, 120):
        add(
            tmp_path,
            f"train/NORMAL/IM-{number:04d}-0001.jpeg",
            f"train/NORMAL/IM-{number:04d}-0001-0002.jpeg",
            f"train/PNEUMONIA/person{number}_virus_{number}.jpeg",
            f"train/PNEUMONIA/person{number}_bacteria_{number}.jpeg",
        )
    for number in range(1, 4):
        add(
            tmp_path,
            f"test/NORMAL/NORMAL2-IM-{number:04d}-0001.jpeg",
            f"test/PNEUMONIA/person{number}_virus_6.jpeg",
        )
    return tmp_path


def ids(dataset: Dataset, split: str) -> set[str]:
    return set(dataset.images["id"].iloc[dataset.rows(split)])


def test_labels_come_from_folders_and_patients_from_names(root: Path) -> None:
    add(
        root,
        "train/PNEUMONIA/person447_virus_921_1.jpeg",
        "train/NORMAL/NORMAL2-IM-0587-0001-0001.jpg",
        "train/NORMAL/IM-0001-0001.PNG",
    )
    dataset = load_kermany(root)
    assert dataset.name == "kermany"
    assert dataset.label_names == ("Pneumonia",)
    images = dataset.images.set_index("id")
    assert images.loc["train/PNEUMONIA/person447_virus_921_1.jpeg", "patient"] == "person447"
    assert images.loc["train/NORMAL/NORMAL2-IM-0587-0001-0001.jpg", "patient"] == "NORMAL2-IM-0587"
    # The two series of normal images have separate numbers.
    assert images.loc["train/NORMAL/IM-0001-0001.PNG", "patient"] == "IM-0001"
    assert images.loc["test/NORMAL/NORMAL2-IM-0001-0001.jpeg", "patient"] == "NORMAL2-IM-0001"
    assert dataset.label_values[:, 0].tolist() == [
        int("PNEUMONIA" in name) for name in images.index
    ]
    assert (images["path"] == images.index).all()


@pytest.mark.parametrize("nesting", ["chest_xray", "chest_xray/chest_xray"])
def test_nested_folders_of_the_archive_are_found(root: Path, nesting: str) -> None:
    plain = load_kermany(root)
    nesting_root = root / nesting
    nesting_root.mkdir(parents=True)
    for folder in ("train", "test"):
        (root / folder).rename(nesting_root / folder)
    nested = load_kermany(root)
    assert nested.root == nesting_root
    assert nested.images["id"].tolist() == plain.images["id"].tolist()


def test_files_left_by_other_programs_are_skipped(root: Path) -> None:
    add(root, "train/NORMAL/._IM-0100-0001.jpeg", "train/NORMAL/.DS_Store", "__MACOSX/train/x")
    add(root, "train/NORMAL/__MACOSX/IM-0100-0001.jpeg")
    assert len(load_kermany(root)) == 86


def test_official_split_keeps_test_and_carves_validation(root: Path) -> None:
    dataset = load_kermany(root)
    assert ids(dataset, "test") == {
        name for name in dataset.images["id"] if name.startswith("test/")
    }
    # 80 images, two per patient, 40 of each class.
    assert Counter(name.split("/")[1] for name in ids(dataset, "val")) == {
        "NORMAL": 4,
        "PNEUMONIA": 4,
    }
    assert ids(load_kermany(root, seed=1), "val") != ids(dataset, "val")


def test_val_folder_is_validation_with_all_of_its_patients(root: Path) -> None:
    add(root, "val/NORMAL/IM-0100-0003.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
    dataset = load_kermany(root)
    val = ids(dataset, "val")
    assert {
        "val/NORMAL/IM-0100-0003.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "train/NORMAL/IM-0100-0001.jpeg",
        "train/NORMAL/IM-0100-0001-0002.jpeg",
    } <= val
    # 82 images outside test.
    assert len(val) == 8
    assert any(
        "includes all images of the 2 patients in the val folder" in note for note in dataset.notes
    )


def test_large_val_folder_is_the_whole_validation_split(root: Path) -> None:
    official = [f"val/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(900, 920)]
    add(root, *official, "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
    assert ids(load_kermany(root), "val") == {
        *official,
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
    }


def test_training_images_of_test_patients_are_dropped_and_noted(root: Path) -> None:
    add(
        root,
        "train/PNEUMONIA/person1_bacteria_7.jpeg",
        "train/PNEUMONIA/person1_bacteria_8.jpeg",
        "val/PNEUMONIA/person2_bacteria_9.jpeg",
        "val/NORMAL/IM-0100-0003.jpeg",
    )
    dataset = load_kermany(root)
    assert not dataset.images["id"].str.contains("bacteria_[789]").any()
    assert any(
        note.startswith("Left out: 3 training images of 2 patients") for note in dataset.notes
    )
    assert dataset.excluded == {"patient number is also in the test folder": 3}


def test_viral_subset_has_all_normals_and_no_bacteria(root: Path) -> None:
    dataset = load_kermany(root, subset="viral")
    assert dataset.name == "kermany-viral"
    assert not dataset.images["id"].str.contains("bacteria").any()
    assert dataset.excluded == {"bacterial pneumonia, not in the subset viral": 20}
    assert dataset.label_values.sum() == 23
    assert (dataset.label_values == 0).sum() == 43
    assert "The subset is viral: 20 bacterial pneumonias are left out." in dataset.notes


def test_copy_in_test_is_kept_else_the_first(root: Path) -> None:
    add(root, "train/NORMAL/IM-0200-0001.jpeg", "train/NORMAL/IM-0201-0001.jpeg")
    (root / "train/NORMAL/IM-0201-0001.jpeg").write_bytes(b"train/NORMAL/IM-0200-0001.jpeg")
    (root / "train/NORMAL/IM-0100-0001.jpeg").write_bytes(b"test/NORMAL/NORMAL2-IM-0003-0001.jpeg")
    dataset = load_kermany(root)
    present = set(dataset.images["id"])
    assert "test/NORMAL/NORMAL2-IM-0003-0001.jpeg" in present
    assert "train/NORMAL/IM-0100-0001.jpeg" not in present
    assert "train/NORMAL/IM-0200-0001.jpeg" in present
    assert "train/NORMAL/IM-0201-0001.jpeg" not in present
    assert (
        "2 byte-identical copies are left out. The split published keeps them, and an audit lists "
        "them."
    ) in dataset.notes


def test_copies_with_different_labels_are_refused(root: Path) -> None:
    add(root, "train/NORMAL/IM-0200-0001.jpeg")
    (root / "train/NORMAL/IM-0200-0001.jpeg").write_bytes(b"test/PNEUMONIA/person3_virus_6.jpeg")
    with pytest.raises(DatasetError, match=r"person3_virus_6.jpeg and train/NORMAL/IM-0200-0001"):
        load_kermany(root)


@pytest.mark.parametrize(
    "name",
    [
        "train/PNEUMONIA/person7_fungus_1.jpeg",
        "train/PNEUMONIA/IM-0115-0001.jpeg",
        "train/NORMAL/person7_virus_1.jpeg",
        "test/NORMAL/IM-115-0001.jpeg",
        "test/NORMAL/scan.png",
    ],
)
def test_name_without_patient_is_refused(root: Path, name: str) -> None:
    add(root, name)
    with pytest.raises(DatasetError, match=f"cannot derive the patient from the name of {name}"):
        load_kermany(root)


def test_root_without_train_and_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folders train and test"):
        load_kermany(tmp_path)


def test_missing_or_empty_class_folder_is_refused(root: Path) -> None:
    for image in (root / "test/NORMAL").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match=r"no images in .*test/NORMAL"):
        load_kermany(root)
    (root / "test/NORMAL").rmdir()
    with pytest.raises(DatasetError, match=r"test/NORMAL cannot be listed"):
        load_kermany(root)


def test_unknown_options_are_refused(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="Kermany subset 'virus'"):
        load_kermany(root, subset="virus")
    with pytest.raises(UnknownNameError, match="Kermany split 'image-level'"):
        load_kermany(root, split="image-level")
    with pytest.raises(UsageError, match="requires `subset` viral"):
        load_kermany(root, split=IMAGE_LEVEL_PROTOCOL)


def test_published_split_keeps_everything_in_place(root: Path) -> None:
    add(root, "val/NORMAL/IM-0001-0001.jpeg", "val/PNEUMONIA/person3_bacteria_4.jpeg")
    add(root, "train/PNEUMONIA/person2_bacteria_9.jpeg")
    copy = root / "train/NORMAL/IM-0200-0001.jpeg"
    copy.write_bytes((root / "test/PNEUMONIA/person2_virus_6.jpeg").read_bytes())
    dataset = load_kermany(root, split=PUBLISHED)
    assert (dataset.name, dataset.collection) == ("kermany-published", "kermany")
    assert dataset.image_level_split
    files = {path.relative_to(root).as_posix() for path in root.rglob("*.jpeg")}
    assert set(dataset.images["id"]) == files
    assert all(
        id.startswith(f"{split}/")
        for id, split in dataset.images[["id", "split"]].itertuples(index=False)
    )
    viral = load_kermany(root, split=PUBLISHED, subset="viral")
    assert viral.name == "kermany-viral-published"
    assert set(viral.images["id"]) == {name for name in files if "bacteria" not in name}


def test_image_level_protocol_gives_the_published_counts(tmp_path: Path) -> None:
    """1341 + 8 + 234 normals and 1345 + 148 viral pneumonias, as released."""
    for folder, n_normal, n_viral in (("train", 1341, 1345), ("val", 8, 0), ("test", 234, 148)):
        add(tmp_path, *[f"{folder}/NORMAL/IM-{i:04d}-0001.jpeg" for i in range(n_normal)])
        add(tmp_path, *[f"{folder}/PNEUMONIA/person{i}_virus_1.jpeg" for i in range(n_viral)])
        add(tmp_path, f"{folder}/PNEUMONIA/person9999_bacteria_1.jpeg")
    dataset = load_kermany(tmp_path, subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    sizes = [len(dataset.rows(split)) for split in ("train", "val", "test")]
    assert sizes == [1967, 493, 616]
    positives = [
        dataset.label_values[dataset.rows(split)].sum() for split in ("train", "val", "test")
    ]
    # ceil(1493 / 5) = 299, and ceil(1194 / 5) = 239 of the rest.
    assert positives == [955, 239, 299]
    assert dataset.image_level_split
    assert any(note.startswith("IMAGE-LEVEL SPLIT") for note in dataset.notes)
    other = load_kermany(tmp_path, subset="viral", split=IMAGE_LEVEL_PROTOCOL, seed=1)
    assert ids(other, "test") != ids(dataset, "test")


def test_image_level_protocol_keeps_copies_and_pools_folders(root: Path) -> None:
    (root / "train/NORMAL/IM-0100-0001.jpeg").write_bytes(b"test/NORMAL/NORMAL2-IM-0003-0001.jpeg")
    dataset = load_kermany(root, subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    assert len(dataset) == 66
    # Ids are the same in all splits, so training images can be recognized.
    assert dataset.collection == load_kermany(root).collection == "kermany"
    assert any(name.startswith("train/") for name in ids(dataset, "test"))
    patients = dataset.images.groupby("patient")["split"].nunique()
    assert patients.max() > 1


def test_real_data_has_the_documented_counts(shared_data: Path) -> None:
    dataset = load_kermany(shared_data / "kermany")
    # 3,318 files less 12 copies, less 100 images of test patients (one of them a copy).
    assert len(dataset) == 3318 - 12 - 99
    assert dataset.excluded == {
        "byte-identical copy of another image": 12,
        "patient number is also in the test folder": 99,
    }
    assert any("12 byte-identical copies" in note for note in dataset.notes)
    assert any("99 training images of 61 patients" in note for note in dataset.notes)
    # Four of the twelve copies are within test, three of them normal.
    test = dataset.rows("test")
    assert len(test) == 234 + 148 + 50 - 4
    assert dataset.label_values[test].sum() == 148 + 50 - 1
    n_rest = len(dataset) - len(test)
    assert abs(len(dataset.rows("val")) - 0.1 * n_rest) <= 2


def test_real_viral_subset_has_the_documented_counts(shared_data: Path) -> None:
    dataset = load_kermany(shared_data / "kermany", subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    assert (dataset.label_values == 0).sum() == 1341 + 234
    assert dataset.label_values.sum() == 1345 + 148


@pytest.mark.parametrize("pseudonymize", [False, True])
def test_cached_patients_keep_their_validation_split(root: Path, pseudonymize: bool) -> None:
    """The draw changes when images are added; patients of the val folder stay in validation."""

    def load() -> Dataset:
        dataset = load_kermany(root)
        return dataset.pseudonymize(IdKey(bytes(range(32)))) if pseudonymize else dataset

    def split_of_patients(dataset: Dataset) -> dict[str, str]:
        return dict(zip(dataset.images["patient"], dataset.images["split"], strict=True))

    add(root, "val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
    before = split_of_patients(load())
    added = [f"train/PNEUMONIA/person{n}_virus_{k}.jpeg" for n in (7, 8, 9) for k in range(5)]
    add(root, *added, "val/NORMAL/NORMAL2-IM-1430-0001.jpeg")
    fresh = load()
    drawn = split_of_patients(fresh)
    assert any(drawn[patient] != split for patient, split in before.items())
    kept = fresh.keep_splits(before)
    splits = split_of_patients(kept)
    assert {patient: splits[patient] for patient in before} == before
    in_val = kept.images["path"].str.startswith("val/")
    assert set(kept.images["split"][in_val]) == {"val"}
    assert kept.notes == (*fresh.notes, KEPT_SPLITS)
    assert str(kept.split_draw) == "0.9 train, 0.1 val, 0 test, seed 0"
