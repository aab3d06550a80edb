from pathlib import Path

import pytest

from featurecache.datasets.folder import has_classes, load_folder
from featurecache.errors import DatasetError


def add(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_become_labels(tmp_path: Path) -> None:
    dataset = load_folder(add(tmp_path / "my set", "well/b.png", "ill/a.JPG", "ill/c.jpeg"))
    assert dataset.name == "my-set"
    assert dataset.label_names == ("ill", "well")
    assert dataset.images["id"].tolist() == ["ill/a.JPG", "ill/c.jpeg", "well/b.png"]
    assert dataset.label_values.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert (dataset.images["patient"] == dataset.images["id"]).all()
    assert any("Patients are unknown" in note for note in dataset.notes)


def test_default_split_is_stratified_by_class(tmp_path: Path) -> None:
    add(tmp_path, *[f"{name}/{i}.png" for name in ("ill", "well") for i in range(50)])
    dataset = load_folder(tmp_path)
    counts = {
        split: dataset.label_values[dataset.rows(split)].sum(axis=0).tolist()
        for split in ("train", "val", "test")
    }
    assert counts == {"train": [35, 35], "val": [5, 5], "test": [10, 10]}
    assert (
        load_folder(tmp_path, seed=1).images["split"].tolist() != dataset.images["split"].tolist()
    )


def test_split_folders_define_the_split(tmp_path: Path) -> None:
    add(tmp_path, "Train/ill/a.png", "Train/well/b.png", "valid/ill/a.png", "test/other/c.png")
    dataset = load_folder(tmp_path)
    assert dict(zip(dataset.images["id"], dataset.images["split"], strict=True)) == {
        "Train/ill/a.png": "train",
        "Train/well/b.png": "train",
        "valid/ill/a.png": "val",
        "test/other/c.png": "test",
    }
    assert dataset.label_names == ("ill", "other", "well")


def test_default_validation_is_a_tenth_of_train(tmp_path: Path) -> None:
    add(tmp_path, *[f"train/{name}/{i}.png" for name in ("ill", "well") for i in range(50)])
    add(tmp_path, "test/ill/x.png", "test/well/y.png")
    dataset = load_folder(tmp_path)
    assert dataset.label_values[dataset.rows("val")].sum(axis=0).tolist() == [5, 5]
    assert len(dataset.rows("test")) == 2
    assert any("no validation split" in note for note in dataset.notes)


def test_other_files_are_skipped_and_noted(tmp_path: Path) -> None:
    add(tmp_path, "ill/a.png", "ill/notes.txt", "well/b.png", "README.md", ".git/x.png")
    dataset = load_folder(tmp_path)
    assert len(dataset) == 2
    assert "Files that are not images were skipped: 1 .md, 1 .txt." in dataset.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "holds no images in folders of classes"),
        (["ill/a.png", "well/b.png", "c.png"], r"image c\.png .* in no class folder: move it"),
        (["train/ill/a.png", "train/b.png"], r"image train/b\.png .* in no class folder"),
        (["train/ill/a.png", "well/b.png"], "split folder 'train' beside 'well'"),
        (["train/notes.txt"], "holds no images in folders of classes"),
    ],
)
def test_folder_without_valid_class_folders_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_folder(add(tmp_path, *names))


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be listed"):
        load_folder(tmp_path / "none")


def patients(root: Path, **options: int) -> list[str]:
    return load_folder(root, **options).images["patient"].tolist()


def test_only_folder_between_class_and_image_is_the_patient(tmp_path: Path) -> None:
    add(tmp_path, "ill/p1/a.png", "ill/p1/b.png", "well/p2/images/c.png", "well/p3/study/d.png")
    assert len(set(patients(tmp_path))) == 4  # one image is deeper, so it is not clear
    (tmp_path / "well/p3/study/d.png").rename(tmp_path / "well/p3/d.png")
    assert patients(tmp_path) == ["p1", "p1", "p2", "p3"]
    assert any("folders at level 2, 3 patients" in note for note in load_folder(tmp_path).notes)
    assert patients(tmp_path, patient_level=0) == load_folder(tmp_path).images["id"].tolist()


def test_folder_of_images_is_no_patient(tmp_path: Path) -> None:
    add(tmp_path, *[f"{name}/images/{i}.png" for name in ("ill", "well") for i in range(3)])
    assert len(set(patients(tmp_path))) == 6


def test_classes_below_a_single_folder(tmp_path: Path) -> None:
    add(tmp_path, *[f"archive/xrays/{name}/{i}.png" for name in ("ill", "well") for i in "ab"])
    dataset = load_folder(tmp_path)
    assert dataset.label_names == ("ill", "well")
    assert dataset.root == tmp_path / "archive" / "xrays"
    assert "The classes are the folders of archive/xrays." in dataset.notes


@pytest.mark.parametrize(
    ("names", "is_classes"),
    [
        (["normal/a.png", "pneumonia/b.png"], True),
        (["NORMAL/a.png", "x/b.png"], True),
        (["x/Lung_Opacity/a.png", "x/y/b.png"], True),
        (["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"], True),
        (["normal/a.png"], False),
        (["p1/a.png", "p2/b.png"], False),
        (["normal/p1/a.png", "ill/p2/b.png"], False),
        (["normal/a.png", "ill/b.png", "c.png"], False),
        (["train/p1/1.png", "train/p2/2.png", "test/p3/3.png", "test/p4/4.png"], False),
        (["train/1.png", "test/2.png"], False),
        (["train/a/1.png", "train/b/2.png"], False),
        (["README.md"], False),
    ],
)
def test_classes_are_recognized_beyond_doubt(
    tmp_path: Path, names: list[str], is_classes: bool
) -> None:
    assert has_classes(add(tmp_path, *names)) == is_classes
