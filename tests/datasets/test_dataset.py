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


def manifest(root: Path, **changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "name": "set",
        "root": root,
        "images": table(),
        "labels": np.array([[1, 0], [0, -1], [0, 1]]),
        "label_names": ("Mass", "Edema"),
    }
    return Dataset(**(arguments | changes))


def test_rows_are_sorted_by_id_and_labels_follow(tmp_path: Path) -> None:
    made = manifest(tmp_path)
    assert made.images["id"].tolist() == ["a", "b", "c"]
    assert made.images["path"].tolist() == ["images/a.png", "b.png", "images/c.png"]
    assert made.label_values.tolist() == [[0, -1], [0, 1], [1, 0]]
    assert made.label_values.dtype == np.int8
    assert made.images.index.tolist() == [0, 1, 2]
    assert len(made) == 3


def test_ids_are_sorted_by_code_point(tmp_path: Path) -> None:
    ids = ["é", "a10", "B", "a9", "ab/c", "ab-c"]
    images = pd.DataFrame({"id": ids, "path": ids, "patient": ids, "split": "train", "view": ""})
    made = manifest(tmp_path, images=images, labels=np.zeros((6, 2)))
    assert made.images["id"].tolist() == sorted(ids)


def test_rows_of_a_split(tmp_path: Path) -> None:
    made = manifest(tmp_path)
    assert made.rows("train").tolist() == [0, 1]
    assert made.rows("val").tolist() == []
    assert made.rows("test").tolist() == [2]
    with pytest.raises(UnknownNameError, match="split 'tests': did you mean test"):
        made.rows("tests")


def test_neither_the_labels_nor_the_given_table_can_change_a_manifest(tmp_path: Path) -> None:
    images, labels = table(), np.zeros((3, 2), dtype=np.int8)
    made = manifest(tmp_path, images=images, labels=labels)
    images.loc[0, "id"] = "changed"
    labels[:] = 1
    assert made.images["id"].tolist() == ["a", "b", "c"]
    assert made.label_values.sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        made.label_values[0, 0] = 1


def test_columns_beyond_the_known_ones_are_dropped_and_the_order_is_fixed(tmp_path: Path) -> None:
    images = table(weight=[1, 2, 3])[["weight", "view", "split", "patient", "path", "id"]]
    made = manifest(tmp_path, images=images)
    columns = ["id", "path", "patient", "split", "view", "sex", "age"]
    assert made.images.columns.tolist() == columns


def test_sex_and_age_are_unknown_where_they_are_not_given(tmp_path: Path) -> None:
    made = manifest(tmp_path)
    assert (made.images[["sex", "age"]] == "").all(axis=None)
    made = manifest(tmp_path, images=table(sex=["M", "F", ""], age=["40", "", "0.5"]))
    assert made.images["sex"].tolist() == ["F", "", "M"]
    assert made.images["age"].tolist() == ["", "0.5", "40"]


@pytest.mark.parametrize("age", ["old", "-1", "121", "nan", "inf", "40 years"])
def test_an_age_that_is_no_number_of_years_is_refused(tmp_path: Path, age: str) -> None:
    with pytest.raises(DatasetError, match=f"age of image 'a' is '{age}': .* from 0 to 120"):
        manifest(tmp_path, images=table(age=["40", age, ""]))


def test_a_part_of_a_manifest_is_a_manifest(tmp_path: Path) -> None:
    whole = manifest(tmp_path)
    rows = whole.rows("train")
    part = replace(whole, images=whole.images.iloc[rows], labels=whole.label_values[rows])
    assert part.images["id"].tolist() == ["a", "b"]
    assert part.label_values.tolist() == [[0, -1], [0, 1]]


@pytest.mark.parametrize("column", ["id", "path", "patient", "split"])
def test_a_missing_column_is_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(DatasetError, match=f"lacks the columns {column}:"):
        manifest(tmp_path, images=table().drop(columns=column))


@pytest.mark.parametrize("value", [None, float("nan"), 150])
@pytest.mark.parametrize("column", ["id", "path", "patient", "split", "view", "sex", "age"])
def test_a_cell_that_is_not_text_is_refused(tmp_path: Path, column: str, value: Any) -> None:
    images = table(sex=["F", "M", ""], age=["40", "", "0"]).astype(object)
    images.loc[1, column] = value
    for given in (images, images.convert_dtypes() if value is None else images):
        with pytest.raises(DatasetError, match=f"column {column} .* not all text"):
            manifest(tmp_path, images=given)


@pytest.mark.parametrize("column", ["path", "patient"])
def test_an_empty_cell_is_refused(tmp_path: Path, column: str) -> None:
    images = table()
    images.loc[2, column] = ""
    with pytest.raises(DatasetError, match=f"the {column} of image 'b' is empty"):
        manifest(tmp_path, images=images)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images"):
        manifest(tmp_path, images=table().iloc[:0], labels=np.zeros((0, 2)))


def test_a_repeated_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="id 'a' occurs twice"):
        manifest(tmp_path, images=table(id=["a", "b", "a"]))


def test_a_message_names_the_line_where_the_index_holds_lines(tmp_path: Path) -> None:
    images = table(id=["a", "b", "a"])
    images.index = pd.Index([2, 3, 7], name="line")
    with pytest.raises(DatasetError, match=r"'a' \(line 7\)"):
        manifest(tmp_path, images=images)


@pytest.mark.parametrize("path", ["/etc/x.png", "C:/x.png", "c:x.png"])
def test_an_absolute_path_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DatasetError, match="path of image 'a' is absolute"):
        manifest(tmp_path, images=table(path=["c.png", path, "b.png"]))


@pytest.mark.parametrize("path", ["../x.png", "a/../../x.png", "a/.."])
def test_a_path_that_climbs_out_of_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(DatasetError, match=r"image 'b' leaves the root with '\.\.'"):
        manifest(tmp_path, images=table(path=["c.png", "a.png", path]))


def test_dots_inside_a_name_do_not_climb(tmp_path: Path) -> None:
    images = table(path=["a..b.png", "..a/x.png", "a../x.png"])
    assert len(manifest(tmp_path, images=images)) == 3


def test_a_path_through_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match=r"image 'c' leaves the root .* through a symbolic link"):
        manifest(root)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"split of image 'b' is 'valid': .* train, val or test"):
        manifest(tmp_path, images=table(split=["test", "train", "valid"]))


def test_a_patient_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="'p2' is in two splits: image 'b' is in val, image 'a' is not"
    ):
        manifest(tmp_path, images=table(split=["test", "train", "val"]))


def test_only_an_image_level_split_may_part_a_patient_and_says_so(tmp_path: Path) -> None:
    images = table(split=["test", "train", "test"])
    made = manifest(tmp_path, images=images, image_level_split=True)
    assert [note for note in made.notes if note.startswith("IMAGE-LEVEL SPLIT")]
    assert replace(made).notes == made.notes


@pytest.mark.parametrize("value", [2, -2, 0.5])
def test_a_label_value_out_of_range_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(DatasetError, match=f"label Edema of image 'a' is {value}"):
        manifest(tmp_path, labels=np.array([[1, 0], [0, value], [7, 1]]))


def test_labels_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"shape \(2, 2\).* need \(3, 2\)"):
        manifest(tmp_path, labels=np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "at least one"),
        (("Mass", ""), "none empty"),
        (("Mass", "Mass"), "'Mass' occurs twice"),
    ],
)
def test_label_names_that_name_nothing_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        manifest(tmp_path, label_names=names, labels=np.zeros((3, len(names))))


@pytest.mark.parametrize("name", ["a/b", ".hidden", "a:b", "a b"])
def test_a_name_that_fits_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="not a valid folder name"):
        manifest(tmp_path, name=name)


@pytest.mark.parametrize(
    ("text", "name"),
    [("nih", "nih"), ("My data: 2024/v2", "My-data-2024-v2"), ("../x", "x"), ("ärzte", "ärzte")],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_a_text_without_any_letter_makes_no_name() -> None:
    with pytest.raises(DatasetError, match="cannot derive"):
        safe_name("../..")
