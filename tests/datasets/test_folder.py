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
    assert "Files in ill that are not images and were skipped: 1." in dataset.notes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "contains no class folders"),
        (["ill/a.png"], "only one class, 'ill'"),
        (["ill/a.png", "well/notes.txt"], r"class folder .*well has no images"),
        (["ill/a.png", "well/b.png", "c.png"], r"c\.png is directly in"),
        (["train/ill/a.png", "train/b.png"], r"b\.png is directly in .*train"),
        (["ill/p1/a.png", "well/b.png"], r"ill contains the folder 'p1'"),
        (["train/ill/a.png", "well/b.png"], "split folder 'train' beside 'well'"),
        (["val/ill/a.png", "valid/ill/a.png"], r"two folders for one split \(val, valid\)"),
        (["train/notes.txt"], "train contains no class folders"),
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
