from pathlib import Path

import pytest

from featurecache.datasets.folder import load_folder
from featurecache.errors import DatasetError


def add(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_classes_become_labels(tmp_path: Path) -> None:
    manifest = load_folder(add(tmp_path / "my set", "well/b.png", "ill/a.JPG", "ill/c.jpeg"))
    assert manifest.name == "my-set"
    assert manifest.label_names == ("ill", "well")
    assert manifest.images["id"].tolist() == ["ill/a.JPG", "ill/c.jpeg", "well/b.png"]
    assert manifest.label_values.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert (manifest.images["patient"] == manifest.images["id"]).all()
    assert any("Patients are unknown" in note for note in manifest.notes)


def test_without_split_folders_the_split_is_stratified_by_class(tmp_path: Path) -> None:
    add(tmp_path, *[f"{name}/{i}.png" for name in ("ill", "well") for i in range(50)])
    manifest = load_folder(tmp_path)
    counts = {
        split: manifest.label_values[manifest.rows(split)].sum(axis=0).tolist()
        for split in ("train", "val", "test")
    }
    assert counts == {"train": [35, 35], "val": [5, 5], "test": [10, 10]}
    assert (
        load_folder(tmp_path, seed=1).images["split"].tolist() != manifest.images["split"].tolist()
    )


def test_split_folders_are_the_split(tmp_path: Path) -> None:
    add(tmp_path, "Train/ill/a.png", "Train/well/b.png", "valid/ill/a.png", "test/other/c.png")
    manifest = load_folder(tmp_path)
    assert dict(zip(manifest.images["id"], manifest.images["split"], strict=True)) == {
        "Train/ill/a.png": "train",
        "Train/well/b.png": "train",
        "valid/ill/a.png": "val",
        "test/other/c.png": "test",
    }
    assert manifest.label_names == ("ill", "other", "well")


def test_without_a_validation_folder_a_tenth_of_train_is_validation(tmp_path: Path) -> None:
    add(tmp_path, *[f"train/{name}/{i}.png" for name in ("ill", "well") for i in range(50)])
    add(tmp_path, "test/ill/x.png", "test/well/y.png")
    manifest = load_folder(tmp_path)
    assert manifest.label_values[manifest.rows("val")].sum(axis=0).tolist() == [5, 5]
    assert len(manifest.rows("test")) == 2
    assert any("no val folder" in note for note in manifest.notes)


def test_files_that_are_no_images_are_left_out_and_noted(tmp_path: Path) -> None:
    add(tmp_path, "ill/a.png", "ill/notes.txt", "well/b.png", "README.md", ".git/x.png")
    manifest = load_folder(tmp_path)
    assert len(manifest) == 2
    assert "Files left out of ill because they are no images: 1." in manifest.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "holds no class folders"),
        (["ill/a.png"], "only one class, 'ill'"),
        (["ill/a.png", "well/notes.txt"], r"class folder .*well has no images"),
        (["ill/a.png", "well/b.png", "c.png"], r"c\.png lies directly in"),
        (["train/ill/a.png", "train/b.png"], r"b\.png lies directly in .*train"),
        (["ill/p1/a.png", "well/b.png"], r"ill holds the folder 'p1'"),
        (["train/ill/a.png", "well/b.png"], "split folder 'train' beside 'well'"),
        (["val/ill/a.png", "valid/ill/a.png"], r"two folders for one split \(val, valid\)"),
        (["train/notes.txt"], "train holds no class folders"),
    ],
)
def test_a_folder_that_is_not_sorted_into_classes_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        load_folder(add(tmp_path, *names))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be listed"):
        load_folder(tmp_path / "none")
