from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from featurecache.datasets.label_strings import class_matrix, label_matrix
from featurecache.errors import DatasetError

CSV = Path("findings.csv")


def cells(*texts: str) -> "pd.Series[str]":
    lines = pd.Index(range(2, 2 + len(texts)), name="line")
    return pd.Series(texts, index=lines, name="Findings", dtype=str)


@given(st.lists(st.sets(st.sampled_from(["Mass", "Edema", "Hernia"])), min_size=1))
def test_matrix_equals_that_of_scikit_learn(sets: list[set[str]]) -> None:
    names = ["Mass", "Edema", "Hernia"]
    texts = ["|".join(sorted(labels)) or "No Finding" for labels in sets]
    given_names, matrix, _ = label_matrix(cells(*texts), names, file=CSV, separator="|")
    assert given_names == ("Mass", "Edema", "Hernia")
    assert matrix.tolist() == MultiLabelBinarizer(classes=names).fit_transform(sets).tolist()


def test_default_names_are_sorted_labels_in_the_data() -> None:
    names, matrix, _ = label_matrix(cells("b| a", "", "No Finding", "b"), None, file=CSV)
    assert names == ("a", "b")
    assert matrix.tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("No Finding|Mass", "findings.csv, line 3: 'No Finding' together with a finding"),
        ("Mas", "line 3: unknown finding 'Mas': did you mean Mass"),
    ],
)
def test_malformed_cell_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        label_matrix(cells("Mass", text), ["Mass", "Edema"], file=CSV)


def test_column_without_labels_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"'Findings' of findings\.csv has no labels"):
        label_matrix(cells("", "No Finding"), None, file=CSV)


def test_whole_numbers_with_a_fraction_of_zero_are_the_same_class() -> None:
    names, matrix, _ = class_matrix(
        pd.Series(["1", "2", "1.0", ""], name="kind"), file=Path("x.csv")
    )
    assert names == ("kind 1", "kind 2")
    assert matrix.tolist() == [[1, 0], [0, 1], [1, 0], [-2, -2]]
