from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featurecache.datasets.dataset import Dataset, safe_name
from featurecache.errors import DatasetError, UnknownNameError


def table(**changes: list[Any]) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {
        "id": ["c", "a", "b"],
        "path": ["images/c.png", "images/a.png", "b.png"],
        "patient": ["p1", "p2", "p2"],
        "split": ["test", "train", "train"],
        "view": ["PA", "", "AP"],
    }
    return pd.DataFrame(columns | changes)


def make_dataset(root: Path, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "name": "set",
        "root": root,
        "images": table(),
        "labels": np.array([[1, 0], [0, -1], [0, 1]]),
        "label_names": ("Mass", "Edema"),
    }
    return Dataset(**(arguments | changes))


def test_rows_are_sorted_by_id_and_labels_follow(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert dataset.images["id"].tolist() == ["a", "b", "c"]
    assert dataset.images["path"].tolist() == ["images/a.png", "b.png", "images/c.png"]
    assert dataset.label_values.tolist() == [[0, -1], [0, 1], [1, 0]]
    assert dataset.label_values.dtype == np.int8
    assert dataset.images.index.tolist() == [0, 1, 2]
    assert len(dataset) == 3


def test_labels_are_a_frame_indexed_by_id_as_stated(tmp_path: Path) -> None:
    labels = make_dataset(tmp_path).labels
    assert labels.index.tolist() == ["a", "b", "c"]
    assert labels.columns.tolist() == ["Mass", "Edema"]
    assert labels["Mass"].tolist() == [0, 0, 1]
    assert labels["Edema"].tolist() == [-1, 1, 0]
    assert (labels.dtypes == np.float32).all()


@pytest.mark.parametrize("unknown", [-1, float("nan"), None, pd.NA])
def test_labels_can_be_given_as_a_frame(tmp_path: Path, unknown: Any) -> None:
    frame = pd.DataFrame({"Mass": [1, 0, 0], "Edema": [0, unknown, 1]})
    for labels in (frame, frame.convert_dtypes()):
        dataset = make_dataset(tmp_path, labels=labels, label_names=None)
        assert dataset.label_names == ("Mass", "Edema")
        assert dataset.label_values.tolist() == [[0, -1], [0, 1], [1, 0]]


def test_labels_in_another_order_than_images_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Mass": [1, 0, 0]}, index=["c", "a", "b"])
    assert make_dataset(tmp_path, labels=frame, label_names=None).label_values.sum() == 1
    with pytest.raises(DatasetError, match="index of the labels"):
        make_dataset(tmp_path, labels=frame.sort_index(), label_names=None)


def test_labels_that_are_not_numbers_or_have_no_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="labels are not numbers"):
        make_dataset(tmp_path, labels=pd.DataFrame({"Mass": ["yes", "no", "no"]}), label_names=None)
    with pytest.raises(DatasetError, match="give `label_names`"):
        make_dataset(tmp_path, label_names=None)


def test_split_returns_its_images(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert dataset.split("train").images["id"].tolist() == ["a", "b"]
    assert dataset.split("train").labels.index.tolist() == ["a", "b"]
    with pytest.raises(DatasetError, match="no images"):
        dataset.split("val")


def test_repr_counts_images_patients_and_positives_by_split(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    counts = dataset.counts()
    assert counts.columns.tolist() == ["train", "test", "all"]
    assert counts.loc["images"].tolist() == [2, 1, 3]
    assert counts.loc["patients"].tolist() == [1, 1, 2]
    assert counts.loc["Mass"].tolist() == [0, 1, 1]
    assert counts.loc["Edema"].tolist() == [1, 0, 1]
    assert repr(dataset).startswith("Dataset set: 3 images of 2 patients, 2 labels\n")
    assert "<table" in dataset._repr_html_()


def test_ids_are_sorted_by_code_point(tmp_path: Path) -> None:
    ids = ["é", "a10", "B", "a9", "ab/c", "ab-c"]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": ids, "split": "train", "view": ""})
    dataset = make_dataset(tmp_path, images=images, labels=np.zeros((6, 2)))
    assert dataset.images["id"].tolist() == sorted(ids)


def test_rows_of_a_split(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert dataset.rows("train").tolist() == [0, 1]
    assert dataset.rows("val").tolist() == []
    assert dataset.rows("test").tolist() == [2]
    with pytest.raises(UnknownNameError, match="split 'tests': did you mean test"):
        dataset.rows("tests")


def test_dataset_does_not_share_its_inputs(tmp_path: Path) -> None:
    images, labels = table(), np.zeros((3, 2), dtype=np.int8)
    dataset = make_dataset(tmp_path, images=images, labels=labels)
    images.loc[0, "id"] = "changed"
    labels[:] = 1
    assert dataset.images["id"].tolist() == ["a", "b", "c"]
    assert dataset.label_values.sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        dataset.label_values[0, 0] = 1


def test_other_columns_are_dropped_and_the_order_is_fixed(tmp_path: Path) -> None:
    images = table(weight=[1, 2, 3])[["weight", "view", "split", "patient", "path", "id"]]
    dataset = make_dataset(tmp_path, images=images)
    columns = ["id", "path", "patient", "study", "split", "view", "sex", "age"]
    assert dataset.images.columns.tolist() == columns


def test_missing_sex_and_age_are_unknown(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path)
    assert (dataset.images[["sex", "age"]] == "").all(axis=None)
    dataset = make_dataset(tmp_path, images=table(sex=["M", "F", ""], age=["40", "", "0.5"]))
    assert dataset.images["sex"].tolist() == ["F", "", "M"]
    assert dataset.images["age"].tolist() == ["", "0.5", "40"]


@pytest.mark.parametrize("age", ["old", "-1", "121", "nan", "inf", "40 years"])
def test_invalid_age_is_refused(tmp_path: Path, age: str) -> None:
    with pytest.raises(DatasetError, match=f"age of image 'a' is '{age}': .* from 0 to 120"):
        make_dataset(tmp_path, images=table(age=["40", age, ""]))


def test_subset_of_rows(tmp_path: Path) -> None:
    whole = make_dataset(tmp_path)
    rows = whole.rows("train")
    part = replace(whole, images=whole.images.iloc[rows], labels=whole.label_values[rows])
    assert part.images["id"].tolist() == ["a", "b"]
    assert part.label_values.tolist() == [[0, -1], [0, 1]]


@pytest.mark.parametrize("column", ["id", "path", "patient", "split"])
def test_missing_column_is_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(DatasetError, match=f"lacks the columns {column}:"):
        make_dataset(tmp_path, images=table().drop(columns=column))


@pytest.mark.parametrize("value", [None, float("nan"), 150])
@pytest.mark.parametrize(
    "column", ["id", "path", "patient", "study", "split", "view", "sex", "age"]
)
def test_cell_that_is_not_text_is_refused(tmp_path: Path, column: str, value: Any) -> None:
    images = table(sex=["F", "M", ""], age=["40", "", "0"]).astype(object)
    images.loc[1, column] = value
    for given in (images, images.convert_dtypes() if value is None else images):
        with pytest.raises(DatasetError, match=f"column {column} .* not all text"):
            make_dataset(tmp_path, images=given)


@pytest.mark.parametrize("column", ["path", "patient"])
def test_empty_cell_is_refused(tmp_path: Path, column: str) -> None:
    images = table()
    images.loc[2, column] = ""
    with pytest.raises(DatasetError, match=f"the {column} of image 'b' is empty"):
        make_dataset(tmp_path, images=images)


def test_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images"):
        make_dataset(tmp_path, images=table().iloc[:0], labels=np.zeros((0, 2)))


def test_repeated_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="id 'a' occurs twice"):
        make_dataset(tmp_path, images=table(id=["a", "b", "a"]))


def test_message_includes_the_line_if_known(tmp_path: Path) -> None:
    images = table(id=["a", "b", "a"])
    images.index = pd.Index([2, 3, 7], name="line")
    with pytest.raises(DatasetError, match=r"'a' \(line 7\)"):
        make_dataset(tmp_path, images=images)


@pytest.mark.parametrize("path", ["/etc/x.png", "C:/x.png", "c:x.png"])
def test_absolute_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DatasetError, match="path of image 'a' is absolute"):
        make_dataset(tmp_path, images=table(path=["c.png", path, "b.png"]))


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "a/.."])
def test_path_out_of_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DatasetError, match=r"image 'b' leaves the root with '\.\.'"):
        make_dataset(tmp_path, images=table(path=["c.png", "a.png", path]))


def test_dots_inside_a_name_are_accepted(tmp_path: Path) -> None:
    images = table(path=["a..b.png", "..a/x.png", "a../x.png"])
    assert len(make_dataset(tmp_path, images=images)) == 3


def test_path_through_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "outside")
    assert make_dataset(root).follow_links
    with pytest.raises(DatasetError, match=r"image 'c' leaves the root .* through a symbolic link"):
        make_dataset(root, follow_links=False)


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"split of image 'b' is 'valid': .* train, val or test"):
        make_dataset(tmp_path, images=table(split=["test", "train", "valid"]))


def test_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="'p2' is in two splits: image 'b' is in val, image 'a' is not"
    ):
        make_dataset(tmp_path, images=table(split=["test", "train", "val"]))


def test_image_level_split_allows_shared_patients_and_is_noted(tmp_path: Path) -> None:
    images = table(split=["test", "train", "test"])
    dataset = make_dataset(tmp_path, images=images, image_level_split=True)
    assert [note for note in dataset.notes if note.startswith("IMAGE-LEVEL SPLIT")]
    assert replace(dataset).notes == dataset.notes


@pytest.mark.parametrize("value", [2, -3, 0.5])
def test_invalid_label_value_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(DatasetError, match=f"label Edema of image 'a' is {value}"):
        make_dataset(tmp_path, labels=np.array([[1, 0], [0, value], [7, 1]]))


def test_labels_of_wrong_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"shape \(2, 2\).* need \(3, 2\)"):
        make_dataset(tmp_path, labels=np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Mass", ""), "none may be empty"),
        (("Mass", "Mass"), "'Mass' occurs twice"),
    ],
)
def test_invalid_label_names_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        make_dataset(tmp_path, label_names=names, labels=np.zeros((3, len(names))))


@pytest.mark.parametrize("name", ["a/b", ".hidden", "a:b", "a b"])
def test_name_that_is_not_a_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="not a valid folder name"):
        make_dataset(tmp_path, name=name)


@pytest.mark.parametrize(
    ("text", "name"),
    [("nih", "nih"), ("My data: 2024/v2", "My-data-2024-v2"), ("../x", "x"), ("ärzte", "ärzte")],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_safe_name_of_nothing_is_refused() -> None:
    with pytest.raises(DatasetError, match="cannot derive"):
        safe_name("../..")
