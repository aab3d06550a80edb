import shutil
from pathlib import Path
from typing import Any

import pytest

from featurecache.datasets.csv import load_csv
from featurecache.datasets.dataset import Dataset
from featurecache.errors import DatasetError, UsageError
from featurecache.io.csv import write_rows

TEXT = """\
path,uid,who,set,pose,Mass,Edema,found
b/2.png,u2,p1,valid,AP,0,,No Finding
b/1.png,u1,p1,DEV,,1.0,-1,Mass|Edema
a/3.png,u3,p2,Train,PA,-1.0,0.0,
a/4.png,u4,p3,test,LL,1,1,Edema
"""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "My images.csv"
    path.write_text(TEXT)
    touch(tmp_path, "b/2.png", "b/1.png", "a/3.png", "a/4.png")
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def load(csv: Path, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {"labels": ["Mass", "Edema"]}
    return load_csv(csv, **(arguments | changes))


def test_columns_become_images_and_labels(csv: Path) -> None:
    dataset = load(csv, id="uid", patient="who", split="set", view="pose")
    assert (dataset.images[["sex", "age"]] == "").all(axis=None)
    assert dataset.name == "My-images"
    assert dataset.root == csv.parent
    assert [note.split(" (")[0] for note in dataset.notes] == ["In val", "In test"]
    assert dataset.images.drop(columns=["study", "sex", "age"]).to_numpy().tolist() == [
        ["u1", "b/1.png", "p1", "val", ""],
        ["u2", "b/2.png", "p1", "val", "AP"],
        ["u3", "a/3.png", "p2", "train", "PA"],
        ["u4", "a/4.png", "p3", "test", "LL"],
    ]
    assert dataset.label_names == ("Mass", "Edema")
    assert dataset.label_values.tolist() == [[1, -1], [0, -1], [-1, 0], [1, 1]]


def test_sex_and_age_are_read_from_their_columns(tmp_path: Path) -> None:
    csv = tmp_path / "images.csv"
    touch(tmp_path, "1.png")
    csv.write_text("path,Mass,gender,years\n1.png,0,F,40\n2.png,1,,\n3.png,1,M,0.5\n")
    images = load(csv, labels=["Mass"], sex="gender", age="years").images
    assert images["sex"].tolist() == ["F", "", "M"]
    assert images["age"].tolist() == ["40", "", "0.5"]


def test_multilabel_column_is_parsed(csv: Path) -> None:
    dataset = load(csv, labels=None, multilabel="found")
    assert dataset.label_names == ("Edema", "Mass")
    assert dataset.label_values.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]


def test_default_ids_are_paths_and_default_patients_are_images(csv: Path) -> None:
    dataset = load(csv)
    assert dataset.images["id"].tolist() == ["a/3.png", "a/4.png", "b/1.png", "b/2.png"]
    assert (dataset.images["patient"] == dataset.images["id"]).all()
    assert (dataset.images["view"] == "").all()
    assert any("Patients are unknown" in note for note in dataset.notes)


def test_without_a_split_the_split_is_by_patient(tmp_path: Path) -> None:
    rows = [f"{i}.png,p{i // 4},{i % 2}\n" for i in range(400)]
    touch(tmp_path, "0.png")
    (tmp_path / "images.csv").write_text("path,who,Mass\n" + "".join(rows))
    dataset = load(tmp_path / "images.csv", labels=["Mass"], patient="who")
    assert [len(dataset.rows(split)) for split in ("train", "val", "test")] == [280, 40, 80]
    assert dataset.images.groupby("patient")["split"].nunique().max() == 1
    other = load(tmp_path / "images.csv", labels=["Mass"], patient="who", seed=1)
    assert other.images["split"].tolist() != dataset.images["split"].tolist()


def test_folder_with_one_csv_file_is_accepted(csv: Path) -> None:
    assert load(csv.parent).images["id"].tolist() == load(csv).images["id"].tolist()
    (csv.parent / "other.csv").write_text(TEXT)
    with pytest.raises(DatasetError, match=r"contains 2 tables: My images\.csv, other\.csv"):
        load(csv.parent)


def test_folder_without_csv_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a folder without a table: give the table"):
        load(tmp_path)


def test_images_root_is_used_and_must_be_a_folder(csv: Path) -> None:
    shutil.copytree(csv.parent, csv.parent / "images")
    assert load(csv, images_root=csv.parent / "images").root == csv.parent / "images"
    with pytest.raises(DatasetError, match="missing is not a folder"):
        load(csv, images_root=csv.parent / "missing")


def test_only_one_kind_of_labels_may_be_given(csv: Path) -> None:
    for other in ("multilabel", "classes"):
        with pytest.raises(UsageError, match="give one of `labels`"):
            load(csv, **{other: "found"})


@pytest.mark.parametrize("option", ["path", "multilabel", "id", "patient", "split"])
def test_missing_column_is_refused(csv: Path, option: str) -> None:
    changes: dict[str, Any] = {option: "Path"}
    if option == "multilabel":
        changes["labels"] = None
    with pytest.raises(DatasetError, match=r"no column 'Path': did you mean 'path'.*has path, uid"):
        load(csv, **changes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("u3,p2,Train,PA,-1.0", "u3,p2,Train,PA,2", r"line 4: '2' in the column 'Mass'"),
        ("PA,-1.0", "PA,maybe", r"line 4: 'maybe' in the column 'Mass' .* 1, 0, -1 or empty"),
        (
            "Train",
            "trial",
            r"the column 'set' of .*csv has values that name no split: 'trial' \(1\)",
        ),
        ("Train", "", r"the column 'set' of .* states no split in 1 of 4 rows"),
        ("u3", "u1", r"the id 'u1' \(line 4\) occurs twice"),
        ("u3", "", r"the id of image '' \(line 4\) is empty"),
        ("p2", "p1", r"patient 'p1' is in two splits: image 'u3' \(line 4\) is in train"),
        ("a/3.png", "/a/3.png", r"path of image 'u3' \(line 4\) is absolute"),
        ("a/3.png", "../3.png", r"path of image 'u3' \(line 4\) leaves the root"),
    ],
)
def test_invalid_cell_is_refused_with_its_line(csv: Path, old: str, new: str, message: str) -> None:
    csv.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(DatasetError, match=message):
        load(csv, id="uid", patient="who", split="set")


def test_single_label_may_be_a_string(csv: Path) -> None:
    assert load(csv, labels="Mass").label_names == ("Mass",)


def test_repeated_label_is_refused(csv: Path) -> None:
    with pytest.raises(DatasetError, match="'Mass' occurs twice"):
        load(csv, labels=["Mass", "Mass"])


def test_texts_that_were_written_with_an_apostrophe_are_read_without(tmp_path: Path) -> None:
    names = ["-a.png", "=b.png", "@c.png", "'d.png"]
    touch(tmp_path, *names)
    csv = tmp_path / "images.csv"
    with csv.open("w") as file:
        write_rows(file, [["path", "who", "Mass"], *([name, f"+{name}", "1"] for name in names)])
    dataset = load(csv, labels=["Mass"], patient="who")
    assert set(dataset.images["path"]) == set(names)
    assert set(dataset.images["patient"]) == {f"+{name}" for name in names}
