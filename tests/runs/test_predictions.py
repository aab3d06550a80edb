"""Predictions: the CSV file reads back exactly, and damaged or inconsistent ones are refused."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from featurecache.errors import RunError
from featurecache.runs.predictions import Predictions, read_predictions, write_predictions


def predictions(**changes: Any) -> Predictions:
    arguments = {
        "ids": np.asarray(["00000001_000.png", 'a "quoted", name.png', "Röntgen\n2.png"]),
        "patients": np.asarray(["007", "7", ""]),
        "splits": np.asarray(["val", "test", "test"]),
        "label_names": ("Mass", "Pleural_Thickening"),
        "truth": np.asarray([[1, 0], [0, -1], [-1, -1]], np.int8),
        "probability": np.asarray([[0.1, 1 / 3], [1e-17, 1.0], [0.0, np.nextafter(1, 0)]]),
    }
    return Predictions(**{**arguments, **changes})


def test_predictions_read_back_through_pandas(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path, given)
    # As text, since pandas rounds the last digit of a number.
    names = ["id", "patient", "split", "Mass probability", "Pleural_Thickening probability"]
    table = pd.read_csv(tmp_path / "predictions.csv", dtype=dict.fromkeys(names, str))
    table = table.fillna({"patient": ""})
    assert table.columns.tolist() == given.to_pandas().columns.tolist()
    assert table["id"].tolist() == given.ids.tolist()
    assert table["patient"].tolist() == ["007", "7", ""]
    assert table["split"].tolist() == ["val", "test", "test"]
    probability = [[float(p) for p in row] for row in table[names[3:]].to_numpy()]
    assert probability == given.probability.tolist()
    truth = table[["Mass truth", "Pleural_Thickening truth"]].to_numpy()
    np.testing.assert_array_equal(truth, [[1, 0], [0, np.nan], [np.nan, np.nan]])


def test_predictions_round_trip(tmp_path: Path) -> None:
    given = predictions()
    write_predictions(tmp_path, given)
    read = read_predictions(tmp_path)
    assert read.label_names == given.label_names
    for name in ("ids", "patients", "splits", "truth", "probability"):
        np.testing.assert_array_equal(getattr(read, name), getattr(given, name))


def test_an_unknown_truth_is_an_empty_cell(tmp_path: Path) -> None:
    write_predictions(tmp_path, predictions())
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["00000001_000.png", "007", "val", "1", "0.1", "0", repr(1 / 3)]
    assert rows[2][3:] == ["0", "1e-17", "", "1.0"]
    assert rows[3][3] == rows[3][5] == ""


def test_no_images_give_only_a_header(tmp_path: Path) -> None:
    none = np.asarray([], dtype=str)
    empty = np.empty((0, 1))
    write_predictions(
        tmp_path, Predictions(none, none, none, ("Mass",), empty.astype(np.int8), empty)
    )
    text = (tmp_path / "predictions.csv").read_text()
    assert text == "id,patient,split,Mass truth,Mass probability\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"label_names": ("Mass",)},
        {"patients": np.asarray(["1", "2"])},
        {"splits": np.asarray(["test"] * 4)},
        {"ids": np.asarray(["a", "b"])},
        {"truth": np.zeros((4, 2), np.int8)},
        {"probability": np.zeros((3, 3))},
        {"probability": np.zeros(3)},
    ],
)
def test_arrays_of_different_lengths_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ids, .* labels do not match truth"):
        predictions(**changes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_a_value_outside_0_to_1_is_not_a_probability(value: float) -> None:
    probability = np.full((3, 2), 0.5)
    probability[2, 1] = value
    with pytest.raises(ValueError, match=r"probabilities must lie in \[0, 1\]"):
        predictions(probability=probability)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,patient,split,a truth,a probability", "x,p,test,1"], "has 4 columns"),
        (["id,patient,split,a truth,a probability", "x,p,test,1,nan"], "must lie in"),
        (["id,patient,split,a truth,a probability", "x,p,test,300,0.5"], "damaged"),
        (["id,patient,split,a truth,a probability", "x" * 131_073 + ",p,test,1,1"], "damaged"),
        (["id,patient,split,a truth,a probability"], "holds no predictions"),
        (["id,patient,split,a truth,a probability,a truth,a probability"], "columns"),
        ([""], "columns"),
        (
            ["id,patient,split,a truth,a probability", "x" * 130_000 + ",p,test,1,1"]
            + ["x,p,test,1,1"] * 20_000,
            "too long a name",
        ),
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunError, match=message):
        read_predictions(tmp_path)
