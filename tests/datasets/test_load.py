from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurecache.datasets import registry
from featurecache.datasets.dataset import Dataset
from featurecache.datasets.folder import load_folder
from featurecache.datasets.load import load_dataset, load_source, recognize_dataset
from featurecache.datasets.phantom.folder import generate_phantom
from featurecache.datasets.registry import register_dataset
from featurecache.errors import DatasetError, UnknownNameError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two classes."""
    for name in ("ill/a.png", "ill/b.png", "well/c.png"):
        path = tmp_path / "xrays" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "xrays"


def load_ward(root: Path, *, seed: int = 0) -> Dataset:
    return load_folder(root, seed=seed)


@pytest.mark.parametrize("convert", [str, Path])
def test_path_of_a_folder_is_labeled_by_subfolder(folder: Path, convert: type) -> None:
    dataset = load_dataset(convert(folder))
    assert dataset.name == "xrays"
    assert dataset.label_names == ("ill", "well")
    assert load_dataset("folder", convert(folder)).images.equals(dataset.images)


def test_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_dataset("~/xrays").root == folder
    assert load_dataset("folder", "~/xrays").root == folder


@pytest.mark.parametrize(("name", "separator"), [("export.csv", ","), ("export.tsv", "\t")])
def test_path_of_a_table_is_read_with_its_separator(
    tmp_path: Path, name: str, separator: str
) -> None:
    (tmp_path / "a.png").touch()
    rows = [("path", "pid", "Mass"), ("a.png", "1", "1"), ("b.png", "2", "")]
    (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
    dataset = load_dataset(tmp_path / name, labels=["Mass"], patient="pid")
    assert dataset.name == "export"
    assert dataset.label_values.tolist() == [[1], [-1]]
    assert load_dataset(tmp_path, labels=["Mass"]).name == "export"


def test_layouts_are_recognized(folder: Path, tmp_path: Path) -> None:
    assert recognize_dataset(folder) == "folder"
    generate_phantom(tmp_path / "phantom", n_images=20, size=32)
    assert recognize_dataset(tmp_path / "phantom") == "phantom"
    (tmp_path / "phantom" / "phantom.json").unlink()
    assert recognize_dataset(tmp_path / "phantom") == "nih"
    for split in ("train", "test"):
        for image in ("NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person1_virus_1.jpeg"):
            path = tmp_path / "kermany/chest_xray" / split / image
            path.parent.mkdir(parents=True)
            path.touch()
    assert recognize_dataset(tmp_path / "kermany") == "kermany"
    # Other files in folders of the same names are another data set.
    for path in (tmp_path / "kermany").rglob("*.jpeg"):
        path.rename(path.with_name("1.jpeg"))
    assert recognize_dataset(tmp_path / "kermany/chest_xray") == "folder"


def test_path_that_is_not_a_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none does not exist: give a folder"):
        load_dataset(tmp_path / "none")
    with pytest.raises(DatasetError, match=r"none\.csv does not exist"):
        load_dataset("none.csv", labels=["Mass"])
    (tmp_path / "image.png").touch()
    with pytest.raises(DatasetError, match=r"image\.png is not a data set"):
        load_dataset(str(tmp_path / "image.png"))
    with pytest.raises(UnknownNameError, match="'fantom': did you mean phantom"):
        load_dataset("fantom")


def test_pseudonymize_hashes_ids_and_redacts_errors(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    plain = load_dataset(folder)
    hashed = load_dataset(folder, pseudonymize=tmp_path / "key")
    assert not set(hashed.images["id"]) & set(plain.images["id"])
    assert hashed.labels.sum().tolist() == plain.labels.sum().tolist()
    (folder / "well" / "c.png").rename(folder / "Smith.png")
    with pytest.raises(DatasetError, match="without `pseudonymize`") as caught:
        load_dataset("folder", folder, pseudonymize=str(tmp_path / "key"))
    assert "Smith" not in str(caught.value)


def test_progress_is_called_while_a_phantom_is_generated(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_dataset(
        "phantom", tmp_path / "new", n_images=20, progress=lambda *count: calls.append(count)
    )
    assert calls[-1] == (20, 20)


def test_registered_data_set_is_loaded_by_name(folder: Path) -> None:
    register_dataset("ward", load_ward, description="our ward")
    assert load_dataset("ward", folder, seed=1).label_names == ("ill", "well")
    with pytest.raises(UsageError, match="ward takes no option `sead`: did you mean `seed`"):
        load_dataset("ward", folder, sead=1)
    register_dataset("ward", load_ward)
    with pytest.raises(UsageError, match="already a data set 'ward'"):
        register_dataset("ward", load_folder)
    with pytest.raises(UsageError, match="already a data set 'nih'"):
        register_dataset("nih", load_ward)


def test_loader_that_returns_no_data_set_is_refused(folder: Path) -> None:
    register_dataset("ward", lambda root: root)
    with pytest.raises(DatasetError, match="ward returned a PosixPath, not a Dataset"):
        load_dataset("ward", folder)


def test_unknown_name_loads_installed_plugins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load_entry_points", lambda: register_dataset("ward", load_ward))
    assert load_dataset("ward", folder).label_names == ("ill", "well")


def test_data_set_records_how_it_was_loaded(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,Edema,who\na.png,1,p1\nb.png,0,p2\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").touch()
    dataset = load_dataset(file, labels=["Edema"], patient="who", images_root=tmp_path / "images")
    assert dataset.source == {
        "dataset": "csv",
        "root": str(file),
        "options": {
            "labels": ["Edema"],
            "patient": "who",
            "images_root": str(tmp_path / "images"),
        },
        "pseudonymized": False,
    }
    # A subset cannot be loaded again by the same arguments.
    assert dataset.take(np.array([0])).source is None


@pytest.mark.parametrize("names", ["Mass", ["Effusion", "Mass"]])
def test_only_these_labels_are_kept(tmp_path: Path, names: str | list[str]) -> None:
    generate_phantom(tmp_path / "images", n_images=40, size=64)
    everything = load_dataset("phantom", tmp_path / "images")
    some = load_dataset("phantom", tmp_path / "images", only_labels=names)
    expected = [names] if isinstance(names, str) else names
    assert list(some.label_names) == expected
    assert some.labels.equals(everything.labels[expected])
    assert some.images.equals(everything.images)  # and so are splits
    assert load_source(some.source, used_by="cache").label_names == some.label_names


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["Mas"], UnknownNameError, "unknown label 'Mas': did you mean Mass"),
        ([], UsageError, "no label is named"),
        (["Mass", "Mass"], DatasetError, "'Mass' occurs twice"),
    ],
)
def test_labels_that_cannot_be_kept(
    tmp_path: Path, names: list[str], error: type[UsageError], message: str
) -> None:
    generate_phantom(tmp_path / "images", n_images=20, size=64)
    with pytest.raises(error, match=message):
        load_dataset("phantom", tmp_path / "images", only_labels=names)


def test_pseudonymized_data_set_records_no_path(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0" * 64)
    file = tmp_path / "list.csv"
    file.write_text("path,Edema\na.png,1\nb.png,0\n")
    (tmp_path / "a.png").touch()
    dataset = load_dataset(file, labels=["Edema"], images_root=tmp_path, pseudonymize=key)
    assert dataset.source == {
        "dataset": "csv",
        "root": None,
        "options": {"labels": ["Edema"]},
        "pseudonymized": True,
    }


def test_folder_with_the_name_of_a_loader_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("L", (32, 32)).save("images/a.png")
    assert load_dataset("images").images["id"].tolist() == ["a.png"]
