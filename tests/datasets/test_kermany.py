from collections import Counter
from pathlib import Path

import pytest

from featurecache.datasets.dataset import Dataset
from featurecache.datasets.kermany import IMAGE_LEVEL_PROTOCOL, PUBLISHED, load_kermany
from featurecache.errors import DatasetError, UnknownNameError, UsageError


def add(root: Path, *ids: str) -> None:
    """Make small files, each with bytes of its own."""
    for name in ids:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty patients of each class in train with two films each, three of each in test."""
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


def ids(manifest: Dataset, split: str) -> set[str]:
    return set(manifest.images["id"].iloc[manifest.rows(split)])


def test_folders_become_one_label_and_names_become_patients(root: Path) -> None:
    add(
        root,
        "train/PNEUMONIA/person447_virus_921_1.jpeg",
        "train/NORMAL/NORMAL2-IM-0587-0001-0001.jpg",
        "train/NORMAL/IM-0001-0001.PNG",
    )
    manifest = load_kermany(root)
    assert manifest.name == "kermany"
    assert manifest.label_names == ("Pneumonia",)
    images = manifest.images.set_index("id")
    assert images.loc["train/PNEUMONIA/person447_virus_921_1.jpeg", "patient"] == "person447"
    assert images.loc["train/NORMAL/NORMAL2-IM-0587-0001-0001.jpg", "patient"] == "NORMAL2-IM-0587"
    # Numbers of the two series of normals are apart.
    assert images.loc["train/NORMAL/IM-0001-0001.PNG", "patient"] == "IM-0001"
    assert images.loc["test/NORMAL/NORMAL2-IM-0001-0001.jpeg", "patient"] == "NORMAL2-IM-0001"
    assert manifest.label_values[:, 0].tolist() == [
        int("PNEUMONIA" in name) for name in images.index
    ]
    assert (images["path"] == images.index).all()


@pytest.mark.parametrize("nesting", ["chest_xray", "chest_xray/chest_xray"])
def test_the_nested_folders_of_the_archive_are_found(root: Path, nesting: str) -> None:
    plain = load_kermany(root)
    nesting_root = root / nesting
    nesting_root.mkdir(parents=True)
    for folder in ("train", "test"):
        (root / folder).rename(nesting_root / folder)
    nested = load_kermany(root)
    assert nested.root == nesting_root
    assert nested.images["id"].tolist() == plain.images["id"].tolist()


def test_droppings_of_other_programs_are_no_films(root: Path) -> None:
    add(root, "train/NORMAL/._IM-0100-0001.jpeg", "train/NORMAL/.DS_Store", "__MACOSX/train/x")
    add(root, "train/NORMAL/__MACOSX/IM-0100-0001.jpeg")
    assert len(load_kermany(root)) == 86


def test_the_test_folder_is_test_and_a_tenth_of_the_rest_is_validation(root: Path) -> None:
    manifest = load_kermany(root)
    assert ids(manifest, "test") == {
        name for name in manifest.images["id"] if name.startswith("test/")
    }
    # 80 films, two per patient, 40 of each class.
    assert Counter(name.split("/")[1] for name in ids(manifest, "val")) == {
        "NORMAL": 4,
        "PNEUMONIA": 4,
    }
    assert ids(load_kermany(root, seed=1), "val") != ids(manifest, "val")


def test_the_official_validation_folder_is_validation_with_all_of_its_patients(root: Path) -> None:
    add(root, "val/NORMAL/IM-0100-0003.jpeg", "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
    manifest = load_kermany(root)
    val = ids(manifest, "val")
    assert {
        "val/NORMAL/IM-0100-0003.jpeg",
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "train/NORMAL/IM-0100-0001.jpeg",
        "train/NORMAL/IM-0100-0001-0002.jpeg",
    } <= val
    # 82 films outside test.
    assert len(val) == 8
    assert any("with all images of its 2 patients" in note for note in manifest.notes)


def test_a_large_official_validation_folder_is_enough(root: Path) -> None:
    official = [f"val/NORMAL/IM-{n:04d}-0001.jpeg" for n in range(900, 920)]
    add(root, *official, "val/PNEUMONIA/person1946_bacteria_4874.jpeg")
    assert ids(load_kermany(root), "val") == {
        *official,
        "val/PNEUMONIA/person1946_bacteria_4874.jpeg",
    }


def test_training_films_of_patients_in_test_are_left_out_and_noted(root: Path) -> None:
    add(
        root,
        "train/PNEUMONIA/person1_bacteria_7.jpeg",
        "train/PNEUMONIA/person1_bacteria_8.jpeg",
        "val/PNEUMONIA/person2_bacteria_9.jpeg",
        "val/NORMAL/IM-0100-0003.jpeg",
    )
    manifest = load_kermany(root)
    assert not manifest.images["id"].str.contains("bacteria_[789]").any()
    assert any(note.startswith("3 training images of 2 patients") for note in manifest.notes)


def test_the_viral_subset_has_all_normals_and_no_bacteria(root: Path) -> None:
    manifest = load_kermany(root, subset="viral")
    assert manifest.name == "kermany-viral"
    assert not manifest.images["id"].str.contains("bacteria").any()
    assert manifest.label_values.sum() == 23
    assert (manifest.label_values == 0).sum() == 43
    assert "The subset is viral: 20 bacterial pneumonias are left out." in manifest.notes


def test_of_copies_the_one_in_test_stays_else_the_first(root: Path) -> None:
    add(root, "train/NORMAL/IM-0200-0001.jpeg", "train/NORMAL/IM-0201-0001.jpeg")
    (root / "train/NORMAL/IM-0201-0001.jpeg").write_bytes(b"train/NORMAL/IM-0200-0001.jpeg")
    (root / "train/NORMAL/IM-0100-0001.jpeg").write_bytes(b"test/NORMAL/NORMAL2-IM-0003-0001.jpeg")
    manifest = load_kermany(root)
    present = set(manifest.images["id"])
    assert "test/NORMAL/NORMAL2-IM-0003-0001.jpeg" in present
    assert "train/NORMAL/IM-0100-0001.jpeg" not in present
    assert "train/NORMAL/IM-0200-0001.jpeg" in present
    assert "train/NORMAL/IM-0201-0001.jpeg" not in present
    assert (
        "2 byte-identical copies are left out; extracted with --split published they stay, and "
        "audit lists them."
    ) in manifest.notes


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
def test_a_name_that_does_not_tell_its_patient_is_refused(root: Path, name: str) -> None:
    add(root, name)
    with pytest.raises(DatasetError, match=f"the name of {name} does not tell its patient"):
        load_kermany(root)


def test_a_root_without_the_official_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no folders train and test"):
        load_kermany(tmp_path)


def test_a_missing_or_empty_class_folder_is_refused(root: Path) -> None:
    for film in (root / "test/NORMAL").iterdir():
        film.unlink()
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
    with pytest.raises(UsageError, match="published for the subset viral"):
        load_kermany(root, split=IMAGE_LEVEL_PROTOCOL)


def test_the_published_split_leaves_nothing_out_and_moves_nothing(root: Path) -> None:
    add(root, "val/NORMAL/IM-0001-0001.jpeg", "val/PNEUMONIA/person3_bacteria_4.jpeg")
    add(root, "train/PNEUMONIA/person2_bacteria_9.jpeg")
    copy = root / "train/NORMAL/IM-0200-0001.jpeg"
    copy.write_bytes((root / "test/PNEUMONIA/person2_virus_6.jpeg").read_bytes())
    manifest = load_kermany(root, split=PUBLISHED)
    assert (manifest.name, manifest.collection) == ("kermany-published", "kermany")
    assert manifest.image_level_split
    files = {path.relative_to(root).as_posix() for path in root.rglob("*.jpeg")}
    assert set(manifest.images["id"]) == files
    assert all(
        id.startswith(f"{split}/")
        for id, split in manifest.images[["id", "split"]].itertuples(index=False)
    )
    viral = load_kermany(root, split=PUBLISHED, subset="viral")
    assert viral.name == "kermany-viral-published"
    assert set(viral.images["id"]) == {name for name in files if "bacteria" not in name}


def test_the_image_level_protocol_gives_the_published_counts(tmp_path: Path) -> None:
    """1341 + 8 + 234 normals and 1345 + 148 viral pneumonias, as released."""
    for folder, n_normal, n_viral in (("train", 1341, 1345), ("val", 8, 0), ("test", 234, 148)):
        add(tmp_path, *[f"{folder}/NORMAL/IM-{i:04d}-0001.jpeg" for i in range(n_normal)])
        add(tmp_path, *[f"{folder}/PNEUMONIA/person{i}_virus_1.jpeg" for i in range(n_viral)])
        add(tmp_path, f"{folder}/PNEUMONIA/person9999_bacteria_1.jpeg")
    manifest = load_kermany(tmp_path, subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    sizes = [len(manifest.rows(split)) for split in ("train", "val", "test")]
    assert sizes == [1967, 493, 616]
    positives = [
        manifest.label_values[manifest.rows(split)].sum() for split in ("train", "val", "test")
    ]
    # ceil(1493 / 5) = 299, and ceil(1194 / 5) = 239 of the rest.
    assert positives == [955, 239, 299]
    assert manifest.image_level_split
    assert any(note.startswith("IMAGE-LEVEL SPLIT") for note in manifest.notes)
    other = load_kermany(tmp_path, subset="viral", split=IMAGE_LEVEL_PROTOCOL, seed=1)
    assert ids(other, "test") != ids(manifest, "test")


def test_the_image_level_protocol_keeps_copies_and_pools_the_folders(root: Path) -> None:
    (root / "train/NORMAL/IM-0100-0001.jpeg").write_bytes(b"test/NORMAL/NORMAL2-IM-0003-0001.jpeg")
    manifest = load_kermany(root, subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    assert len(manifest) == 66
    # Its images have the same names as those of the other splits: what was trained on is known.
    assert manifest.collection == load_kermany(root).collection == "kermany"
    assert any(name.startswith("train/") for name in ids(manifest, "test"))
    patients = manifest.images.groupby("patient")["split"].nunique()
    assert patients.max() > 1


def test_the_real_films_have_the_counts_of_their_description(shared_data: Path) -> None:
    manifest = load_kermany(shared_data / "kermany")
    # 3,318 files less 12 copies, less 100 films of patients in test, one of which was a copy.
    assert len(manifest) == 3318 - 12 - 99
    assert any("12 byte-identical copies" in note for note in manifest.notes)
    assert any("99 training images of 61 patients" in note for note in manifest.notes)
    # Four of the twelve copies are within test, three of them normal.
    test = manifest.rows("test")
    assert len(test) == 234 + 148 + 50 - 4
    assert manifest.label_values[test].sum() == 148 + 50 - 1
    n_rest = len(manifest) - len(test)
    assert abs(len(manifest.rows("val")) - 0.1 * n_rest) <= 2


def test_the_real_viral_films_have_the_counts_of_their_description(shared_data: Path) -> None:
    manifest = load_kermany(shared_data / "kermany", subset="viral", split=IMAGE_LEVEL_PROTOCOL)
    assert (manifest.label_values == 0).sum() == 1341 + 234
    assert manifest.label_values.sum() == 1345 + 148
